//! Reserves and cancels seats on a flight.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::seller(travel::FLIGHT).await
}

//! Reserves and cancels rooms, night by night.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::seller(travel::HOTEL).await
}

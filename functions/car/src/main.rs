//! Reserves and cancels cars, day by day.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::seller(travel::CAR).await
}

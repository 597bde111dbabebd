//! Finds bookings that should have ended and drives them again, or calls an operator.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::reconciler().await
}

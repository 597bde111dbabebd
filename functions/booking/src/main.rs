//! Confirms or fails a booking, or hands it to an operator.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::booking().await
}

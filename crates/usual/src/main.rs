//! A function that sets itself up as the SDK's guides do, and returns its payload.

use aws_config::BehaviorVersion;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = &aws_sdk_dynamodb::Client::new(&config);
    run(service_fn(move |event: LambdaEvent<Value>| async move {
        // So that the client is part of the program.
        if event.payload["list"] == true {
            client.list_tables().send().await?;
        }
        Ok::<_, Error>(event.payload)
    }))
    .await
}

//! Charges once, or aborts so that no charge can follow.

use jiff::Timestamp;
use runtime::{Fault, Input, Participant, Queue, Says, number_setting, setting};
use services::{Cashier, Events, SandboxProvider, StepError, Topic};
use store::{Journal, Ledger, Payments};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let client = store::client(&aws);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let ledger = Ledger::new(client.clone(), setting("PROVIDER_LEDGER_TABLE")?);
    let cashier = Cashier {
        store: Payments::new(client, setting("PAYMENTS_TABLE")?, journal),
        provider: SandboxProvider { ledger, clock: Timestamp::now },
        clock: Timestamp::now,
    };
    let topic = Topic::new(aws_sdk_sns::Client::new(&aws), setting("EVENTS_TOPIC_ARN")?);
    Participant {
        handle: async |input| match input {
            Input::Command(payload) => cashier.handle(&payload).await.map(Some),
            Input::Event(event) => cashier.hear(&event).await,
            Input::Failure(failure) => {
                cashier.hear_failure(&failure.event, &failure.function, &failure.error_type).await
            }
        },
        publish: async |event| topic.publish(event).await,
        says: Says::Itself,
        fault: |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() },
        queue: Queue::of_function(&aws)?,
    }
    .serve()
    .await
}

//! Confirms or fails a booking, or hands it to an operator.

use jiff::Timestamp;
use runtime::{Failure, Fault, Input, Participant, Queue, Says, number_setting, setting};
use services::{BookingDesk, Events, StepError, Topic};
use store::{Bookings, Journal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let client = store::client(&aws);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let desk = BookingDesk { store: Bookings::new(client, setting("BOOKINGS_TABLE")?, journal), clock: Timestamp::now };
    let topic = Topic::new(aws_sdk_sns::Client::new(&aws), setting("EVENTS_TOPIC_ARN")?);
    Participant {
        handle: async |input| match input {
            Input::Command(payload) => desk.handle(&payload).await.map(Some),
            Input::Event(event) | Input::Failure(Failure { event, .. }) => desk.hear(&event).await,
        },
        publish: async |event| topic.publish(event).await,
        says: Says::Itself,
        fault: |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() },
        queue: Queue::of_function(&aws)?,
    }
    .serve()
    .await
}

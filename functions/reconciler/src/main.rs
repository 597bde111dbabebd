//! Finds bookings that should have ended and drives them again, or calls an operator.

use std::time::Duration;

use jiff::Timestamp;
use runtime::{Failure, Fault, Input, Participant, Queue, Says, number_setting, setting};
use saga::{Leg, Participant as Of, claim::Pace};
use services::{BookingDesk, DeadLetterQueues, Events, Reconciler, StateMachine, StepError, Topic};
use store::{Bookings, Headers, Journal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let (client, bookings) = (store::client(&aws), setting("BOOKINGS_TABLE")?);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let dead_letters = vec![
        (Of::Seller(Leg::Flight), setting("FLIGHT_DEAD_LETTERS_URL")?),
        (Of::Seller(Leg::Hotel), setting("HOTEL_DEAD_LETTERS_URL")?),
        (Of::Seller(Leg::Car), setting("CAR_DEAD_LETTERS_URL")?),
        (Of::Payment, setting("STEP_FAILURES_DEAD_LETTERS_URL")?),
        (Of::Booking, setting("BOOKING_DEAD_LETTERS_URL")?),
    ];
    let parked = setting("DEAD_LETTER_QUEUE_URL")?; // by the state machine, and by the reconciler itself
    let max_age = Duration::from_secs(number_setting("PENDING_MAX_AGE_SECONDS")?);
    let min_period = Duration::from_secs(number_setting("MIN_DRIVE_PERIOD_SECONDS")?);
    let topic = Topic::new(aws_sdk_sns::Client::new(&aws), setting("EVENTS_TOPIC_ARN")?);
    let reconciler = Reconciler {
        headers: Headers::new(client.clone(), bookings.clone()),
        executions: StateMachine::new(aws_sdk_sfn::Client::new(&aws), setting("STATE_MACHINE_ARN")?),
        events: topic.clone(),
        dead_letters: DeadLetterQueues::new(aws_sdk_sqs::Client::new(&aws), dead_letters, parked),
        read: |message| runtime::event(message).ok().flatten(),
        desk: BookingDesk { store: Bookings::new(client, bookings, journal), clock: Timestamp::now },
        max_age,
        pace: Pace { period: max_age.max(min_period), max_drives: number_setting("MAX_DRIVES")? },
        clock: Timestamp::now,
    };
    Participant {
        handle: async |input| match input {
            Input::Command(_schedule) => reconciler.run(runtime::remaining()).await.map(Some),
            Input::Event(parked) | Input::Failure(Failure { event: parked, .. }) => {
                reconciler.resume(&parked).await.map(|()| None)
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

//! The main functions of the participants, the API and the reconciler on AWS. They take their settings from the
//! environment, where the template sets them for each function.

use std::time::Duration;

use aws_types::SdkConfig;
use jiff::Timestamp;
use runtime::{Error, Failure, Fault, Handler, Input, PublishedBy, Queue, number_setting, setting};
use saga::{Catalogue, Definition, PartType, Participant, claim::Pace};
use serde::Serialize;
use store::{Bookings, Headers, Intake, Journal, Payments, StockTable};

use crate::{
    BookingService, DeadLetterQueues, EventPublisher, PaymentProvider, PaymentService, Reconciler, Seller,
    StateMachine, StepError, Topic, api::Api,
};

/// Runs the seller of this kind of part until Lambda ends the process.
pub async fn seller(part_type: PartType) -> Result<(), Error> {
    let aws = start()?;
    let client = store::client(&aws);
    let journal = journal(&client)?;
    let seller = Seller {
        part_type,
        catalogue: Catalogue::read(part_type.price_list)?,
        store: StockTable::new(client, setting("STOCK_TABLE")?, journal),
        clock: Timestamp::now,
    };
    let handle = async |input| match input {
        Input::Command(payload) => seller.handle(&payload).await.map(Some),
        Input::Event(event) | Input::Failure(Failure { event, .. }) => seller.react(&event).await,
    };
    serve(&aws, PublishedBy::Destination, handle).await
}

/// Runs payment with this provider until Lambda ends the process.
pub async fn payment<P: PaymentProvider>(
    provider: impl FnOnce(&aws_sdk_dynamodb::Client) -> Result<P, Error>,
) -> Result<(), Error> {
    let aws = start()?;
    let client = store::client(&aws);
    let journal = journal(&client)?;
    let provider = provider(&client)?;
    let store = Payments::new(client, setting("PAYMENTS_TABLE")?, journal);
    let payment = PaymentService { store, provider, clock: Timestamp::now };
    let handle = async |input| match input {
        Input::Command(payload) => payment.handle(&payload).await.map(Some),
        Input::Event(event) => payment.react(&event).await,
        Input::Failure(Failure { event, function, error_type }) => {
            payment.react_to_failure(&event, &function, &error_type).await
        }
    };
    serve(&aws, PublishedBy::Function, handle).await
}

/// Runs booking until Lambda ends the process.
pub async fn booking() -> Result<(), Error> {
    let aws = start()?;
    let bookings = bookings(&store::client(&aws))?;
    let handle = async |input| match input {
        Input::Command(payload) => bookings.handle(&payload).await.map(Some),
        Input::Event(event) | Input::Failure(Failure { event, .. }) => bookings.react(&event).await,
    };
    serve(&aws, PublishedBy::Function, handle).await
}

/// Runs the reconciler until Lambda ends the process.
pub async fn reconciler() -> Result<(), Error> {
    let aws = start()?;
    let client = store::client(&aws);
    let max_age = Duration::from_secs(number_setting("PENDING_MAX_AGE_SECONDS")?);
    let min_period = Duration::from_secs(number_setting("MIN_DRIVE_PERIOD_SECONDS")?);
    let parked = setting("DEAD_LETTER_QUEUE_URL")?; // the state machine and the reconciler park here
    let reconciler = Reconciler {
        headers: Headers::new(client.clone(), setting("BOOKINGS_TABLE")?),
        executions: executions(&aws)?,
        events: topic(&aws)?,
        dead_letters: DeadLetterQueues::new(aws_sdk_sqs::Client::new(&aws), dead_letters()?, parked),
        read: |message| runtime::event(message).ok().flatten(),
        bookings: bookings(&client)?,
        max_age,
        pace: Pace { period: max_age.max(min_period), max_drives: number_setting("MAX_DRIVES")? },
        clock: Timestamp::now,
    };
    let handle = async |input| match input {
        Input::Command(_schedule) => reconciler.run(runtime::remaining()).await.map(Some),
        Input::Event(parked) | Input::Failure(Failure { event: parked, .. }) => {
            reconciler.resume(&parked).await.map(|()| None)
        }
    };
    serve(&aws, PublishedBy::Function, handle).await
}

/// Runs the API of this saga, with this provider, until Lambda ends the process.
pub async fn api<P: PaymentProvider>(
    saga: Definition,
    provider: impl FnOnce(&aws_sdk_dynamodb::Client) -> Result<P, Error>,
) -> Result<(), Error> {
    let aws = start()?;
    let client = store::client(&aws);
    let api = Api {
        saga,
        journal: journal(&client)?,
        executions: executions(&aws)?,
        events: topic(&aws)?,
        provider: provider(&client)?,
        cors_origin: setting("CORS_ORIGIN").ok().map(|origin| origin.parse()).transpose()?,
        clock: Timestamp::now,
        intake: Intake::new(
            Headers::new(client, setting("BOOKINGS_TABLE")?),
            setting("CUSTOMERS_TABLE")?,
            number_setting("PERSONAL_DATA_RETENTION_DAYS")?,
        ),
    };
    runtime::serve_http(async |caller, request| api.handle(caller, request).await).await
}

fn start() -> Result<SdkConfig, Error> {
    runtime::start_logging();
    runtime::aws()
}

async fn serve<R: Serialize>(
    aws: &SdkConfig,
    published_by: PublishedBy,
    handle: impl AsyncFn(Input) -> Result<Option<R>, StepError>,
) -> Result<(), Error> {
    let topic = topic(aws)?;
    Handler {
        handle,
        publish: async |event| topic.publish(event).await,
        published_by,
        fault: |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() },
        queue: Queue::of_function(aws)?,
    }
    .serve()
    .await
}

fn journal(client: &aws_sdk_dynamodb::Client) -> Result<Journal, Error> {
    Ok(Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?))
}

fn bookings(client: &aws_sdk_dynamodb::Client) -> Result<BookingService<Bookings>, Error> {
    let store = Bookings::new(client.clone(), setting("BOOKINGS_TABLE")?, journal(client)?);
    Ok(BookingService { store, clock: Timestamp::now })
}

fn executions(aws: &SdkConfig) -> Result<StateMachine, Error> {
    Ok(StateMachine::new(aws_sdk_sfn::Client::new(aws), setting("STATE_MACHINE_ARN")?))
}

fn topic(aws: &SdkConfig) -> Result<Topic, Error> {
    Ok(Topic::new(aws_sdk_sns::Client::new(aws), setting("EVENTS_TOPIC_ARN")?))
}

/// The dead-letter queues of the participants: `DEAD_LETTERS`, such as `flight=https://…,booking=https://…`.
fn dead_letters() -> Result<Vec<(Participant, String)>, Error> {
    let queues = setting("DEAD_LETTERS")?;
    let queue = |queue: &str| {
        let (participant, url) = queue.split_once('=')?;
        Some((Participant::named(participant.trim())?, url.trim().to_owned()))
    };
    let queue = |text: &str| {
        queue(text).ok_or_else(|| {
            format!(
                "DEAD_LETTERS: {text:?} must be PARTICIPANT=URL, with the URL of the participant's dead-letter queue"
            )
            .into()
        })
    };
    queues.split(',').map(queue).collect()
}

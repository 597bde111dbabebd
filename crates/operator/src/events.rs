//! The payloads in `events/`, for `sam local invoke`: one for each way in which each function is invoked.
//!
//! They belong to eight bookings of the same trip, which is so far in the future that it stays bookable. [`prepare`]
//! sets up a stack for them. After that they can be sent in any order and any number of times, and are answered as in
//! `events/answers.json`; once all were sent, the bookings have ended as in [`ENDS`].

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{
    Timestamp,
    civil::{Date, date},
};
use saga::{
    BookingId, BookingRequest, Catalogue, CatalogueError, Claim, Command, Envelope, Event, Money, Owner, PartType,
    Status, Variant, command::Action, reservation::quote,
};
use serde_json::{Value, json};
use services::{BookingService, PaymentProvider, PaymentService, ProviderError, SandboxProvider, StepError};
use store::{Bookings, Header, Headers, Intake, IntakeStore, Journal, Ledger, Payments, StoreError};

use crate::loader::{LoadError, StockLoader, dates};
use local_aws::{Stack, StackError};
use traveller::{TripRequest, trip::USUAL};

/// The start of the trip in all events.
const DATE: Date = date(2099, 3, 1);
const NIGHTS: u16 = 3;
/// Stands for the digest of a request: these bookings have no request.
const REQUEST: &str = "events";
/// The file with the expected answers.
const ANSWERS: &str = "answers.json";

/// The bookings of the events, by number, and how each ends.
pub const ENDS: [(u8, Variant, Status); 8] = [
    (1, Variant::Orchestrated, Status::Confirmed), // reserved, charged and confirmed by commands
    (2, Variant::Orchestrated, Status::Failed),    // aborted, cancelled and failed by commands
    (3, Variant::Orchestrated, Status::NeedsOperator), // parked by a command
    (4, Variant::Choreographed, Status::Confirmed), // requested, reserved and charged, by events
    (5, Variant::Choreographed, Status::Failed),   // rejected, aborted and cancelled, by events
    (UNPARKED, Variant::Orchestrated, Status::Confirmed), // put back by an operator although it has ended
    (7, Variant::Choreographed, Status::Failed),   // given up by flight
    (8, Variant::Choreographed, Status::Failed),   // requested, but not delivered
];
/// The booking for which payment still lacks the flight's price.
const COLLECTED: u8 = 4;
const UNPARKED: u8 = 6;

/// A payload, and the expected answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its path within `events/`, such as `flight/command-reserve.json`.
    pub name: String,
    pub path: PathBuf,
    /// The function, which is the name of the folder: `flight`.
    pub function: String,
    pub payload: Value,
    /// What the answer must contain.
    pub answer: Value,
}

/// Why events cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("{path} cannot be read: {cause}")]
    File { path: PathBuf, cause: io::Error },
    /// Every file needs an answer, and every answer a file.
    #[error("events/{ANSWERS} and the files beside it do not belong together: {0} is in one of them only")]
    Unpaired(String),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The program was built with an invalid price list.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the payment provider refuses the card of the events")]
    Card,
    #[error(transparent)]
    Step(#[from] StepError),
    /// The program's own request is refused.
    #[error("a trip on {DATE} is refused: {0}")]
    Refused(String),
}

/// All payloads in this project's `events/`, ordered by name.
pub fn samples(root: &Path) -> Result<Vec<Sample>, SampleError> {
    let root = root.join("events");
    let mut answers: BTreeMap<String, Value> = read(&root.join(ANSWERS))?;
    let mut samples = Vec::new();
    for folder in list(&root)?.into_iter().filter(|path| path.is_dir()) {
        for path in list(&folder)? {
            let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let function = part(&folder);
            let name = format!("{function}/{}", part(&path));
            let Some(answer) = answers.remove(&name) else { return Err(SampleError::Unpaired(name)) };
            samples.push(Sample { payload: read(&path)?, name, path, function, answer });
        }
    }
    match answers.pop_first() {
        Some((name, _)) => Err(SampleError::Unpaired(name)),
        None => Ok(samples),
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, SampleError> {
    let cause = |cause| SampleError::File { path: folder.to_owned(), cause };
    let paths = fs::read_dir(folder).map_err(cause)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(cause)?;
    paths.sort_unstable();
    Ok(paths)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, SampleError> {
    let cause = |cause| SampleError::File { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(cause)?;
    serde_json::from_str(&text).map_err(|error| cause(error.into()))
}

/// The first difference between an answer and the expected one; none if there is none. Objects may have additional
/// members. Where an object is expected but there is a string, as in the body of an HTTP response, the string is parsed
/// as JSON.
pub fn difference(expected: &Value, answer: &Value) -> Option<String> {
    if let (Value::Object(expected), Value::Object(answer)) = (expected, answer) {
        let of = |(name, value): (&String, &Value)| {
            difference(value, answer.get(name).unwrap_or(&Value::Null)).map(|found| format!("{name}: {found}"))
        };
        return expected.iter().find_map(of);
    }
    if let (Value::Object(_), Some(Ok(read))) = (expected, answer.as_str().map(serde_json::from_str::<Value>)) {
        return difference(expected, &read);
    }
    (expected != answer).then(|| format!("expected {expected}, got {answer}"))
}

/// The id of a booking of the events.
pub fn booking(number: u8) -> BookingId {
    // Thirty-two digits are an id.
    BookingId::try_from(format!("{number:032x}")).unwrap_or_else(|_| unreachable!())
}

/// Puts the trip of the events on sale, and records their bookings in the state that the events expect. May be
/// repeated. For a local AWS only: it replaces stock, and these bookings were never requested.
pub async fn prepare(stack: &Stack) -> Result<(), SampleError> {
    let sdk = stack.sdk().await?;
    let client = store::client(&sdk);
    let journal = Journal::new(client.clone(), stack.journal_table()?, 730);
    let headers = Headers::new(client.clone(), stack.bookings_table()?);
    let intake = Intake::new(headers, stack.customers_table()?, 30);
    let ledger = Ledger::new(client.clone(), stack.provider_ledger_table()?);
    let payment = PaymentService {
        store: Payments::new(client.clone(), stack.payments_table()?, journal.clone()),
        provider: SandboxProvider { ledger, clock: Timestamp::now },
        clock: Timestamp::now,
    };
    let store = Bookings::new(client, stack.bookings_table()?, journal);
    let bookings = BookingService { store, clock: Timestamp::now };

    let request = travel::TRAVEL.read(&TripRequest::on(DATE).to_json(), DATE);
    let BookingRequest { customer, parts, token, .. } =
        request.map_err(|violations| SampleError::Refused(saga::Violation::list(&violations)))?;
    StockLoader::of(stack, &sdk)?.load(&dates(DATE, NIGHTS), |_| ()).await?;
    let now = Timestamp::now();
    for (number, variant, _) in ENDS {
        let header = Header {
            booking_id: booking(number),
            request_digest: REQUEST.into(),
            variant,
            status: Status::Pending,
            owner: Owner::of("anonymous"), // the caller if the API does not authenticate
            parts: parts.clone(),
            total: None,
            reason: None,
            claim: Claim::first(now),
            created_at: now,
            updated_at: now,
        };
        payment.provider.attach(&header.plan().payment.reference, &token).await?.map_err(|_| SampleError::Card)?;
        intake.accept(&header, &customer, now).await?;
        let price = |part_type: &PartType| {
            let contents = parts.get(part_type.name).map(|part| part.contents).unwrap_or_default();
            let quote = quote(part_type, &Catalogue::read(part_type.price_list)?, &contents);
            quote.map(|quote| quote.price).map_err(|rejection| SampleError::Refused(rejection.message))
        };
        if number == COLLECTED {
            for part_type in USUAL.iter().filter(|part_type| part_type.name != travel::FLIGHT.name) {
                let (part, price) = (part_type.name, price(part_type)?);
                let reserved = Event::Reserved { part, price, plan: header.plan() };
                let (booking_id, causation_id, trace) = (header.booking_id.clone(), None, None);
                let reserved = Envelope { booking_id, event: reserved, causation_id, time: now, trace };
                payment.react(&json!(reserved)).await?;
            }
        }
        if number == UNPARKED {
            let prices = USUAL.iter().map(|part_type| Ok(price(part_type)?.amount.unsigned_abs()));
            let total = Money::eur(prices.sum::<Result<_, SampleError>>()?);
            let step = Command { booking_id: header.booking_id, action: Action::Confirm { total } };
            let command = json!({"step": step.step(), "booking_id": step.booking_id, "total": total});
            bookings.handle(&command).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_more_but_nothing_else() {
        let answer = json!({"statusCode": 202, "body": "{\"status\": \"pending\", \"id\": 1}", "list": [], "more": 1});
        for same in [json!({}), json!({"statusCode": 202, "list": []}), json!({"body": {"status": "pending"}})] {
            assert_eq!(difference(&same, &answer), None);
        }
        let other = difference(&json!({"body": {"status": "failed"}}), &answer);
        assert_eq!(other.unwrap(), "body: status: expected \"failed\", got \"pending\"");
        for other in [json!({"list": [1]}), json!({"none": 1}), json!({"more": {"a": 1}}), json!(null), json!([])] {
            assert!(difference(&other, &answer).is_some(), "{other}");
        }
    }
}

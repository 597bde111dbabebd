//! Work: what is done for a booking, counted from what the local AWS recorded meanwhile (`python/meter.py` of
//! `local-aws`).
//!
//! Each piece of work names its booking: the id is in every message, request, event and execution. A piece that names
//! several bookings counts for each in part. A piece that names none (the reconciler's query for overdue bookings, a
//! mapping that polls an empty queue) is not the work of any booking. This program's own requests to AWS are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use saga::BookingId;
use serde::{Deserialize, Serialize};

use super::{ComparisonError, Mode};
use crate::load::{Fate, Load, Travellers};

/// Why work cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The recorded work cannot be read.
    #[error("{path}, where the local AWS records its work, cannot be read: {cause}")]
    Unread { path: PathBuf, cause: std::io::Error },
    /// A record does not have the expected form.
    #[error("the local AWS recorded {line:?}, which cannot be read: {cause}; `meter.py` and `work.rs` differ")]
    Unreadable { line: String, cause: serde_json::Error },
    /// A booking ended differently than expected.
    #[error("booking {booking_id}, {}, did not end as {}: see `harmony audit`", mode.name(), fate.name())]
    UnexpectedEnd {
        booking_id: BookingId,
        /// How it should have ended.
        fate: Fate,
        mode: Mode,
    },
    /// The local AWS keeps working on bookings that have ended.
    #[error("the local AWS still works on bookings {} s after they ended: see its log", within.as_secs())]
    NotSettled {
        /// The time limit.
        within: Duration,
    },
}

/// What is counted for a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    ApiRequests,
    Invocations,
    /// Milliseconds of function time, each invocation rounded up.
    BilledMs,
    Executions,
    /// States that a state machine entered, including retries.
    Transitions,
    /// Milliseconds of execution time, each execution rounded up to 100.
    ExecutionMs,
    /// Messages published to a topic, in chunks of 64 KB.
    Publishes,
    /// Messages that a topic delivered.
    Deliveries,
    /// Kilobytes that a topic's filters inspected, for each subscription with a filter on the body.
    FilteredKilobytes,
    /// Requests to SQS: send, receive, delete.
    QueueRequests,
    WriteUnits,
    ReadUnits,
    /// Calls from functions to AWS, each a round trip.
    Calls,
    /// Kilobytes in requests, answers, events and messages.
    Kilobytes,
    LoggedKilobytes,
}

impl Unit {
    pub const ALL: [Self; 15] = [
        Self::ApiRequests,
        Self::Invocations,
        Self::BilledMs,
        Self::Executions,
        Self::Transitions,
        Self::ExecutionMs,
        Self::Publishes,
        Self::Deliveries,
        Self::FilteredKilobytes,
        Self::QueueRequests,
        Self::WriteUnits,
        Self::ReadUnits,
        Self::Calls,
        Self::Kilobytes,
        Self::LoggedKilobytes,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiRequests => "API Gateway requests",
            Self::Invocations => "Lambda invocations",
            Self::BilledMs => "Lambda ms, billed",
            Self::Executions => "Step Functions executions",
            Self::Transitions => "Step Functions transitions",
            Self::ExecutionMs => "Step Functions ms, in steps of 100",
            Self::Publishes => "SNS publishes",
            Self::Deliveries => "SNS deliveries",
            Self::FilteredKilobytes => "kB that SNS filters looked at",
            Self::QueueRequests => "SQS requests",
            Self::WriteUnits => "DynamoDB write units",
            Self::ReadUnits => "DynamoDB read units",
            Self::Calls => "calls of functions to AWS",
            Self::Kilobytes => "kB moved",
            Self::LoggedKilobytes => "kB logged",
        }
    }
}

/// A piece of work, as recorded.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkRecord {
    /// What kind of work it was.
    pub kind: String,
    /// When it began, in seconds since 1970.
    pub at: f64,
    /// How many seconds it took.
    pub took: f64,
    /// The ids that it contains, including those of bookings.
    pub bookings: Vec<String>,
    /// The function, state, topic or queue.
    #[serde(default)]
    pub name: String,
    /// For a request: the service.
    #[serde(default)]
    pub service: String,
    /// For a request: the operation.
    #[serde(default)]
    pub action: String,
    /// For a request: `function`, or `harmony` for this program.
    #[serde(default)]
    by: String,
    #[serde(default)]
    sent: u64,
    #[serde(default)]
    received: u64,
    #[serde(default)]
    logged: u64,
    #[serde(default)]
    scanned: u64,
    #[serde(default)]
    reads: f64,
    #[serde(default)]
    writes: f64,
    /// For a request to DynamoDB: units by table.
    #[serde(default)]
    pub tables: BTreeMap<String, f64>,
}

/// The counted work, of one booking or the mean of several.
pub type Work = BTreeMap<Unit, f64>;

impl WorkRecord {
    /// What this piece of work counts for.
    fn counts(&self) -> Vec<(Unit, f64)> {
        let chunks = (self.sent as f64 / 65_536.0).ceil().max(1.0);
        let mut counts = match self.kind.as_str() {
            "api" => vec![(Unit::ApiRequests, 1.0)],
            "invocation" => vec![
                (Unit::Invocations, 1.0),
                (Unit::BilledMs, (self.took * 1e3).ceil()),
                (Unit::LoggedKilobytes, self.logged as f64 / 1e3),
            ],
            "transition" => vec![(Unit::Transitions, 1.0)],
            "execution" => vec![(Unit::Executions, 1.0), (Unit::ExecutionMs, (self.took * 10.0).ceil() * 100.0)],
            "publish" => {
                vec![(Unit::Publishes, chunks), (Unit::FilteredKilobytes, self.scanned as f64 / 1e3)]
            }
            "delivery" if self.name == "sqs" => vec![(Unit::Deliveries, 1.0), (Unit::QueueRequests, 1.0)],
            "delivery" => vec![(Unit::Deliveries, 1.0)],
            "send" | "receive" | "delete" => vec![(Unit::QueueRequests, chunks)],
            "request" => {
                let to_queue = if self.service == "AmazonSQS" { chunks } else { 0.0 };
                vec![
                    (Unit::Calls, 1.0),
                    (Unit::ReadUnits, self.reads),
                    (Unit::WriteUnits, self.writes),
                    (Unit::QueueRequests, to_queue),
                ]
            }
            _ => Vec::new(),
        };
        counts.push((Unit::Kilobytes, (self.sent + self.received) as f64 / 1e3));
        counts
    }
}

/// The work for bookings of one fate in one mode.
#[derive(Clone, Debug)]
pub struct CountedWork {
    pub mode: Mode,
    pub fate: Fate,
    /// The work for each booking.
    pub each: Vec<Work>,
    /// DynamoDB's write units by table: the mean per booking.
    pub tables: BTreeMap<String, f64>,
    /// The work for the fastest of them.
    pub fastest: Vec<WorkRecord>,
}

/// Makes bookings one after the other, and counts the work for each. A booking that ends differently than expected is
/// an error.
pub async fn count(
    (mode, fate): (Mode, Fate),
    (travellers, log): (&Travellers, &WorkLog),
    bookings: usize,
    name: &str,
    made: impl Fn(usize),
) -> Result<CountedWork, ComparisonError> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut ids = Vec::new();
    for nth in 0..bookings {
        let load = Load::Closed { travellers: 1, bookings: 1 };
        let measured =
            travellers.make(load, mode.variant(), |_| fate, &format!("{name}-{nth}"), PATIENCE, &made).await?;
        if let Some(booking) = measured.unexpected().next() {
            return Err(WorkError::UnexpectedEnd { booking_id: booking.booking_id.clone(), fate, mode }.into());
        }
        ids.extend(measured.bookings.into_iter().map(|booking| booking.booking_id));
    }
    let records = log.settled(&ids, PATIENCE).await?;
    let of = |id: &BookingId| -> Vec<WorkRecord> {
        records.iter().filter(|record| record.bookings.iter().any(|each| each == id.as_str())).cloned().collect()
    };
    let lasted = |id: &&BookingId| {
        let from = of(id).iter().map(|record| record.at).fold(f64::MAX, f64::min);
        of(id).iter().map(|record| record.at + record.took).fold(0.0, f64::max) - from
    };
    let fastest = ids.iter().min_by(|one, other| lasted(one).total_cmp(&lasted(other)));
    Ok(CountedWork {
        mode,
        fate,
        each: of_each(&records, &ids),
        tables: writes_by_table(&records, ids.len()),
        fastest: fastest.map_or(Vec::new(), of),
    })
}

/// The recorded work of a local AWS.
#[derive(Clone, Debug)]
pub struct WorkLog {
    path: PathBuf,
}

impl WorkLog {
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// All work on these bookings recorded so far.
    pub fn of(&self, bookings: &[BookingId]) -> Result<Vec<WorkRecord>, WorkError> {
        let text =
            fs::read_to_string(&self.path).map_err(|cause| WorkError::Unread { path: self.path.clone(), cause })?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole); // an incomplete line does not count
        let known: BTreeSet<&str> = bookings.iter().map(BookingId::as_str).collect();
        let mut records = Vec::new();
        for line in whole.lines() {
            let mut record: WorkRecord = serde_json::from_str(line)
                .map_err(|cause| WorkError::Unreadable { line: line.chars().take(200).collect(), cause })?;
            record.bookings.retain(|id| known.contains(id.as_str()));
            if !record.bookings.is_empty() && record.by != "harmony" {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// The same, once nothing has been recorded for a second.
    pub async fn settled(&self, bookings: &[BookingId], within: Duration) -> Result<Vec<WorkRecord>, WorkError> {
        const QUIET: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + within;
        let (mut records, mut since) = (self.of(bookings)?, Instant::now());
        while since.elapsed() < QUIET {
            if Instant::now() > deadline {
                return Err(WorkError::NotSettled { within });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.of(bookings)?;
            if now.len() > records.len() {
                (records, since) = (now, Instant::now());
            }
        }
        Ok(records)
    }
}

/// The work for each of these bookings.
pub fn of_each(records: &[WorkRecord], bookings: &[BookingId]) -> Vec<Work> {
    let mut work: BTreeMap<&str, Work> = bookings.iter().map(|id| (id.as_str(), Work::new())).collect();
    for record in records {
        for id in &record.bookings {
            let Some(work) = work.get_mut(id.as_str()) else { continue };
            for (unit, count) in record.counts() {
                *work.entry(unit).or_default() += count / record.bookings.len() as f64;
            }
        }
    }
    work.into_values().collect()
}

/// The mean of the work for several bookings.
pub fn mean(all: &[Work]) -> Work {
    let of = |unit| all.iter().filter_map(|work| work.get(&unit)).sum::<f64>() / all.len().max(1) as f64;
    Unit::ALL.map(|unit| (unit, of(unit))).into()
}

/// The work, multiplied by this share.
pub fn times(work: &Work, share: f64) -> Work {
    work.iter().map(|(unit, count)| (*unit, count * share)).collect()
}

/// The sum of both.
pub fn sum(mut one: Work, other: &Work) -> Work {
    for (unit, count) in other {
        *one.entry(*unit).or_default() += count;
    }
    one
}

/// DynamoDB's write units by table: the mean per booking.
pub fn writes_by_table(records: &[WorkRecord], bookings: usize) -> BTreeMap<String, f64> {
    let mut tables = BTreeMap::new();
    for record in records.iter().filter(|record| record.writes > 0.0) {
        for (table, units) in &record.tables {
            *tables.entry(table.clone()).or_default() += units / bookings.max(1) as f64;
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BookingId {
        BookingId::try_from(format!("{n:032x}")).unwrap()
    }

    fn record(text: &str) -> WorkRecord {
        serde_json::from_str(&format!(r#"{{"at": 1.0, "took": 0.0021, "sent": 1000, {text}}}"#)).unwrap()
    }

    #[test]
    fn each_piece_counts_for_the_booking_that_it_names() {
        let both = format!(r#""bookings": ["{}", "{}"]"#, id(1), id(2));
        let one = format!(r#""bookings": ["{}"]"#, id(1));
        let records = [
            record(&format!(r#""kind": "invocation", "name": "f", "logged": 500, {both}"#)),
            record(&format!(r#""kind": "request", "service": "DynamoDB", "writes": 8.0, "received": 1000, {one}"#)),
            record(&format!(r#""kind": "delivery", "name": "sqs", {one}"#)),
        ];
        let [first, second] = of_each(&records, &[id(1), id(2)]).try_into().unwrap();
        let of = |work: &Work, unit| work.get(&unit).copied().unwrap_or_default();
        assert_eq!([of(&first, Unit::Invocations), of(&second, Unit::Invocations)], [0.5, 0.5]);
        assert_eq!([of(&first, Unit::BilledMs), of(&first, Unit::LoggedKilobytes)], [1.5, 0.25]);
        assert_eq!([of(&first, Unit::WriteUnits), of(&second, Unit::WriteUnits)], [8.0, 0.0]);
        assert_eq!([of(&first, Unit::Calls), of(&first, Unit::QueueRequests)], [1.0, 1.0]);
        assert_eq!([of(&first, Unit::Kilobytes), of(&second, Unit::Kilobytes)], [3.5, 0.5]);
        let mean = mean(&[first, second]);
        assert_eq!([of(&mean, Unit::WriteUnits), of(&mean, Unit::Invocations)], [4.0, 0.5]);
    }

    #[test]
    fn what_is_large_counts_in_chunks() {
        let record = |kind| {
            let text = format!(
                r#"{{"kind": "{kind}", "at": 1.0, "took": 0.0, "sent": 70000, "bookings": ["{}"], "name": ""}}"#,
                id(1)
            );
            serde_json::from_str::<WorkRecord>(&text).unwrap().counts()
        };
        assert!(record("publish").contains(&(Unit::Publishes, 2.0)));
        assert!(record("send").contains(&(Unit::QueueRequests, 2.0)));
        assert!(record("transition").contains(&(Unit::Transitions, 1.0)));
    }

    #[test]
    fn notes_are_of_bookings_that_are_asked_for_and_not_of_this_program() {
        let path = std::env::temp_dir().join(format!("harmony-notes-{}", std::process::id()));
        let line = |by: &str, n| {
            format!(r#"{{"kind": "request", "by": "{by}", "at": 1, "took": 0, "bookings": ["{}"], "name": ""}}"#, id(n))
        };
        let text = [line("function", 1), line("function", 2), line("harmony", 1), "{\"kind\": \"hal".into()].join("\n");
        fs::write(&path, text).unwrap();
        assert_eq!(WorkLog::at(&path).of(&[id(1)]).unwrap().len(), 1);
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(WorkLog::at(&path).of(&[id(1)]), Err(WorkError::Unreadable { .. })));
        fs::remove_file(path).unwrap();
    }
}

//! Load: travellers who book through the API, a mix of trips that succeed and trips that cannot.
//!
//! - **Closed**: a number of travellers, each of whom books again once the previous booking was accepted. It measures
//!   the maximum throughput.
//! - **Open**: a number of requests per second, whatever happens to earlier ones, as from travellers who know nothing
//!   of each other. Times count from when a request was due, not from when the generator sent it: a late answer delays
//!   everything behind it, and nobody's wait is left out ("coordinated omission").
//!
//! Bookings are not polled during the load, because that would be load too. Afterwards their headers say when they
//! ended, to the millisecond, by the services' clock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use jiff::{SignedDuration, Timestamp, civil::Date};
use saga::{BookingId, Status, StockLine, Variant};
use store::{Headers, Journal, StockTable, StoreError};

use local_aws::{Stack, StackError};
use operator::loader;
use traveller::{Client, ClientError, TripRequest};

/// The number of dates on which trips start, so that not all bookings want the same seats.
const DATES: u16 = 50;
/// How many units of every product are on sale on each date.
const PLENTY: u32 = 1_000_000;
/// The hotel of the catalogue that never has a room.
const FULL: &str = "nyc-annex";
/// How many headers are read at once.
const LOOK: usize = 100;
/// How long to wait before looking again at bookings that have not ended.
const AGAIN: Duration = Duration::from_millis(250);
/// How long to wait before repeating a request that was not accepted: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// How long a request is repeated that is not accepted.
const PATIENCE: Duration = Duration::from_secs(180);

/// Why there can be no load.
#[derive(Debug, thiserror::Error)]
pub enum TravellersError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API refused a request that it should accept.
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a booking's header cannot be read: {0}; `harmony audit` says more")]
    Unreadable(String),
    /// Bookings did not end in time.
    #[error("{open} of {all} bookings have not ended within {} s: see `harmony audit`, and load less", within.as_secs())]
    NotEnded {
        open: usize,
        all: usize,
        /// The time limit.
        within: Duration,
    },
}

/// The percentages of bookings that cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Bookings whose hotel is sold out.
    pub sold_out: u8,
    /// Bookings whose card is declined.
    pub declined: u8,
}

impl Default for Mix {
    fn default() -> Self {
        Self { sold_out: 10, declined: 10 }
    }
}

/// How a booking must end, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Confirmed,
    SoldOut,
    Declined,
    /// It is confirmed, after the payment provider has failed twice.
    Flaky,
}

impl Fate {
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::SoldOut, Self::Declined, Self::Flaky];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::SoldOut => "hotel sold out",
            Self::Declined => "card declined",
            Self::Flaky => "confirmed, provider failed twice",
        }
    }

    /// The status that it must end with.
    pub const fn status(self) -> Status {
        match self {
            Self::Confirmed | Self::Flaky => Status::Confirmed,
            Self::SoldOut | Self::Declined => Status::Failed,
        }
    }
}

impl Mix {
    /// The fate of the n-th booking: always the same for the same n, and evenly spread.
    pub const fn nth(self, n: usize) -> Fate {
        // 37 and 100 have no common divisor, so any hundred consecutive bookings cover each percentage once.
        let percent = (n * 37 % 100) as u8; // below 100
        if percent < self.sold_out {
            Fate::SoldOut
        } else if percent < self.sold_out.saturating_add(self.declined) {
            Fate::Declined
        } else {
            Fate::Confirmed
        }
    }
}

/// The n-th request of a load.
fn request(n: usize, variant: Variant, fate: Fate, first: Date) -> TripRequest {
    let date = first.saturating_add(SignedDuration::from_hours(24 * (n as i64 % i64::from(DATES))));
    let mut trip = TripRequest { variant, ..TripRequest::on(date) };
    match fate {
        Fate::Confirmed => {}
        Fate::SoldOut => trip.set(travel::HOTEL.name, "hotel_id", FULL),
        Fate::Declined => "tok_declined".clone_into(&mut trip.payment.token),
        Fate::Flaky => "tok_flaky".clone_into(&mut trip.payment.token),
    }
    trip
}

/// How load is generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// By this many travellers at once, until this many bookings are made.
    Closed { travellers: usize, bookings: usize },
    /// At this rate, for this long.
    Open {
        /// Requests per second.
        rate: f64,
        lasting: Duration,
    },
}

#[derive(Clone, Debug)]
struct Made {
    booking_id: BookingId,
    fate: Fate,
    due: Timestamp,
    accepted: Duration,
}

#[derive(Clone, Debug)]
pub struct EndedBooking {
    pub booking_id: BookingId,
    /// How it should have ended.
    pub fate: Fate,
    pub due: Timestamp,
    /// From when its request was due until it was accepted.
    pub accepted: Duration,
    /// How it did end.
    pub status: Status,
    /// When it ended, by the services' clock.
    pub at: Timestamp,
}

impl EndedBooking {
    /// From when its request was due until it had ended.
    pub fn took(&self) -> Duration {
        Duration::try_from(self.at.duration_since(self.due)).unwrap_or_default() // zero if a clock is behind
    }
}

/// The result of a load.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// From when a request was due until it was accepted, in microseconds.
    pub accepted: Histogram<u64>,
    /// From when a request was due until its booking had ended, in microseconds, by fate.
    pub ended: BTreeMap<Fate, Histogram<u64>>,
    pub bookings: Vec<EndedBooking>,
    /// Ended bookings per second, from when the first was due until the last had ended.
    pub per_second: f64,
    /// How much of the processor was used during the load.
    pub used: ProcessorShares,
    /// How often a request had to be repeated.
    pub repeated: usize,
}

impl LoadResult {
    /// The bookings that ended differently than expected.
    pub fn unexpected(&self) -> impl Iterator<Item = &EndedBooking> {
        self.bookings.iter().filter(|booking| booking.status != booking.fate.status())
    }
}

/// Shares of one processor core.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessorShares {
    /// This process.
    pub generator: f64,
    /// The local AWS itself; zero on AWS.
    pub local_aws: f64,
    /// The functions that it runs; zero on AWS.
    pub functions: f64,
}

#[derive(Clone, Debug)]
pub struct Travellers {
    client: Client,
    headers: Headers,
    first: Date,
    local_aws: Option<u32>,
}

impl Travellers {
    /// Travellers who book on this stack, for trips that start on this date or soon after.
    pub async fn of(stack: &Stack, client: Client, first: Date) -> Result<Self, TravellersError> {
        let dynamodb = store::patient_client(&stack.sdk().await?);
        Ok(Self { client, headers: Headers::new(dynamodb, stack.bookings_table()?), first, local_aws: stack.pid })
    }

    /// Puts plenty of stock on sale, replacing what there was on these dates. To be called once, before the first
    /// booking.
    pub async fn seed(&self, stack: &Stack) -> Result<(), TravellersError> {
        let dynamodb = store::client(&stack.sdk().await?);
        let journal = Journal::new(dynamodb.clone(), stack.journal_table()?, 1); // never written here
        let trip = TripRequest::on(self.first);
        let dates = loader::dates(self.first, DATES + 3); // the last trip lasts three nights
        let asked =
            trip.lines().into_iter().filter_map(|(part, lines)| Some((part, lines.first()?.product.clone(), PLENTY)));
        for (part, product, units) in asked.chain([(travel::HOTEL.name, FULL.to_owned(), 0)]) {
            let table = StockTable::new(dynamodb.clone(), stack.stock_table(part)?, journal.clone());
            let line = |date: &Date| StockLine { product: product.clone(), date: Some(*date), units };
            let lines: Vec<_> = dates.iter().map(line).collect();
            for batch in lines.chunks(25) {
                table.seed(batch).await?;
            }
        }
        Ok(())
    }

    /// Generates the load, waits until all its bookings have ended, and returns the result. `name` makes its requests
    /// differ from those of any other load; `made` gets each booking that is made.
    pub async fn make(
        &self,
        load: Load,
        variant: Variant,
        fate: impl Fn(usize) -> Fate,
        name: &str,
        within: Duration,
        made: impl Fn(usize),
    ) -> Result<LoadResult, TravellersError> {
        let (started, before) = (Instant::now(), self.processor_times());
        let fate = &fate;
        let repeated = AtomicUsize::new(0);
        let (repeated, made) = (&repeated, &made);
        let book = |n: usize, due: Option<Instant>| async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            let due = due.unwrap_or_else(Instant::now);
            let at = Timestamp::now() - SignedDuration::try_from(due.elapsed()).unwrap_or_default();
            let fate = fate(n);
            let request = request(n, variant, fate, self.first);
            let booking_id = self.accepted(&request, &format!("{name}-{n}"), repeated).await?;
            made(1);
            Ok::<_, TravellersError>(Made { booking_id, fate, due: at, accepted: due.elapsed() })
        };
        let all: Vec<Made> = match load {
            Load::Closed { travellers, bookings } => {
                stream::iter(0..bookings).map(|n| book(n, None)).buffer_unordered(travellers).try_collect().await?
            }
            Load::Open { rate, lasting } => {
                let requests = (rate * lasting.as_secs_f64()) as usize;
                let due = |n: usize| started + Duration::from_secs_f64(n as f64 / rate);
                // All are started at once, and each waits until it is due.
                stream::iter(0..requests)
                    .map(|n| book(n, Some(due(n))))
                    .buffer_unordered(requests.max(1))
                    .try_collect()
                    .await?
            }
        };
        let (lasted, after) = (started.elapsed(), self.processor_times());
        let [generator, local_aws, functions] =
            [0, 1, 2].map(|of: usize| after[of].saturating_sub(before[of]).as_secs_f64() / lasted.as_secs_f64());
        let ends = self.ends(&all, within).await?;
        let used = ProcessorShares { generator, local_aws, functions };
        Ok(measured(&all, &ends, used, repeated.load(Ordering::Relaxed)))
    }

    /// The processor time used by this process, the local AWS, and its functions.
    fn processor_times(&self) -> [Duration; 3] {
        let Some(local_aws) = self.local_aws else { return [processor_time("self"), Duration::ZERO, Duration::ZERO] };
        // Each thread has its own children.
        let threads = std::fs::read_dir(format!("/proc/{local_aws}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let functions = children.flat_map(|ids| ids.split_whitespace().map(processor_time).collect::<Vec<_>>()).sum();
        [processor_time("self"), processor_time(&local_aws.to_string()), functions]
    }

    /// Sends a request until it is accepted, as a client does.
    async fn accepted(
        &self,
        request: &TripRequest,
        key: &str,
        repeated: &AtomicUsize,
    ) -> Result<BookingId, TravellersError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = RETRY.0;
        loop {
            match self.client.book_accepted(request, key).await {
                Ok(accepted) => return Ok(accepted.booking_id),
                Err(ClientError::NoAnswer { .. } | ClientError::Refused { status: 429 | 500.., .. })
                    if Instant::now() < deadline =>
                {
                    repeated.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How and when these bookings ended.
    async fn ends(
        &self,
        all: &[Made],
        within: Duration,
    ) -> Result<BTreeMap<String, (Status, Timestamp)>, TravellersError> {
        let deadline = Instant::now() + within;
        let mut ends = BTreeMap::new();
        let mut open: Vec<_> = all.iter().map(|made| made.booking_id.clone()).collect();
        while !open.is_empty() {
            let looks =
                stream::iter(open.chunks(LOOK).map(<[_]>::to_vec)).map(async |ids| self.headers.of_all(&ids).await);
            let headers: Vec<_> = looks.buffered(4).try_collect().await?;
            for header in headers.into_iter().flatten() {
                let header = header.map_err(|error| TravellersError::Unreadable(error.to_string()))?;
                if matches!(header.status, Status::Confirmed | Status::Failed | Status::NeedsOperator) {
                    ends.insert(header.booking_id.to_string(), (header.status, header.updated_at));
                }
            }
            open.retain(|id| !ends.contains_key(id.as_str()));
            if !open.is_empty() && Instant::now() >= deadline {
                return Err(TravellersError::NotEnded { open: open.len(), all: all.len(), within });
            }
            tokio::time::sleep(if open.is_empty() { Duration::ZERO } else { AGAIN }).await;
        }
        Ok(ends)
    }
}

fn measured(
    all: &[Made],
    ends: &BTreeMap<String, (Status, Timestamp)>,
    used: ProcessorShares,
    repeated: usize,
) -> LoadResult {
    let ended = |made: &Made| {
        let (status, at) = *ends.get(made.booking_id.as_str())?; // all have one
        let Made { booking_id, fate, due, accepted } = made.clone();
        Some(EndedBooking { booking_id, fate, due, accepted, status, at })
    };
    let bookings: Vec<_> = all.iter().filter_map(ended).collect();
    let (mut accepted, mut ended) = (histogram(), BTreeMap::new());
    for booking in &bookings {
        accepted.saturating_record(micros(booking.accepted));
        ended.entry(booking.fate).or_insert_with(histogram).saturating_record(micros(booking.took()));
    }
    let first = bookings.iter().map(|booking| booking.due).min().unwrap_or_default();
    let last = bookings.iter().map(|booking| booking.at).max().unwrap_or_default();
    let per_second = bookings.len() as f64 / last.duration_since(first).as_secs_f64().max(0.001);
    LoadResult { accepted, ended, bookings, per_second, used, repeated }
}

/// From a microsecond to an hour, with three significant digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap_or_else(|_| unreachable!()) // valid bounds, as a test shows
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The processor time of a process, from <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>; zero where there
/// is no such file.
fn processor_time(process: &str) -> Duration {
    const TICKS_PER_SECOND: u64 = 100; // fixed in Linux's interface, whatever the kernel's clock rate
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_kept_exactly_in_each_hundred_and_spread() {
        let mix = Mix::default();
        for hundred in 0..3 {
            let fates: Vec<_> = (hundred * 100..hundred * 100 + 100).map(|n| mix.nth(n)).collect();
            let count = |fate| fates.iter().filter(|each| **each == fate).count();
            assert_eq!([Fate::Confirmed, Fate::SoldOut, Fate::Declined].map(count), [80, 10, 10]);
            assert!(fates.windows(20).all(|some| some.iter().any(|fate| *fate != Fate::Confirmed)), "not spread");
        }
    }

    #[test]
    fn times_count_from_when_a_request_was_due() {
        let id = |n: u8| BookingId::try_from(format!("{n:032x}")).unwrap();
        let due = Timestamp::from_second(1_000).unwrap();
        let made = |n, fate| Made { booking_id: id(n), fate, due, accepted: Duration::from_millis(20) };
        let end = |status, ms| (status, due + SignedDuration::from_millis(ms));
        let ends = BTreeMap::from([
            (id(1).to_string(), end(Status::Confirmed, 200)),
            (id(2).to_string(), end(Status::Failed, 400)),
            (id(3).to_string(), end(Status::Failed, 500)),
        ]);
        let all = [made(1, Fate::Confirmed), made(2, Fate::Declined), made(3, Fate::Confirmed)];
        let measured = measured(&all, &ends, ProcessorShares::default(), 0);
        assert_eq!(measured.accepted.max() / 1000, 20);
        assert_eq!(measured.ended[&Fate::Confirmed].len(), 2);
        assert!((199..=201).contains(&(measured.ended[&Fate::Confirmed].min() / 1000)));
        assert_eq!(measured.unexpected().map(|booking| &booking.booking_id).collect::<Vec<_>>(), [&id(3)]);
        assert!((measured.per_second - 6.0).abs() < 0.01, "{}", measured.per_second);
    }

    #[test]
    fn the_generator_sees_what_it_uses() {
        let before = processor_time("self");
        let deadline = Instant::now() + Duration::from_millis(300);
        let mut n = 0_u64;
        while Instant::now() < deadline {
            n = n.wrapping_mul(31).wrapping_add(1);
        }
        assert!(n > 0 && (!cfg!(target_os = "linux") || processor_time("self") > before));
    }
}

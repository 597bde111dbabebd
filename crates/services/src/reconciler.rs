//! The reconciler: drives overdue bookings again, and calls an operator for those that cannot end without one. Every
//! step is safe to repeat, so starting over is always correct.

use std::{
    collections::{BTreeSet, HashMap},
    future::ready,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use saga::{
    BookingId, Envelope, Reason, Status, Step,
    claim::{Drive, Pace},
    id::digest,
    reaction::step_of,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{BookingStore, HeaderStore, StoreError};
use tokio::time::Instant;

use crate::{
    BookingService, Clock, DeadLetters, ErrorKind, EventPublisher, Executions, GivenUpBy, MAX_DECISIONS, StepError,
    start::Starter,
};

/// Finds stuck bookings and drives them again.
#[derive(Debug)]
pub struct Reconciler<H, E, P, D, B> {
    /// The booking headers.
    pub headers: H,
    /// Starts the orchestrated bookings.
    pub executions: E,
    /// Publishes `booking.requested` for the choreographed bookings.
    pub events: P,
    /// The messages that participants and the state machine gave up.
    pub dead_letters: D,
    /// Finds the event in such a message; none if it has none.
    pub read: fn(&str) -> Option<Value>,
    /// The participant that marks bookings for an operator.
    pub bookings: BookingService<B>,
    /// The age from which an open booking is stuck.
    pub max_age: Duration,
    /// How often stuck bookings are driven.
    pub pace: Pace,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

/// The result of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// How many bookings were found stuck.
    pub stuck: usize,
    /// Those of them that were driven again.
    pub restarted: Vec<BookingId>,
    /// Bookings that need an operator from now on.
    pub parked: Vec<BookingId>,
    /// How many of the found bookings this run had no time for. The next run handles them.
    pub left: usize,
}

/// A message in the queue of parked steps, written by the state machine or the reconciler; of an event, the part that
/// names the booking.
#[derive(Deserialize)]
struct Parked {
    booking_id: BookingId,
    #[serde(default)]
    stuck: Value,
    #[serde(default)]
    reason: Value,
}

/// The result for one stuck booking.
enum Driven {
    /// It was started again.
    Again,
    /// It was driven often enough, and needs an operator now.
    Parked,
    /// Nothing was done: it has ended, or is under way.
    Not,
}

/// How many bookings are processed at once.
const AT_ONCE: usize = 16;
/// The time that a run keeps in reserve to finish work it has started: a call that hangs takes seven seconds.
const TO_FINISH: Duration = Duration::from_secs(15);

/// The state of one run.
#[derive(Default)]
struct Run {
    done: Reconciled,
    /// Each record that cannot be read, and why.
    unreadable: BTreeSet<String>,
    failure: Option<StepError>,
}

impl Run {
    /// Records a failure. The run continues with the other bookings.
    fn failed(&mut self, booking_id: Option<&BookingId>, error: impl Into<StepError>) {
        let error = error.into();
        if error.kind() == ErrorKind::CorruptRecord {
            self.unreadable.insert(booking_id.map_or_else(|| error.to_string(), |id| format!("booking {id}: {error}")));
        } else {
            self.failure = Some(error);
        }
    }

    /// Records that there is no time for this many bookings.
    fn leave(&mut self, left: usize) {
        if left > 0 {
            tracing::warn!(left, "bookings left for the next run");
        }
        self.done.left += left;
    }

    /// Reports unreadable records rather than other failures, because they do not go away by themselves.
    fn end(mut self) -> Result<Reconciled, StepError> {
        let (count, first) = (self.unreadable.len(), self.unreadable.pop_first());
        let Reconciled { stuck, restarted, parked, left } = &self.done;
        tracing::info!(stuck, restarted = restarted.len(), parked = parked.len(), left, unreadable = count, "run done");
        match (first, self.failure) {
            (Some(first), _) => Err(StepError::Unreadable { count, first }),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(self.done),
        }
    }
}

/// Processes these in order, [`AT_ONCE`] at a time, starts nothing more when it is time to stop, and returns the result
/// of each.
async fn each_until<T, R>(
    stop: Instant,
    items: impl IntoIterator<Item = T>,
    work: impl AsyncFn(&T) -> R,
) -> Vec<(T, R)> {
    let work = &work;
    stream::iter(items)
        .take_while(|_| ready(Instant::now() < stop))
        .map(async move |item| {
            let done = work(&item).await;
            (item, done)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

impl<H: HeaderStore, E: Executions, P: EventPublisher, D: DeadLetters, B: BookingStore> Reconciler<H, E, P, D, B> {
    /// One run over everything that is given up or stuck, which ends within `remaining`. A booking that cannot be read
    /// or driven does not hold up the others: it is logged, tried again in the next run, and reported as an error once
    /// everything else is done. The alarm is on this function's errors.
    pub async fn run(&self, remaining: Duration) -> Result<Reconciled, StepError> {
        let stop = Instant::now() + remaining.saturating_sub(TO_FINISH);
        let mut run = Run::default();
        // First, because an operator needs to know, and because parked bookings are no longer stuck.
        self.call_operator_for_all(stop, &mut run).await;
        self.drive_all(stop, &mut run).await;
        run.end()
    }

    /// Steps that must succeed are given up if their messages are in dead-letter queues: their bookings need an
    /// operator.
    async fn call_operator_for_all(&self, stop: Instant, run: &mut Run) {
        let (messages, errors) = self.dead_letters.look().await;
        for error in errors {
            tracing::error!(%error, "dead letters could not be read");
            run.failed(None, error);
        }
        let mut given_up = HashMap::new(); // one message per booking is enough
        for (by, message) in &messages {
            if let Some((booking_id, reason)) = self.given_up(*by, message) {
                given_up.entry(booking_id).or_insert(reason);
            }
        }
        let found = given_up.len();
        let called = each_until(stop, given_up, async |(booking_id, reason)| {
            self.call_operator(booking_id, reason).await.inspect_err(|error| {
                tracing::error!(booking_id = booking_id.as_str(), %error, "an operator could not be called");
            })
        });
        let called = called.await;
        run.leave(found - called.len());
        for ((booking_id, _), called) in called {
            match called {
                Ok(true) => run.done.parked.push(booking_id),
                Ok(false) => {}
                Err(error) => run.failed(Some(&booking_id), error),
            }
        }
    }

    /// Drives the stuck bookings, oldest first.
    async fn drive_all(&self, stop: Instant, run: &mut Run) {
        let now = (self.clock)();
        let (stuck, errors) = self.headers.open_before(now - self.max_age).await;
        for error in errors {
            tracing::error!(%error, "stuck bookings could not be queried");
            run.failed(None, error);
        }
        run.done.stuck = stuck.len();
        let driven = each_until(stop, stuck, async |booking_id| {
            self.drive(booking_id, now).await.inspect_err(|error| {
                tracing::error!(booking_id = booking_id.as_str(), %error, "stuck booking could not be driven again");
            })
        });
        let driven = driven.await;
        run.leave(run.done.stuck - driven.len());
        for (booking_id, driven) in driven {
            match driven {
                Ok(Driven::Again) => run.done.restarted.push(booking_id),
                Ok(Driven::Parked) => run.done.parked.push(booking_id),
                Ok(Driven::Not) => {}
                Err(error) => run.failed(Some(&booking_id), error),
            }
        }
    }

    /// Drives a booking once more, with a claim of its own, because an operator has put its message back or asked for
    /// it. From then on it is pending, so the reconciler keeps track of it and the message is no longer needed.
    pub async fn resume(&self, message: &Value) -> Result<(), StepError> {
        let Parked { booking_id, .. } = Parked::deserialize(message)
            .map_err(|error| StepError::InvalidInput(format!("the message does not name a booking: {error}")))?;
        let name = digest(&[message.to_string().as_bytes()]);
        for _ in 0..MAX_DECISIONS {
            let Some(header) = self.headers.get(&booking_id).await? else {
                return Err(StepError::InvalidInput(format!("there is no booking {booking_id}")));
            };
            let now = (self.clock)();
            let Some(claim) = header.claim.redrive(header.status, &name, now) else {
                tracing::info!(booking_id = booking_id.as_str(), "parked booking has ended, or is under way");
                return Ok(());
            };
            if self.starter().claim_and_start(&header, claim, now, None).await? {
                tracing::info!(booking_id = booking_id.as_str(), "parked booking driven again");
                return Ok(());
            }
        }
        Err(StoreError::Contention { operation: "claiming a booking for an operator" }.into())
    }

    const fn starter(&self) -> Starter<'_, H, E, P> {
        Starter { claims: &self.headers, executions: &self.executions, events: &self.events }
    }

    /// Drives a stuck booking again if its latest start has had its time, or calls an operator if it was driven often
    /// enough.
    async fn drive(&self, booking_id: &BookingId, now: Timestamp) -> Result<Driven, StepError> {
        // Read the current header: the index may be outdated.
        let header = self.headers.get(booking_id).await?.filter(|header| header.status == Status::Pending);
        let Some(header) = header else { return Ok(Driven::Not) };
        match header.claim.drive(now, &self.pace) {
            Drive::Wait => Ok(Driven::Not),
            Drive::Again(claim) => {
                if !self.starter().claim_and_start(&header, claim, now, None).await? {
                    return Ok(Driven::Not);
                }
                let booking_id = booking_id.as_str();
                tracing::warn!(booking_id, created_at = %header.created_at, "stuck booking driven again");
                Ok(Driven::Again)
            }
            Drive::GiveUp => {
                let detail = format!(
                    "driven again {} times without ending; find the participant that does not answer, then redrive",
                    header.claim.drives
                );
                let reason = Reason { step: None, code: "not_ended".into(), detail };
                // The message first: it raises the alarm, and if this run dies here the next one has the reason.
                let message = json!({"booking_id": booking_id, "reason": reason, "claim": header.claim.number});
                self.dead_letters.park(message.to_string()).await?;
                self.park(booking_id, &reason).await?;
                Ok(Driven::Parked)
            }
        }
    }

    async fn park(&self, booking_id: &BookingId, reason: &Reason) -> Result<(), StepError> {
        self.bookings.park(booking_id, reason).await?;
        let (booking_id, step) = (booking_id.as_str(), reason.step.map(|step| step.to_string()));
        tracing::error!(booking_id, step, code = reason.code, detail = reason.detail, "booking needs an operator");
        Ok(())
    }

    /// The booking that a dead letter is about, and why it needs an operator. A message that does not name a booking is
    /// garbage: the alarm of its queue is raised anyway.
    fn given_up(&self, by: GivenUpBy, message: &str) -> Option<(BookingId, Reason)> {
        let message = (self.read)(message)?;
        let Parked { booking_id, stuck, reason } = Parked::deserialize(&message).ok()?;
        // A newer program may have written it, with a step or a reason that this one does not know.
        let reason = Reason::deserialize(reason).unwrap_or_else(|_| {
            let step = match by {
                Some(participant) => {
                    Envelope::read(&message).ok().and_then(|envelope| step_of(participant, &envelope.event))
                }
                None => Step::deserialize(&stuck[0]["step"]).ok(),
            };
            let who = by.map_or_else(|| "state machine".to_owned(), |by| by.to_string());
            let name = step.map_or_else(|| "a step".to_owned(), |step| step.to_string());
            let detail = format!("{name} was given up; its message is in the dead-letter queue of {who}");
            Reason { step, code: "parked".into(), detail }
        });
        Some((booking_id, reason))
    }

    /// Calls an operator for a booking that is still pending, and returns whether it was.
    async fn call_operator(&self, booking_id: &BookingId, reason: &Reason) -> Result<bool, StepError> {
        let header = self.headers.get(booking_id).await?;
        if header.is_none_or(|header| header.status != Status::Pending) {
            return Ok(false);
        }
        self.park(booking_id, reason).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use saga::{Claim, Owner, PartName, Variant};
    use serde_json::json;
    use store::{ClaimStore, Commit, End, GivenBack, Header, HeaderFound, Record};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{DeadLettersError, ExecutionsError, PublishError};

    /// Stuck bookings whose executions ended long ago.
    struct World {
        /// How long each claim, and each call to Step Functions, takes.
        call: Duration,
        letters: Vec<(GivenUpBy, String)>,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        /// Oldest first. None stands for a header that cannot be read.
        open: Vec<(BookingId, Option<Header>)>,
        parked: Vec<(BookingId, Reason)>,
        started: Vec<BookingId>,
        calls: usize,
        calls_at_once: usize,
    }

    const LIMIT: Duration = Duration::from_secs(60);

    fn id(number: usize) -> BookingId {
        BookingId::try_from(format!("{number:032x}")).unwrap()
    }

    fn header(booking_id: BookingId) -> Header {
        Header {
            booking_id,
            request_digest: "d".into(),
            variant: Variant::Orchestrated,
            status: Status::Pending,
            owner: Owner::of("anonymous"),
            parts: serde_json::from_value(json!({"hotel": {}})).unwrap(),
            total: None,
            reason: None,
            claim: Claim::first(Timestamp::UNIX_EPOCH),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn sorted(bookings: &[BookingId]) -> Vec<BookingId> {
        let mut bookings = bookings.to_vec();
        bookings.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        bookings
    }

    fn parked(number: usize, step: &str) -> (GivenUpBy, String) {
        (None, json!({"booking_id": id(number), "stuck": [{"step": step, "error": "States.Timeout"}]}).to_string())
    }

    impl World {
        fn with_stuck(bookings: usize, call: Duration) -> Self {
            let open = (0..bookings).map(|number| (id(number), Some(header(id(number))))).collect();
            Self { call, letters: Vec::new(), state: Mutex::new(State { open, ..State::default() }) }
        }

        fn state(&self) -> std::sync::MutexGuard<'_, State> {
            self.state.lock().unwrap()
        }

        async fn run(&self) -> Result<Reconciled, StepError> {
            let reconciler = Reconciler {
                headers: self,
                executions: self,
                events: self,
                dead_letters: self,
                read: |message| serde_json::from_str(message).ok(),
                bookings: BookingService { store: self, clock: Timestamp::now },
                max_age: LIMIT,
                pace: Pace { period: 5 * LIMIT, max_drives: 3 },
                clock: Timestamp::now,
            };
            // As Lambda does.
            timeout(LIMIT, reconciler.run(LIMIT)).await.expect("the run ends before Lambda ends it")
        }

        async fn call(&self) {
            {
                let mut state = self.state();
                state.calls += 1;
                state.calls_at_once = state.calls_at_once.max(state.calls);
            }
            sleep(self.call).await;
            self.state().calls -= 1;
        }
    }

    impl HeaderStore for &World {
        async fn get(&self, booking_id: &BookingId) -> Result<Option<Header>, StoreError> {
            match self.state().open.iter().find(|(id, _)| id == booking_id) {
                Some((_, Some(header))) => Ok(Some(header.clone())),
                Some((_, None)) => {
                    Err(StoreError::Corrupt { operation: "reading a booking", cause: "variant durable".into() })
                }
                None => Ok(None),
            }
        }

        async fn open_before(&self, _: Timestamp) -> (Vec<BookingId>, Vec<StoreError>) {
            (self.state().open.iter().map(|(id, _)| id.clone()).collect(), Vec::new())
        }
    }

    impl ClaimStore for &World {
        async fn claim(&self, header: &Header, claim: &Claim, _: Timestamp) -> Result<bool, StoreError> {
            self.call().await;
            let mut state = self.state();
            let found = state.open.iter_mut().find(|(id, _)| *id == header.booking_id);
            found.and_then(|(_, header)| header.as_mut()).unwrap().claim = claim.clone();
            Ok(true)
        }
    }

    impl Executions for &World {
        async fn start(&self, name: &str, _: &str) -> Result<(), ExecutionsError> {
            self.call().await;
            self.state().started.push(BookingId::try_from(name[..32].to_owned()).unwrap());
            Ok(())
        }
    }

    impl EventPublisher for &World {
        async fn publish(&self, _: String) -> Result<(), PublishError> {
            Ok(())
        }
    }

    impl DeadLetters for &World {
        async fn look(&self) -> (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>) {
            (self.letters.clone(), Vec::new())
        }

        async fn park(&self, _: String) -> Result<(), DeadLettersError> {
            panic!("no booking is driven often enough here")
        }
    }

    impl BookingStore for &World {
        async fn collect(&self, _: &BookingId, _: PartName) -> Result<Option<GivenBack>, StoreError> {
            panic!("no part is cancelled here")
        }

        async fn end(&self, record: &Record<'_>, end: &End<'_>) -> Result<Commit<HeaderFound>, StoreError> {
            let mut state = self.state();
            state.open.retain(|(id, _)| id != record.begun.booking_id);
            state.parked.push((record.begun.booking_id.clone(), end.reason.cloned().unwrap()));
            Ok(Commit::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_stuck_bookings_those_that_are_parked_are_marked_in_one_run() {
        let mut world = World::with_stuck(1_024, Duration::from_millis(50));
        let numbers = (0..1_024).step_by(8);
        world.letters = numbers.clone().map(|number| parked(number, "hotel.cancel")).collect();
        let done = world.run().await.unwrap();
        assert_eq!(sorted(&done.parked), numbers.map(id).collect::<Vec<_>>());
        assert_eq!((done.stuck, done.restarted.len(), done.left), (896, 896, 0));
        assert_eq!(world.state().calls_at_once, 16);
        assert!(
            world.state().parked.iter().all(|(_, reason)| reason.step == Some(Step::Cancel(PartName::new("hotel"))))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_no_time_for_is_left_to_the_next_run() {
        let world = World::with_stuck(1_024, Duration::from_secs(2));
        let (mut runs, mut reached) = (0, Vec::new());
        loop {
            let done = world.run().await.unwrap();
            assert_eq!((done.stuck, done.left), (1_024 - reached.len(), 1_024 - reached.len() - done.restarted.len()));
            runs += 1;
            // Sixteen at a time, so in any order among those.
            reached.extend(sorted(&done.restarted));
            if done.left == 0 {
                break;
            }
            assert!(runs < 10, "{} of 1024 are left", done.left);
            let started = world.state().started.clone();
            world.state().open.retain(|(id, _)| !started.contains(id));
        }
        assert!(runs > 1);
        assert_eq!(reached, (0..1_024).map(id).collect::<Vec<_>>(), "the oldest first, and each once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_record_does_not_hold_up_the_others() {
        let mut world = World::with_stuck(8, Duration::from_millis(50));
        for unreadable in [0, 5] {
            world.state().open[unreadable].1 = None;
        }
        world.letters = vec![parked(5, "hotel.cancel"), (None, "garbage".into()), parked(6, "hotel.launder")];
        let error = world.run().await.unwrap_err();
        assert_eq!(error.error_type(), "CorruptRecord");
        assert!(error.to_string().starts_with("2 of the records cannot be read"), "{error}");
        assert!(error.to_string().contains("variant durable"), "{error}");
        assert_eq!(sorted(&world.state().started), [1, 2, 3, 4, 7].map(id));
        let parked = world.state().parked.clone();
        let [(booking, Reason { step: None, detail, .. })] = parked.as_slice() else { panic!("{parked:?}") };
        assert_eq!((booking, detail.split(';').next()), (&id(6), Some("a step was given up")));
    }
}

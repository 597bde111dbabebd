//! What `harmony compare` measures is what happens: work is counted to the piece, and an outage hurts but loses nothing.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf, process, time::Duration};

use comparison::{
    Mode,
    load::{Fate, Load, Travellers},
    local_aws,
    outage::{OutageKind, OutagePlan, measure_outage},
    work::{CountedWork, Unit, WorkLog, count, mean},
};
use jiff::ToSpan;
use local_aws::LocalAws;
use traveller::{Client, trip::today};

struct Metered {
    _aws: LocalAws,
    travellers: Travellers,
    notes: WorkLog,
    path: PathBuf,
}

impl Metered {
    async fn start() -> Self {
        let path = std::env::temp_dir().join(format!("harmony-work-{}.jsonl", process::id()));
        let aws = local_aws("counted-by-a-test", "STANDARD", &[], Some(&path)).unwrap();
        let (stack, first) = (aws.stack(), today().saturating_add(30.days()));
        let travellers = Travellers::of(stack, Client::new(&stack.api_url).unwrap(), first).await.unwrap();
        travellers.seed(stack).await.unwrap();
        let notes = WorkLog::at(&path);
        Self { _aws: aws, travellers, notes, path }
    }

    async fn count(&self, mode: Mode, fate: Fate) -> CountedWork {
        let name = format!("{mode:?}-{fate:?}");
        // The first one starts functions, and may be slow enough for something to be tried again.
        let load = Load::Closed { travellers: 1, bookings: 1 };
        let patience = Duration::from_secs(120);
        let warm_up = format!("{name}-warm-up");
        self.travellers.make(load, mode.variant(), |_| fate, &warm_up, patience, |_| ()).await.unwrap();
        count((mode, fate), (&self.travellers, &self.notes), 2, &name, |_| ()).await.unwrap()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // it is in a folder for what nobody needs
    }
}

type Takes = [(Unit, f64); 6];

/// What each booking takes. A change that adds a call, a message or a state is seen here, and has to be worth it.
const EXPECTED: [(Mode, Fate, Takes); 4] = [
    (
        Mode::Choreographed,
        Fate::Confirmed,
        [
            (Unit::ApiRequests, 1.0),
            (Unit::Transitions, 0.0),
            (Unit::Invocations, 8.0),
            (Unit::Publishes, 6.0),
            (Unit::QueueRequests, 3.0),
            (Unit::WriteUnits, 41.0),
        ],
    ),
    (
        Mode::Choreographed,
        Fate::SoldOut,
        [
            (Unit::ApiRequests, 1.0),
            (Unit::Transitions, 0.0),
            (Unit::Invocations, 13.0),
            (Unit::Publishes, 9.0),
            (Unit::QueueRequests, 18.0),
            (Unit::WriteUnits, 70.0),
        ],
    ),
    (
        Mode::Standard,
        Fate::Confirmed,
        [
            (Unit::ApiRequests, 1.0),
            (Unit::Transitions, 8.0),
            (Unit::Invocations, 6.0),
            (Unit::Publishes, 0.0),
            (Unit::QueueRequests, 0.0),
            (Unit::WriteUnits, 38.0),
        ],
    ),
    (
        Mode::Standard,
        Fate::SoldOut,
        [
            (Unit::ApiRequests, 1.0),
            (Unit::Transitions, 13.0),
            (Unit::Invocations, 9.0),
            (Unit::Publishes, 0.0),
            (Unit::QueueRequests, 0.0),
            (Unit::WriteUnits, 62.0),
        ],
    ),
];

#[tokio::test]
async fn a_booking_takes_exactly_the_work_that_is_known() {
    let metered = Metered::start().await;
    for (mode, fate, expected) in EXPECTED {
        let counted = metered.count(mode, fate).await;
        let work = mean(&counted.each);
        for (unit, expected) in expected {
            // Messages that arrive together share an invocation, and two requests for the batch.
            let fewer = if mode == Mode::Choreographed && fate == Fate::SoldOut {
                match unit {
                    Unit::Invocations => 3.0,
                    Unit::QueueRequests => 6.0,
                    _ => 0.0,
                }
            } else {
                0.0
            };
            let found = work[&unit];
            let fits = (expected - fewer..=expected).contains(&found);
            assert!(fits, "{} of a booking, {}, {}: {found}, not {expected}", unit.name(), mode.name(), fate.name());
        }
        assert!(work[&Unit::BilledMs] > 0.0 && work[&Unit::Kilobytes] > 0.0 && work[&Unit::LoggedKilobytes] > 0.0);
        assert!(counted.fastest.iter().any(|note| note.kind == "invocation"), "no timeline");
    }
}

#[tokio::test]
async fn an_outage_of_the_state_machine_delays_bookings_and_loses_none() {
    let plan = OutagePlan {
        rate: 2.0,
        before: Duration::from_secs(2),
        outage: Duration::from_secs(4),
        after: Duration::from_secs(2),
        patience: Duration::from_secs(240),
        reconcile_after: Duration::from_secs(60),
    };
    let suffered = measure_outage(Mode::Express, OutageKind::Stopped, plan, |_| ()).await.unwrap();
    assert_eq!((suffered.asked, suffered.lost()), (16, 0), "a booking is missing");
    let hit = suffered.points.iter().filter(|point| (2.5..5.5).contains(&point.due));
    let unhurt = hit.filter(|point| point.confirmed && point.ended - point.due < 0.5).count();
    assert_eq!(unhurt, 0, "the outage was none: {suffered:?}");
    assert!(suffered.points.first().unwrap().confirmed, "all was well before: {suffered:?}");
    assert!(suffered.violations.is_empty(), "{:?}", suffered.violations);
}

//! Outages: what happens to bookings while the coordinator is out of order, and afterwards.
//!
//! For a while the local AWS refuses a share of the coordinator's requests: the invocations by the state machine, or
//! what programs and destinations publish to the topic. Refusing all of them is like a role that has lost its
//! permissions; refusing some is like throttling. Bookings are requested all the time, and afterwards the tables are
//! audited.

use std::time::Duration;

use jiff::Timestamp;
use saga::Status;
use serde::Serialize;

use super::{ComparisonError, Mode, local_aws, violations};
use crate::load::{EndedBooking, Fate, Load, LoadResult, Travellers};
use local_aws::LocalAws;
use traveller::{Client, trip::today};

/// The kind of outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    /// Four of five requests are throttled.
    Throttled,
    /// All requests are denied.
    Stopped,
}

impl OutageKind {
    pub const ALL: [Self; 2] = [Self::Throttled, Self::Stopped];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "4 of 5 requests throttled",
            Self::Stopped => "all requests denied",
        }
    }

    const fn order(self) -> (f64, &'static str) {
        match self {
            Self::Throttled => (0.8, "throttle"),
            Self::Stopped => (1.0, "denial"),
        }
    }
}

/// The schedule of an outage, from the first request on.
#[derive(Clone, Copy, Debug)]
pub struct OutagePlan {
    /// Bookings per second.
    pub rate: f64,
    /// How long everything works first.
    pub before: Duration,
    pub outage: Duration,
    /// How long bookings are requested afterwards.
    pub after: Duration,
    /// How long bookings may take to end.
    pub patience: Duration,
    /// The age from which the reconciler drives a booking again. The template's default is ten minutes.
    pub reconcile_after: Duration,
}

impl OutagePlan {
    fn lasting(&self) -> Duration {
        self.before + self.outage + self.after
    }
}

/// A booking on the time line of an outage, in seconds from the first request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OutagePoint {
    /// When it was requested.
    pub due: f64,
    /// When it had ended.
    pub ended: f64,
    pub confirmed: bool,
}

/// The result of an outage.
#[derive(Clone, Debug, Serialize)]
pub struct OutageResult {
    pub mode: Mode,
    pub kind: OutageKind,
    /// Start and end, in seconds from the first request.
    pub outage: (f64, f64),
    /// How many bookings were requested.
    pub asked: usize,
    /// All bookings that ended, ordered by when they were due. As far as their travellers are concerned, all can be
    /// confirmed.
    pub points: Vec<OutagePoint>,
    /// How many requests had to be repeated before they were accepted.
    pub repeated: usize,
    /// The violations that the audit found.
    pub violations: Vec<String>,
}

impl OutageResult {
    /// The maximum duration of a booking without an outage, in seconds, with a margin.
    const LATE: f64 = 2.0;

    /// How many bookings took longer than they do without an outage.
    pub fn delayed(&self) -> usize {
        self.points.iter().filter(|point| point.ended - point.due > Self::LATE).count()
    }

    /// How many bookings did not end.
    pub fn lost(&self) -> usize {
        self.asked.saturating_sub(self.points.len())
    }

    /// How many bookings failed, with everything given back, because of the outage.
    pub fn failed(&self) -> usize {
        self.points.iter().filter(|point| !point.confirmed).count()
    }

    /// Seconds from the end of the outage until all bookings that were requested before it ended had ended.
    pub fn recovery(&self) -> f64 {
        let before = self.points.iter().filter(|point| point.due < self.outage.1);
        before.map(|point| point.ended - self.outage.1).fold(0.0, f64::max)
    }

    /// The longest duration of a booking, in seconds.
    pub fn longest(&self) -> f64 {
        self.points.iter().map(|point| point.ended - point.due).fold(0.0, f64::max)
    }
}

/// Measures one outage in one mode, on a local AWS of its own. A booking that does not end at all is an error.
pub async fn measure_outage(
    mode: Mode,
    kind: OutageKind,
    plan: OutagePlan,
    made: impl Fn(usize),
) -> Result<OutageResult, ComparisonError> {
    let name = format!("outage-{mode:?}-{kind:?}").to_lowercase();
    let age = plan.reconcile_after.as_secs().to_string();
    // Others may be running, and starting one takes a while.
    let start = move || local_aws(&name, mode.workflow_type(), &[("PendingMaxAgeSeconds", &age)], None);
    let started = tokio::task::spawn_blocking(start).await;
    let mut aws = started.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    let stack = aws.stack().clone();
    let travellers = Travellers::of(&stack, Client::new(&stack.api_url)?, today()).await?;
    travellers.seed(&stack).await?;
    let warm_up = Load::Closed { travellers: 4, bookings: 12 };
    let make = async |load, name: &str, made: &dyn Fn(usize)| {
        travellers.make(load, mode.variant(), |_| Fate::Confirmed, name, plan.patience, made).await
    };
    make(warm_up, "warm-up", &|_| ()).await?;

    let load = Load::Open { rate: plan.rate, lasting: plan.lasting() };
    let (measured, orders) = tokio::join!(make(load, "outage", &made), order(&mut aws, kind, plan));
    let (from, to) = orders?;
    let violations = violations(&stack).await?;
    let asked = (plan.rate * plan.lasting().as_secs_f64()) as usize; // as the load counts them
    Ok(OutageResult { asked, ..outage_result(mode, kind, (from, to), &measured?, violations) })
}

/// Starts and ends the outage; returns when that was.
async fn order(
    aws: &mut LocalAws,
    kind: OutageKind,
    plan: OutagePlan,
) -> Result<(Timestamp, Timestamp), ComparisonError> {
    let (share, how) = kind.order();
    tokio::time::sleep(plan.before).await;
    aws.refuse(share, how).map_err(ComparisonError::Order)?;
    let from = Timestamp::now();
    tokio::time::sleep(plan.outage).await;
    aws.refuse(0.0, how).map_err(ComparisonError::Order)?;
    Ok((from, Timestamp::now()))
}

fn outage_result(
    mode: Mode,
    kind: OutageKind,
    (from, to): (Timestamp, Timestamp),
    measured: &LoadResult,
    violations: Vec<String>,
) -> OutageResult {
    let first = measured.bookings.iter().map(|booking| booking.due).min().unwrap_or(from);
    let since = |at: Timestamp| at.duration_since(first).as_secs_f64();
    let point = |booking: &EndedBooking| OutagePoint {
        due: since(booking.due),
        ended: since(booking.due) + booking.took().as_secs_f64(),
        confirmed: booking.status == Status::Confirmed,
    };
    let mut points: Vec<_> = measured.bookings.iter().map(point).collect();
    points.sort_by(|one, other| one.due.total_cmp(&other.due));
    OutageResult {
        mode,
        kind,
        outage: (since(from), since(to)),
        asked: points.len(),
        points,
        repeated: measured.repeated,
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_count_for_bookings_and_recovery_from_the_end_of_the_outage() {
        let point = |due, ended, confirmed| OutagePoint { due, ended, confirmed };
        let points = vec![
            point(1.0, 1.2, true),
            point(12.0, 45.0, true),
            point(15.0, 30.0, false),
            point(25.0, 25.1, true),
            point(26.0, 90.0, true), // requested after the outage
        ];
        let (mode, kind) = (Mode::Choreographed, OutageKind::Stopped);
        let result =
            OutageResult { mode, kind, outage: (10.0, 20.0), asked: 6, points, repeated: 0, violations: Vec::new() };
        assert_eq!((result.delayed(), result.failed(), result.lost()), (3, 1, 1));
        assert!((result.recovery() - 25.0).abs() < 1e-9);
        assert!((result.longest() - 64.0).abs() < 1e-9);
    }
}

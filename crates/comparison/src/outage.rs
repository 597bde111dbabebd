//! Outages: what becomes of bookings while the coordinator is out of order, and after.
//!
//! For a while the local AWS refuses a share of what the coordinator does: the invocations by the state machine, or the
//! publishes to the topic, by programs and by destinations. All at once it is as if the role had lost its permissions; a
//! part of them as a throttle does. Bookings go on being asked for all the time, and then the tables are audited.

use std::time::Duration;

use jiff::Timestamp;
use saga::Status;
use serde::Serialize;

use super::{ComparisonError, Mode, local_aws, violations};
use crate::load::{Ended, Fate, Load, Measured, Travellers};
use local_aws::LocalAws;
use traveller::{Client, trip::today};

/// How the coordinator is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Four of five of its requests are throttled.
    Throttled,
    /// All of its requests are denied.
    Stopped,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Throttled, Self::Stopped];

    /// In a few words.
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

/// When what happens, from the first request on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bookings a second.
    pub rate: f64,
    /// How long all is well.
    pub before: Duration,
    /// How long the outage lasts.
    pub outage: Duration,
    /// How long bookings are asked for afterwards.
    pub after: Duration,
    /// How long bookings may take to end.
    pub patience: Duration,
    /// The age at which the reconciler takes up a booking. The template's default is ten minutes.
    pub reconcile_after: Duration,
}

impl Plan {
    fn lasting(&self) -> Duration {
        self.before + self.outage + self.after
    }
}

/// A booking on the time line of an outage; seconds from the first request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// When it was asked for.
    pub due: f64,
    /// When it had ended.
    pub ended: f64,
    /// Whether it was confirmed.
    pub confirmed: bool,
}

/// What bookings went through.
#[derive(Clone, Debug, Serialize)]
pub struct Suffered {
    /// Who coordinates.
    pub mode: Mode,
    /// What was wrong.
    pub kind: Kind,
    /// From when to when, in seconds from the first request.
    pub outage: (f64, f64),
    /// How many bookings were asked for.
    pub asked: usize,
    /// All bookings that ended, by when they were due. All are to be confirmed, as far as it lies with the traveller.
    pub points: Vec<Point>,
    /// Requests that had to be sent again before they were accepted.
    pub repeated: usize,
    /// Violations that the audit found.
    pub violations: Vec<String>,
}

impl Suffered {
    /// How long a booking takes at the most when all is well, in seconds, with room to spare.
    const LATE: f64 = 2.0;

    /// Bookings that took longer than they do when all is well.
    pub fn delayed(&self) -> usize {
        self.points.iter().filter(|point| point.ended - point.due > Self::LATE).count()
    }

    /// Bookings that did not end.
    pub fn lost(&self) -> usize {
        self.asked.saturating_sub(self.points.len())
    }

    /// Bookings that failed, with all given back, because the coordinator was out of order.
    pub fn failed(&self) -> usize {
        self.points.iter().filter(|point| !point.confirmed).count()
    }

    /// Seconds from the end of the outage until all bookings that were asked for by then had ended.
    pub fn recovery(&self) -> f64 {
        let before = self.points.iter().filter(|point| point.due < self.outage.1);
        before.map(|point| point.ended - self.outage.1).fold(0.0, f64::max)
    }

    /// The longest that a booking took, in seconds.
    pub fn longest(&self) -> f64 {
        self.points.iter().map(|point| point.ended - point.due).fold(0.0, f64::max)
    }
}

/// Lets one mode go through one outage, on a local AWS of its own. A booking that does not end at all is an error.
pub async fn suffer(mode: Mode, kind: Kind, plan: Plan, tell: impl Fn(usize)) -> Result<Suffered, ComparisonError> {
    let name = format!("outage-{mode:?}-{kind:?}").to_lowercase();
    let age = plan.reconcile_after.as_secs().to_string();
    // Others may be under way, and to start one takes a while.
    let start = move || local_aws(&name, mode.workflow_type(), &[("PendingMaxAgeSeconds", &age)], None);
    let started = tokio::task::spawn_blocking(start).await;
    let mut aws = started.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    let stack = aws.stack().clone();
    let travellers = Travellers::of(&stack, Client::new(&stack.api_url)?, today()).await?;
    travellers.seed(&stack).await?;
    let warm_up = Load::Closed { travellers: 4, bookings: 12 };
    let make = async |load, name: &str, tell: &dyn Fn(usize)| {
        travellers.make(load, mode.variant(), |_| Fate::Confirmed, name, plan.patience, tell).await
    };
    make(warm_up, "warm-up", &|_| ()).await?;

    let load = Load::Open { rate: plan.rate, lasting: plan.lasting() };
    let (measured, orders) = tokio::join!(make(load, "outage", &tell), order(&mut aws, kind, plan));
    let (from, to) = orders?;
    let violations = violations(&stack).await?;
    let asked = (plan.rate * plan.lasting().as_secs_f64()) as usize; // as the load counts them
    Ok(Suffered { asked, ..suffered(mode, kind, (from, to), &measured?, violations) })
}

/// Orders the outage and ends it, and says when that was.
async fn order(aws: &mut LocalAws, kind: Kind, plan: Plan) -> Result<(Timestamp, Timestamp), ComparisonError> {
    let (share, how) = kind.order();
    tokio::time::sleep(plan.before).await;
    aws.refuse(share, how).map_err(ComparisonError::Order)?;
    let from = Timestamp::now();
    tokio::time::sleep(plan.outage).await;
    aws.refuse(0.0, how).map_err(ComparisonError::Order)?;
    Ok((from, Timestamp::now()))
}

fn suffered(
    mode: Mode,
    kind: Kind,
    (from, to): (Timestamp, Timestamp),
    measured: &Measured,
    violations: Vec<String>,
) -> Suffered {
    let first = measured.bookings.iter().map(|booking| booking.due).min().unwrap_or(from);
    let since = |at: Timestamp| at.duration_since(first).as_secs_f64();
    let point = |booking: &Ended| Point {
        due: since(booking.due),
        ended: since(booking.due) + booking.took().as_secs_f64(),
        confirmed: booking.status == Status::Confirmed,
    };
    let mut points: Vec<_> = measured.bookings.iter().map(point).collect();
    points.sort_by(|one, other| one.due.total_cmp(&other.due));
    Suffered {
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
        let point = |due, ended, confirmed| Point { due, ended, confirmed };
        let points = vec![
            point(1.0, 1.2, true),
            point(12.0, 45.0, true),
            point(15.0, 30.0, false),
            point(25.0, 25.1, true),
            point(26.0, 90.0, true), // asked for after the outage
        ];
        let (mode, kind) = (Mode::Choreographed, Kind::Stopped);
        let suffered =
            Suffered { mode, kind, outage: (10.0, 20.0), asked: 6, points, repeated: 0, violations: Vec::new() };
        assert_eq!((suffered.delayed(), suffered.failed(), suffered.lost()), (3, 1, 1));
        assert!((suffered.recovery() - 25.0).abs() < 1e-9);
        assert!((suffered.longest() - 64.0).abs() < 1e-9);
    }
}

//! The reconciler: drives bookings again that should have ended. Every step is safe to repeat, so to start over is
//! always right.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use store::{Header, HeaderStore};

use crate::{Clock, Executions, ExecutionsError, Started, StepError, api::execution_input};

/// Finds what is stuck and starts it again.
#[derive(Debug)]
pub struct Reconciler<H, E> {
    /// The headers.
    pub headers: H,
    /// The state machine.
    pub executions: E,
    /// How old a booking may be before it is stuck.
    pub max_age: Duration,
    /// Its clock.
    pub clock: Clock,
}

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Bookings that were found open for too long.
    pub stuck: usize,
    /// Those of them that were started again.
    pub restarted: Vec<String>,
}

impl<H: HeaderStore, E: Executions> Reconciler<H, E> {
    /// One run over everything that is stuck. What cannot be started again does not keep the others from it: it is
    /// logged, and tried again in the next run.
    pub async fn run(&self) -> Result<Reconciled, StepError> {
        let now = (self.clock)();
        let mut done = Reconciled::default();
        let mut failure = None;
        for header in self.headers.open_before(now - self.max_age).await? {
            done.stuck += 1;
            let booking_id = header.booking_id.as_str();
            match self.drive(&header, now).await {
                Ok(Started::Now) => {
                    tracing::warn!(booking_id, created_at = %header.created_at, "stuck booking started again");
                    done.restarted.push(booking_id.to_owned());
                }
                Ok(Started::Before) => {}
                Err(error) => {
                    tracing::error!(booking_id, %error, "stuck booking could not be started again");
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(done), |error| Err(error.into())) // the alarm is on this function's errors
    }

    async fn drive(&self, header: &Header, now: Timestamp) -> Result<Started, ExecutionsError> {
        let name = header.booking_id.as_str();
        let input = execution_input(header);
        let started = self.executions.start(name, &input).await?;
        if started == Started::Now || self.executions.is_running(name).await? {
            return Ok(started);
        }
        // It ran and ended without ending the booking. Names are used once, so the next one is made of the time, in
        // steps of the age at which a booking counts as stuck: at most one new start in each.
        let period = now.as_second() / i64::try_from(self.max_age.as_secs().max(1)).unwrap_or(i64::MAX);
        self.executions.start(&format!("{name}-{period}"), &input).await
    }
}

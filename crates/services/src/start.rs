//! Starting a booking, for the first time or again: once per [`Claim`].

use jiff::Timestamp;
use saga::{Claim, Envelope, Status, Variant};
use serde_json::json;
use store::{ClaimStore, Header};

use crate::{EventPublisher, Executions, StepError};

/// What is needed to start bookings, for the API and the reconciler.
pub(crate) struct Starter<'a, C, E, P> {
    pub(crate) claims: &'a C,
    pub(crate) executions: &'a E,
    pub(crate) events: &'a P,
}

impl<C: ClaimStore, E: Executions, P: EventPublisher> Starter<'_, C, E, P> {
    /// Takes this claim on the booking and starts it; returns whether it did. If not, the header is outdated: another
    /// worker has claimed the booking, or it has ended.
    pub(crate) async fn claim_and_start(
        &self,
        header: &Header,
        claim: Claim,
        now: Timestamp,
        trace: Option<String>,
    ) -> Result<bool, StepError> {
        if !self.claims.claim(header, &claim, now).await? {
            return Ok(false);
        }
        self.start(&Header { status: Status::Pending, claim, ..header.clone() }, now, trace).await?;
        Ok(true)
    }

    /// Starts the booking, whose header holds the claim. If the start is refused the claim is released, so that the
    /// next one starts immediately. If there is no answer the booking may be under way, so the claim stays.
    pub(crate) async fn start(&self, header: &Header, now: Timestamp, trace: Option<String>) -> Result<(), StepError> {
        let (error, is_refused) = match header.variant {
            Variant::Orchestrated => {
                let name = header.claim.execution_name(&header.booking_id);
                match self.executions.start(&name, &execution_input(header)).await {
                    Ok(()) => return Ok(()),
                    Err(error) => (StepError::from(error.clone()), error.is_refused),
                }
            }
            Variant::Choreographed => {
                // Every participant repeats its recorded outcome and continues from there.
                let requested = Envelope::requested(header.booking_id.clone(), header.plan(), now, trace);
                match self.events.publish(crate::json(&requested)).await {
                    Ok(()) => return Ok(()),
                    Err(error) => (StepError::from(error.clone()), error.is_refused),
                }
            }
        };
        if is_refused && let Err(error) = self.claims.claim(header, &header.claim.released(), now).await {
            let booking_id = header.booking_id.as_str();
            tracing::error!(booking_id, %error, "a claim could not be released; the booking is started once its period is over");
        }
        Err(error)
    }
}

/// The input of an execution: everything that the booking's steps need, and no personal data.
fn execution_input(header: &Header) -> String {
    let mut input = json!(header.plan());
    input["booking_id"] = json!(header.booking_id);
    input.to_string()
}

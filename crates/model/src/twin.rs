use crate::{Budget, Faults, Variant};

/// The saga with one safeguard taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Twin {
    /// A cancel that finds nothing to cancel leaves nothing behind.
    NoTombstone,
    /// Stock is taken in one write, and the journal written in another.
    EffectAndRecordApart,
    /// Parts are cancelled on any failure that is reported, without asking payment.
    CancelWithoutDecision,
    /// A charge is completed whatever payment has decided meanwhile.
    ChargeWithoutGuard,
    /// An abort is recorded whatever payment has decided meanwhile.
    AbortWithoutGuard,
    /// *Aborted* is published when the fence stands, and the provider is told afterwards.
    PublishThenVoid,
    /// Each attempt at the charge is another payment for the provider.
    NewReferencePerAttempt,
    /// Payment charges when the first part is reserved.
    ChargeAtFirst,
    /// Payment charges after as many `*.reserved` as the plan has parts: one that comes twice counts twice.
    ChargeByCount,
    /// Booking fails after as many `*.cancelled` as the plan has parts: one that comes twice counts twice.
    FailByCount,
    /// Payment is not told which parts the plan has. Choreographed: it was built before there was the last part, and charges
    /// when it knows the prices of the others. Orchestrated: the state machine does not look whether all parts are reserved
    /// and asks for a charge of those that are, and payment takes what it is told for all.
    ChargeWithoutNames,
    /// The state machine does not look whether all parts are reserved and asks for a charge of those that are. Payment is
    /// told which parts the plan has, and refuses.
    ChargeWithoutLooking,
    /// A message is acknowledged before what it leads to is published.
    AcknowledgeThenPublish,
    /// Nobody looks after bookings that are stuck.
    NoReconciler,
}

impl Twin {
    /// All that must break something.
    pub const ALL: [Self; 13] = [
        Self::NoTombstone,
        Self::EffectAndRecordApart,
        Self::CancelWithoutDecision,
        Self::ChargeWithoutGuard,
        Self::AbortWithoutGuard,
        Self::PublishThenVoid,
        Self::NewReferencePerAttempt,
        Self::ChargeAtFirst,
        Self::ChargeByCount,
        Self::FailByCount,
        Self::ChargeWithoutNames,
        Self::AcknowledgeThenPublish,
        Self::NoReconciler,
    ];

    /// A world that is bad enough to show what is missing.
    pub const fn world(self) -> Faults {
        match self {
            // The reconciler repairs this too; so here it does not come.
            Self::AcknowledgeThenPublish => Faults::Bounded(Budget { deaths: 1, ..Budget::NOTHING }),
            Self::NoReconciler => Faults::Bounded(Budget { losses: 1, deaths: 1, drives: 2, ..Budget::NOTHING }),
            _ => Faults::Unbounded,
        }
    }

    /// Whether there is such a safeguard in this variant. Step Functions publishes nothing, and waits by itself for one reply
    /// of each part.
    pub const fn is_of(self, variant: Variant) -> bool {
        let is_of_events = matches!(
            self,
            Self::AcknowledgeThenPublish | Self::ChargeAtFirst | Self::ChargeByCount | Self::FailByCount
        );
        match variant {
            Variant::Choreographed => !matches!(self, Self::ChargeWithoutLooking),
            Variant::Orchestrated(_) => !is_of_events,
        }
    }
}

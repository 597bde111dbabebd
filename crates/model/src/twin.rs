use crate::{Budget, Faults};

/// The saga with one safeguard taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Twin {
    /// A cancel that finds nothing to cancel leaves nothing behind.
    NoTombstone,
    /// Stock is taken in one write, and the journal written in another.
    EffectAndRecordApart,
    /// Legs are cancelled on any failure that is reported, without asking payment.
    CancelWithoutDecision,
    /// A charge is completed whatever payment has decided meanwhile.
    ChargeWithoutGuard,
    /// An abort is recorded whatever payment has decided meanwhile.
    AbortWithoutGuard,
    /// *Aborted* is said when the fence stands, and the provider is told afterwards.
    SayThenVoid,
    /// Each attempt at the charge is another payment for the provider.
    NewReferencePerAttempt,
    /// Payment charges when the first leg is reserved.
    ChargeAtFirst,
    /// A message is acknowledged before what it leads to is published.
    AcknowledgeThenPublish,
    /// Nobody looks after bookings that are stuck.
    NoReconciler,
}

impl Twin {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoTombstone,
        Self::EffectAndRecordApart,
        Self::CancelWithoutDecision,
        Self::ChargeWithoutGuard,
        Self::AbortWithoutGuard,
        Self::SayThenVoid,
        Self::NewReferencePerAttempt,
        Self::ChargeAtFirst,
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

    /// Whether there is such a safeguard where Step Functions coordinates: it publishes nothing, and waits for three
    /// replies by itself.
    pub const fn is_of_orchestration(self) -> bool {
        !matches!(self, Self::AcknowledgeThenPublish | Self::ChargeAtFirst)
    }
}

//! Technical errors. They exist to be retried: a business rejection is an outcome.

use saga::{Status, Step};
use store::StoreError;

use crate::{DeadLettersError, ExecutionsError, ProviderError, PublishError};

/// Why a step has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The command or event cannot be carried out, however often it is sent.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// The store did not answer, or has an item that cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Some of many records cannot be read. The others were processed.
    #[error(
        "{count} of the records cannot be read and were passed over; the log names them; the first: {first}; deploy the \
         program that wrote them, or correct them"
    )]
    Unreadable {
        /// The number of such records.
        count: usize,
        /// One of them, and why it cannot be read.
        first: String,
    },
    /// The payment provider did not answer.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Another worker holds the lease on this charge.
    #[error("another worker is charging this booking; try again when its lease has ended")]
    ChargeInProgress,
    /// Other workers kept changing the booking while a decision was made on it.
    #[error("{0} could not be decided, because other workers kept changing this booking; try again")]
    Undecided(Step),
    /// The booking has the opposite end, or does not exist.
    #[error("{step} contradicts what is recorded (status {status:?}); an operator has to look at this booking")]
    Contradiction {
        /// The step that was to be carried out.
        step: Step,
        /// The recorded status; none if there is no such booking.
        status: Option<Status>,
    },
    /// The state machine could not be reached, or refused.
    #[error(transparent)]
    Executions(#[from] ExecutionsError),
    /// The topic could not be reached, or refused.
    #[error(transparent)]
    Events(#[from] PublishError),
    /// The dead-letter queues could not be reached, or refused.
    #[error(transparent)]
    DeadLetters(#[from] DeadLettersError),
}

/// The kinds of technical error, with the names that callers see and that `Retry` and `Catch` can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// See [`StepError::InvalidInput`].
    InvalidInput,
    /// See [`StoreError::Corrupt`] and [`StepError::Unreadable`].
    CorruptRecord,
    /// See [`StepError::Contradiction`].
    Contradiction,
    /// See [`StoreError::Contention`] and [`StepError::Undecided`].
    StoreContention,
    /// See [`StoreError::Unavailable`].
    StoreUnavailable,
    /// See [`ProviderError`].
    ProviderUnavailable,
    /// See [`StepError::ChargeInProgress`].
    ChargeInProgress,
    /// See [`ExecutionsError`].
    ExecutionsUnavailable,
    /// See [`PublishError`].
    EventsUnavailable,
    /// See [`DeadLettersError`].
    DeadLettersUnavailable,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::InvalidInput,
        Self::CorruptRecord,
        Self::Contradiction,
        Self::StoreContention,
        Self::StoreUnavailable,
        Self::ProviderUnavailable,
        Self::ChargeInProgress,
        Self::ExecutionsUnavailable,
        Self::EventsUnavailable,
        Self::DeadLettersUnavailable,
    ];

    /// The error type that a function reports to Lambda.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "InvalidInput",
            Self::CorruptRecord => "CorruptRecord",
            Self::Contradiction => "Contradiction",
            Self::StoreContention => "StoreContention",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::ProviderUnavailable => "ProviderUnavailable",
            Self::ChargeInProgress => "ChargeInProgress",
            Self::ExecutionsUnavailable => "ExecutionsUnavailable",
            Self::EventsUnavailable => "EventsUnavailable",
            Self::DeadLettersUnavailable => "DeadLettersUnavailable",
        }
    }

    /// Whether repeating the same request can help.
    pub const fn is_retriable(self) -> bool {
        !matches!(self, Self::InvalidInput | Self::CorruptRecord | Self::Contradiction)
    }
}

impl StepError {
    /// The kind of this error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidInput(_) => ErrorKind::InvalidInput,
            Self::Store(StoreError::Corrupt { .. }) | Self::Unreadable { .. } => ErrorKind::CorruptRecord,
            Self::Contradiction { .. } => ErrorKind::Contradiction,
            Self::Store(StoreError::Contention { .. }) | Self::Undecided(_) => ErrorKind::StoreContention,
            Self::Store(StoreError::Unavailable { .. }) => ErrorKind::StoreUnavailable,
            Self::Provider(_) => ErrorKind::ProviderUnavailable,
            Self::ChargeInProgress => ErrorKind::ChargeInProgress,
            Self::Executions(_) => ErrorKind::ExecutionsUnavailable,
            Self::Events(_) => ErrorKind::EventsUnavailable,
            Self::DeadLetters(_) => ErrorKind::DeadLettersUnavailable,
        }
    }

    /// The error type that a function reports to Lambda.
    pub const fn error_type(&self) -> &'static str {
        self.kind().name()
    }
}

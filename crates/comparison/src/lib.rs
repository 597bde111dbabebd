//! Orchestration or choreography: what is different, in figures.
//!
//! ```text
//!   load ──────▶ how long bookings take, and how many there can be
//!   work ──────▶ what is done for each booking, counted ──▶ costs: what that costs, and what limits it
//!   outage ────▶ what becomes of bookings while the coordinator is out of order
//!   explanation ▶ how many questions it takes to find out why a booking failed
//!                                                    all ──▶ report: a page with plots, and Markdown
//! ```

pub mod costs;
pub mod explanation;
pub mod load;
pub mod outage;
pub mod plots;
pub mod report;
pub mod work;

use std::path::Path;

use jiff::Timestamp;
use saga::Variant;
use serde::Serialize;

use crate::load::TravellersError;
use costs::CostsError;
use local_aws::{LocalAws, LocalError, Stack, StackError, checkout::root, local};
use operator::audit::{
    Audit, Ends,
    whole::{AuditError, Finding, Reading},
};
use traveller::ClientError;
use work::WorkError;

/// Why something could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// There is no local AWS to measure on.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The stack is not this project's.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Bookings were not made, or did not end.
    #[error(transparent)]
    Travellers(#[from] TravellersError),
    /// An answer did not come.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The work cannot be counted.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// It has no price.
    #[error(transparent)]
    Costs(#[from] CostsError),
    /// The tables cannot be audited.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The local AWS ended.
    #[error("the local AWS took no order, as it has ended: {0}; see its log in .harmony")]
    Order(std::io::Error),
    /// The local AWS said something else than AWS does.
    #[error("the local AWS answered {asked} with {answer}: its log in .harmony may say more")]
    Refused {
        /// What was asked.
        asked: String,
        /// What it said.
        answer: String,
    },
    /// Only a local AWS is broken on purpose.
    #[error("outages and explanations need a local AWS")]
    NotLocal,
    /// A plot cannot be drawn.
    #[error("a plot cannot be drawn: {0}")]
    Plot(String),
}

/// A way to carry bookings out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By events.
    Choreographed,
    /// By a state machine of type STANDARD.
    Standard,
    /// By a state machine of type EXPRESS.
    Express,
}

impl Mode {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Choreographed, Self::Standard, Self::Express];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Choreographed => "choreographed",
            Self::Standard => "orchestrated, STANDARD",
            Self::Express => "orchestrated, EXPRESS",
        }
    }

    /// Who coordinates.
    pub const fn variant(self) -> Variant {
        match self {
            Self::Choreographed => Variant::Choreographed,
            Self::Standard | Self::Express => Variant::Orchestrated,
        }
    }

    /// The template's `WorkflowType`. The choreographed variant uses no workflow, whatever its type.
    pub const fn workflow_type(self) -> &'static str {
        match self {
            Self::Choreographed | Self::Standard => "STANDARD",
            Self::Express => "EXPRESS",
        }
    }
}

/// Starts a local AWS to measure on, with a log in `.harmony`. `work` is for a note of each piece of its work.
pub fn local_aws(
    name: &str,
    workflow_type: &str,
    parameters: &[(&str, &str)],
    work: Option<&Path>,
) -> Result<LocalAws, LocalError> {
    let always = [("WorkflowType", workflow_type), ("ApiRateLimit", "10000"), ("ApiBurstLimit", "5000")];
    let parameters = always.iter().chain(parameters).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LocalAws::start(local::Options {
        stack_name: name.into(),
        parameters: parameters.collect(),
        log: Some(root()?.join(format!(".harmony/{name}.log"))),
        work: work.map(Path::to_owned),
        ..local::Options::default()
    })
}

/// The violations that an audit of everything finds, once all bookings have ended.
pub async fn violations(stack: &Stack) -> Result<Vec<String>, ComparisonError> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let reading = Reading {
        ends: Ends { of_before: Timestamp::MAX, may_be_parked: true },
        is_at_rest: true,
        journal_since: Timestamp::now().saturating_sub(stack.journal_retention()?).unwrap_or(Timestamp::MIN),
        page: None,
        charges: Reading::CHARGES,
    };
    let mut found = Vec::new();
    let tell = |finding: Finding<'_>| -> Result<(), ComparisonError> {
        match finding {
            Finding::Wrong(violations, _) => found.extend(violations.iter().map(|violation| format!("{violation:?}"))),
            Finding::InMotion(line) => found.push(format!("{line} is in motion")),
        }
        Ok(())
    };
    audit.whole(reading, tell, |_| ()).await?;
    Ok(found)
}

//! Orchestration or choreography: the differences, in figures.
//!
//! ```text
//!   load ──────▶ latency and throughput of bookings
//!   work ──────▶ the work done for each booking, counted ──▶ costs: its price, and its limits
//!   outage ────▶ what happens to bookings while the coordinator is out of order
//!   explanation ▶ how many queries it takes to find out why a booking failed
//!                                                    all ──▶ report: a page with plots, and Markdown
//! ```

#![allow(missing_docs)] // docs where a contract is

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
    Audit, Deadline,
    whole::{AuditError, AuditOptions, Finding},
};
use traveller::ClientError;
use work::WorkError;

/// Why something could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// There is no local AWS to measure on.
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Bookings were not made, or did not end.
    #[error(transparent)]
    Travellers(#[from] TravellersError),
    /// A request was not answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The work has no price.
    #[error(transparent)]
    Costs(#[from] CostsError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The local AWS has ended.
    #[error("the local AWS has ended, and cannot be given an outage: {0}; see its log in .harmony")]
    Order(std::io::Error),
    /// The local AWS answered differently than AWS does.
    #[error("the local AWS answered {asked} with {answer}: its log in .harmony may say more")]
    Refused {
        /// The request.
        asked: String,
        answer: String,
    },
    /// Only a local AWS is broken on purpose.
    #[error("outages and explanations need a local AWS")]
    NotLocal,
    #[error("a plot cannot be drawn: {0}")]
    Plot(String),
}

/// A way to coordinate bookings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Events.
    Choreographed,
    /// A state machine of type STANDARD.
    Standard,
    /// A state machine of type EXPRESS.
    Express,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Choreographed, Self::Standard, Self::Express];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Choreographed => "choreographed",
            Self::Standard => "orchestrated, STANDARD",
            Self::Express => "orchestrated, EXPRESS",
        }
    }

    pub const fn variant(self) -> Variant {
        match self {
            Self::Choreographed => Variant::Choreographed,
            Self::Standard | Self::Express => Variant::Orchestrated,
        }
    }

    /// The template's `WorkflowType`. The choreographed variant does not use the workflow, whatever its type.
    pub const fn workflow_type(self) -> &'static str {
        match self {
            Self::Choreographed | Self::Standard => "STANDARD",
            Self::Express => "EXPRESS",
        }
    }
}

/// Starts a local AWS to measure on, with a log in `.harmony`. It records each piece of its work in `work`.
pub fn local_aws(
    name: &str,
    workflow_type: &str,
    parameters: &[(&str, &str)],
    work: Option<&Path>,
) -> Result<LocalAws, LocalError> {
    let always = [("WorkflowType", workflow_type), ("ApiRateLimit", "10000"), ("ApiBurstLimit", "5000")];
    let parameters = always.iter().chain(parameters).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LocalAws::start(local::LocalAwsOptions {
        stack_name: name.into(),
        parameters: parameters.collect(),
        log: Some(root()?.join(format!(".harmony/{name}.log"))),
        work: work.map(Path::to_owned),
        ..local::LocalAwsOptions::default()
    })
}

/// The violations found by an audit of everything, once all bookings have ended.
pub async fn violations(stack: &Stack) -> Result<Vec<String>, ComparisonError> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let reading = AuditOptions {
        deadline: Deadline { accepted_before: Timestamp::MAX, may_need_operator: true },
        is_at_rest: true,
        journal_since: Timestamp::now().saturating_sub(stack.journal_retention()?).unwrap_or(Timestamp::MIN),
        page: None,
        charges: AuditOptions::CHARGES,
    };
    let mut found = Vec::new();
    let on_finding = |finding: Finding<'_>| -> Result<(), ComparisonError> {
        match finding {
            Finding::Wrong(violations, _) => found.extend(violations.iter().map(|violation| format!("{violation:?}"))),
            Finding::InMotion(line) => found.push(format!("{line} is in motion")),
        }
        Ok(())
    };
    audit.whole(reading, on_finding, |_| ()).await?;
    Ok(found)
}

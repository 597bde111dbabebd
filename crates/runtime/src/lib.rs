//! What an invocation looks like, and what a function needs before its first one. Nothing here knows what is booked.
//!
//! | invoked by | the handler gets | and answers |
//! |---|---|---|
//! | a state machine, a schedule, SNS or SQS | an [`Input`] ([`Participant`]) | an outcome or an event, or an error of a type that `Retry` and `Catch` can name |
//! | API Gateway (REST) | an `http::Request` ([`serve_http`]) | an `http::Response` |

mod aws;
#[cfg(feature = "fault-points")]
mod faults;
mod invocation;
mod message;
mod queue;

pub use aws::{AwsError, aws};
pub use invocation::{Fault, Participant, Says, answer_http, serve_http};
pub use lambda_runtime::{Diagnostic, Error};
pub use message::{Failure, Input, Unreadable, event, read};
pub use queue::{Queue, REASON};

/// A setting that a function cannot do without.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set: the template sets it for each function that needs it")]
pub struct MissingSetting(&'static str);

/// The value of a setting.
pub fn setting(name: &'static str) -> Result<String, MissingSetting> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(MissingSetting(name))
}

/// A setting that is not of the form that it has to have.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} must be a whole number, not {value:?}")]
pub struct BadSetting {
    name: &'static str,
    value: String,
}

/// The value of a setting that is a number.
pub fn number_setting<N: std::str::FromStr>(name: &'static str) -> Result<N, Error> {
    let value = setting(name)?;
    value.parse().map_err(|_| BadSetting { name, value }.into())
}

/// Writes the log as one JSON object per line, for CloudWatch; `AWS_LAMBDA_LOG_LEVEL`, which Lambda sets from the
/// function's logging configuration, says from which level on.
pub fn start_logging() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level.unwrap_or(tracing_subscriber::filter::LevelFilter::INFO))
        .with_current_span(false)
        .with_target(false)
        .without_time() // CloudWatch stamps each line
        .init();
}

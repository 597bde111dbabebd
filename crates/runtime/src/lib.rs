//! What an invocation looks like, and what a function needs before its first one. Nothing here knows what is booked.
//!
//! | invoked by | the handler gets | and answers |
//! |---|---|---|
//! | a state machine, a schedule, SNS or SQS | an [`Input`] ([`Handler`]) | an outcome or an event, or an error of a type that `Retry` and `Catch` can name |
//! | API Gateway (REST) | an `http::Request` ([`serve_http`]) | an `http::Response` |

mod aws;
#[cfg(feature = "fault-points")]
mod faults;
mod invocation;
mod message;
mod queue;

use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter, util::SubscriberInitExt};

pub use aws::{AwsError, aws};
pub use invocation::{Fault, Handler, PublishedBy, answer_http, remaining, serve_http};
pub use lambda_runtime::{Diagnostic, Error};
pub use message::{Failure, Input, UnreadableMessage, event, read};
pub use queue::{Queue, REASON};

/// A required setting is missing.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set: the template sets it for each function that needs it")]
pub struct MissingSetting(&'static str);

/// The value of an environment variable; an error if it is not set.
pub fn setting(name: &'static str) -> Result<String, MissingSetting> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(MissingSetting(name))
}

/// A setting does not have the required form.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} must be a whole number, not {value:?}")]
pub struct BadSetting {
    name: &'static str,
    value: String,
}

/// The value of an environment variable that is a number; an error if it is not set or not a number.
pub fn number_setting<N: std::str::FromStr>(name: &'static str) -> Result<N, Error> {
    let value = setting(name)?;
    value.parse().map_err(|_| BadSetting { name, value }.into())
}

/// Writes the log as one JSON object per line, for CloudWatch, from the level in `AWS_LAMBDA_LOG_LEVEL` on, which
/// Lambda sets from the function's logging configuration. A panic is logged as an error.
///
/// Lambda itself filters by that level too, and treats a line without a `level` and a `timestamp` (RFC 3339) as INFO:
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.
pub fn start_logging() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    log(level, std::io::stdout).init();
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
}

fn log<W>(level: Option<LevelFilter>, to: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_current_span(false)
        .with_target(false)
        .with_writer(to)
        .finish()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Mutex,
    };

    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Written;

    impl Write for Written {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_has_a_level_and_a_time_for_lambda_to_filter_by() {
        let began = Timestamp::now();
        tracing::subscriber::with_default(log(None, || Written), || {
            tracing::error!(booking_id = "b", "first\nand more");
            tracing::warn!("second");
            tracing::info!("third");
            tracing::debug!("not at this level");
        });
        let written = String::from_utf8(WRITTEN.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["ERROR", "WARN", "INFO"]);
        for line in &lines {
            let time: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            assert!((began..=Timestamp::now()).contains(&time), "{line}");
        }
        assert_eq!((&lines[0]["booking_id"], &lines[0]["message"]), (&"b".into(), &"first\nand more".into()));
    }
}

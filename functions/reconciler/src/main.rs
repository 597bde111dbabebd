//! Finds bookings that should have ended and drives them again.

use std::time::Duration;

use jiff::Timestamp;
use runtime::{number_setting, setting};
use services::{Reconciler, StateMachine, StepError};
use store::Headers;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let reconciler = Reconciler {
        headers: Headers::new(store::client(&aws), setting("BOOKINGS_TABLE")?),
        executions: StateMachine::new(aws_sdk_sfn::Client::new(&aws), setting("STATE_MACHINE_ARN")?),
        max_age: Duration::from_secs(number_setting("PENDING_MAX_AGE_SECONDS")?),
        clock: Timestamp::now,
    };
    runtime::serve_commands(async |_schedule| reconciler.run().await, StepError::error_type).await
}

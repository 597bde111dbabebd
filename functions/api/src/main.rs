//! Records a booking and starts it; shows a booking with its timeline.

use jiff::Timestamp;
use runtime::{number_setting, setting};
use services::{SandboxProvider, StateMachine, Topic, api::Api};
use store::{Headers, Intake, Journal, Ledger};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let client = store::client(&aws);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let ledger = Ledger::new(client.clone(), setting("PROVIDER_LEDGER_TABLE")?);
    let api = Api {
        intake: Intake::new(
            Headers::new(client, setting("BOOKINGS_TABLE")?),
            setting("TRAVELLERS_TABLE")?,
            number_setting("PERSONAL_DATA_RETENTION_DAYS")?,
        ),
        journal,
        executions: StateMachine::new(aws_sdk_sfn::Client::new(&aws), setting("STATE_MACHINE_ARN")?),
        events: Topic::new(aws_sdk_sns::Client::new(&aws), setting("EVENTS_TOPIC_ARN")?),
        provider: SandboxProvider { ledger, clock: Timestamp::now },
        cors_origin: setting("CORS_ORIGIN").ok().map(|origin| origin.parse()).transpose()?,
        clock: Timestamp::now,
    };
    runtime::serve_http(async |caller, request| api.handle(caller, request).await).await
}

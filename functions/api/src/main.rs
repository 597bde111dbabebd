//! Records a booking and starts it; shows a booking with its timeline.

use jiff::Timestamp;
use runtime::setting;
use services::SandboxProvider;
use store::Ledger;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::api(travel::TRAVEL, |client| {
        let ledger = Ledger::new(client.clone(), setting("PROVIDER_LEDGER_TABLE")?);
        Ok(SandboxProvider { ledger, clock: Timestamp::now })
    })
    .await
}

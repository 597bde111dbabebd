//! Charges once, or aborts so that no charge can follow.

use jiff::Timestamp;
use runtime::setting;
use services::SandboxProvider;
use store::Ledger;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    services::serve::payment(|client| {
        let ledger = Ledger::new(client.clone(), setting("PROVIDER_LEDGER_TABLE")?);
        Ok(SandboxProvider { ledger, clock: Timestamp::now })
    })
    .await
}

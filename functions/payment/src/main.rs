//! Charges once, or aborts so that no charge can follow.

use jiff::Timestamp;
use runtime::{number_setting, setting};
use services::{Cashier, SandboxProvider, StepError};
use store::{Journal, Ledger, Payments};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let client = store::client(&runtime::aws()?);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let ledger = Ledger::new(client.clone(), setting("PROVIDER_LEDGER_TABLE")?);
    let cashier = Cashier {
        store: Payments::new(client, setting("PAYMENTS_TABLE")?, journal),
        provider: SandboxProvider { ledger, clock: Timestamp::now },
        clock: Timestamp::now,
    };
    runtime::serve_commands(async |payload| cashier.handle(&payload).await, StepError::error_type).await
}

//! Reserves and cancels cars, day by day.

use jiff::Timestamp;
use runtime::{number_setting, setting};
use saga::Leg;
use services::{Catalogue, Seller, StepError};
use store::{Journal, StockTable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let client = store::client(&runtime::aws()?);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let seller = Seller {
        leg: Leg::Car,
        store: StockTable::new(client, setting("STOCK_TABLE")?, journal),
        catalogue: Catalogue::bundled()?,
        clock: Timestamp::now,
    };
    runtime::serve_commands(async |payload| seller.handle(&payload).await, StepError::error_type).await
}

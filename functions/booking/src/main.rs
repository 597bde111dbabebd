//! Confirms or fails a booking, or hands it to an operator.

use jiff::Timestamp;
use runtime::{number_setting, setting};
use services::{BookingDesk, StepError};
use store::{Bookings, Journal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), runtime::Error> {
    runtime::start_logging();
    let client = store::client(&runtime::aws()?);
    let journal = Journal::new(client.clone(), setting("JOURNAL_TABLE")?, number_setting("JOURNAL_RETENTION_DAYS")?);
    let desk = BookingDesk { store: Bookings::new(client, setting("BOOKINGS_TABLE")?, journal), clock: Timestamp::now };
    runtime::serve_commands(async |payload| desk.handle(&payload).await, StepError::error_type).await
}

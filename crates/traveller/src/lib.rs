//! What travellers do, through the HTTP API only: book trips and follow them; the scenarios that the demo and the
//! end-to-end tests share; and how a booking is shown.
//!
//! ```text
//!   scenarios ──▶ client, trip
//!   show ──▶ client
//! ```

pub mod client;
#[doc(hidden)]
pub mod samples;
pub mod scenarios;
pub mod show;
pub mod trip;

pub use client::{Answer, Booking, Client, ClientError};
pub use trip::TripRequest;

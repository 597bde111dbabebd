//! Books trips and follows them, through the HTTP API only; the scenarios that the demo and the end-to-end tests share;
//! and how a booking is displayed.
//!
//! ```text
//!   scenarios ──▶ client, trip
//!   show ──▶ client
//! ```

#![allow(missing_docs)] // docs where a contract is

pub mod client;
#[doc(hidden)]
pub mod samples;
pub mod scenarios;
pub mod show;
pub mod trip;

pub use client::{Answer, Booking, Client, ClientError};
pub use trip::TripRequest;

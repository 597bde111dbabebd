//! What is around a booking: a local AWS to deploy to, stock to sell, a client of the API, and the scenarios that
//! the demo and the end-to-end tests share.
//!
//! ```text
//!   local ──▶ stack ──▶ loader      start an AWS here, know what was deployed, put stock on sale
//!               │
//!               └─────▶ client ──▶ scenarios ──▶ show      book, follow, compare with what must come, render
//! ```

pub mod client;
pub mod loader;
pub mod local;
pub mod scenarios;
pub mod show;
pub mod stack;
pub mod trip;

pub use client::{Answer, Booking, Client, ClientError};
pub use local::{LocalAws, LocalError, Options};
pub use stack::{Stack, StackError};
pub use trip::TripRequest;

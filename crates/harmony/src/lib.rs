//! What is around a booking: a local AWS to deploy to, stock to sell, a client of the API, the scenarios that the demo
//! and the end-to-end tests share, an audit of what became of them, and what is needed if something got stuck.
//!
//! ```text
//!   local, localstack, cloud        start an AWS here, deploy to one that runs, know which one is meant
//!     └─────▶ stack ──▶ loader      know what was deployed, put stock on sale
//!               ├─────▶ client ──▶ scenarios ──▶ show, side_by_side      book, follow, compare with what must come, render
//!               ├─────▶ load ──▶ comparison          many travellers at once; how the modes differ
//!               ├─────▶ audit             hold the tables against what must always be true
//!               ├─────▶ events            what functions are invoked with, and what they answer
//!               └─────▶ dead_letters      look at what was given up, and put it back
//! ```

pub mod audit;
pub mod client;
pub mod cloud;
pub mod comparison;
pub mod dead_letters;
pub mod docker;
pub mod events;
pub mod load;
pub mod loader;
pub mod local;
pub mod localstack;
pub mod scenarios;
pub mod show;
pub mod side_by_side;
pub mod stack;
pub mod trip;

pub use client::{Answer, Booking, Client, ClientError};
pub use local::{LocalAws, LocalError, Options};
pub use stack::{Stack, StackError};
pub use trip::TripRequest;

//! What operators do with the tables and queues of a stack: put stock on sale, check everything against what must
//! always be true, look at dead letters and put them back.
//!
//! ```text
//!   events ──▶ loader        payloads for functions, and the bookings that they are about
//!   audit, dead_letters
//! ```

#![allow(missing_docs)] // docs where a contract is

pub mod audit;
pub mod dead_letters;
pub mod events;
pub mod loader;

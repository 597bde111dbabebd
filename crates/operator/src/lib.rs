//! What operators do, on the tables and queues of a stack: put stock on sale, check everything against what must always be
//! true, look at what was given up, and put it back.
//!
//! ```text
//!   events ──▶ loader        payloads for functions, and the bookings that they are about
//!   audit, dead_letters
//! ```

pub mod audit;
pub mod dead_letters;
pub mod events;
pub mod loader;

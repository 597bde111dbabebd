//! What the command line needs besides the crates below it: two bookings side by side, LocalStack, and Docker for `sam
//! local`.

#![allow(missing_docs)] // docs where a contract is

pub mod docker;
pub mod localstack;
pub mod side_by_side;

//! A local AWS with the whole stack on it, and what is known about a stack, wherever it is deployed.
//!
//! ```text
//!   local ──▶ stack ──▶ cloud ──▶ checkout
//! ```
//!
//! The emulator is MiniStack; its launcher, with the patches that bring it closer to AWS, is in `python/`.

#![allow(missing_docs)] // docs where a contract is

pub mod checkout;
pub mod cloud;
pub mod local;
pub mod stack;

pub use local::{LocalAws, LocalAwsOptions, LocalError};
pub use stack::{Stack, StackError};

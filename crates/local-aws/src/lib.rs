//! A local AWS with the whole stack on it, and what is known of a stack, wherever it is.
//!
//! ```text
//!   local ──▶ stack ──▶ cloud ──▶ checkout
//! ```
//!
//! The emulator is MiniStack; its launcher, with the patches that bring it closer to AWS, is in `python/`.

pub mod checkout;
pub mod cloud;
pub mod local;
pub mod stack;

pub use local::{LocalAws, LocalError, Options};
pub use stack::{Stack, StackError};

//! The kit: what every saga of this kind has in common, whatever it sells. Which steps exist, which outcomes a step can
//! have, and what each participant decides. Everything here is a value or a pure function: the clock, DynamoDB and AWS
//! live elsewhere, and what is peculiar to a part lives in the crate of its saga.
//!
//! ```text
//!   reserve part ─┐                       ┌─ charged ───────▶ confirm               (after the pivot: only forwards)
//!   reserve part ─┼─ all reserved? ─▶ charge ─ declined ───────────────┐
//!   reserve part ─┘       │               └─ unknown ───────▶ abort ─┴▶ cancel every part ─▶ fail
//!                         └───────────── no ─────────────────▲
//! ```
//!
//! There are two ways from one step to the next: an orchestrator sends [`Command`]s, or participants react to each
//! other's [`event`]s. The steps are the same.
//!
//! A step runs as *decide, then commit*: the functions in [`reservation`], [`payment`] and [`header`] look at what is
//! known and name the one correct move. The store commits that move on the condition that what was known still holds;
//! if it does not, the store returns the current state and the decision is made again. So a handler can run these
//! functions against DynamoDB, and a model checker can run the same ones against its own state.

pub mod catalogue;
pub mod claim;
pub mod command;
pub mod customer;
pub mod document;
pub mod event;
pub mod header;
pub mod id;
pub mod money;
pub mod outcome;
pub mod part;
pub mod payment;
pub mod plan;
pub mod reaction;
pub mod reading;
pub mod request;
pub mod reservation;
pub mod step;
pub mod stock;
pub mod text;

pub use catalogue::{Catalogue, CatalogueError, Offer};
pub use claim::Claim;
pub use command::Command;
pub use customer::Customer;
pub use document::Document;
pub use event::{Envelope, Event, EventType};
pub use header::Status;
pub use id::{BookingId, IdempotencyKey, Owner, PaymentReference, PaymentToken};
pub use money::{Currency, Money, Price};
pub use outcome::{Outcome, Reason, Rejection, Reply};
pub use part::{Part, PartName, PartNames, Parts};
pub use plan::Plan;
pub use reading::Violation;
pub use request::{BookingRequest, Definition, Variant};
pub use step::{Class, Participant, Step};
pub use stock::{PartRequest, PartType, StockLine};

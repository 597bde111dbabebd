//! The kit: what every saga of this kind has in common, whatever it sells. Which steps there are, what a step may answer,
//! and what each participant decides. Everything here is a value or a pure function; the clock, DynamoDB and AWS live
//! elsewhere, and what is peculiar to a part in the crate of its saga.
//!
//! ```text
//!   reserve part ─┐                       ┌─ charged ───────▶ confirm               (after the pivot: only forwards)
//!   reserve part ─┼─ all reserved? ─▶ charge ─ declined ───────────────┐
//!   reserve part ─┘       │               └─ nobody knows ──▶ abort ─┴▶ cancel every part ─▶ fail
//!                         └───────────── no ─────────────────▲
//! ```
//!
//! Two ways lead from one step to the next. An orchestrator sends [`Command`]s; or participants react to each other's
//! [`event`]s. The steps are the same.
//!
//! A step is carried out as *decide, then commit*: the functions in [`reservation`], [`payment`] and [`header`] look at
//! what is known and name the one move that is right; the store commits that move on the condition that what was
//! known still holds, and otherwise says what is the case, and the decision is made again. So the same functions
//! can be run by a handler against DynamoDB and by a model checker against its own state.

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

//! The rules of a travel booking: what is asked for, which steps there are, what a step may answer, and what each
//! participant decides. Everything here is a value or a pure function; the clock, DynamoDB and AWS live elsewhere.
//!
//! ```text
//!   reserve flight ─┐                       ┌─ charged ───────▶ confirm               (after the pivot: only forwards)
//!   reserve hotel  ─┼─ all reserved? ─▶ charge ─ declined ───────────────┐
//!   reserve car    ─┘       │               └─ nobody knows ──▶ abort ─┴▶ cancel flight, hotel, car ─▶ fail
//!                           └───────────── no ─────────────────▲
//! ```
//!
//! Two ways lead from one step to the next. An orchestrator sends [`Command`]s; or participants react to each other's
//! [`event`]s. The steps are the same.
//!
//! A step is carried out as *decide, then commit*: the functions in [`reservation`], [`payment`] and [`header`] look at
//! what is known and name the one move that is right; the store commits that move on the condition that what was
//! known still holds, and otherwise says what is the case, and the decision is made again. So the same functions
//! can be run by a handler against DynamoDB and by a model checker against its own state.

pub mod booking;
pub mod claim;
pub mod command;
pub mod document;
pub mod event;
pub mod header;
pub mod id;
pub mod money;
pub mod outcome;
pub mod payment;
pub mod reading;
pub mod reservation;
pub mod step;
mod text;

pub use booking::{BookingRequest, CarLeg, FlightLeg, HotelLeg, LegRequest, StockLine, Traveller, Variant};
pub use claim::Claim;
pub use command::Command;
pub use document::Document;
pub use event::{Envelope, Event, EventType, Plan};
pub use header::{Reason, Status};
pub use id::{BookingId, IdempotencyKey, Owner, PaymentReference, PaymentToken};
pub use money::{Currency, Money};
pub use outcome::{Outcome, Rejection, Reply};
pub use reading::Violation;
pub use step::{Class, Leg, Participant, Step};

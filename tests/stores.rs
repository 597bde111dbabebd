//! Each step against DynamoDB: what it does, how many requests that takes, and what a repeat, a race or a crash does.

#![allow(clippy::unwrap_used)]

#[path = "stores/booking.rs"]
mod booking;
#[path = "stores/events.rs"]
mod events;
#[path = "stores/payment.rs"]
mod payment;
#[path = "stores/sellers.rs"]
mod sellers;

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{House, booking_id, choices, date, lines, prices, trip};
use jiff::{SignedDuration, Timestamp, civil::Date};
use saga::{
    BookingId, Catalogue, Claim, Currency, Customer, Envelope, Event, Money, Outcome, Part, PartName, PartRequest,
    PartType, Parts, PaymentReference, PaymentToken, Price, Reason, Rejection, Status, Step, StockLine,
    money::MoneyError,
    payment::{Prices, State},
    reaction,
    reading::Fields,
};
use serde_json::{Value, json};
use services::{
    ErrorKind, PaymentProvider, PaymentService, ProviderError, SandboxProvider, Seller, StepError, StepResponse,
    UnknownToken,
};
use store::{
    Begun, ClaimStore, Commit, Header, HeaderStore, IntakeStore, OnSale, PaymentStore, Payments, StockTable, StoreError,
};
use travel::{CAR, FLIGHT, HOTEL, TRAVEL};

/// The prices of a trip, which sum up to [`TOTAL`].
fn of_trip() -> Prices {
    prices(&[(FLIGHT.name, 100), (HOTEL.name, 20), (CAR.name, 3)])
}

const TOTAL: Money = Money::eur(123);

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Rejected(Rejection { code, .. }) | Outcome::Declined(Rejection { code, .. }) => code,
        other => panic!("no rejection: {other:?}"),
    }
}

fn hotel_of(trip: &Parts) -> Part {
    trip.get(HOTEL.name).unwrap()
}

/// Each part of a trip, with its type.
fn each(trip: &Parts) -> Vec<(PartType, Part)> {
    TRAVEL.parts.iter().map(|part_type| (*part_type, trip.get(part_type.name).unwrap())).collect()
}

/// So many units of each line of the part.
fn all(units: u32, part: &Part) -> Vec<i64> {
    lines(part).iter().map(|_| units.into()).collect()
}

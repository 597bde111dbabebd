//! A trip, as a saga: a flight, a hotel and a car, or some of them, paid with one charge.
//!
//! Each part has its own file, with everything that is peculiar to it, and its price list beside it. To add one, see
//! `docs/add-a-part.md`.

mod car;
mod fields;
mod flight;
mod hotel;

use saga::{Definition, PartName, PartType};

pub use car::CAR;
pub use fields::{MAX_DAYS, MAX_UNITS};
pub use flight::FLIGHT;
pub use hotel::HOTEL;

/// The saga: `POST /bookings` with a traveller and at least one part.
pub const TRAVEL: Definition = Definition {
    collection: "bookings",
    customer: "traveller",
    parts: &[FLIGHT, HOTEL, CAR],
    openapi: include_str!("../openapi.yaml"),
};

/// The names of the parts that a trip may have, in the order in which they are listed.
pub fn part_names() -> Vec<PartName> {
    TRAVEL.parts.iter().map(|part_type| part_type.name).collect()
}

/// The part type with this name; none if a trip cannot have such a part.
pub fn part_type(name: PartName) -> Option<&'static PartType> {
    TRAVEL.parts.iter().find(|part_type| part_type.name == name)
}

//! What is on sale, and at what price. The catalogue is part of the program, as a price list is: how many units are
//! *left* is counted in the stock tables, which the loader fills from it.

use std::collections::HashMap;

use saga::{Currency, Leg, LegRequest, Money, booking::car_product};
use serde::Deserialize;

/// All that can be booked.
#[derive(Debug, Clone)]
pub struct Catalogue(HashMap<(Leg, String), Offer>);

/// One product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// How many there are, per flight, night or day.
    pub units: u32,
    /// The price of one of them.
    pub unit_price: Money,
}

/// The catalogue file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It is not of the form that a catalogue has.
    #[error("the catalogue cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Which of two prices would be the right one?
    #[error("the catalogue offers {0} twice")]
    Twice(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: Currency,
    flights: Vec<Flight>,
    hotels: Vec<Hotel>,
    stations: Vec<Cars>,
}

#[derive(Deserialize)]
struct Flight {
    flight_no: String,
    seats: u32,
    price: u64,
}

#[derive(Deserialize)]
struct Hotel {
    hotel_id: String,
    rooms: u32,
    price_per_night: u64,
}

#[derive(Deserialize)]
struct Cars {
    station_id: String,
    category: String,
    cars: u32,
    price_per_day: u64,
}

impl Catalogue {
    /// The catalogue that this program was built with.
    pub fn bundled() -> Result<Self, CatalogueError> {
        Self::read(include_str!("../catalogue.json"))
    }

    fn read(json: &str) -> Result<Self, CatalogueError> {
        let file: File = serde_json::from_str(json)?;
        let flights = file.flights.into_iter().map(|f| (Leg::Flight, f.flight_no, f.seats, f.price));
        let hotels = file.hotels.into_iter().map(|h| (Leg::Hotel, h.hotel_id, h.rooms, h.price_per_night));
        let cars = file.stations.into_iter();
        let cars = cars.map(|c| (Leg::Car, car_product(&c.station_id, &c.category), c.cars, c.price_per_day));
        let mut offers = HashMap::new();
        for (leg, product, units, amount) in flights.chain(hotels).chain(cars) {
            let offer = Offer { units, unit_price: Money { amount, currency: file.currency } };
            if offers.insert((leg, product.clone()), offer).is_some() {
                return Err(CatalogueError::Twice(product));
            }
        }
        Ok(Self(offers))
    }

    /// The price of one unit of what this leg asks for; none if it is not in the catalogue.
    pub fn unit_price(&self, leg: &LegRequest) -> Option<Money> {
        self.0.get(&(leg.leg(), leg.product())).map(|offer| offer.unit_price)
    }

    /// Every product of a leg.
    pub fn offers(&self, leg: Leg) -> impl Iterator<Item = (&str, &Offer)> {
        self.0.iter().filter(move |((of, _), _)| *of == leg).map(|((_, product), offer)| (product.as_str(), offer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_catalogue_has_something_to_sell() {
        let catalogue = Catalogue::bundled().unwrap();
        assert!(catalogue.offers(Leg::Flight).count() >= 20);
        assert!(catalogue.offers(Leg::Hotel).count() >= 10);
        let stations: std::collections::HashSet<_> =
            catalogue.offers(Leg::Car).filter_map(|(product, _)| product.split('#').next()).collect();
        assert!(stations.len() >= 5);
    }

    #[test]
    fn a_product_has_one_price() {
        let twice = r#"{"currency": "EUR", "hotels": [], "stations": [], "flights": [
            {"flight_no": "LH1", "seats": 1, "price": 1}, {"flight_no": "LH1", "seats": 1, "price": 2}]}"#;
        assert!(matches!(Catalogue::read(twice), Err(CatalogueError::Twice(product)) if product == "LH1"));
    }
}

//! What a seller of stock decides: flight, hotel and car alike.
//!
//! The journal holds at most two items per leg, each written once: what `reserve` answered, and what `cancel` did.
//! Both together are the reservation. It stands if the first says *reserved* and there is no second.

use crate::{Event, Leg, LegRequest, Money, Outcome, Rejection, StockLine, command::Action};

/// What the seller of a leg does when it hears of this; none if it does not listen to it.
pub fn reaction(leg: Leg, event: &Event) -> Option<Action> {
    match event {
        Event::Requested { plan } => Some(Action::Reserve(plan.trip.leg(leg).clone())),
        Event::Aborted { trip, .. } => Some(Action::Cancel(trip.leg(leg).clone())),
        _ => None,
    }
}

/// What is known of the stock that a leg needs. Nobody looks before trying: the transaction finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stock {
    /// As far as is known there is enough.
    Enough,
    /// This line has too few units left.
    SoldOut(StockLine),
    /// This line does not exist: the product is not sold on that date.
    NotOnSale(StockLine),
}

/// What `reserve` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Take the stock and record this outcome, in one.
    Take(Outcome),
    /// Record this rejection, so that a repeat cannot turn it into a reservation.
    Reject(Outcome),
    /// Answer what was answered before.
    Replay(Outcome),
}

/// Decides on `reserve`. `unit_price` is the catalogue's price of a unit on one line, if the product is in it.
pub fn reserve(leg: &LegRequest, recorded: Option<&Outcome>, stock: &Stock, unit_price: Option<Money>) -> Reserve {
    if let Some(outcome) = recorded {
        return Reserve::Replay(outcome.clone());
    }
    let Some(unit_price) = unit_price else {
        let code = format!("unknown_{}", leg.leg().name());
        return reject(&code, format!("there is no {} {}", leg.leg().name(), leg.product()));
    };
    match stock {
        Stock::SoldOut(line) => {
            reject("sold_out", format!("{} has no {} left on {}", line.product, units(leg, line), line.date))
        }
        Stock::NotOnSale(line) => reject("not_on_sale", format!("{} is not on sale for {}", line.product, line.date)),
        Stock::Enough => match leg.price(unit_price) {
            Ok(price) => Reserve::Take(Outcome::Reserved { price }),
            Err(error) => reject("price_out_of_range", error.to_string()),
        },
    }
}

fn units(leg: &LegRequest, line: &StockLine) -> String {
    let unit = match leg {
        LegRequest::Flight(_) => "seat",
        LegRequest::Hotel(_) => "room",
        LegRequest::Car(_) => "car",
    };
    if line.units == 1 { unit.to_owned() } else { format!("{} {unit}s", line.units) }
}

fn reject(code: &str, message: String) -> Reserve {
    Reserve::Reject(Outcome::Rejected(Rejection::new(code, message)))
}

/// What `cancel` is to do. Each is one transaction that records the cancel's outcome too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Give the stock back, provided that it is still reserved.
    GiveBack(Outcome),
    /// Leave a tombstone where the reservation would be, provided that nothing is there: a late reserve finds it.
    Tombstone(Outcome),
    /// There never was a reservation, and what is recorded rules one out: only record the cancel.
    Record(Outcome),
    /// Answer what was answered before.
    Replay(Outcome),
}

/// Decides on `cancel`, given what the journal holds for `reserve` and for `cancel`.
pub fn cancel(reserve: Option<&Outcome>, cancel: Option<&Outcome>) -> Cancel {
    match (reserve, cancel) {
        (_, Some(outcome)) => Cancel::Replay(outcome.clone()),
        (Some(Outcome::Reserved { .. }), None) => Cancel::GiveBack(Outcome::Cancelled { released: true }),
        (Some(_), None) => Cancel::Record(Outcome::Cancelled { released: false }),
        (None, None) => Cancel::Tombstone(Outcome::Cancelled { released: false }),
    }
}

/// What a tombstone says to a reserve that comes after its cancel.
pub fn tombstone() -> Outcome {
    Outcome::Rejected(Rejection::new("cancelled", "the booking was cancelled before this leg was reserved"))
}

#[cfg(test)]
mod tests {
    use jiff::civil::Date;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::reading::read_object;

    fn leg() -> LegRequest {
        let json = json!({"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 2});
        read_object(&json, |fields| LegRequest::read(Leg::Hotel, fields, Date::MIN)).unwrap()
    }

    #[test]
    fn takes_what_is_there_at_the_price_of_all_units_and_nights() {
        let decided = reserve(&leg(), None, &Stock::Enough, Some(Money::eur(100)));
        assert_eq!(decided, Reserve::Take(Outcome::Reserved { price: Money::eur(600) }));
    }

    #[test]
    fn rejects_with_a_reason_that_names_the_line() {
        let line = leg().lines()[1].clone();
        let Reserve::Reject(Outcome::Rejected(rejection)) =
            reserve(&leg(), None, &Stock::SoldOut(line), Some(Money::eur(100)))
        else {
            panic!("not rejected")
        };
        assert_eq!(rejection, Rejection::new("sold_out", "nyc-plaza has no 2 rooms left on 2027-03-02"));
        let Reserve::Reject(Outcome::Rejected(rejection)) = reserve(&leg(), None, &Stock::Enough, None) else {
            panic!("not rejected")
        };
        assert_eq!(rejection.code, "unknown_hotel");
    }

    /// A seller with its own stock and journal: what the store does, without a database.
    #[derive(Debug, Default)]
    struct Seller {
        left: u32,
        reserve: Option<Outcome>,
        cancel: Option<Outcome>,
    }

    impl Seller {
        fn reserve(&mut self) {
            let leg = leg();
            let need = leg.lines()[0].units;
            let stock = if self.left >= need { Stock::Enough } else { Stock::SoldOut(leg.lines()[0].clone()) };
            match reserve(&leg, self.reserve.as_ref(), &stock, Some(Money::eur(1))) {
                Reserve::Take(outcome) => {
                    self.left -= need;
                    self.reserve = Some(outcome);
                }
                Reserve::Reject(outcome) => self.reserve = Some(outcome),
                Reserve::Replay(_) => {}
            }
        }

        fn cancel(&mut self) {
            match cancel(self.reserve.as_ref(), self.cancel.as_ref()) {
                Cancel::GiveBack(outcome) => {
                    self.left += leg().lines()[0].units;
                    self.cancel = Some(outcome);
                }
                Cancel::Tombstone(outcome) => {
                    self.reserve = Some(tombstone());
                    self.cancel = Some(outcome);
                }
                Cancel::Record(outcome) => self.cancel = Some(outcome),
                Cancel::Replay(_) => {}
            }
        }
    }

    proptest! {
        /// Any order and any number of reserves and cancels: stock and reservation always add up to what was there,
        /// and once there was a cancel nothing is reserved any more.
        #[test]
        fn stock_adds_up(seeded in 0..4u32, steps in prop::collection::vec(any::<bool>(), 0..12)) {
            let mut seller = Seller { left: seeded, ..Seller::default() };
            for is_reserve in &steps {
                if *is_reserve { seller.reserve() } else { seller.cancel() }
                let stands = matches!(seller.reserve, Some(Outcome::Reserved { .. })) && seller.cancel.is_none();
                prop_assert_eq!(seller.left + if stands { 2 } else { 0 }, seeded);
                prop_assert!(!(stands && seller.cancel.is_some()));
            }
            if steps.contains(&false) {
                prop_assert_eq!(seller.left, seeded);
            }
        }
    }
}

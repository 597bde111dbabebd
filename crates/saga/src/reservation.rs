//! A seller's decisions, whatever it sells.
//!
//! The journal holds at most two items per part, each written once: the outcome of `reserve` and the outcome of
//! `cancel`. Together they are the reservation, which is in force if the first is *reserved* and there is no second.

use serde_json::Value;

use crate::{
    catalogue::Catalogue,
    money::{Money, MoneyError, Price},
    outcome::{Outcome, Rejection},
    reading::Violation,
    stock::{PartType, StockLine},
};

/// A seller's offer for the contents of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The stock that it takes.
    pub lines: Vec<StockLine>,
    /// The price of all of it.
    pub price: Price,
    /// The name of one unit, in the singular.
    pub unit: &'static str,
}

/// The seller's offer for these contents, or the rejection if there can never be one: the contents cannot be read, or
/// name something that the seller does not sell.
pub fn quote(part_type: &PartType, catalogue: &Catalogue, contents: &Value) -> Result<Quote, Rejection> {
    let name = part_type.name;
    let request = part_type.request(contents).map_err(|violations| {
        let detail = format!("the {name} cannot be read: {}", Violation::list(&violations));
        Rejection::new(&format!("invalid_{name}"), detail)
    })?;
    let lines = request.lines();
    let mut prices = Vec::with_capacity(lines.len());
    for line in &lines {
        let unit_price = catalogue.unit_price(&line.product).ok_or_else(|| {
            Rejection::new(&format!("unknown_{name}"), format!("there is no {name} {}", line.product))
        })?;
        prices.push((unit_price, u64::from(line.units)));
    }
    let price = sum(&prices).and_then(|sum| request.price(sum));
    let price = price.map_err(|error| Rejection::new("price_out_of_range", error.to_string()))?;
    Ok(Quote { lines, price, unit: part_type.unit })
}

fn sum(prices: &[(Money, u64)]) -> Result<Money, MoneyError> {
    let mut costs = prices.iter().map(|(unit_price, units)| unit_price.times(*units));
    let first = costs.next().unwrap_or(Ok(Money::eur(0)))?; // there is at least one line
    costs.try_fold(first, |sum, cost| sum.plus(cost?))
}

/// What is known about the stock that a part needs. Sellers do not look before they try: the transaction finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stock {
    /// There is enough, as far as is known.
    Enough,
    /// This line has too few units left.
    SoldOut(StockLine),
    /// This line does not exist: the product is not sold on that date.
    NotOnSale(StockLine),
}

/// The next move of `reserve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Take the stock and record this outcome, in one transaction.
    Take(Outcome),
    /// Record this rejection, so that a repeat cannot turn it into a reservation.
    Reject(Outcome),
    /// Return the outcome that was recorded before.
    Replay(Outcome),
}

/// Decides on `reserve`, given the seller's offer.
pub fn reserve(quote: Result<&Quote, &Rejection>, recorded: Option<&Outcome>, stock: &Stock) -> Reserve {
    if let Some(outcome) = recorded {
        return Reserve::Replay(outcome.clone());
    }
    let quote = match quote {
        Ok(quote) => quote,
        Err(rejection) => return Reserve::Reject(Outcome::Rejected(rejection.clone())),
    };
    match stock {
        Stock::SoldOut(line) => reject("sold_out", sold_out(quote.unit, line)),
        Stock::NotOnSale(StockLine { product, date: Some(date), .. }) => {
            reject("not_on_sale", format!("{product} is not on sale for {date}"))
        }
        Stock::NotOnSale(line) => reject("not_on_sale", format!("{} is not on sale", line.product)),
        Stock::Enough => Reserve::Take(Outcome::Reserved { price: quote.price }),
    }
}

fn sold_out(unit: &str, line: &StockLine) -> String {
    let date = line.date.map_or_else(String::new, |date| format!(" on {date}"));
    let left = match line.units {
        1 => format!("no {unit}"),
        units => format!("fewer than {units} {unit}s"),
    };
    format!("{} has {left} left{date}", line.product)
}

fn reject(code: &str, message: String) -> Reserve {
    Reserve::Reject(Outcome::Rejected(Rejection::new(code, message)))
}

/// The next move of `cancel`. Each is one transaction that also records the outcome of the cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Give the stock back, provided that it is still reserved.
    GiveBack(Outcome),
    /// Record a tombstone in place of the reservation, provided that there is none: a late reserve finds it.
    Tombstone(Outcome),
    /// There never was a reservation, and the recorded outcome rules one out: only record the cancel.
    Record(Outcome),
    /// Return the outcome that was recorded before.
    Replay(Outcome),
}

/// Decides on `cancel`, given the recorded outcomes of `reserve` and `cancel`.
pub fn cancel(reserve: Option<&Outcome>, cancel: Option<&Outcome>) -> Cancel {
    match (reserve, cancel) {
        (_, Some(outcome)) => Cancel::Replay(outcome.clone()),
        (Some(Outcome::Reserved { .. }), None) => Cancel::GiveBack(Outcome::Cancelled { released: true }),
        (Some(_), None) => Cancel::Record(Outcome::Cancelled { released: false }),
        (None, None) => Cancel::Tombstone(Outcome::Cancelled { released: false }),
    }
}

/// The tombstone: the outcome of a reserve that arrives after its cancel.
pub fn tombstone() -> Outcome {
    Outcome::Rejected(Rejection::new("cancelled", "the booking was cancelled before this part was reserved"))
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{part::PartName, reading::Fields, stock::PartRequest};

    /// Tents for some days.
    #[derive(Debug)]
    struct Tents {
        site: String,
        units: u32,
    }

    impl PartRequest for Tents {
        fn lines(&self) -> Vec<StockLine> {
            let day = |day| StockLine { product: self.site.clone(), date: Some(date(2027, 3, day)), units: self.units };
            (1..=3).map(day).collect()
        }

        fn last_day(&self) -> Option<Date> {
            Some(date(2027, 3, 3))
        }

        fn summary(&self) -> String {
            self.site.clone()
        }
    }

    fn tents(fields: &mut Fields<'_, '_>, _: Date) -> Option<Box<dyn PartRequest>> {
        let site = fields.text("site", |site| Ok(site.to_owned()));
        let units = fields.count("units", u32::MAX);
        Some(Box::new(Tents { site: site?, units: units? }))
    }

    const TENT: PartType = PartType {
        name: PartName::new("tent"),
        unit: "tent",
        is_dated: true,
        price_list: r#"{"currency": "EUR", "products": [
            {"product": "lake", "units": 1, "unit_price": 100},
            {"product": "moon", "units": 1, "unit_price": 9223372036854775807}]}"#,
        read: tents,
        example: |_, _| json!({"site": "lake", "units": 1}),
    };

    fn offered(contents: Value) -> Result<Quote, Rejection> {
        quote(&TENT, &Catalogue::read(TENT.price_list).unwrap(), &contents)
    }

    fn rejected(reserve: Reserve) -> Rejection {
        match reserve {
            Reserve::Reject(Outcome::Rejected(rejection)) => rejection,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_what_is_there_at_the_price_of_all_units_and_dates() {
        let quote = offered(json!({"site": "lake", "units": 2}));
        let price = Price::of(Money::eur(600)).unwrap();
        assert_eq!(reserve(quote.as_ref(), None, &Stock::Enough), Reserve::Take(Outcome::Reserved { price }));
    }

    #[test]
    fn rejects_with_a_reason_that_names_the_line() {
        let quote = offered(json!({"site": "lake", "units": 2})).unwrap();
        let decide = |stock| rejected(reserve(Ok(&quote), None, &stock));
        let line = quote.lines[1].clone();
        let sold_out = Rejection::new("sold_out", "lake has fewer than 2 tents left on 2027-03-02");
        assert_eq!(decide(Stock::SoldOut(line.clone())), sold_out);
        let one = StockLine { units: 1, date: None, ..line.clone() };
        assert_eq!(decide(Stock::SoldOut(one.clone())).message, "lake has no tent left");
        assert_eq!(decide(Stock::NotOnSale(line)).message, "lake is not on sale for 2027-03-02");
        assert_eq!(decide(Stock::NotOnSale(one)).message, "lake is not on sale");
    }

    #[test]
    fn rejects_what_it_cannot_read_or_does_not_sell_or_cannot_price() {
        let code = |contents| offered(contents).unwrap_err().code;
        assert_eq!(code(json!({"site": "lake", "units": 0})), "invalid_tent");
        assert_eq!(code(json!({"site": "lake", "units": 1, "more": 1})), "invalid_tent");
        assert_eq!(code(json!(null)), "invalid_tent");
        assert_eq!(code(json!({"site": "sea", "units": 1})), "unknown_tent");
        assert_eq!(code(json!({"site": "moon", "units": 1})), "price_out_of_range");
        let quote = offered(json!({"site": "sea", "units": 1}));
        assert_eq!(rejected(reserve(quote.as_ref(), None, &Stock::Enough)).message, "there is no tent sea");
        let recorded = Outcome::Cancelled { released: true };
        assert_eq!(reserve(quote.as_ref(), Some(&recorded), &Stock::Enough), Reserve::Replay(recorded));
    }

    const NEEDED: u32 = 2;

    /// A seller with its own stock and journal: what the store does, without a database.
    #[derive(Debug, Default)]
    struct Seller {
        left: u32,
        reserve: Option<Outcome>,
        cancel: Option<Outcome>,
    }

    impl Seller {
        fn reserve(&mut self) {
            let quote = offered(json!({"site": "lake", "units": NEEDED})).unwrap();
            let stock = if self.left >= NEEDED { Stock::Enough } else { Stock::SoldOut(quote.lines[0].clone()) };
            match reserve(Ok(&quote), self.reserve.as_ref(), &stock) {
                Reserve::Take(outcome) => {
                    self.left -= NEEDED;
                    self.reserve = Some(outcome);
                }
                Reserve::Reject(outcome) => self.reserve = Some(outcome),
                Reserve::Replay(_) => {}
            }
        }

        fn cancel(&mut self) {
            match cancel(self.reserve.as_ref(), self.cancel.as_ref()) {
                Cancel::GiveBack(outcome) => {
                    self.left += NEEDED;
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
        /// Any order and number of reserves and cancels: stock and reservation always add up to the seeded stock, and
        /// after a cancel nothing is reserved any more.
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

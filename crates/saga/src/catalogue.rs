//! What is for sale, and at what price. A price list is compiled into its seller's program; how many units are *left*
//! is counted in the stock table, which the loader fills from the price list.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::money::{Currency, Money};

/// The price list of one seller: `{"currency": "EUR", "products": [{"product": "…", "units": 40, "unit_price":
/// 21900}]}`. A product may have further fields, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue(BTreeMap<String, Offer>);

/// The stock and the price of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// How many units exist; for products sold by date, how many on each date.
    pub units: u32,
    /// The price of one unit, on one date.
    pub unit_price: Money,
}

/// Why a price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It is not JSON of the form that [`Catalogue`] describes.
    #[error("the price list cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It has two prices for the same product.
    #[error("the price list offers {0} twice")]
    Twice(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: Currency,
    products: Vec<Product>,
}

#[derive(Deserialize)]
struct Product {
    product: String,
    units: u32,
    unit_price: u64,
}

impl Catalogue {
    /// Reads a price list from JSON.
    pub fn read(json: &str) -> Result<Self, CatalogueError> {
        let File { currency, products } = serde_json::from_str(json)?;
        let mut offers = BTreeMap::new();
        for Product { product, units, unit_price } in products {
            let offer = Offer { units, unit_price: Money { amount: unit_price, currency } };
            if offers.insert(product.clone(), offer).is_some() {
                return Err(CatalogueError::Twice(product));
            }
        }
        Ok(Self(offers))
    }

    /// The price of one unit of this product; none if it is not for sale.
    pub fn unit_price(&self, product: &str) -> Option<Money> {
        self.0.get(product).map(|offer| offer.unit_price)
    }

    /// Every product, ordered by name.
    pub fn offers(&self) -> impl Iterator<Item = (&str, &Offer)> {
        self.0.iter().map(|(product, offer)| (product.as_str(), offer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_has_one_price_and_may_say_more_of_itself() {
        let list = |products: &str| Catalogue::read(&format!(r#"{{"currency": "EUR", "products": [{products}]}}"#));
        let one = r#"{"product": "x", "units": 1, "unit_price": 5, "city": "Rome"}"#;
        assert_eq!(list(one).unwrap().unit_price("x"), Some(Money::eur(5)));
        assert!(matches!(list(&format!("{one},{one}")), Err(CatalogueError::Twice(product)) if product == "x"));
        assert!(matches!(list(r#"{"product": "x"}"#), Err(CatalogueError::Unreadable(_))));
    }
}

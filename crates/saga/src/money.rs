//! Money: an integer amount in minor units and its currency.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An [ISO 4217](https://www.iso.org/iso-4217-currency-codes.html) alphabetic code, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro, in which the catalogue of this project is priced.
    pub const EUR: Self = Self(*b"EUR");

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???") // only ASCII letters get in
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(code: String) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(MoneyError::NoCurrency(code)),
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of money, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// In minor units of the currency: cents for `EUR`.
    pub amount: u64,
    /// The currency of the amount.
    pub currency: Currency,
}

impl Money {
    /// `minor_units` euro cents.
    pub const fn eur(minor_units: u64) -> Self {
        Self { amount: minor_units, currency: Currency::EUR }
    }

    /// The sum of two amounts of one currency.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::TooMuch)?;
        Ok(Self { amount, ..self })
    }

    /// The amount, `n` times.
    pub fn times(self, n: u64) -> Result<Self, MoneyError> {
        let amount = self.amount.checked_mul(n).ok_or(MoneyError::TooMuch)?;
        Ok(Self { amount, ..self })
    }
}

impl fmt::Display for Money {
    /// With two decimals, as nearly all currencies have: `1825.00 EUR`. For people, not for arithmetic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} {:?}", self.amount / 100, self.amount % 100, self.currency)
    }
}

/// The price of a part: an amount to pay or, if negative, a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// In minor units of the currency.
    pub amount: i64,
    /// The currency of the amount.
    pub currency: Currency,
}

impl Price {
    /// The price of this amount.
    pub fn of(money: Money) -> Result<Self, MoneyError> {
        let amount = i64::try_from(money.amount).map_err(|_| MoneyError::TooMuch)?;
        Ok(Self { amount, currency: money.currency })
    }

    /// A negative price: this amount is subtracted from the sum.
    pub fn credit(money: Money) -> Result<Self, MoneyError> {
        let Self { amount, currency } = Self::of(money)?;
        Ok(Self { amount: -amount, currency })
    }

    /// The sum of two prices of one currency.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::TooMuch)?;
        Ok(Self { amount, ..self })
    }

    /// The amount to pay; none if the price is a credit.
    pub fn payable(self) -> Option<Money> {
        u64::try_from(self.amount).ok().map(|amount| Money { amount, currency: self.currency })
    }
}

/// Why an amount of money is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not three capital letters.
    #[error("{0:?} is not an ISO 4217 code of three capital letters")]
    NoCurrency(String),
    /// Amounts in different currencies cannot be added.
    #[error("{0:?} and {1:?} cannot be added")]
    Currencies(Currency, Currency),
    /// The amount has more minor units than can be counted.
    #[error("the amount is too large")]
    TooMuch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_only_one_currency() {
        let usd = Money { amount: 1, currency: Currency(*b"USD") };
        assert_eq!(Money::eur(100).plus(Money::eur(50)), Ok(Money::eur(150)));
        assert_eq!(Money::eur(1).plus(usd), Err(MoneyError::Currencies(Currency::EUR, usd.currency)));
    }

    #[test]
    fn never_wraps() {
        assert_eq!(Money::eur(u64::MAX).plus(Money::eur(1)), Err(MoneyError::TooMuch));
        assert_eq!(Money::eur(u64::MAX / 2).times(3), Err(MoneyError::TooMuch));
    }

    #[test]
    fn a_credit_is_taken_off_and_a_rest_of_less_than_nothing_cannot_be_paid() {
        let (price, credit) = (Price::of(Money::eur(100)).unwrap(), Price::credit(Money::eur(130)).unwrap());
        assert_eq!(price.plus(price).unwrap().plus(credit).unwrap().payable(), Some(Money::eur(70)));
        assert_eq!(price.plus(credit).unwrap().payable(), None);
        assert_eq!(Price::of(Money::eur(u64::MAX)), Err(MoneyError::TooMuch));
        let most = Price::of(Money::eur(i64::MAX as u64)).unwrap();
        assert_eq!(most.plus(price), Err(MoneyError::TooMuch));
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let json = serde_json::to_string(&Money::eur(182_500)).unwrap();
        assert_eq!(json, r#"{"amount":182500,"currency":"EUR"}"#);
        assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), Money::eur(182_500));
        for bad in [
            r#"{"amount":-1,"currency":"EUR"}"#,
            r#"{"amount":1.5,"currency":"EUR"}"#,
            r#"{"amount":1,"currency":"eur"}"#,
            r#"{"amount":1,"currency":"EURO"}"#,
            r#"{"amount":1}"#,
            r#"{"amount":1,"currency":"EUR","tax":0}"#,
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
    }
}

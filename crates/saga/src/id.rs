//! Names of things: bookings, what a client calls its request, and a payment at its provider.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 over the parts, each preceded by its length so that no two lists of parts run together, as lower-case
/// hexadecimal of its first 16 bytes.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// One saga instance; the correlation id in logs, traces, messages, tables and the execution's name.
///
/// It follows from who asks and what the client calls the request, so that the same request sent again can only
/// find the booking that it made before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BookingId(String);

impl BookingId {
    /// The booking of this caller with this key.
    pub fn derive(caller: &str, key: &IdempotencyKey) -> Self {
        Self(digest(&[b"booking", caller.as_bytes(), key.0.as_bytes()]))
    }

    /// The 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BookingId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_digest(&text) { Ok(Self(text)) } else { Err("must be 32 lower-case hexadecimal digits".into()) }
    }
}

impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose a booking is: tells one caller from another, and nobody who that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// What stands for this caller.
    pub fn of(caller: &str) -> Self {
        Self(digest(&[b"owner", caller.as_bytes()]))
    }

    /// The 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_digest(&text) { Ok(Self(text)) } else { Err("must be 32 lower-case hexadecimal digits".into()) }
    }
}

/// What the client calls its request: the `Idempotency-Key` header, 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl TryFrom<&str> for IdempotencyKey {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        visible_ascii(text).map(Self)
    }
}

/// A payment at its provider, and the idempotency key of the one charge that is made with it.
///
/// It follows from the booking and the digest of its request, so that everyone who knows the booking's header knows
/// it, and a request with another card can never be charged to this one. It is no secret: it can be used only by
/// who may speak to the provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PaymentReference(String);

impl PaymentReference {
    /// The payment of this booking.
    pub fn derive(booking: &BookingId, request_digest: &str) -> Self {
        Self(digest(&[b"payment", booking.0.as_bytes(), request_digest.as_bytes()]))
    }

    /// The 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PaymentReference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_digest(&text) { Ok(Self(text)) } else { Err("must be 32 lower-case hexadecimal digits".into()) }
    }
}

/// What stands for the customer's card. Whoever holds it can charge, so it goes to the provider at once and is
/// neither stored nor logged: it has no `Serialize`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentToken(String);

impl PaymentToken {
    /// The token itself, for the provider.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for PaymentToken {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        visible_ascii(text).map(Self)
    }
}

impl fmt::Debug for PaymentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentToken(…)")
    }
}

fn visible_ascii(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 255 visible ASCII characters".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_caller_and_key_same_booking() {
        let key = IdempotencyKey::try_from("k").unwrap();
        assert_eq!(BookingId::derive("ann", &key), BookingId::derive("ann", &key));
        assert_ne!(BookingId::derive("ann", &key), BookingId::derive("bob", &key));
        // "ann" + "xk" and "annx" + "k" are different people
        let xk = IdempotencyKey::try_from("xk").unwrap();
        assert_ne!(BookingId::derive("ann", &xk), BookingId::derive("annx", &key));
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = PaymentToken::try_from("tok_visa").unwrap();
        assert!(!format!("{token:?}").contains("visa"));
    }

    #[test]
    fn keys_are_visible_ascii() {
        for bad in ["", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(IdempotencyKey::try_from(bad).is_err(), "{bad:?}");
        }
        assert!(IdempotencyKey::try_from("x".repeat(255).as_str()).is_ok());
    }

    #[test]
    fn an_id_is_32_digits() {
        for bad in ["", "0123", "0123456789abcdef0123456789abcdeF", "../../etc/passwd"] {
            assert!(BookingId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}

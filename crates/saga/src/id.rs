//! Identifiers: of bookings, of a client's request, and of a payment at its provider.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 over the parts, each preceded by its length so that different lists of parts never hash the same bytes: the
/// first 16 bytes, as lower-case hexadecimal.
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

/// Identifies one saga instance: the correlation id in logs, traces, messages and tables, and in the execution's name.
///
/// Derived from the caller and the client's idempotency key, so that repeating a request can only find the booking that
/// it created before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BookingId(String);

impl BookingId {
    /// The booking of this caller with this key. The same pair always yields the same id.
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

/// The owner of a booking: a digest that distinguishes callers without revealing who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// The owner that stands for this caller.
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

/// The client's own identifier of its request: the `Idempotency-Key` header, 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl TryFrom<&str> for IdempotencyKey {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        visible_ascii(text).map(Self)
    }
}

/// Identifies a payment at its provider, and is the idempotency key of the one charge made with it.
///
/// Derived from the booking and the digest of its request, so anyone who has the booking's header can derive it, and a
/// request with another card can never be charged to this payment. It is not a secret: only those who may talk to the
/// provider can use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PaymentReference(String);

impl PaymentReference {
    /// The payment of this booking.
    pub fn derive(booking_id: &BookingId, request_digest: &str) -> Self {
        Self(digest(&[b"payment", booking_id.0.as_bytes(), request_digest.as_bytes()]))
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

/// Stands for the customer's card. Whoever holds it can charge the card, so it goes straight to the provider and is
/// neither stored nor logged: it has no `Serialize`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentToken(String);

impl PaymentToken {
    /// The token itself, for the provider only.
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

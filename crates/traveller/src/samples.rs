//! Sample bookings as the API shows them, for tests of code that displays or checks bookings.

use serde_json::{Value, json};

use crate::Booking;

fn eur(amount: u64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

/// A booking with these steps.
pub fn with(status: &str, total: Value, reason: Value, timeline: &[(&str, &str, u32, u32, Value)]) -> Booking {
    let at = |ms: u32| format!("2027-01-01T10:00:00.{ms:03}Z");
    let timeline: Vec<_> = timeline
        .iter()
        .map(|(step, outcome, started, finished, detail)| {
            json!({"step": step, "outcome": outcome, "started_at": at(*started), "finished_at": at(*finished),
                "detail": detail})
        })
        .collect();
    serde_json::from_value(json!({
        "booking_id": "0123456789abcdef0123456789abcdef", "variant": "orchestrated", "status": status,
        "total": total, "reason": reason, "created_at": at(0), "updated_at": at(200),
        "traveller": {"name": "Ada Lovelace", "email": "ada@example.com"},
        "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
        "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 1},
        "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-04"},
        "timeline": timeline,
    }))
    .unwrap_or_else(|error| unreachable!("the sample is not a booking: {error}"))
}

/// A confirmed booking.
pub fn booking() -> Booking {
    let charge = json!({"amount": eur(167_400), "charge_id": "ch_1"});
    with(
        "confirmed",
        eur(167_400),
        json!(null),
        &[
            ("flight.reserve", "reserved", 12, 20, json!({"price": eur(84_000)})),
            ("hotel.reserve", "reserved", 13, 22, json!({"price": eur(65_700)})),
            ("car.reserve", "reserved", 13, 13, json!({"price": eur(17_700)})),
            ("payment.charge", "charged", 30, 134, charge),
            ("booking.confirm", "confirmed", 140, 144, json!({"total": eur(167_400)})),
        ],
    )
}

/// A booking whose hotel is sold out.
pub fn failed() -> Booking {
    let no_room = "nyc-plaza has no room left on 2027-03-01";
    let reason = json!({"step": "hotel.reserve", "code": "sold_out", "detail": no_room});
    with(
        "failed",
        json!(null),
        reason.clone(),
        &[
            ("flight.reserve", "reserved", 12, 20, json!({"price": eur(84_000)})),
            ("hotel.reserve", "rejected", 13, 22, json!({"code": "sold_out", "message": no_room})),
            ("car.reserve", "reserved", 13, 21, json!({"price": eur(17_700)})),
            ("payment.abort", "aborted", 30, 34, json!({"reason": reason})),
            ("flight.cancel", "cancelled", 40, 44, json!({"released": true})),
            ("hotel.cancel", "cancelled", 40, 46, json!({"released": false})),
            ("car.cancel", "cancelled", 41, 45, json!({"released": true})),
            ("booking.fail", "failed", 50, 54, json!({"reason": reason})),
        ],
    )
}

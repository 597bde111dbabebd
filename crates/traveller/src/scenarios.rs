//! The ways in which a booking can go, each with the result that it must have in both variants. The demo shows them,
//! and the end-to-end tests check the system against them.

use std::{fmt, time::Duration};

use saga::{Money, PartName, Status, Step, Variant};
use serde_json::Value;

use crate::{Answer, Booking, Client, ClientError, TripRequest, client::TimelineEntry};

/// The variants, in the order in which they are shown.
pub const VARIANTS: [Variant; 2] = [Variant::Orchestrated, Variant::Choreographed];

/// A request, and the result that it must have.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// One sentence on what happens.
    pub about: &'static str,
    /// Turns a request that can be booked into this scenario's.
    pub change: fn(&mut TripRequest),
    /// How often the request is sent, each time with the same key.
    pub sent: usize,
    pub expected: Expected,
}

/// The result that a request must have.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub status: Status,
    /// The step that failed, and its code.
    pub reason: Option<(Step, &'static str)>,
    /// What must be in the timeline for these steps. The steps that are not listed are checked by [`contradictions`].
    /// Where events race, a part may be cancelled before it was reserved: see [`was_overtaken`].
    pub steps: &'static [(Step, ExpectedStep)],
}

/// What the timeline must contain for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedStep {
    /// An entry with this outcome.
    HasOutcome(&'static str),
    /// A cancel that released a reservation.
    Released,
    /// A cancel that found no reservation.
    NothingToRelease,
    /// No entry.
    Absent,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The answer to each request.
    pub answers: Vec<Answer>,
    /// The bookings that now exist because of the requests.
    pub bookings: Vec<Booking>,
}

use ExpectedStep::{Absent, HasOutcome, NothingToRelease, Released};

const FLIGHT: Step = Step::Reserve(travel::FLIGHT.name);
const HOTEL: Step = Step::Reserve(travel::HOTEL.name);
const CAR: Step = Step::Reserve(travel::CAR.name);
const CANCEL_FLIGHT: Step = Step::Cancel(travel::FLIGHT.name);
const CANCEL_HOTEL: Step = Step::Cancel(travel::HOTEL.name);
const CANCEL_CAR: Step = Step::Cancel(travel::CAR.name);

const CONFIRMED: Expected = Expected {
    status: Status::Confirmed,
    reason: None,
    steps: &[
        (FLIGHT, HasOutcome("reserved")),
        (HOTEL, HasOutcome("reserved")),
        (CAR, HasOutcome("reserved")),
        (Step::Charge, HasOutcome("charged")),
        (Step::Confirm, HasOutcome("confirmed")),
    ],
};

const DECLINED: &[(Step, ExpectedStep)] = &[
    (FLIGHT, HasOutcome("reserved")),
    (HOTEL, HasOutcome("reserved")),
    (CAR, HasOutcome("reserved")),
    (Step::Charge, HasOutcome("declined")),
    (Step::Abort, Absent), // the declined charge is payment's decision
    (CANCEL_FLIGHT, Released),
    (CANCEL_HOTEL, Released),
    (CANCEL_CAR, Released),
    (Step::Fail, HasOutcome("failed")),
];

/// All scenarios.
pub const ALL: [Scenario; 9] = [
    Scenario {
        name: "trip confirmed",
        about: "Flight, hotel and car are available and the card is good.",
        change: |_| (),
        sent: 1,
        expected: CONFIRMED,
    },
    Scenario {
        name: "trip without a car",
        about: "Flight and hotel only: a trip has the parts that its request names.",
        change: |trip| drop(trip.parts.remove(&travel::CAR.name)),
        sent: 1,
        expected: Expected {
            status: Status::Confirmed,
            reason: None,
            steps: &[
                (FLIGHT, HasOutcome("reserved")),
                (HOTEL, HasOutcome("reserved")),
                (CAR, Absent),
                (Step::Charge, HasOutcome("charged")),
                (Step::Confirm, HasOutcome("confirmed")),
            ],
        },
    },
    Scenario {
        name: "hotel sold out",
        about: "The hotel has no room: flight and car are given back, nothing is charged.",
        change: |trip| trip.set(travel::HOTEL.name, "hotel_id", "nyc-annex"),
        sent: 1,
        expected: Expected {
            status: Status::Failed,
            reason: Some((HOTEL, "sold_out")),
            steps: &[
                (FLIGHT, HasOutcome("reserved")),
                (HOTEL, HasOutcome("rejected")),
                (CAR, HasOutcome("reserved")),
                (Step::Charge, Absent),
                (Step::Abort, HasOutcome("aborted")),
                (CANCEL_FLIGHT, Released),
                (CANCEL_HOTEL, NothingToRelease),
                (CANCEL_CAR, Released),
                (Step::Fail, HasOutcome("failed")),
            ],
        },
    },
    Scenario {
        name: "card declined",
        about: "Everything is reserved, then the card is declined: everything is given back.",
        change: |trip| trip.payment.token = "tok_declined".into(),
        sent: 1,
        expected: Expected { status: Status::Failed, reason: Some((Step::Charge, "card_declined")), steps: DECLINED },
    },
    Scenario {
        name: "insufficient funds",
        about: "Everything is reserved, but the account has insufficient funds: everything is given back.",
        change: |trip| trip.payment.token = "tok_insufficient_funds".into(),
        sent: 1,
        expected: Expected {
            status: Status::Failed,
            reason: Some((Step::Charge, "insufficient_funds")),
            steps: DECLINED,
        },
    },
    Scenario {
        name: "unknown flight",
        about: "There is no such flight: hotel and car are given back, nothing is charged.",
        change: |trip| trip.set(travel::FLIGHT.name, "flight_no", "XX1"),
        sent: 1,
        expected: Expected {
            status: Status::Failed,
            reason: Some((FLIGHT, "unknown_flight")),
            steps: &[
                (FLIGHT, HasOutcome("rejected")),
                (HOTEL, HasOutcome("reserved")),
                (CAR, HasOutcome("reserved")),
                (Step::Charge, Absent),
                (Step::Abort, HasOutcome("aborted")),
                (CANCEL_FLIGHT, NothingToRelease),
                (CANCEL_HOTEL, Released),
                (CANCEL_CAR, Released),
                (Step::Fail, HasOutcome("failed")),
            ],
        },
    },
    Scenario {
        name: "provider answers too late",
        about: "The provider charges but answers too late: payment asks what happened, and the trip is charged once.",
        change: |trip| trip.payment.token = "tok_timeout".into(),
        sent: 1,
        expected: CONFIRMED,
    },
    Scenario {
        name: "provider out of order",
        about: "The provider fails twice before it charges: payment asks it again while it holds the lease.",
        change: |trip| trip.payment.token = "tok_flaky".into(),
        sent: 1,
        expected: CONFIRMED,
    },
    Scenario {
        name: "sent twice",
        about: "The same request is sent twice with the same Idempotency-Key: there is one booking.",
        change: |_| (),
        sent: 2,
        expected: CONFIRMED,
    },
];

impl Scenario {
    /// The request of this scenario, made from one that can be booked, in this variant.
    pub fn request(&self, mut trip: TripRequest, variant: Variant) -> TripRequest {
        trip.variant = variant;
        (self.change)(&mut trip);
        trip
    }

    /// Sends the request as often as the scenario requires, and waits until its booking has ended. `look` gets the
    /// intermediate states of the booking.
    pub async fn run(
        &self,
        client: &Client,
        request: &TripRequest,
        key: &str,
        within: Duration,
        look: impl Fn(&Booking),
    ) -> Result<Observed, ClientError> {
        let mut observed = Observed { answers: Vec::new(), bookings: Vec::new() };
        let mut ids = Vec::new();
        for _ in 0..self.sent {
            let answer = client.book(request, key).await?;
            ids.extend(answer.accepted().map(|accepted| accepted.booking_id).filter(|id| !ids.contains(id)));
            observed.answers.push(answer);
        }
        for id in &ids {
            observed.bookings.push(client.follow(id, within, &look).await?);
        }
        Ok(observed)
    }
}

/// Compares the result with the expected one. The error lists every difference.
pub fn check(scenario: &Scenario, observed: &Observed) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    if observed.answers.len() != scenario.sent {
        wrong.push(format!("expected {} answers, got {}", scenario.sent, observed.answers.len()));
    }
    for (index, answer) in observed.answers.iter().enumerate() {
        let nth = index + 1;
        if answer.status != 202 {
            wrong.push(format!("expected 202 as answer {nth}, got {}: {}", answer.status, answer.summary()));
        } else if answer.is_replay() != (index > 0) {
            let with = |replay| if replay { "with" } else { "without" };
            wrong.push(format!(
                "expected answer {nth} {} Idempotency-Replayed: true, got it {}",
                with(index > 0),
                with(answer.is_replay())
            ));
        }
    }
    let [booking] = observed.bookings.as_slice() else {
        wrong.push(format!("expected 1 booking, got {}", observed.bookings.len()));
        return Err(wrong);
    };
    let expected = &scenario.expected;
    let came = Ending::from(booking);
    let wanted = Ending::from(expected);
    if came != wanted {
        wrong.push(format!("expected {wanted}, got {came}"));
    }
    for (step, did) in expected.steps {
        let entry = booking.entry(*step);
        let part = match step {
            Step::Reserve(part) | Step::Cancel(part) => Some(*part),
            _ => None,
        };
        let may_be_late = expected.status == Status::Failed && [HasOutcome("reserved"), Released].contains(did);
        if may_be_late && part.is_some_and(|part| was_overtaken(booking, part)) {
            continue;
        }
        if !did.fits(entry) {
            wrong.push(format!("expected {step} {did}, got {}", shown(entry)));
        }
    }
    wrong.extend(contradictions(booking));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Whether the cancel of a part arrived before its reserve, which was then refused. In the choreographed variant the
/// events of a booking race, so this can happen to a part that could have been reserved. It cannot happen after a
/// charge was tried, because nothing is charged before all parts are reserved.
pub fn was_overtaken(booking: &Booking, part: PartName) -> bool {
    let refused = booking.entry(Step::Reserve(part)).is_some_and(|entry| {
        entry.outcome == "rejected" && entry.detail.get("code").and_then(Value::as_str) == Some("cancelled")
    });
    booking.variant == Variant::Choreographed
        && booking.entry(Step::Charge).is_none()
        && refused
        && NothingToRelease.fits(booking.entry(Step::Cancel(part)))
}

/// The contradictions within a booking that has ended: there must be none, whatever was requested.
pub fn contradictions(booking: &Booking) -> Vec<String> {
    let mut wrong = Vec::new();
    let outcome = |step| booking.entry(step).map(|entry| entry.outcome.as_str());
    for entry in &booking.timeline {
        if booking.timeline.iter().filter(|other| other.step == entry.step).count() > 1 {
            wrong.push(format!("expected {} once in the timeline, got it more often", entry.step));
        }
    }
    let parts: Vec<_> = booking.parts().iter().map(|(part, _)| (Step::Reserve(*part), Step::Cancel(*part))).collect();
    if parts.is_empty() {
        wrong.push("expected a booking of at least one part, got none".into());
    }
    match booking.status {
        Status::Confirmed => {
            for &(reserve, cancel) in &parts {
                if outcome(reserve) != Some("reserved") || outcome(cancel).is_some() {
                    wrong.push(format!(
                        "expected every part of a confirmed booking reserved and none cancelled, got {reserve} {} and \
                         {cancel} {}",
                        shown(booking.entry(reserve)),
                        shown(booking.entry(cancel))
                    ));
                }
            }
            let mut prices = parts.iter().map(|(reserve, _)| booking.entry(*reserve).and_then(TimelineEntry::money));
            let sum = prices.try_fold(Money::eur(0), |sum, price| sum.plus(price?).ok());
            let charged =
                booking.entry(Step::Charge).filter(|entry| entry.outcome == "charged").and_then(TimelineEntry::money);
            if sum.is_none() || sum != charged || sum != booking.total {
                let show = |money: Option<Money>| money.map_or("nothing".into(), |money| money.to_string());
                wrong.push(format!(
                    "expected the prices' sum {} to be charged and shown, got {} charged and {} shown",
                    show(sum),
                    show(charged),
                    show(booking.total)
                ));
            }
        }
        Status::Failed => {
            for &(reserve, cancel) in &parts {
                let did = if outcome(reserve) == Some("reserved") { Released } else { NothingToRelease };
                if !did.fits(booking.entry(cancel)) {
                    wrong.push(format!(
                        "expected {cancel} {did} after {reserve} {}, got {}",
                        shown(booking.entry(reserve)),
                        shown(booking.entry(cancel))
                    ));
                }
            }
            if outcome(Step::Charge) == Some("charged") {
                wrong.push("expected nothing charged for a failed booking, got payment.charge charged".into());
            }
            if let Some(total) = booking.total {
                wrong.push(format!("expected no total of a failed booking, got {total}"));
            }
        }
        status => wrong.push(format!("expected the booking to end, got {status}")),
    }
    wrong
}

impl ExpectedStep {
    fn fits(self, entry: Option<&TimelineEntry>) -> bool {
        match self {
            HasOutcome(outcome) => entry.is_some_and(|entry| entry.outcome == outcome),
            Released => entry.is_some_and(|entry| entry.outcome == "cancelled" && entry.released() == Some(true)),
            NothingToRelease => {
                entry.is_some_and(|entry| entry.outcome == "cancelled" && entry.released() == Some(false))
            }
            Absent => entry.is_none(),
        }
    }
}

impl fmt::Display for ExpectedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HasOutcome(outcome) => outcome,
            Released => "cancelled with released=true",
            NothingToRelease => "cancelled with released=false",
            Absent => "not in the timeline",
        })
    }
}

fn shown(entry: Option<&TimelineEntry>) -> String {
    match entry {
        None => Absent.to_string(),
        Some(entry) => match entry.released() {
            Some(released) => format!("{} with released={released}", entry.outcome),
            None => entry.outcome.clone(),
        },
    }
}

/// How a booking ended, or must end.
#[derive(PartialEq)]
struct Ending<'a> {
    status: Status,
    /// The name of the step, if it was one, and the code.
    reason: Option<(Option<String>, &'a str)>,
}

impl From<&Expected> for Ending<'_> {
    fn from(expected: &Expected) -> Self {
        let reason = expected.reason.map(|(step, code)| (Some(step.to_string()), code));
        Self { status: expected.status, reason }
    }
}

impl<'a> From<&'a Booking> for Ending<'a> {
    fn from(booking: &'a Booking) -> Self {
        let reason = booking.reason.as_ref().map(|reason| (reason.step.clone(), reason.code.as_str()));
        Self { status: booking.status, reason }
    }
}

impl fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match &self.reason {
            Some((Some(step), code)) => write!(f, ", because {step} says {code}"),
            Some((None, code)) => write!(f, ", because of {code}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ending::from(self).fmt(f)
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bookings.as_slice() {
            [] => f.write_str("no booking"),
            [booking] => Ending::from(booking).fmt(f),
            bookings => write!(f, "{} bookings", bookings.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples::{booking, failed};

    fn answer(status: u16, replay: bool) -> Answer {
        let mut headers = aws_smithy_runtime_api::http::Headers::new();
        if replay {
            headers.insert("idempotency-replayed", "true");
        }
        Answer { status, headers, body: "{}".into() }
    }

    fn scenario(name: &str) -> &'static Scenario {
        const { &ALL }.iter().find(|scenario| scenario.name == name).unwrap()
    }

    fn observed(booking: Booking) -> Observed {
        Observed { answers: vec![answer(202, false)], bookings: vec![booking] }
    }

    #[test]
    fn what_must_come_is_accepted() {
        assert_eq!(check(scenario("trip confirmed"), &observed(booking())), Ok(()));
        assert_eq!(check(scenario("hotel sold out"), &observed(failed())), Ok(()));
        let twice = Observed { answers: vec![answer(202, false), answer(202, true)], bookings: vec![booking()] };
        assert_eq!(check(scenario("sent twice"), &twice), Ok(()));
    }

    #[test]
    fn another_end_is_reported() {
        let wrong = check(scenario("hotel sold out"), &observed(booking())).unwrap_err();
        assert_eq!(wrong[0], "expected failed, because hotel.reserve says sold_out, got confirmed");
        assert_eq!(wrong[1], "expected hotel.reserve rejected, got reserved");
        assert_eq!(wrong[2], "expected payment.charge not in the timeline, got charged");
        let wrong = check(scenario("card declined"), &observed(failed())).unwrap_err();
        assert_eq!(
            wrong[0],
            "expected failed, because payment.charge says card_declined, got failed, because hotel.reserve says sold_out"
        );
    }

    /// The hotel is sold out, and the car's cancel arrived before its reserve.
    fn overtaken(variant: Variant) -> Booking {
        let mut booking = failed();
        booking.variant = variant;
        for entry in &mut booking.timeline {
            if entry.step == CAR.to_string() {
                (entry.outcome, entry.detail) = ("rejected".into(), json!({"code": "cancelled", "message": ""}));
            } else if entry.step == CANCEL_CAR.to_string() {
                entry.detail = json!({"released": false});
            }
        }
        booking
    }

    #[test]
    fn a_cancel_may_overtake_its_reserve_where_events_race_and_only_there() {
        let sold_out = scenario("hotel sold out");
        assert_eq!(check(sold_out, &observed(overtaken(Variant::Choreographed))), Ok(()));
        let wrong = check(sold_out, &observed(overtaken(Variant::Orchestrated))).unwrap_err();
        assert_eq!(
            wrong,
            [
                "expected car.reserve reserved, got rejected",
                "expected car.cancel cancelled with released=true, got cancelled with released=false",
            ]
        );
    }

    #[test]
    fn a_part_that_is_overtaken_is_no_excuse_for_anything_else() {
        let mut sold_out = overtaken(Variant::Choreographed);
        sold_out.timeline.iter_mut().find(|entry| entry.step == CAR.to_string()).unwrap().detail["code"] =
            json!("sold_out");
        let wrong = check(scenario("hotel sold out"), &observed(sold_out)).unwrap_err();
        assert_eq!(wrong[0], "expected car.reserve reserved, got rejected");

        let mut given_back = overtaken(Variant::Choreographed);
        given_back.timeline.iter_mut().find(|entry| entry.step == CANCEL_CAR.to_string()).unwrap().detail["released"] =
            json!(true);
        let wrong = check(scenario("hotel sold out"), &observed(given_back)).unwrap_err();
        assert_eq!(wrong[0], "expected car.reserve reserved, got rejected");
        assert!(wrong[1].starts_with("expected car.cancel cancelled with released=false after car.reserve rejected"));

        // All parts are reserved before anything is charged.
        let mut charged = overtaken(Variant::Choreographed);
        let mut charge = charged.entry(FLIGHT).unwrap().clone();
        (charge.step, charge.outcome) = (Step::Charge.to_string(), "declined".into());
        charged.timeline.push(charge);
        let wrong = check(scenario("card declined"), &observed(charged)).unwrap_err();
        assert!(wrong.contains(&"expected car.reserve reserved, got rejected".to_owned()), "{wrong:?}");
    }

    #[test]
    fn an_abort_after_a_declined_charge_is_reported() {
        let wrong = check(scenario("card declined"), &observed(failed())).unwrap_err();
        assert!(wrong.contains(&"expected payment.abort not in the timeline, got aborted".to_owned()), "{wrong:?}");
    }

    #[test]
    fn a_part_that_is_not_released_is_reported() {
        let mut left = failed();
        let cancel = left.timeline.iter_mut().find(|entry| entry.step == CANCEL_CAR.to_string()).unwrap();
        cancel.detail = json!({"released": false});
        let wrong = check(scenario("hotel sold out"), &observed(left)).unwrap_err();
        assert_eq!(
            wrong,
            [
                "expected car.cancel cancelled with released=true, got cancelled with released=false",
                "expected car.cancel cancelled with released=true after car.reserve reserved, got cancelled with \
                 released=false"
            ]
        );
    }

    #[test]
    fn an_amount_that_is_not_the_sum_of_the_prices_is_reported() {
        let mut cheap = booking();
        let charge = cheap.timeline.iter_mut().find(|entry| entry.step == Step::Charge.to_string()).unwrap();
        charge.detail["amount"]["amount"] = json!(1);
        let wrong = contradictions(&cheap);
        assert_eq!(
            wrong,
            [
                "expected the prices' sum 1674.00 EUR to be charged and shown, got 0.01 EUR charged and 1674.00 EUR shown"
            ]
        );
    }

    #[test]
    fn a_request_that_is_refused_or_booked_twice_is_reported() {
        let refused = Observed { answers: vec![answer(500, false)], bookings: vec![] };
        let wrong = check(scenario("trip confirmed"), &refused).unwrap_err();
        assert_eq!(wrong, ["expected 202 as answer 1, got 500: {}", "expected 1 booking, got 0"]);
        let twice =
            Observed { answers: vec![answer(202, false), answer(202, false)], bookings: vec![booking(), booking()] };
        let wrong = check(scenario("sent twice"), &twice).unwrap_err();
        assert_eq!(
            wrong,
            ["expected answer 2 with Idempotency-Replayed: true, got it without", "expected 1 booking, got 2"]
        );
    }

    #[test]
    fn every_scenario_is_a_request_that_the_api_reads() {
        let today = crate::trip::today();
        for (scenario, variant) in ALL.iter().flat_map(|scenario| VARIANTS.map(|variant| (scenario, variant))) {
            let request = scenario.request(TripRequest::default(), variant);
            let read = travel::TRAVEL.read(&request.to_json(), today).unwrap();
            assert_eq!(read.variant, variant, "{}", scenario.name);
        }
    }
}

//! Each step against DynamoDB: what it does, how many requests that takes, and what a repeat, a race or a crash does.

#![allow(clippy::unwrap_used)]

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{House, booking_id, date, trip};
use jiff::{SignedDuration, Timestamp};
use saga::{
    BookingId, Claim, Envelope, Event, Leg, LegRequest, Money, Outcome, PaymentReference, PaymentToken, Reason,
    Rejection, Status, Step,
    booking::Trip,
    payment::{Prices, State},
};
use serde_json::json;
use services::{Cashier, ErrorKind, PaymentProvider, ProviderError, Said, SandboxProvider, StepError, UnknownToken};
use store::{ClaimStore, Commit, Header, HeaderStore, IntakeStore, PaymentStore, Payments, Record};

const PRICES: Prices = Prices::new([Money::eur(100), Money::eur(20), Money::eur(3)]);
const TOTAL: Money = Money::eur(123);

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Rejected(Rejection { code, .. }) | Outcome::Declined(Rejection { code, .. }) => code,
        other => panic!("no rejection: {other:?}"),
    }
}

fn leg_of(trip: &Trip) -> &LegRequest {
    trip.leg(Leg::Hotel)
}

// ------------------------------------------------------------------------------------------------ flight, hotel, car

#[tokio::test]
async fn a_reserve_takes_every_line_in_one_request_and_a_repeat_takes_nothing() {
    let house = House::new().await;
    let trip = trip(date());
    for leg in Leg::ALL {
        let (seller, request, id) = (house.seller(leg), trip.leg(leg), booking_id("reserve"));
        house.seed_leg(request, 5).await;
        let left = 5 - i64::from(request.lines()[0].units);

        let (calls, outcome) = house.counted(seller.reserve(&id, request)).await;
        let outcome = outcome.unwrap();
        assert_eq!(calls, 1, "{leg:?}");
        assert!(matches!(outcome, Outcome::Reserved { .. }), "{outcome:?}");
        assert!(house.available(request).await.iter().all(|available| *available == left));

        let (calls, again) = house.counted(seller.reserve(&id, request)).await;
        assert_eq!((calls, again.unwrap()), (1, outcome));
        assert!(house.available(request).await.iter().all(|available| *available == left));
    }
}

#[tokio::test]
async fn a_stay_with_one_full_night_takes_no_night_and_stays_rejected() {
    let house = House::new().await;
    let (trip, id) = (trip(date()), booking_id("sold-out"));
    let (hotel, seller) = (leg_of(&trip), house.seller(Leg::Hotel));
    house.seed_leg(hotel, 1).await;
    let full = saga::StockLine { units: 0, ..hotel.lines()[1].clone() };
    house.stock(Leg::Hotel).seed(&[full]).await.unwrap();

    let (calls, outcome) = house.counted(seller.reserve(&id, hotel)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (2, "sold_out"));
    assert_eq!(house.available(hotel).await, [1, 0, 1]);

    house.seed_leg(hotel, 9).await; // somebody gives a room back: too late for this booking
    let (calls, outcome) = house.counted(seller.reserve(&id, hotel)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (1, "sold_out"));
    assert_eq!(house.available(hotel).await, [9, 9, 9]);
}

#[tokio::test]
async fn what_is_not_on_sale_is_rejected_and_what_is_unknown_without_a_look() {
    let house = House::new().await;
    let trip = trip(date());
    let (calls, outcome) =
        house.counted(house.seller(Leg::Flight).reserve(&booking_id("n"), trip.leg(Leg::Flight))).await;
    assert_eq!((calls, code(&outcome.unwrap())), (2, "not_on_sale"));

    let mut unknown = json!(trip);
    unknown["flight"]["flight_no"] = json!("XX1");
    let unknown: Trip = serde_json::from_value(unknown).unwrap();
    let reserve = house.seller(Leg::Flight);
    let (calls, outcome) = house.counted(reserve.reserve(&booking_id("u"), unknown.leg(Leg::Flight))).await;
    assert_eq!((calls, code(&outcome.unwrap())), (1, "unknown_flight"));
}

#[tokio::test]
async fn a_cancel_gives_back_once_in_one_request() {
    let house = House::new().await;
    let (trip, id) = (trip(date()), booking_id("cancel"));
    let (hotel, seller) = (leg_of(&trip), house.seller(Leg::Hotel));
    house.seed_leg(hotel, 3).await;
    seller.reserve(&id, hotel).await.unwrap();

    for _ in 0..3 {
        let (calls, outcome) = house.counted(seller.cancel(&id, hotel)).await;
        assert_eq!((calls, outcome.unwrap()), (1, Outcome::Cancelled { released: true }));
        assert_eq!(house.available(hotel).await, [3, 3, 3]);
    }
    // A duplicate of the reserve that was under way: it is answered, and takes nothing.
    assert!(matches!(seller.reserve(&id, hotel).await.unwrap(), Outcome::Reserved { .. }));
    assert_eq!(house.available(hotel).await, [3, 3, 3]);
}

#[tokio::test]
async fn a_cancel_that_comes_first_leaves_a_tombstone_that_refuses_the_late_reserve() {
    let house = House::new().await;
    let (trip, id) = (trip(date()), booking_id("tombstone"));
    let (hotel, seller) = (leg_of(&trip), house.seller(Leg::Hotel));
    house.seed_leg(hotel, 3).await;

    let (calls, outcome) = house.counted(seller.cancel(&id, hotel)).await;
    assert_eq!((calls, outcome.unwrap()), (2, Outcome::Cancelled { released: false }));
    let (calls, outcome) = house.counted(seller.cancel(&id, hotel)).await;
    assert_eq!((calls, outcome.unwrap()), (1, Outcome::Cancelled { released: false }));

    let (calls, outcome) = house.counted(seller.reserve(&id, hotel)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (1, "cancelled"));
    assert_eq!(house.available(hotel).await, [3, 3, 3]);
}

#[tokio::test]
async fn a_cancel_of_what_was_rejected_gives_nothing_back() {
    let house = House::new().await;
    let (trip, id) = (trip(date()), booking_id("rejected"));
    let (hotel, seller) = (leg_of(&trip), house.seller(Leg::Hotel));
    house.seed_leg(hotel, 0).await;
    assert_eq!(code(&seller.reserve(&id, hotel).await.unwrap()), "sold_out");

    let (calls, outcome) = house.counted(seller.cancel(&id, hotel)).await;
    assert_eq!((calls, outcome.unwrap()), (2, Outcome::Cancelled { released: false }));
    assert_eq!(house.available(hotel).await, [0, 0, 0]);
}

#[tokio::test]
async fn the_same_step_with_other_contents_is_refused() {
    let house = House::new().await;
    let id = booking_id("other");
    let (one, other) = (trip(date()), trip(date()));
    let seller = house.seller(Leg::Hotel);
    house.seed_leg(leg_of(&one), 3).await;
    house.seed_leg(leg_of(&other), 3).await;
    seller.reserve(&id, leg_of(&one)).await.unwrap();
    for result in [seller.reserve(&id, leg_of(&other)).await, seller.cancel(&id, leg_of(&other)).await] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(house.available(leg_of(&one)).await, [2, 2, 2]);
    assert_eq!(house.available(leg_of(&other)).await, [3, 3, 3]);
}

#[tokio::test]
async fn twenty_at_once_get_the_five_rooms_that_there_are_and_no_repeat_gets_a_second() {
    let house = House::new().await;
    let trip = trip(date());
    house.seed_leg(leg_of(&trip), 5).await;
    let mut racing = tokio::task::JoinSet::new();
    for buyer in 0..20 {
        let id = booking_id(&format!("racing{buyer}"));
        for _ in 0..2 {
            let (seller, trip, id) = (house.seller(Leg::Hotel), trip.clone(), id.clone());
            racing.spawn(async move { (id.clone(), seller.reserve(&id, leg_of(&trip)).await.unwrap()) });
        }
    }
    let mut reserved = std::collections::BTreeMap::new();
    for (id, outcome) in racing.join_all().await {
        let before = reserved.insert(id.to_string(), outcome.clone());
        assert!(before.is_none_or(|before| before == outcome), "{id} was told two things");
    }
    let got = reserved.values().filter(|outcome| matches!(outcome, Outcome::Reserved { .. })).count();
    assert_eq!(got, 5);
    assert_eq!(house.available(leg_of(&trip)).await, [0, 0, 0]);
}

#[tokio::test]
async fn a_reserve_and_its_cancel_at_once_leave_nothing_reserved() {
    let house = House::new().await;
    let trip = trip(date());
    house.seed_leg(leg_of(&trip), 50).await;
    for round in 0..10 {
        let id = booking_id(&format!("both{round}"));
        let mut racing = tokio::task::JoinSet::new();
        for cancel in [false, true, false, true] {
            let (seller, trip, id) = (house.seller(Leg::Hotel), trip.clone(), id.clone());
            racing.spawn(async move {
                let leg = leg_of(&trip);
                if cancel { seller.cancel(&id, leg).await } else { seller.reserve(&id, leg).await }.unwrap()
            });
        }
        racing.join_all().await;
        assert_eq!(house.available(leg_of(&trip)).await, [50, 50, 50]);
    }
}

#[tokio::test]
async fn journal_items_look_as_those_of_powertools() {
    let house = House::new().await;
    let (trip, id) = (trip(date()), booking_id("journal"));
    house.seed_leg(leg_of(&trip), 1).await;
    house.seller(Leg::Hotel).reserve(&id, leg_of(&trip)).await.unwrap();
    let request = house.client.get_item().table_name(house.stack.journal_table().unwrap());
    let key = |text: &str| AttributeValue::S(text.to_owned());
    let item =
        request.key("id", key(id.as_str())).key("step", key("hotel.reserve")).send().await.unwrap().item.unwrap();
    assert_eq!(item["status"].as_s().unwrap(), "COMPLETED");
    let data: serde_json::Value = serde_json::from_str(item["data"].as_s().unwrap()).unwrap();
    assert_eq!(data, json!({"outcome": "reserved", "detail": {"price": {"amount": 65700, "currency": "EUR"}}}));
    let expires: i64 = item["expiration"].as_n().unwrap().parse().unwrap();
    let in_730_days = Timestamp::now().as_second() + 730 * 24 * 3600;
    assert!((expires - in_730_days).abs() < 60, "{expires}");
    assert!(item["validation"].as_s().is_ok());
}

// ---------------------------------------------------------------------------------------------------------- payment

struct Payment {
    house: House,
    id: BookingId,
    reference: PaymentReference,
}

impl Payment {
    async fn with(token: &str) -> Self {
        let house = House::new().await;
        let id = booking_id("payment");
        let reference = PaymentReference::derive(&id, "digest");
        let token = PaymentToken::try_from(token).unwrap();
        house.cashier().provider.attach(&reference, &token).await.unwrap().unwrap();
        Self { house, id, reference }
    }

    async fn charge(&self) -> (usize, Result<Outcome, StepError>) {
        let cashier = self.house.cashier();
        self.house.counted(cashier.charge(&self.id, &self.reference, &PRICES)).await
    }

    async fn abort(&self) -> (usize, Outcome) {
        let cashier = self.house.cashier();
        let (calls, outcome) = self.house.counted(cashier.abort(&self.id, &self.reference, Some(&why()))).await;
        (calls, outcome.unwrap())
    }

    async fn paid(&self) -> Option<Money> {
        self.house.ledger().paid(&self.reference).await.unwrap().map(|paid| paid.amount)
    }

    async fn state(&self) -> State {
        self.house.payments().state(&self.id).await.unwrap()
    }

    /// The same participant, a minute later.
    fn later(&self) -> Cashier<Payments, SandboxProvider> {
        fn in_a_minute() -> Timestamp {
            Timestamp::now() + SignedDuration::from_mins(1)
        }
        Cashier { clock: in_a_minute, ..self.house.cashier() }
    }

    /// A worker takes the lease, charges (if it comes that far) and dies.
    async fn worker_dies(&self, after_the_charge: bool) {
        let now = Timestamp::now();
        let unknown = Outcome::Aborted { reason: None };
        let total: &[u8] = &TOTAL.amount.to_be_bytes();
        let validation = saga::id::digest(&[self.reference.as_str().as_bytes(), total, b"EUR"]);
        let record = Record {
            id: self.id.as_str(),
            step: Step::Charge.name(),
            outcome: &unknown,
            validation: &validation,
            started_at: now,
            finished_at: now,
        };
        let lease = self.house.payments().lease(&record, now.as_millisecond() + 15_000, None).await.unwrap();
        assert_eq!(lease, Commit::Done);
        if after_the_charge {
            self.house.cashier().provider.charge(&self.reference, TOTAL).await.unwrap();
        }
    }
}

fn why() -> Reason {
    Reason { step: Some(Step::Reserve(Leg::Hotel)), code: "sold_out".into(), detail: "no room".into() }
}

fn aborted() -> Outcome {
    Outcome::Aborted { reason: Some(why()) }
}

#[tokio::test]
async fn a_charge_takes_three_requests_and_a_repeat_one() {
    let payment = Payment::with("tok_visa").await;
    let (calls, outcome) = payment.charge().await;
    let outcome = outcome.unwrap();
    assert!(matches!(&outcome, Outcome::Charged { amount, .. } if *amount == TOTAL), "{outcome:?}");
    assert_eq!(calls, 3);
    let (calls, again) = payment.charge().await;
    assert_eq!((calls, again.unwrap()), (1, outcome));
    assert_eq!(payment.paid().await, Some(TOTAL));
}

#[tokio::test]
async fn a_declined_card_stays_declined() {
    for (token, why) in [("tok_declined", "card_declined"), ("tok_insufficient_funds", "insufficient_funds")] {
        let payment = Payment::with(token).await;
        let (calls, outcome) = payment.charge().await;
        assert_eq!((calls, code(&outcome.unwrap())), (3, why));
        assert_eq!(payment.state().await, State::Declined);
        let (calls, outcome) = payment.abort().await;
        assert!(calls <= 2);
        assert_eq!(outcome, aborted());
        let (calls, outcome) = payment.charge().await;
        assert_eq!((calls, code(&outcome.unwrap())), (1, why));
        assert_eq!(payment.paid().await, None);
    }
}

#[tokio::test]
async fn an_abort_that_comes_first_rules_the_charge_out() {
    let payment = Payment::with("tok_visa").await;
    for _ in 0..2 {
        assert_eq!(payment.abort().await, (2, aborted()));
    }
    let (calls, outcome) = payment.charge().await;
    assert_eq!((calls, outcome.unwrap()), (2, aborted()), "it voids again");
    let state = State::Aborted { reason: Some(why()) };
    assert_eq!((payment.state().await, payment.paid().await), (state, None));
}

#[tokio::test]
async fn an_abort_that_comes_after_the_charge_answers_charged() {
    let payment = Payment::with("tok_visa").await;
    let charged = payment.charge().await.1.unwrap();
    let (calls, outcome) = payment.abort().await;
    assert!(calls <= 2);
    assert_eq!(outcome, charged);
    assert_eq!(payment.abort().await.1, charged);
    assert_eq!(payment.paid().await, Some(TOTAL));
}

#[tokio::test]
async fn a_provider_that_answers_late_or_fails_is_asked_again_within_the_lease_and_charges_once() {
    // Lease and completion; the late charge, and the look that finds it; or two charges that fail, which the sandbox
    // counts, each with a look that finds nothing, and the one that succeeds.
    for (token, requests) in [("tok_timeout", 2 + 2), ("tok_flaky", 2 + 2 * 2 + 2 + 1)] {
        let payment = Payment::with(token).await;
        let (calls, outcome) = payment.charge().await;
        assert!(matches!(outcome.unwrap(), Outcome::Charged { amount, .. } if amount == TOTAL), "{token}");
        assert_eq!(calls, requests, "{token}");
        assert_eq!(payment.paid().await, Some(TOTAL), "{token}");
    }
}

/// The sandbox, until it is asked what became of a charge: then somebody aborts first.
struct AbortedBetweenAttempts(std::sync::Arc<Payment>, SandboxProvider);

impl PaymentProvider for AbortedBetweenAttempts {
    async fn attach(
        &self,
        reference: &PaymentReference,
        token: &PaymentToken,
    ) -> Result<Result<(), UnknownToken>, ProviderError> {
        self.1.attach(reference, token).await
    }

    async fn charge(&self, reference: &PaymentReference, amount: Money) -> Result<Outcome, ProviderError> {
        self.1.charge(reference, amount).await
    }

    async fn find(&self, reference: &PaymentReference) -> Result<Option<Outcome>, ProviderError> {
        assert_eq!(self.0.abort().await.1, aborted());
        self.1.find(reference).await
    }

    async fn void(&self, reference: &PaymentReference) -> Result<(), ProviderError> {
        self.1.void(reference).await
    }
}

#[tokio::test]
async fn an_abort_between_two_attempts_at_the_provider_wins() {
    // Nothing is charged yet, or it is and nobody has heard of it.
    for token in ["tok_flaky", "tok_timeout"] {
        let payment = std::sync::Arc::new(Payment::with(token).await);
        let Cashier { store, provider, clock } = payment.house.cashier();
        let cashier = Cashier { store, provider: AbortedBetweenAttempts(payment.clone(), provider), clock };
        let outcome = cashier.charge(&payment.id, &payment.reference, &PRICES).await.unwrap();
        assert_eq!(outcome, aborted(), "{token}");
        let state = State::Aborted { reason: Some(why()) };
        assert_eq!((payment.state().await, payment.paid().await), (state, None), "{token}");
    }
}

#[tokio::test]
async fn a_lease_keeps_others_out_until_it_ends_and_then_the_charge_is_completed() {
    for after_the_charge in [false, true] {
        let payment = Payment::with("tok_visa").await;
        payment.worker_dies(after_the_charge).await;
        assert_eq!(payment.charge().await.1.unwrap_err().kind(), ErrorKind::ChargeInProgress);
        let outcome = payment.later().charge(&payment.id, &payment.reference, &PRICES).await.unwrap();
        assert!(matches!(outcome, Outcome::Charged { amount, .. } if amount == TOTAL));
        assert_eq!(payment.paid().await, Some(TOTAL));
    }
}

#[tokio::test]
async fn an_abort_undoes_what_a_dead_worker_charged() {
    for after_the_charge in [false, true] {
        let payment = Payment::with("tok_visa").await;
        payment.worker_dies(after_the_charge).await;
        assert_eq!(payment.abort().await, (2, aborted()));
        assert_eq!(payment.paid().await, None);
        // Should it only have been slow: the provider refuses, and the decision stays.
        let outcome = payment.later().charge(&payment.id, &payment.reference, &PRICES).await.unwrap();
        assert_eq!(outcome, aborted());
        let late = payment.house.cashier().provider.charge(&payment.reference, TOTAL).await.unwrap();
        assert_eq!(code(&late), "voided");
        assert_eq!((payment.state().await, payment.paid().await), (State::Aborted { reason: Some(why()) }, None));
    }
}

#[tokio::test]
async fn charge_and_abort_at_once_have_one_winner() {
    for _ in 0..12 {
        let payment = std::sync::Arc::new(Payment::with("tok_visa").await);
        let mut racing = tokio::task::JoinSet::new();
        for abort in [false, true, false] {
            let payment = payment.clone();
            racing.spawn(async move {
                match abort {
                    true => Ok(payment.abort().await.1),
                    false => payment.charge().await.1,
                }
            });
        }
        let told: Vec<_> = racing.join_all().await.into_iter().filter_map(Result::ok).collect();
        let says_charged = told.iter().any(|outcome| matches!(outcome, Outcome::Charged { .. }));
        let says_aborted = told.iter().any(|outcome| matches!(outcome, Outcome::Aborted { .. }));
        assert!(says_charged != says_aborted, "{told:?}");
        assert_eq!(payment.paid().await.is_some(), says_charged, "{told:?}");
    }
}

#[tokio::test]
async fn prices_are_collected_with_one_request_each_and_decide_nothing() {
    let payment = Payment::with("tok_visa").await;
    let (house, id) = (&payment.house, &payment.id);
    let prices = [(Leg::Flight, Money::eur(3)), (Leg::Hotel, Money::eur(2)), (Leg::Car, Money::eur(1))];
    for (known, (leg, price)) in prices.iter().enumerate().rev() {
        for _ in 0..2 {
            let payments = house.payments();
            let (calls, collected) = house.counted(payments.collect(id, *leg, *price)).await;
            assert_eq!((calls, collected.unwrap()), (1, prices[known..].to_vec()));
        }
    }
    assert_eq!(payment.state().await, State::Collecting);
    let (calls, outcome) = payment.charge().await;
    assert!(matches!(outcome.unwrap(), Outcome::Charged { .. }));
    assert_eq!(calls, 3, "prices do not stand in the way of the lease");
    house.payments().collect(id, Leg::Car, Money::eur(1)).await.unwrap();
    assert!(matches!(payment.state().await, State::Charged { .. }), "a late event changes nothing");
}

#[tokio::test]
async fn an_abort_is_told_to_a_charge_that_comes_later_with_its_first_reason() {
    let payment = Payment::with("tok_visa").await;
    payment.abort().await;
    let other = Reason { step: None, code: "technical_failure".into(), detail: "late".into() };
    let again = payment.house.cashier().abort(&payment.id, &payment.reference, Some(&other)).await.unwrap();
    assert_eq!(again, aborted());
}

// ---------------------------------------------------------------------------------------------------------- booking

async fn header(house: &House) -> Header {
    let now = Timestamp::now();
    let header = Header {
        booking_id: booking_id("header"),
        request_digest: "digest".into(),
        variant: saga::Variant::Orchestrated,
        status: Status::Pending,
        owner: saga::Owner::of("tests"),
        trip: trip(date()),
        total: None,
        reason: None,
        claim: Claim::first(now),
        created_at: now,
        updated_at: now,
    };
    let traveller = saga::Traveller { name: "Ada".into(), email: "a@b".into() };
    let (calls, created) = house.counted(house.intake().accept(&header, &traveller)).await;
    assert_eq!((calls, created.unwrap()), (1, Commit::Done));
    header
}

fn command(header: &Header, step: Step, name: &str, value: serde_json::Value) -> serde_json::Value {
    json!({"step": step.name(), "booking_id": header.booking_id, name: value})
}

#[tokio::test]
async fn a_booking_is_confirmed_or_failed_in_one_request_and_stays_so() {
    let reason = Reason { step: Some(Step::Reserve(Leg::Hotel)), code: "sold_out".into(), detail: "no room".into() };
    for (step, opposite, status) in
        [(Step::Confirm, Step::Fail, Status::Confirmed), (Step::Fail, Step::Confirm, Status::Failed)]
    {
        let house = House::new().await;
        let (desk, header) = (house.desk(), header(&house).await);
        let end = |step| match step {
            Step::Confirm => command(&header, step, "total", json!(TOTAL)),
            _ => command(&header, step, "reason", json!(reason)),
        };
        for _ in 0..2 {
            let (calls, said) = house.counted(desk.handle(&end(step))).await;
            let Said::Reply(reply) = said.unwrap() else { panic!("a command is answered with a reply") };
            assert_eq!((calls, reply.step), (1, step));
            let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
            assert_eq!(found.status, status);
            assert_eq!(found.total.is_some(), status == Status::Confirmed);
            assert_eq!(found.reason.is_some(), status == Status::Failed);
        }
        let contradiction = desk.handle(&end(opposite)).await.unwrap_err();
        assert_eq!(contradiction.kind(), ErrorKind::Contradiction);
        assert_eq!(house.headers().get(&header.booking_id).await.unwrap().unwrap().status, status);
    }
}

#[tokio::test]
async fn every_open_booking_is_found_the_oldest_first_whatever_its_item_holds() {
    const SHARED: usize = 70;
    let house = House::new().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&house.stack.sdk().await.unwrap());
    let time = |nth: usize| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(nth as i64);
    let id = |nth: usize| format!("c{nth:031x}"); // all in one shard, and no header could be read of any
    for nth in (0..SHARED).rev() {
        let put = dynamodb.put_item().table_name(house.stack.bookings_table().unwrap());
        let put = put.item("booking_id", AttributeValue::S(id(nth))).item("open_shard", AttributeValue::S("c".into()));
        put.item("created_at", AttributeValue::S(format!("{:.3}", time(nth)))).send().await.unwrap();
    }
    let open = async |before| {
        let (open, errors) = house.headers().open_before(before).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(open(time(SHARED)).await, (0..SHARED).map(id).collect::<Vec<_>>());
    assert_eq!(open(time(1)).await, [id(0)]);
}

#[tokio::test]
async fn a_parked_booking_leaves_the_index_and_can_still_be_ended() {
    let house = House::new().await;
    let (desk, header) = (house.desk(), header(&house).await);
    let is_open = async || {
        let (open, errors) = house.headers().open_before(Timestamp::now() + SignedDuration::from_mins(1)).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.contains(&header.booking_id)
    };
    assert!(is_open().await);
    let reason = json!({"step": "hotel.cancel", "code": "parked", "detail": "gave up"});
    for _ in 0..2 {
        desk.handle(&command(&header, Step::Park, "reason", reason.clone())).await.unwrap();
        let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
        assert_eq!(found.status, Status::NeedsOperator);
        assert_eq!(found.reason.unwrap().step, Some(Step::Cancel(Leg::Hotel)));
    }
    assert!(!is_open().await);
    desk.handle(&command(&header, Step::Confirm, "total", json!(TOTAL))).await.unwrap();
    let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
    assert_eq!((found.status, found.reason), (Status::Confirmed, None));
    // A park that comes late changes nothing.
    desk.handle(&command(&header, Step::Park, "reason", reason)).await.unwrap();
    assert_eq!(house.headers().get(&header.booking_id).await.unwrap().unwrap().status, Status::Confirmed);
}

#[tokio::test]
async fn a_start_is_claimed_by_one_and_what_is_not_as_it_was_known_by_nobody() {
    let house = House::new().await;
    let (headers, header) = (house.headers(), header(&house).await);
    let read = async || headers.get(&header.booking_id).await.unwrap().unwrap();
    let now = Timestamp::now();
    let second = Claim { number: 2, at: Some(now), drives: 1, redrive: None };
    let (calls, is_claimed) = house.counted(headers.claim(&header, &second, now)).await;
    assert_eq!((calls, is_claimed.unwrap()), (1, true));
    assert!(!headers.claim(&header, &second, now).await.unwrap(), "somebody was first");

    let taken = read().await;
    assert_eq!((taken.claim.number, taken.claim.at.is_some(), taken.claim.drives), (2, true, 1));
    assert!(headers.claim(&taken, &taken.claim.released(), now).await.unwrap());
    let released = read().await;
    assert_eq!(released.claim, Claim { number: 1, at: None, drives: 0, redrive: None });

    let reason = json!({"step": null, "code": "not_ended", "detail": "driven again"});
    house.desk().handle(&command(&header, Step::Park, "reason", reason)).await.unwrap();
    assert!(!headers.claim(&released, &second, now).await.unwrap(), "it needs an operator");
    let redrive = Claim { redrive: Some("message".into()), ..second };
    assert!(headers.claim(&read().await, &redrive, now).await.unwrap(), "who asks for it");
    let found = read().await;
    assert_eq!((found.status, found.reason, found.claim.redrive), (Status::Pending, None, redrive.redrive));
    let (open, _) = headers.open_before(now + SignedDuration::from_mins(1)).await;
    assert!(open.contains(&header.booking_id), "the reconciler finds it again");
}

#[tokio::test]
async fn a_booking_of_a_program_that_wrote_no_claims_down_was_claimed_when_it_was_recorded() {
    let house = House::new().await;
    let (headers, header) = (house.headers(), header(&house).await);
    let key = AttributeValue::S(header.booking_id.to_string());
    let table = house.stack.bookings_table().unwrap();
    let request = house.client.update_item().table_name(table).key("booking_id", key);
    request.update_expression("REMOVE claims, claimed_at").send().await.unwrap();
    let found = headers.get(&header.booking_id).await.unwrap().unwrap();
    assert_eq!(found.claim, Claim::first(found.created_at));
    let second = Claim { number: 2, ..found.claim.clone() };
    assert!(headers.claim(&found, &second, Timestamp::now()).await.unwrap());
    assert!(!headers.claim(&found, &second, Timestamp::now()).await.unwrap());
}

#[tokio::test]
async fn a_booking_that_nobody_recorded_cannot_be_ended() {
    let house = House::new().await;
    let nobody = json!({"step": "booking.confirm", "booking_id": booking_id("nobody"), "total": TOTAL});
    assert_eq!(house.desk().handle(&nobody).await.unwrap_err().kind(), ErrorKind::Contradiction);
}

// ----------------------------------------------------------------------------------------------------------- events

type Heard = (usize, Result<Option<Said>, StepError>);

/// What was said, which must be an event, and how many requests it took.
fn event((calls, said): Heard) -> (usize, Envelope) {
    match said.unwrap() {
        Some(Said::Event(event)) => (calls, *event),
        other => panic!("expected an event, got {other:?}"),
    }
}

fn nothing((calls, said): Heard) -> usize {
    assert!(said.as_ref().unwrap().is_none(), "{said:?}");
    calls
}

/// The first event of a booking that is recorded and whose stock is on sale.
async fn requested(house: &House, token: &str) -> Envelope {
    let header = header(house).await;
    house.seed(&header.trip, 5).await;
    let plan = header.plan();
    let token = PaymentToken::try_from(token).unwrap();
    house.cashier().provider.attach(&plan.payment.reference, &token).await.unwrap().unwrap();
    Envelope::requested(header.booking_id, plan, Timestamp::now(), Some("Root=1-x".into()))
}

#[tokio::test]
async fn events_lead_to_a_confirmation_with_the_same_requests_and_one_more_for_each_that_is_waited_for() {
    let house = House::new().await;
    let requested = requested(&house, "tok_visa").await;
    let mut reserved = Vec::new();
    for leg in Leg::ALL {
        let seller = house.seller(leg);
        for repeat in [false, true] {
            let (calls, event) = event(house.counted(seller.hear(&json!(requested))).await);
            assert_eq!(calls, 1, "{leg:?}, {repeat}");
            assert!(matches!(&event.event, Event::Reserved { leg: of, .. } if *of == leg), "{event:?}");
            assert_eq!(event.causation_id, Some(requested.event_id()));
            assert_eq!(event.trace, requested.trace);
            if !repeat {
                reserved.push(event);
            }
        }
    }
    let cashier = house.cashier();
    for event in &reserved[..2] {
        assert_eq!(nothing(house.counted(cashier.hear(&json!(event))).await), 1);
    }
    let (calls, charged) = event(house.counted(cashier.hear(&json!(reserved[2]))).await);
    assert_eq!(calls, 1 + 3);
    let (calls, again) = event(house.counted(cashier.hear(&json!(reserved[0]))).await);
    assert_eq!((calls, &again.event), (1 + 1, &charged.event), "a duplicate is answered the same");

    let desk = house.desk();
    for _ in 0..2 {
        let (calls, confirmed) = event(house.counted(desk.hear(&json!(charged))).await);
        assert_eq!(calls, 1);
        assert!(matches!(confirmed.event, Event::Confirmed { .. }));
    }
    let header = house.headers().get(&requested.booking_id).await.unwrap().unwrap();
    let Event::Charged { amount } = charged.event else { panic!("{charged:?}") };
    assert_eq!((header.status, header.total), (Status::Confirmed, Some(amount)));
}

#[tokio::test]
async fn events_lead_to_a_failure_that_is_said_only_when_every_leg_is_given_back() {
    let house = House::new().await;
    let requested = requested(&house, "tok_visa").await;
    let trip = requested.event.plan().unwrap().trip.clone();
    house.seed_leg(trip.leg(Leg::Hotel), 0).await;
    let reserved = event(house.counted(house.seller(Leg::Flight).hear(&json!(requested))).await).1;
    let (calls, rejected) = event(house.counted(house.seller(Leg::Hotel).hear(&json!(requested))).await);
    assert_eq!(calls, 2);

    let cashier = house.cashier();
    assert_eq!(nothing(house.counted(cashier.hear(&json!(reserved))).await), 1);
    let (calls, aborted) = event(house.counted(cashier.hear(&json!(rejected))).await);
    assert_eq!(calls, 2);
    // The car reserves late, which comes to nothing.
    let mut cancelled = Vec::new();
    for (leg, most) in [(Leg::Flight, 1), (Leg::Hotel, 2), (Leg::Car, 2)] {
        let (calls, event) = event(house.counted(house.seller(leg).hear(&json!(aborted))).await);
        assert!(calls <= most, "{leg:?}: {calls}");
        cancelled.push(event);
    }
    let late = event(house.counted(house.seller(Leg::Car).hear(&json!(requested))).await).1;
    assert!(matches!(late.event, Event::Rejected { leg: Leg::Car, .. }), "{late:?}");
    let again = event(house.counted(cashier.hear(&json!(late))).await).1;
    assert_eq!(again.event, aborted.event, "the first reason stays");

    let desk = house.desk();
    for event in [&cancelled[0], &cancelled[0], &cancelled[1]] {
        assert_eq!(nothing(house.counted(desk.hear(&json!(event))).await), 1);
        assert_eq!(house.headers().get(&requested.booking_id).await.unwrap().unwrap().status, Status::Pending);
    }
    let (calls, failed) = event(house.counted(desk.hear(&json!(cancelled[2]))).await);
    assert_eq!(calls, 1 + 1);
    let Event::Failed { reason: Some(reason) } = failed.event else { panic!("{failed:?}") };
    assert_eq!((reason.step, reason.code.as_str()), (Some(Step::Reserve(Leg::Hotel)), "sold_out"));
    for leg in [Leg::Flight, Leg::Car] {
        assert!(house.available(trip.leg(leg)).await.iter().all(|available| *available == 5), "{leg:?}");
    }
}

#[tokio::test]
async fn a_step_that_was_given_up_aborts_and_names_the_step() {
    let house = House::new().await;
    let requested = requested(&house, "tok_visa").await;
    let cashier = house.cashier();
    let message = json!(requested);
    let hear = cashier.hear_failure(&message, "harmony-hotel", "StoreUnavailable");
    let (calls, aborted) = event(house.counted(hear).await);
    assert_eq!(calls, 2);
    let Event::Aborted { reason: Some(reason), .. } = aborted.event else { panic!("{aborted:?}") };
    assert_eq!(reason.step, Some(Step::Reserve(Leg::Hotel)));
    assert_eq!((reason.code.as_str(), reason.detail.as_str()), ("technical_failure", "gave up after StoreUnavailable"));
}

#[tokio::test]
async fn a_failure_that_is_reported_after_the_charge_goes_forwards() {
    let house = House::new().await;
    let requested = requested(&house, "tok_visa").await;
    let mut charged = None;
    for leg in Leg::ALL {
        let reserved = event(house.counted(house.seller(leg).hear(&json!(requested))).await).1;
        charged = house.cashier().hear(&json!(reserved)).await.unwrap();
    }
    assert!(charged.is_some());
    let late = house.cashier().hear_failure(&json!(requested), "harmony-car", "Runtime.ExitError").await.unwrap();
    let Some(Said::Event(event)) = late else { panic!("{late:?}") };
    assert!(matches!(event.event, Event::Charged { .. }), "{event:?}");
}

#[tokio::test]
async fn what_nobody_listens_to_costs_nothing_and_what_nobody_can_read_is_an_error() {
    let house = House::new().await;
    for event in saga::event::samples() {
        let event_type = event.event_type();
        if saga::payment::reaction(&event).is_none() {
            let envelope = Envelope {
                booking_id: booking_id("ignored"),
                event,
                causation_id: None,
                time: Timestamp::now(),
                trace: None,
            };
            let calls = nothing(house.counted(house.cashier().hear(&json!(envelope))).await);
            assert_eq!(calls, 0, "{event_type}");
        }
    }
    assert_eq!(nothing(house.counted(house.desk().hear(&json!({"type": "invoice.sent"}))).await), 0);
    for garbage in
        [json!({}), json!({"type": "booking.aborted"}), json!({"type": "booking.aborted", "schema_version": 2})]
    {
        let error = house.seller(Leg::Car).hear(&garbage).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{garbage}");
    }
    let nobody = Envelope {
        booking_id: booking_id("nobody"),
        event: Event::Cancelled { leg: Leg::Car, reason: None },
        causation_id: None,
        time: Timestamp::now(),
        trace: None,
    };
    let error = house.desk().hear(&json!(nobody)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contradiction);
    assert!(house.headers().get(&nobody.booking_id).await.unwrap().is_none(), "no header out of nothing");
}

//! Payment: who wins, charge or abort, and what is charged.

use super::{sellers::VOUCHER, *};

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
        house.payment().provider.attach(&reference, &token).await.unwrap().unwrap();
        Self { house, id, reference }
    }

    async fn charge(&self) -> (usize, Result<Outcome, StepError>) {
        let service = self.house.payment();
        self.house.counted(service.charge(&self.id, &self.reference, &of_trip())).await
    }

    async fn abort(&self) -> (usize, Outcome) {
        let service = self.house.payment();
        let (calls, outcome) = self.house.counted(service.abort(&self.id, &self.reference, Some(&why()))).await;
        (calls, outcome.unwrap())
    }

    async fn paid(&self) -> Option<Money> {
        self.house.ledger().paid(&self.reference).await.unwrap().map(|paid| paid.amount)
    }

    async fn state(&self) -> State {
        self.house.payments().state(&self.id).await.unwrap()
    }

    /// The same participant, a minute later.
    fn later(&self) -> PaymentService<Payments, SandboxProvider> {
        fn in_a_minute() -> Timestamp {
            Timestamp::now() + SignedDuration::from_mins(1)
        }
        PaymentService { clock: in_a_minute, ..self.house.payment() }
    }

    /// A worker takes the lease, charges (if it comes that far) and dies.
    async fn worker_dies(&self, after_the_charge: bool) {
        let now = Timestamp::now();
        let prices = json!(of_trip()).to_string();
        let validation = saga::id::digest(&[self.reference.as_str().as_bytes(), prices.as_bytes()]);
        let begun = Begun { booking_id: &self.id, step: Step::Charge, validation: &validation, started_at: now };
        let lease = self.house.payments().lease(&begun, now.as_millisecond() + 15_000, None).await.unwrap();
        assert_eq!(lease, Commit::Done);
        if after_the_charge {
            self.house.payment().provider.charge(&self.reference, TOTAL).await.unwrap();
        }
    }
}

fn why() -> Reason {
    Reason { step: Some(Step::Reserve(HOTEL.name)), code: "sold_out".into(), detail: "no room".into() }
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
struct AbortedBetweenAttempts(Arc<Payment>, SandboxProvider);

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
        let payment = Arc::new(Payment::with(token).await);
        let PaymentService { store, provider, clock } = payment.house.payment();
        let service = PaymentService { store, provider: AbortedBetweenAttempts(payment.clone(), provider), clock };
        let outcome = service.charge(&payment.id, &payment.reference, &of_trip()).await.unwrap();
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
        let outcome = payment.later().charge(&payment.id, &payment.reference, &of_trip()).await.unwrap();
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
        let outcome = payment.later().charge(&payment.id, &payment.reference, &of_trip()).await.unwrap();
        assert_eq!(outcome, aborted());
        let late = payment.house.payment().provider.charge(&payment.reference, TOTAL).await.unwrap();
        assert_eq!(code(&late), "voided");
        assert_eq!((payment.state().await, payment.paid().await), (State::Aborted { reason: Some(why()) }, None));
    }
}

#[tokio::test]
async fn charge_and_abort_at_once_have_one_winner() {
    for _ in 0..12 {
        let payment = Arc::new(Payment::with("tok_visa").await);
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
    let euro = |amount| Price { amount, currency: Currency::EUR };
    let mut known = BTreeMap::new();
    for (part, price) in [(FLIGHT.name, euro(3)), (HOTEL.name, euro(2)), (CAR.name, euro(1)), (VOUCHER.name, euro(-4))]
    {
        known.insert(part, price);
        for _ in 0..2 {
            let payments = house.payments();
            let (calls, collected) = house.counted(payments.collect(id, part, price)).await;
            assert_eq!((calls, collected.unwrap()), (1, known.clone()));
        }
    }
    assert_eq!(payment.state().await, State::Collecting);
    let (calls, outcome) = payment.charge().await;
    assert!(matches!(outcome.unwrap(), Outcome::Charged { .. }));
    assert_eq!(calls, 3, "prices do not stand in the way of the lease");
    house.payments().collect(id, CAR.name, euro(1)).await.unwrap();
    assert!(matches!(payment.state().await, State::Charged { .. }), "a late event changes nothing");
}

#[tokio::test]
async fn credits_are_taken_off_and_a_provider_is_asked_only_if_something_is_left_to_pay() {
    let priced = |credit: i64| prices(&[(FLIGHT.name, 500), (HOTEL.name, 100), (VOUCHER.name, -credit)]);
    for (credit, requests, due) in [(400, 3, Some(200)), (599, 3, Some(1)), (600, 2, Some(0)), (601, 2, None)] {
        let payment = Payment::with("tok_visa").await;
        let service = payment.house.payment();
        let prices = priced(credit);
        let charge = payment.house.counted(service.charge(&payment.id, &payment.reference, &prices));
        let (calls, outcome) = charge.await;
        let outcome = outcome.unwrap();
        assert_eq!(calls, requests, "{credit}");
        let is_at_the_provider = payment.paid().await;
        match due.map(Money::eur) {
            Some(due) => {
                assert!(matches!(&outcome, Outcome::Charged { amount, .. } if *amount == due), "{credit}: {outcome:?}");
                assert!(matches!(payment.state().await, State::Charged { amount, .. } if amount == due), "{credit}");
                assert_eq!(is_at_the_provider, (due.amount > 0).then_some(due), "{credit}");
            }
            None => {
                assert_eq!((code(&outcome), payment.state().await), ("overpaid", State::Declined), "{credit}");
                assert_eq!(is_at_the_provider, None, "{credit}");
            }
        }
        let again = payment.house.counted(service.charge(&payment.id, &payment.reference, &prices)).await;
        assert_eq!((again.0, again.1.unwrap()), (1, outcome.clone()), "{credit}");
        let (_, aborted_too) = payment.abort().await;
        assert_eq!(aborted_too, if due.is_some() { outcome } else { aborted() }, "{credit}");
    }
}

#[tokio::test]
async fn a_charge_whose_prices_are_not_those_of_the_plan_is_refused_and_decides_nothing() {
    let payment = Payment::with("tok_visa").await;
    let service = payment.house.payment();
    let price = json!({"amount": 100, "currency": "EUR"});
    let command = |parts: Value, priced: &[&str]| {
        let prices: BTreeMap<_, _> = priced.iter().map(|part| (*part, &price)).collect();
        let reference = json!({"reference": payment.reference.as_str()});
        json!({"step": "payment.charge", "booking_id": payment.id, "payment": reference, "parts": parts, "prices": prices})
    };
    for (parts, priced) in [
        (json!([]), &[][..]),
        (json!([]), &["flight"]),
        (json!(["flight", "hotel"]), &["flight"]),
        (json!(["flight"]), &["flight", "hotel"]),
        (json!(["flight", "hotel"]), &["flight", "car"]), // as many
        (json!(["flight", "flight"]), &["flight"]),       // one part twice is not two
        (json!(2), &["flight", "hotel"]),                 // a count is not a set
        (json!(["flight", "payment"]), &["flight", "hotel"]),
        (json!(null), &["flight"]),
    ] {
        let (calls, refused) = payment.house.counted(service.handle(&command(parts.clone(), priced))).await;
        assert_eq!((calls, refused.unwrap_err().kind()), (0, ErrorKind::InvalidInput), "{parts}, {priced:?}");
    }
    let mut without_names = command(json!(["flight"]), &["flight"]);
    without_names.as_object_mut().unwrap().remove("parts");
    assert_eq!(service.handle(&without_names).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!((payment.state().await, payment.paid().await), (State::Collecting, None));

    // The order does not matter, and neither does what is sold: payment knows no part.
    let (calls, charged) =
        payment.house.counted(service.handle(&command(json!(["tent", "boat"]), &["boat", "tent"]))).await;
    assert_eq!((calls, &json!(charged.unwrap())["outcome"]), (3, &json!("charged")));
    let again = command(json!(["boat", "tent"]), &["boat", "tent"]);
    assert_eq!(json!(service.handle(&again).await.unwrap())["outcome"], "charged");
    let other = service.handle(&command(json!(["boat", "flight"]), &["boat", "flight"])).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::InvalidInput, "it was charged with other contents");
    assert_eq!(payment.paid().await, Some(Money::eur(200)));
}

#[tokio::test]
async fn an_abort_is_told_to_a_charge_that_comes_later_with_its_first_reason() {
    let payment = Payment::with("tok_visa").await;
    payment.abort().await;
    let other = Reason { step: None, code: "technical_failure".into(), detail: "late".into() };
    let again = payment.house.payment().abort(&payment.id, &payment.reference, Some(&other)).await.unwrap();
    assert_eq!(again, aborted());
}

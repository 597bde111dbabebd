//! The tables of the model checker against DynamoDB: whatever a booking's participants do in whatever order, both answer
//! the same. What the checker proves of its tables, it proves of these.

#![allow(clippy::unwrap_used)]

use end_to_end::{House, choices, date, is_whole_proof, lines, note_figure, part_of};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use model::{
    PARTS, Scope,
    books::{Books, Provider},
};
use saga::{
    Currency, Money, Outcome, PartType, PaymentReference, Price, Step, header,
    payment::{Abort, Aborting, Charge, Charging, Prices, Recorded, State},
};
use serde_json::{Value, json};
use services::PaymentProvider;
use store::{Begun, BookingStore, Commit, Header, HeaderStore, PaymentStore, Record};
use traveller::TripRequest;

const TOTAL: Money = Money::eur(300);

/// A booking in DynamoDB.
struct Real {
    house: House,
    header: Header,
    reference: PaymentReference,
    leases: i64,
}

impl Real {
    fn begun(&self, step: Step) -> Begun<'_> {
        Begun { booking_id: &self.header.booking_id, step, validation: "v", started_at: Timestamp::now() }
    }

    fn record<'r>(&'r self, step: Step, outcome: &'r Outcome) -> Record<'r> {
        Record { begun: self.begun(step), outcome, finished_at: Timestamp::now() }
    }

    async fn charge(&mut self, charging: Charging, lease_has_ended: bool, provider: Provider) -> Charging {
        let payment = self.house.payment();
        match charging.next(if lease_has_ended { i64::MAX } else { 0 }) {
            Charge::Lease { earlier } => {
                let until = self.leases + 1;
                match payment.store.lease(&self.begun(Step::Charge), until, earlier).await.unwrap() {
                    Commit::Found(found) => Charging::found(found.state, found.recorded),
                    Commit::Done => {
                        self.leases = until;
                        Charging::leased(until, until, earlier)
                    }
                }
            }
            Charge::Ask { find_first, .. } => {
                let mut answer = None;
                if provider != Provider::IsSilent {
                    if find_first {
                        answer = payment.provider.find(&self.reference).await.unwrap();
                    }
                    if answer.is_none() {
                        answer = Some(payment.provider.charge(&self.reference, TOTAL).await.unwrap());
                    }
                }
                charging.answered(answer.filter(|_| provider == Provider::Answers))
            }
            Charge::Complete { outcome, decision } => {
                match payment.store.complete(&self.record(Step::Charge, &outcome), &decision).await.unwrap() {
                    Commit::Done => charging.completed(),
                    Commit::Found(found) => Charging::found(found.state, found.recorded),
                }
            }
            // To another end of the lease than it has: the number says which lease it is.
            Charge::Release { until } => {
                payment.store.release(&self.header.booking_id, until, until).await.unwrap();
                Charging::released()
            }
            Charge::Void => {
                payment.provider.void(&self.reference).await.unwrap();
                charging.voided()
            }
            Charge::Answer(outcome) => Charging::Done(Some(outcome)),
            Charge::ComeBack => Charging::Done(None),
        }
    }

    async fn abort(&self, aborting: Aborting) -> Aborting {
        let payment = self.house.payment();
        match aborting.next() {
            Abort::Fence(outcome) => match payment.store.fence(&self.record(Step::Abort, &outcome)).await.unwrap() {
                Commit::Done => aborting.fenced(),
                Commit::Found(found) => aborting.found(found.state, &found.recorded),
            },
            Abort::Void => {
                payment.provider.void(&self.reference).await.unwrap();
                aborting.voided()
            }
            Abort::Record(outcome) => match payment.store.record(&self.record(Step::Abort, &outcome)).await.unwrap() {
                Commit::Done => Aborting::recorded(outcome),
                Commit::Found(found) => Aborting::recorded(found.outcome),
            },
            Abort::Answer(outcome) => Aborting::recorded(outcome),
        }
    }

    async fn end(&self, step: Step) -> Option<Value> {
        let reason = json!({"step": null, "code": "technical_failure", "detail": ""});
        let mut payload = json!({"step": step, "booking_id": self.header.booking_id});
        let (name, value) = if step == Step::Confirm { ("total", json!(TOTAL)) } else { ("reason", reason) };
        payload[name] = value;
        self.house.booking().handle(&payload).await.ok().map(|reply| json!(reply)["outcome"].clone())
    }
}

/// What can be compared: amounts and reasons differ.
fn state(state: &State) -> String {
    state.name().to_owned()
}

fn charging(charging: &Charging) -> String {
    match charging {
        Charging::Deciding { state: known, recorded } => {
            let recorded = match recorded {
                Recorded::Absent => "absent",
                Recorded::InProgress { .. } => "in progress",
                Recorded::Completed(outcome) => outcome.name(),
            };
            format!("{}, {recorded}", state(known))
        }
        Charging::Leased { after_another, unanswered, .. } => {
            format!("leased, after another: {after_another}, unanswered: {unanswered}")
        }
        Charging::Answered { outcome, decision } => format!("{}, so {}", outcome.name(), state(decision)),
        Charging::Done(outcome) => format!("done: {:?}", outcome.as_ref().map(Outcome::name)),
    }
}

fn aborting(aborting: &Aborting) -> String {
    match aborting {
        Aborting::Deciding { state: known, recorded, .. } => {
            format!("{}, {:?}", state(known), recorded.as_ref().map(Outcome::name))
        }
        Aborting::Fenced { .. } => "fenced".into(),
        Aborting::Done(outcome) => format!("done: {}", outcome.name()),
    }
}

#[tokio::test]
async fn dynamodb_answers_what_the_models_tables_answer() {
    let bookings = if is_whole_proof() { 300 } else { 30 };
    let seed =
        std::env::var("HARMONY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let mut moves = 0;
    for number in 0..bookings {
        moves += one_booking(&mut rng, number, &format!("HARMONY_SEED={seed}, booking {number}")).await;
    }
    note_figure(&format!("tables: {moves} random moves of {bookings} bookings, DynamoDB and the model agree on each"));
}

async fn one_booking(rng: &mut Rng, number: usize, which: &str) -> usize {
    let house = House::new().await;
    // Whole plans more often than smaller ones: they have more to do.
    let plans = choices();
    let plan = if rng.bool() { plans.last() } else { rng.choice(&plans) }.unwrap();
    let on_sale: Vec<_> = plan.iter().map(|_| i8::from(rng.u8(..4) > 0)).collect();
    let declines = rng.u8(..4) == 0;
    let mut request = TripRequest::of(plan, date(), 2);
    request.payment.token = if declines { "tok_declined" } else { "tok_visa" }.into();
    let part = |part_type: &PartType| part_of(&request, part_type.name);
    for (part_type, on_sale) in plan.iter().zip(&on_sale) {
        let units = if *on_sale > 0 { lines(&part(part_type))[0].units } else { 0 };
        house.seed_part(&part(part_type), units).await;
    }
    let key = format!("tables-{number}-{}", Timestamp::now().as_nanosecond());
    let header = house.record_only(&request, &key, SignedDuration::ZERO).await;
    let reference = header.plan().payment.reference;
    let mut real = Real { house, header, reference, leases: 0 };
    let mut model = Books::accepted(Scope::of(plan.len()), &on_sale, declines);
    let id = real.header.booking_id.clone();
    let (mut charges, mut aborts) = (Vec::new(), Vec::new());
    let mut story = vec![format!("{which}: {plan:?}, on sale {on_sale:?}, declines {declines}")];
    const MOVES: usize = 40;
    for _ in 0..MOVES {
        // The model has names of its own.
        let place = rng.usize(..plan.len());
        let (sold, modelled) = (plan[place], PARTS[place]);
        let (wanted, found) = match rng.u8(..20) {
            0..3 => {
                story.push(format!("reserve {}", sold.name));
                let found = real.house.seller(sold).reserve(&id, &part(&sold)).await.unwrap();
                (model.reserve(modelled).name().to_owned(), found.name().to_owned())
            }
            3..5 => {
                story.push(format!("cancel {}", sold.name));
                let found = real.house.seller(sold).cancel(&id, &part(&sold)).await.unwrap();
                (format!("{:?}", model.cancel(modelled, None)), format!("{found:?}"))
            }
            5 => {
                story.push(format!("collect {}", sold.name));
                let price = Price { amount: 100, currency: Currency::EUR };
                let found = real.house.payments().collect(&id, sold.name, price).await.unwrap();
                let wanted = model.collect_price(modelled, None).is_some();
                (wanted.to_string(), Prices::of(found, &real.header.parts.names()).is_some().to_string())
            }
            6 if charges.len() < 3 => {
                story.push(format!("charge {}", charges.len()));
                charges.push((Charging::default(), Charging::default()));
                continue;
            }
            7 if rng.bool() && aborts.len() < 2 => {
                story.push(format!("abort {}", aborts.len()));
                aborts.push((Aborting::begin(None), Aborting::begin(None)));
                continue;
            }
            8..15 if !charges.is_empty() => {
                let index = rng.usize(..charges.len());
                let lease_has_ended = rng.bool();
                let provider = [Provider::Answers, Provider::ChargesSilently, Provider::IsSilent][rng.usize(..3)];
                story.push(format!("move of charge {index}, lease has ended: {lease_has_ended}, {provider:?}"));
                let (wanted, found) = charges.swap_remove(index);
                let wanted = model.charge(wanted, lease_has_ended, provider, None);
                let found = real.charge(found, lease_has_ended, provider).await;
                let both = (charging(&wanted), charging(&found));
                if !matches!(wanted, Charging::Done(_)) {
                    charges.push((wanted, found));
                }
                both
            }
            15..17 if !aborts.is_empty() => {
                let index = rng.usize(..aborts.len());
                story.push(format!("move of abort {index}"));
                let (wanted, found) = aborts.swap_remove(index);
                let (wanted, found) = (model.abort(wanted, None), real.abort(found).await);
                let both = (aborting(&wanted), aborting(&found));
                if !matches!(wanted, Aborting::Done(_)) {
                    aborts.push((wanted, found));
                }
                both
            }
            17 => {
                story.push(format!("note that {} is given back", sold.name));
                let found = real.house.booking().store.collect(&id, sold.name).await.unwrap().unwrap();
                let wanted = model.collect_cancelled(modelled, None);
                (wanted.to_string(), header::is_all_cancelled(&found.cancelled, &found.plan).to_string())
            }
            18 => {
                let step = [Step::Confirm, Step::Fail, Step::Park][rng.usize(..3)];
                story.push(format!("{step}"));
                let wanted = model.end(step).map(|outcome| json!(outcome.name()));
                (format!("{wanted:?}"), format!("{:?}", real.end(step).await))
            }
            _ => continue,
        };
        assert_eq!(found, wanted, "{story:#?}");
        story.push(format!("  {wanted}"));

        let payments = real.house.payments().state(&id).await.unwrap();
        let paid = u8::from(real.house.ledger().paid(&real.reference).await.unwrap().is_some());
        let status = real.house.headers().get(&id).await.unwrap().unwrap().status;
        let mut available = Vec::new();
        for part_type in plan {
            let units = i64::from(lines(&part(part_type))[0].units);
            let left = real.house.available(&part(part_type)).await;
            assert!(left.iter().all(|line| line == &left[0] && line % units == 0), "{story:#?}: {left:?}");
            available.push(i8::try_from(left[0] / units).unwrap());
        }
        let found = (payments.name(), paid, status, available);
        assert_eq!(found, (model.payment.name(), model.paid(), model.status, model.available()), "{story:#?}");
    }
    story.len()
}

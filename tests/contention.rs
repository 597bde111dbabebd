//! Many buyers at once for too few seats, through the HTTP API, in both variants: nothing is sold twice, nobody is
//! turned away while there are seats, and everything that is not confirmed is given back.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{DEADLINE, House, MANY_AT_ONCE, date, is_whole_proof, note_figure, part_of, start_logged, trip_of};
use futures_util::{StreamExt, future::join_all, stream};
use jiff::Timestamp;
use operator::audit::Audit;
use saga::{BookingId, Status, Step, Variant};
use store::HeaderStore;
use travel::FLIGHT;
use traveller::{
    Booking, Client, TripRequest,
    client::{ClientError, fresh_key},
    scenarios::contradictions,
};

/// How many bookings are under way at any time. Each takes several processes of the local AWS.
const AT_ONCE: usize = 32;

/// Buyers of the same trip. What they have in common is what they compete for.
struct Buyers {
    house: House,
    api: Client,
    number: usize,
}

/// What became of the buyers.
struct Outcome {
    bookings: Vec<Booking>,
    /// How many answers named a booking that an earlier request with the same key had made.
    replayed: usize,
    took: Duration,
}

impl Buyers {
    /// All of them book, each what `request` says, and those of whom `is_hasty` is true send the same request twice at
    /// the same time. As soon as a booking has ended the next buyer comes.
    async fn book(&self, request: impl Fn(usize) -> TripRequest, is_hasty: impl Fn(usize) -> bool) -> Outcome {
        let began = Instant::now();
        let (mut waiting, mut bookings, mut replayed) = (BTreeMap::new(), Vec::new(), 0);
        let mut coming = 0..self.number;
        let mut deadline = Timestamp::now() + 2 * DEADLINE;
        while bookings.len() < self.number {
            let next: Vec<_> = coming.by_ref().take(AT_ONCE - waiting.len()).collect();
            for (id, is_replayed) in join_all(next.iter().map(|n| self.buy(request(*n), is_hasty(*n)))).await {
                replayed += usize::from(is_replayed);
                assert!(waiting.insert(id.to_string(), id).is_none(), "two buyers have the same booking");
            }
            let ended = self.ended(&waiting).await;
            if ended.is_empty() {
                assert!(Timestamp::now() < deadline, "{} bookings do not end: {:?}", waiting.len(), waiting.keys());
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                deadline = Timestamp::now() + 2 * DEADLINE;
            }
            let shown = stream::iter(ended.iter().map(|id| self.api.show(id))).buffered(8);
            bookings.extend(shown.map(Result::unwrap).collect::<Vec<_>>().await);
            for id in ended {
                waiting.remove(id.as_str());
            }
        }
        Outcome { bookings, replayed, took: began.elapsed() }
    }

    /// The booking, and whether it was asked for before.
    async fn buy(&self, request: TripRequest, is_hasty: bool) -> (BookingId, bool) {
        let key = fresh_key("buyer");
        if !is_hasty {
            return (self.api.book_accepted(&request, &key).await.unwrap().booking_id, false);
        }
        let (first, second) = tokio::join!(self.api.book(&request, &key), self.api.book(&request, &key));
        let (first, second) = (first.unwrap(), second.unwrap());
        let id = first.accepted().unwrap().booking_id;
        assert_eq!(second.accepted().unwrap().booking_id, id, "one request, two bookings");
        (id, first.is_replay() != second.is_replay())
    }

    async fn buy_patiently(&self, request: &TripRequest) -> BookingId {
        let key = fresh_key("buyer");
        patiently(async || self.api.book_accepted(request, &key).await).await.booking_id
    }

    /// Those that have ended. It asks the index of what is open: to ask the API for each again and again would be most
    /// of what the local AWS has to do.
    async fn ended(&self, waiting: &BTreeMap<String, BookingId>) -> Vec<BookingId> {
        let (open, errors) = self.house.headers().open_before(Timestamp::now() + DEADLINE).await;
        assert!(errors.is_empty(), "{errors:?}");
        waiting.values().filter(|id| !open.contains(id)).cloned().collect()
    }
}

/// What must hold whatever was scarce. Returns how many are confirmed.
async fn audited(house: &House, request: &TripRequest, bookings: &[Booking]) -> (usize, Vec<String>) {
    for booking in bookings {
        assert_eq!(contradictions(booking), Vec::<String>::new());
        assert!(matches!(booking.status, Status::Confirmed | Status::Failed), "{booking:#?}");
    }
    let ids: Vec<_> = bookings.iter().map(|booking| booking.booking_id.clone()).collect();
    let parts = request.lines().into_iter();
    let lines = parts.flat_map(|(part, lines)| lines.into_iter().map(move |line| (part, line)));
    let audit = Audit::of(&house.stack, &house.stack.sdk().await.unwrap()).unwrap();
    let violations = audit.run(&ids, lines).await.unwrap();
    (bookings.iter().filter(|booking| booking.status == Status::Confirmed).count(), violations)
}

/// How many bookings there are for the dates of this request, which are nobody else's.
async fn recorded(house: &House, request: &TripRequest) -> usize {
    let scan = house
        .client
        .scan()
        .table_name(house.stack.bookings_table().unwrap())
        .filter_expression("contains(parts, :day)");
    let day = AttributeValue::S(format!("\"{}\"", request.first_day()));
    let items = scan.expression_attribute_values(":day", day).into_paginator().items().send();
    items.collect::<Result<Vec<_>, _>>().await.unwrap().len()
}

/// The reason of a booking that is not confirmed.
fn reason(booking: &Booking) -> (Option<Step>, &str) {
    let reason = booking.reason.as_ref().unwrap_or_else(|| panic!("no reason: {booking:#?}"));
    (reason.step.as_deref().and_then(Step::named), reason.code.as_str())
}

/// A request that nobody else makes, with so many units of everything on sale.
async fn market(variant: Variant, number: usize, units: usize) -> (Buyers, TripRequest) {
    let house = House::new().await;
    let mut request = TripRequest { variant, ..TripRequest::on(date()) };
    request.set(FLIGHT.name, "seats", 1);
    house.seed(&trip_of(&request), units as u32).await;
    (Buyers { api: Client::new(&house.stack.api_url).unwrap(), house, number }, request)
}

#[tokio::test]
async fn every_seat_is_sold_once_and_every_other_buyer_is_told_that_the_flight_is_sold_out() {
    let _alone = MANY_AT_ONCE.lock().await;
    let (number, seats) = if is_whole_proof() { (1_000, 100) } else { (150, 15) };
    for variant in Variant::ALL {
        let (buyers, request) = market(variant, number, number).await;
        buyers.house.seed_part(&part_of(&request, FLIGHT.name), seats as u32).await;

        let is_hasty = |buyer| buyer % 5 == 0;
        let outcome = buyers.book(|_| request.clone(), is_hasty).await;
        let hasty = (0..number).filter(|buyer| is_hasty(*buyer)).count();
        assert_eq!(outcome.replayed, hasty, "a request that comes twice is accepted once and replayed once");
        let recorded = recorded(&buyers.house, &request).await;
        assert_eq!(recorded, number, "one booking for each buyer");

        let (confirmed, violations) = audited(&buyers.house, &request, &outcome.bookings).await;
        assert_eq!(violations, Vec::<String>::new());
        assert_eq!(confirmed, seats, "no seat is sold twice, and none is left");
        for failed in outcome.bookings.iter().filter(|booking| booking.status == Status::Failed) {
            assert_eq!(reason(failed), (Some(Step::Reserve(FLIGHT.name)), "sold_out"), "{failed:#?}");
            assert!(failed.entry(Step::Charge).is_none(), "{failed:#?}");
            assert_eq!(failed.entry(Step::Cancel(FLIGHT.name)).unwrap().released(), Some(false));
        }
        let rest = (number - seats) as i64;
        assert_eq!(buyers.house.left(&request).await, [vec![0], vec![rest; 3], vec![rest; 3]]);
        note_figure(&format!(
            "contention, {}: {number} buyers, {hasty} of them twice at once, for {seats} seats in {:.0} s: {confirmed} \
             confirmed, {} oversold, {} duplicates, {} violations",
            variant.name(),
            outcome.took.as_secs_f64(),
            confirmed.saturating_sub(seats),
            recorded - number,
            violations.len(),
        ));
    }
}

/// "New AWS accounts have reduced concurrency and memory quotas", ten functions at once for instance, and what is beyond
/// that is refused: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
#[tokio::test]
async fn bookings_end_as_they_should_where_functions_are_scarce() {
    const AT_ONCE: usize = 16;
    let _alone = MANY_AT_ONCE.lock().await;
    let log = std::env::temp_dir().join(format!("harmony-scarce-{}.log", std::process::id()));
    let parameters = [("PendingMaxAgeSeconds", "86400")];
    let local = start_logged("scarce", &parameters, &[("LAMBDA_ACCOUNT_CONCURRENCY", "10")], &log);
    let throttles = || fs::read_to_string(&log).unwrap().matches("Throttled: ").count();
    for variant in Variant::ALL {
        let before = throttles();
        let house = House::of(local.stack()).await;
        let request = TripRequest { variant, ..TripRequest::on(date()) };
        house.seed(&trip_of(&request), 2 * AT_ONCE as u32).await;
        let buyers = Buyers { api: Client::new(&house.stack.api_url).unwrap(), house, number: AT_ONCE };
        let of = |buyer: usize| {
            let mut request = request.clone();
            request.payment.token = if buyer.is_multiple_of(4) { "tok_declined" } else { "tok_visa" }.into();
            request
        };
        let accepted = (0..AT_ONCE).map(async |buyer| (buyer, buyers.buy_patiently(&of(buyer)).await));
        let accepted = join_all(accepted).await;
        let waiting: BTreeMap<_, _> = accepted.iter().map(|(_, id)| (id.to_string(), id.clone())).collect();
        let deadline = Timestamp::now() + 4 * DEADLINE;
        while buyers.ended(&waiting).await.len() < AT_ONCE {
            assert!(Timestamp::now() < deadline, "{}: some do not end: {:?}", variant.name(), waiting.keys());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut bookings = Vec::new();
        for (buyer, id) in &accepted {
            let booking = patiently(async || buyers.api.show(id).await).await;
            let expected = if buyer.is_multiple_of(4) { Status::Failed } else { Status::Confirmed };
            assert_eq!(booking.status, expected, "{}: {booking:#?}", variant.name());
            if expected == Status::Failed {
                assert_eq!(reason(&booking), (Some(Step::Charge), "card_declined"));
            }
            bookings.push(booking);
        }
        let (confirmed, violations) = audited(&buyers.house, &request, &bookings).await;
        assert_eq!((confirmed, violations), (AT_ONCE * 3 / 4, Vec::new()));
        assert!(throttles() > before, "{}: nothing was scarce", variant.name());
    }
    let _ = fs::remove_file(&log); // it is in a folder for what nobody needs
}

/// Asks again until it is answered: what the API cannot accept just now, it refuses.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, ClientError>) -> T {
    let deadline = Timestamp::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Timestamp::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_held_and_given_back_while_everything_is_scarce_leaves_the_tables_in_order() {
    let _alone = MANY_AT_ONCE.lock().await;
    let (number, units) = if is_whole_proof() { (200, 150) } else { (60, 45) };
    for variant in Variant::ALL {
        let (buyers, request) = market(variant, number, units).await;
        let of = |buyer: usize| {
            let mut request = request.clone();
            request.payment.token = if buyer.is_multiple_of(10) { "tok_declined" } else { "tok_visa" }.into();
            request
        };
        let outcome = buyers.book(of, |_| false).await;
        let (confirmed, violations) = audited(&buyers.house, &request, &outcome.bookings).await;
        assert_eq!(violations, Vec::<String>::new());
        // What a failing booking holds for a moment may be missing to another one, so that fewer may be confirmed.
        assert!((1..=units).contains(&confirmed), "{confirmed}");
        for failed in outcome.bookings.iter().filter(|booking| booking.status == Status::Failed) {
            assert!(matches!(
                reason(failed),
                (Some(Step::Reserve(_)), "sold_out") | (Some(Step::Charge), "card_declined")
            ));
        }
        let rest = (units - confirmed) as i64;
        assert_eq!(buyers.house.left(&request).await, [vec![rest], vec![rest; 3], vec![rest; 3]]);
    }
}

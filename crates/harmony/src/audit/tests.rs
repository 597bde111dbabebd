use jiff::Timestamp;
use saga::{Claim, Owner, Rejection, Variant, reservation::tombstone};
use serde_json::json;

use super::*;

const FLIGHT: PartName = travel::FLIGHT.name;
const HOTEL: PartName = travel::HOTEL.name;
const CAR: PartName = travel::CAR.name;
const PRICES: [(PartName, i64); 3] = [(FLIGHT, 100), (HOTEL, 20), (CAR, 3)];
const SUM: Money = Money::eur(123);
const ID: &str = "0123456789abcdef0123456789abcdef";

fn entry(step: Step, outcome: Outcome) -> Entry {
    Entry {
        step,
        outcome: Some(outcome),
        validation: String::new(),
        started_at: "2027-01-01T10:00:00.000Z".into(),
        finished_at: Some("2027-01-01T10:00:00.001Z".into()),
        lease_ends: None,
    }
}

fn books(status: Status, total: Option<Money>, decision: State, journal: Vec<Entry>) -> Books {
    let trip = json!({
        "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
        "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-03", "rooms": 1},
        "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-03"},
    });
    let booking_id = BookingId::try_from(ID.to_owned()).unwrap();
    let header = Header {
        booking_id: booking_id.clone(),
        request_digest: "d".into(),
        variant: Variant::Choreographed,
        status,
        owner: Owner::of("anonymous"),
        parts: serde_json::from_value(trip).unwrap(),
        total,
        reason: None,
        claim: Claim::first(Timestamp::UNIX_EPOCH),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    };
    Books { booking_id, header: Some(header), journal, decision, paid: total, unreadable: Vec::new() }
}

fn price(amount: i64) -> Price {
    Price { amount, currency: SUM.currency }
}

fn confirmed() -> Books {
    let reserved = PRICES.map(|(part, amount)| entry(Step::Reserve(part), Outcome::Reserved { price: price(amount) }));
    let decision = State::Charged { amount: SUM, charge_id: "ch".into() };
    let mut confirmed = books(Status::Confirmed, Some(SUM), decision, reserved.to_vec());
    confirmed.journal.push(entry(Step::Confirm, Outcome::Confirmed { total: SUM }));
    confirmed
}

/// The flight was given back, the hotel was sold out, the car's cancel came first.
fn failed() -> Books {
    let cancelled = |part, released| entry(Step::Cancel(part), Outcome::Cancelled { released });
    let journal = vec![
        entry(Step::Reserve(FLIGHT), Outcome::Reserved { price: price(100) }),
        entry(Step::Reserve(HOTEL), Outcome::Rejected(Rejection::new("sold_out", "no room"))),
        entry(Step::Reserve(CAR), tombstone()),
        cancelled(FLIGHT, true),
        cancelled(HOTEL, false),
        cancelled(CAR, false),
        entry(Step::Fail, Outcome::Failed { reason: None }),
    ];
    books(Status::Failed, None, State::Aborted { reason: None }, journal)
}

const AT_REST: Ends = Ends { of_before: Timestamp::MAX, may_be_parked: false };

fn wrong(books: &Books) -> Vec<String> {
    wrong_if(books, &AT_REST)
}

fn wrong_if(books: &Books, ends: &Ends) -> Vec<String> {
    let about = format!("booking {ID}");
    let violations = check_booking(books, ends);
    assert!(violations.iter().all(|violation| violation.about == about), "{violations:?}");
    violations.into_iter().map(|violation| violation.says).collect()
}

fn without(mut books: Books, step: Step) -> Books {
    books.journal.retain(|entry| entry.step != step);
    books
}

#[test]
fn what_ended_as_it_must_passes() {
    assert_eq!(wrong(&confirmed()), [""; 0]);
    assert_eq!(wrong(&failed()), [""; 0]);
    assert_eq!(wrong(&Books { decision: State::Declined, ..failed() }), [""; 0]);
}

#[test]
fn each_violation_of_a_confirmed_booking_is_told() {
    let unreserved = without(confirmed(), Step::Reserve(HOTEL));
    assert_eq!(wrong(&unreserved), ["confirmed, but hotel is not reserved"]);

    let mut cancelled = confirmed();
    cancelled.journal.push(entry(Step::Cancel(CAR), Outcome::Cancelled { released: true }));
    assert_eq!(wrong(&cancelled), ["confirmed, but car is not reserved"]);

    let undecided = Books { decision: State::Charging, ..confirmed() };
    assert_eq!(wrong(&undecided), ["confirmed at 1.23 EUR, but payment's decision is charging"]);

    let other = Books { decision: State::Charged { amount: Money::eur(1), charge_id: "ch".into() }, ..confirmed() };
    assert_eq!(wrong(&other), ["confirmed at 1.23 EUR, but payment's decision is charged 0.01 EUR"]);

    let refunded = Books { paid: None, ..confirmed() };
    assert_eq!(wrong(&refunded), ["confirmed at 1.23 EUR, but the provider was paid nothing"]);

    let twice = Books { paid: Some(Money::eur(246)), ..confirmed() };
    assert_eq!(wrong(&twice), ["confirmed at 1.23 EUR, but the provider was paid 2.46 EUR"]);

    let mut unsaid = confirmed();
    unsaid.header.as_mut().unwrap().total = None;
    assert_eq!(wrong(&unsaid), ["confirmed at 1.23 EUR, but its total is nothing"]);

    let mut priceless = confirmed();
    priceless.journal[0].outcome = Some(Outcome::Reserved { price: price(i64::MAX) });
    assert!(wrong(&priceless)[0].starts_with("confirmed, but its prices have no sum"));

    let mut more = confirmed();
    more.journal.push(entry(Step::Reserve(PartName::new("sauna")), Outcome::Reserved { price: price(1) }));
    assert_eq!(wrong(&more), ["sauna.reserve is recorded, but sauna is not a part of it"]);

    let unrecorded = without(confirmed(), Step::Confirm);
    assert_eq!(wrong(&unrecorded), ["confirmed, but booking.confirm is not recorded"]);
}

#[test]
fn each_violation_of_a_failed_booking_is_told() {
    let reserved = without(failed(), Step::Cancel(FLIGHT));
    assert_eq!(wrong(&reserved), ["failed, but flight is still reserved"]);

    let uncancelled = without(failed(), Step::Cancel(HOTEL));
    assert_eq!(wrong(&uncancelled), ["failed, but hotel.cancel is not recorded"]);

    let undecided = Books { decision: State::Collecting, ..failed() };
    assert_eq!(wrong(&undecided), ["failed, but payment's decision is collecting"]);

    let paid = Books { paid: Some(SUM), ..failed() };
    assert_eq!(wrong(&paid), ["failed, but the provider was paid 1.23 EUR"]);

    let mut said = failed();
    said.header.as_mut().unwrap().total = Some(SUM);
    assert_eq!(wrong(&said), ["failed, but its total is 1.23 EUR"]);

    let unrecorded = without(failed(), Step::Fail);
    assert_eq!(wrong(&unrecorded), ["failed, but booking.fail is not recorded"]);
}

#[test]
fn of_a_booking_with_a_step_that_cannot_be_read_only_that_is_told() {
    let mut newer = without(confirmed(), Step::Reserve(HOTEL));
    newer.unreadable.push(Unreadable { key: format!("{ID} hotel.reserve"), cause: "status WAITING".into() });
    assert_eq!(wrong(&newer), [format!("the item {ID} hotel.reserve cannot be read: status WAITING")]);
}

#[test]
fn what_has_not_ended_is_told_once_it_should_have() {
    let mut open = confirmed();
    let header = open.header.as_mut().unwrap();
    header.status = Status::Pending;
    assert_eq!(wrong(&open), ["not ended: pending since 1970-01-01T00:00:00.000Z"]);
    assert_eq!(wrong_if(&open, &Ends { of_before: Timestamp::UNIX_EPOCH, may_be_parked: true }), [""; 0]);
}

#[test]
fn a_booking_needs_an_operator_only_if_one_was_called() {
    let mut parked = confirmed();
    parked.header.as_mut().unwrap().status = Status::NeedsOperator;
    let not_parked = "needs_operator, but booking.park is not recorded";
    assert_eq!(wrong(&parked), ["not ended: needs_operator", not_parked]);
    let ends = Ends { may_be_parked: true, ..AT_REST };
    assert_eq!(wrong_if(&parked, &ends), [not_parked]);
    let reason = saga::Reason { step: None, code: "parked".into(), detail: String::new() };
    parked.journal.push(entry(Step::Park, Outcome::Parked { reason }));
    assert_eq!(wrong_if(&parked, &ends), [""; 0]);
    assert_eq!(wrong(&parked), ["not ended: needs_operator"]);
}

#[test]
fn what_is_left_of_no_booking_is_told() {
    let nothing = Books { header: None, journal: Vec::new(), decision: State::Collecting, ..failed() };
    assert_eq!(wrong(&nothing), ["there is no such booking"]);
    let mut left = Books { header: None, ..confirmed() };
    left.journal.truncate(2);
    let said = "there is no such booking, but its journal has flight.reserve, hotel.reserve and payment's decision is \
                charged 1.23 EUR";
    assert_eq!(wrong(&left), [said]);
}

fn shelf(part: PartName, product: &str, date: &str, units: Option<(i64, i64)>) -> Shelf {
    Shelf { part, line: StockLine { product: product.into(), date: date.parse().ok(), units: 0 }, units }
}

fn said(verdict: Verdict) -> String {
    match verdict {
        Verdict::Wrong(violation) => violation.to_string(),
        other => panic!("not wrong: {other:?}"),
    }
}

#[test]
fn a_booking_reserves_what_it_asks_for_on_each_line() {
    let units = |part, product, date| confirmed().units(part, &shelf(part, product, date, None).line);
    assert_eq!(units(FLIGHT, "LH400", "2027-03-01"), 2);
    assert_eq!(units(HOTEL, "nyc-plaza", "2027-03-02"), 1);
    assert_eq!(units(HOTEL, "nyc-plaza", "2027-03-03"), 0, "the day of departure");
    assert_eq!(units(CAR, "jfk#compact", "2027-03-02"), 1);
    assert_eq!(failed().units(FLIGHT, &shelf(FLIGHT, "LH400", "2027-03-01", None).line), 0);
}

#[test]
fn stock_that_does_not_add_up_is_told() {
    let stands = |stands| Reserved { stands, ..Reserved::default() };
    let check = |units, reserved| check_line(&shelf(FLIGHT, "LH400", "2027-03-01", units), reserved, true);
    assert_eq!(check(Some((6, 10)), stands(4)), Verdict::Right);
    assert_eq!(check(None, stands(0)), Verdict::Right);
    assert_eq!(
        said(check(Some((5, 10)), stands(4))),
        "flight LH400 on 2027-03-01: 5 available and 4 reserved, but 10 put on sale"
    );
    assert_eq!(said(check(Some((-1, 3)), stands(4))), "flight LH400 on 2027-03-01: -1 available");
    assert_eq!(said(check(None, stands(2))), "flight LH400 on 2027-03-01: not on sale, but 2 reserved");
}

#[test]
fn a_line_is_in_motion_only_between_the_bounds_of_what_was_done_lately() {
    // Ten were put on sale. Four are reserved: one of them lately; and two more were given back lately.
    let reserved = Reserved { stands: 4, lately: 1, given_back_lately: 2 };
    let check = |available| check_line(&shelf(FLIGHT, "LH400", "2027-03-01", Some((available, 10))), reserved, true);
    assert_eq!(check(6), Verdict::Right);
    for available in [4, 5, 7] {
        assert!(matches!(check(available), Verdict::InMotion(_)), "{available}");
    }
    for available in [3, 8] {
        assert!(matches!(check(available), Verdict::Wrong(_)), "{available}");
    }
}

#[test]
fn where_journals_are_gone_more_may_be_taken_than_they_say() {
    let reserved = Reserved { stands: 4, ..Reserved::default() };
    let check = |available| check_line(&shelf(FLIGHT, "LH400", "2027-03-01", Some((available, 10))), reserved, false);
    assert_eq!(check(2), Verdict::Right);
    assert_eq!(said(check(7)), "flight LH400 on 2027-03-01: 7 available and 4 reserved, but 10 put on sale");
    assert_eq!(said(check(-1)), "flight LH400 on 2027-03-01: -1 available");
}

#[test]
fn kinds_have_names_of_their_own() {
    let names: std::collections::HashSet<_> = Kind::ALL.map(Kind::name).into_iter().collect();
    assert_eq!(names.len(), Kind::ALL.len());
}

//! An audit: what the tables hold, against what must always be true.
//!
//! | | |
//! |---|---|
//! | a confirmed booking | has every leg reserved and is charged once, the sum of the legs' prices |
//! | a failed booking | has no leg reserved, and nothing is charged |
//! | a line of stock | is never below zero, and with what is reserved of it adds up to what was put on sale |
//!
//! What one booking or one line must be is a pure function of what was read of it: [`check_booking`], [`check_line`].

use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use saga::{BookingId, Leg, Money, Outcome, PaymentReference, Status, Step, StockLine, payment::State};
use store::{Entry, Header, HeaderStore, Headers, Journal, Ledger, Payments, StockTable, StoreError};

use crate::{Stack, StackError};

/// How many bookings, or lines of stock, are read at once.
const AT_ONCE: usize = 8;

/// What the tables hold on a booking.
#[derive(Clone, Debug)]
pub struct Books {
    /// Which booking.
    pub booking_id: BookingId,
    /// Its header, if there is one.
    pub header: Option<Header>,
    /// Its steps.
    pub journal: Vec<Entry>,
    /// Payment's decision.
    pub decision: State,
    /// What the provider has got for it, after all charges and refunds.
    pub paid: Option<Money>,
}

/// What a table holds on a line of stock.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Who sells it.
    pub leg: Leg,
    /// Which line. Its units do not matter.
    pub line: StockLine,
    /// How many units are available, and how many were put on sale; none if it is not on sale.
    pub units: Option<(i64, i64)>,
}

impl Books {
    fn outcome(&self, step: Step) -> Option<&Outcome> {
        self.journal.iter().find(|entry| entry.step == step.name())?.outcome.as_ref()
    }

    fn is_cancelled(&self, leg: Leg) -> bool {
        matches!(self.outcome(Step::Cancel(leg)), Some(Outcome::Cancelled { .. }))
    }

    /// The price of a leg whose reservation stands: it was made, and not cancelled.
    fn reserved(&self, leg: Leg) -> Option<Money> {
        match self.outcome(Step::Reserve(leg)) {
            Some(Outcome::Reserved { price }) if !self.is_cancelled(leg) => Some(*price),
            _ => None,
        }
    }

    /// How many units of a line this booking has reserved.
    fn units(&self, leg: Leg, line: &StockLine) -> i64 {
        let lines = match &self.header {
            Some(header) if self.reserved(leg).is_some() => header.trip.leg(leg).lines(),
            _ => Vec::new(),
        };
        let same = lines.iter().filter(|other| (&other.product, other.date) == (&line.product, line.date));
        same.map(|line| i64::from(line.units)).sum()
    }
}

/// What is wrong with a booking: nothing, if all is well. Each violation names the booking.
pub fn check_booking(books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    match &books.header {
        None => wrong.push("there is no such booking".into()),
        Some(header) => match header.status {
            Status::Confirmed => check_confirmed(books, header, &mut wrong),
            Status::Failed => check_failed(books, header, &mut wrong),
            status => wrong.push(format!("not ended: {status}")),
        },
    }
    wrong.iter().map(|wrong| format!("booking {}: {wrong}", books.booking_id)).collect()
}

fn check_confirmed(books: &Books, header: &Header, wrong: &mut Vec<String>) {
    let prices = Leg::ALL.map(|leg| books.reserved(leg));
    for (leg, price) in Leg::ALL.into_iter().zip(prices) {
        if price.is_none() {
            wrong.push(format!("confirmed, but {} is not reserved", leg.name()));
        }
    }
    let [Some(flight), Some(hotel), Some(car)] = prices else { return };
    match flight.plus(hotel).and_then(|sum| sum.plus(car)) {
        Err(error) => wrong.push(format!("confirmed, but its prices have no sum: {error}")),
        Ok(sum) => {
            if !matches!(books.decision, State::Charged { amount, .. } if amount == sum) {
                let decision = decision(&books.decision);
                wrong.push(format!("confirmed at {sum}, but payment's decision is {decision}"));
            }
            if books.paid != Some(sum) {
                wrong.push(format!("confirmed at {sum}, but the provider was paid {}", shown(books.paid)));
            }
            if header.total != Some(sum) {
                wrong.push(format!("confirmed at {sum}, but its total is {}", shown(header.total)));
            }
        }
    }
}

fn check_failed(books: &Books, header: &Header, wrong: &mut Vec<String>) {
    for leg in Leg::ALL {
        if books.reserved(leg).is_some() {
            wrong.push(format!("failed, but {} is still reserved", leg.name()));
        } else if !books.is_cancelled(leg) {
            wrong.push(format!("failed, but {} is not recorded", Step::Cancel(leg)));
        }
    }
    if !matches!(books.decision, State::Declined | State::Aborted { .. }) {
        wrong.push(format!("failed, but payment's decision is {}", decision(&books.decision)));
    }
    if books.paid.is_some() {
        wrong.push(format!("failed, but the provider was paid {}", shown(books.paid)));
    }
    if header.total.is_some() {
        wrong.push(format!("failed, but its total is {}", shown(header.total)));
    }
}

fn shown(money: Option<Money>) -> String {
    money.map_or("nothing".into(), |money| money.to_string())
}

fn decision(state: &State) -> String {
    match state {
        State::Charged { amount, .. } => format!("charged {amount}"),
        state => state.name().to_owned(),
    }
}

/// What is wrong with a line of stock, given all bookings that may have reserved some of it.
pub fn check_line(shelf: &Shelf, bookings: &[Books]) -> Option<String> {
    let Shelf { leg, line, units } = shelf;
    let name = format!("{} {} on {}", leg.name(), line.product, line.date);
    let Some((available, seeded)) = units else { return Some(format!("{name}: not on sale")) };
    let reserved: i64 = bookings.iter().map(|books| books.units(*leg, line)).sum();
    if *available < 0 {
        Some(format!("{name}: {available} available"))
    } else if available + reserved != *seeded {
        Some(format!("{name}: {available} available and {reserved} reserved, but {seeded} put on sale"))
    } else {
        None
    }
}

/// Reads what has to be checked.
#[derive(Clone, Debug)]
pub struct Audit {
    headers: Headers,
    journal: Journal,
    payments: Payments,
    ledger: Ledger,
    stock: [(Leg, StockTable); 3],
}

impl Audit {
    /// An audit of this stack, reached with this configuration.
    pub fn of(stack: &Stack, sdk: &SdkConfig) -> Result<Self, StackError> {
        let client = store::client(sdk);
        let journal = Journal::new(client.clone(), stack.journal_table()?, 1); // not written to here
        let stock = |leg| {
            let name = stack.stock_table(leg)?;
            Ok::<_, StackError>((leg, StockTable::new(client.clone(), name, journal.clone())))
        };
        Ok(Self {
            headers: Headers::new(client.clone(), stack.bookings_table()?),
            payments: Payments::new(client.clone(), stack.payments_table()?, journal.clone()),
            ledger: Ledger::new(client.clone(), stack.provider_ledger_table()?),
            stock: [stock(Leg::Flight)?, stock(Leg::Hotel)?, stock(Leg::Car)?],
            journal,
        })
    }

    /// All violations, of these bookings and then of these lines of stock; none if all is well. The bookings have to be
    /// all those that may have reserved some of the lines, and none of them may be under way.
    pub async fn run(
        &self,
        bookings: impl IntoIterator<Item = &BookingId>,
        lines: impl IntoIterator<Item = (Leg, StockLine)>,
    ) -> Result<Vec<String>, StoreError> {
        let books = stream::iter(bookings).map(|id| self.books(id)).buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let shelves = stream::iter(lines).map(|(leg, line)| self.shelf(leg, line)).buffered(AT_ONCE);
        let shelves = shelves.try_collect::<Vec<_>>().await?;
        let mut wrong: Vec<_> = books.iter().flat_map(check_booking).collect();
        wrong.extend(shelves.iter().filter_map(|shelf| check_line(shelf, &books)));
        Ok(wrong)
    }

    async fn books(&self, booking_id: &BookingId) -> Result<Books, StoreError> {
        let header = self.headers.get(booking_id).await?;
        let paid = match &header {
            Some(header) => {
                let reference = PaymentReference::derive(booking_id, &header.request_digest);
                self.ledger.paid(&reference).await?.map(|paid| paid.amount)
            }
            None => None,
        };
        Ok(Books {
            booking_id: booking_id.clone(),
            header,
            journal: self.journal.entries(booking_id.as_str()).await?,
            decision: self.payments.state(booking_id).await?,
            paid,
        })
    }

    async fn shelf(&self, leg: Leg, line: StockLine) -> Result<Shelf, StoreError> {
        let mut units = None;
        for (_, table) in self.stock.iter().filter(|(of, _)| *of == leg) {
            units = table.available(&line).await?;
        }
        Ok(Shelf { leg, line, units })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use saga::{Rejection, Traveller, Variant, reservation::tombstone};
    use serde_json::json;

    use super::*;

    const PRICES: [(Leg, Money); 3] =
        [(Leg::Flight, Money::eur(100)), (Leg::Hotel, Money::eur(20)), (Leg::Car, Money::eur(3))];
    const SUM: Money = Money::eur(123);
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn entry(step: Step, outcome: Outcome) -> Entry {
        Entry {
            step: step.name().into(),
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
            traveller: Traveller { name: "Ada".into(), email: "ada@example.com".into() },
            trip: serde_json::from_value(trip).unwrap(),
            total,
            reason: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        Books { booking_id, header: Some(header), journal, decision, paid: total }
    }

    fn confirmed() -> Books {
        let reserved = PRICES.map(|(leg, price)| entry(Step::Reserve(leg), Outcome::Reserved { price }));
        let decision = State::Charged { amount: SUM, charge_id: "ch".into() };
        books(Status::Confirmed, Some(SUM), decision, reserved.to_vec())
    }

    /// The flight was given back, the hotel was sold out, the car's cancel came first.
    fn failed() -> Books {
        let cancelled = |leg, released| entry(Step::Cancel(leg), Outcome::Cancelled { released });
        let journal = vec![
            entry(Step::Reserve(Leg::Flight), Outcome::Reserved { price: Money::eur(100) }),
            entry(Step::Reserve(Leg::Hotel), Outcome::Rejected(Rejection::new("sold_out", "no room"))),
            entry(Step::Reserve(Leg::Car), tombstone()),
            cancelled(Leg::Flight, true),
            cancelled(Leg::Hotel, false),
            cancelled(Leg::Car, false),
        ];
        books(Status::Failed, None, State::Aborted { reason: None }, journal)
    }

    fn wrong(books: &Books) -> Vec<String> {
        let name = format!("booking {ID}: ");
        check_booking(books).iter().map(|wrong| wrong.strip_prefix(&name).unwrap().to_owned()).collect()
    }

    fn without(mut books: Books, step: Step) -> Books {
        books.journal.retain(|entry| entry.step != step.name());
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
        let unreserved = without(confirmed(), Step::Reserve(Leg::Hotel));
        assert_eq!(wrong(&unreserved), ["confirmed, but hotel is not reserved"]);

        let mut cancelled = confirmed();
        cancelled.journal.push(entry(Step::Cancel(Leg::Car), Outcome::Cancelled { released: true }));
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
        priceless.journal[0].outcome = Some(Outcome::Reserved { price: Money::eur(u64::MAX) });
        assert!(wrong(&priceless)[0].starts_with("confirmed, but its prices have no sum"));
    }

    #[test]
    fn each_violation_of_a_failed_booking_is_told() {
        let reserved = without(failed(), Step::Cancel(Leg::Flight));
        assert_eq!(wrong(&reserved), ["failed, but flight is still reserved"]);

        let uncancelled = without(failed(), Step::Cancel(Leg::Hotel));
        assert_eq!(wrong(&uncancelled), ["failed, but hotel.cancel is not recorded"]);

        let undecided = Books { decision: State::Collecting, ..failed() };
        assert_eq!(wrong(&undecided), ["failed, but payment's decision is collecting"]);

        let paid = Books { paid: Some(SUM), ..failed() };
        assert_eq!(wrong(&paid), ["failed, but the provider was paid 1.23 EUR"]);

        let mut said = failed();
        said.header.as_mut().unwrap().total = Some(SUM);
        assert_eq!(wrong(&said), ["failed, but its total is 1.23 EUR"]);
    }

    #[test]
    fn what_has_not_ended_is_told() {
        for status in [Status::Pending, Status::NeedsOperator] {
            let mut open = confirmed();
            open.header.as_mut().unwrap().status = status;
            assert_eq!(wrong(&open), [format!("not ended: {status}")]);
        }
        assert_eq!(wrong(&Books { header: None, ..failed() }), ["there is no such booking"]);
    }

    #[test]
    fn stock_that_does_not_add_up_is_told() {
        let bookings = [confirmed(), failed(), confirmed()];
        let line =
            |product: &str, date: &str| StockLine { product: product.into(), date: date.parse().unwrap(), units: 0 };
        let wrong = |leg, line, units| check_line(&Shelf { leg, line, units }, &bookings);

        let flight = || line("LH400", "2027-03-01");
        assert_eq!(
            wrong(Leg::Flight, flight(), Some((6, 10))),
            None,
            "two seats for each of the two that are confirmed"
        );
        assert_eq!(
            wrong(Leg::Flight, flight(), Some((5, 10))).unwrap(),
            "flight LH400 on 2027-03-01: 5 available and 4 reserved, but 10 put on sale"
        );
        assert_eq!(wrong(Leg::Hotel, line("nyc-plaza", "2027-03-02"), Some((8, 10))), None);
        assert_eq!(wrong(Leg::Hotel, line("nyc-plaza", "2027-03-03"), Some((10, 10))), None, "the day of departure");
        assert_eq!(wrong(Leg::Car, line("jfk#compact", "2027-03-02"), Some((8, 10))), None);
        assert_eq!(wrong(Leg::Flight, flight(), Some((-1, 3))).unwrap(), "flight LH400 on 2027-03-01: -1 available");
        assert_eq!(
            wrong(Leg::Car, line("jfk#suv", "2027-03-02"), None).unwrap(),
            "car jfk#suv on 2027-03-02: not on sale"
        );
    }
}

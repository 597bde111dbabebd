//! The audit of a whole stack, through the command `harmony audit`: it finds each kind of violation, by its name and with
//! the booking's id, and no other; it raises no alarm while bookings are under way; and it takes no more memory for many
//! bookings than for few.
//!
//! Most bookings here are copies, in every table, of some that were really booked.

#![allow(clippy::unwrap_used)]

#[path = "audit/plants.rs"]
mod plants;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use end_to_end::{DEADLINE, House, choices, date, lines, note_figure, part_of, start, trip_of};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date};
use local_aws::Stack;
use operator::audit::{
    Audit, Deadline, ViolationKind,
    whole::{AuditError, AuditOptions, Finding},
};
use saga::{BookingId, IdempotencyKey, PartName, PartType, Parts, PaymentReference, Status, Step, StockLine, Variant};
use tokio::{sync::OnceCell, task::JoinSet};
use travel::{TRAVEL, part_names};
use traveller::{Client, TripRequest, client::fresh_key};

type Item = HashMap<String, AttributeValue>;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/harmony");

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

// ------------------------------------------------------------------------------------------------------- the command

/// A file that describes a stack, for as long as the value lives.
struct StackFile(PathBuf);

impl StackFile {
    fn of(stack: &Stack, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("harmony-{name}-{}.json", std::process::id()));
        std::fs::write(&path, serde_json::to_vec(stack).unwrap()).unwrap();
        Self(path)
    }
}

impl Drop for StackFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The program is the one that `make build` has built.
async fn make_build() {
    let build = || {
        let mut make = Command::new("make");
        make.args(["--silent", "build"]).current_dir(ROOT).env_clear();
        let kept = ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME"];
        make.envs(std::env::vars_os().filter(|(name, _)| kept.iter().any(|kept| name == kept))).status().unwrap()
    };
    static ONCE: OnceCell<()> = OnceCell::const_new();
    ONCE.get_or_init(async || assert!(tokio::task::spawn_blocking(build).await.unwrap().success())).await;
}

/// What an audit said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The violations, sorted: the name of the kind, and what it is about.
    fn violations(&self) -> Vec<(String, String)> {
        let lines = self.out.lines().filter_map(|line| line.strip_prefix("violation "));
        let mut violations: Vec<_> = lines
            .map(|line| {
                let (kind, rest) = line.split_once(' ').unwrap();
                (kind.to_owned(), rest.split_once(": ").unwrap().0.to_owned())
            })
            .collect();
        violations.sort();
        violations
    }

    /// The last line.
    fn closing(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }

    fn assert_clean(&self) {
        assert_eq!((self.code, self.violations()), (Some(0), Vec::new()), "{}\n{}", self.out, self.err);
        assert!(self.closing().contains(": 0 violations"), "{}", self.closing());
    }
}

async fn audit(stack: &StackFile, arguments: &[&str]) -> Said {
    let mut command = Command::new(PROGRAM);
    command.arg("audit").args(arguments).env("HARMONY_STACK_FILE", &stack.0);
    Said::of(&tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap())
}

/// The same, and the most memory that the program had, in KiB.
async fn audit_measured(stack: &StackFile, arguments: &[&str]) -> (Said, u64) {
    let mut command = Command::new(PROGRAM);
    command.arg("audit").args(arguments).env("HARMONY_STACK_FILE", &stack.0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let mut most = 0;
    while !ended.is_finished() {
        if let Ok(status) = std::fs::read_to_string(&status) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            most = line.map_or(most, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (Said::of(&ended.await.unwrap().unwrap()), most)
}

// ------------------------------------------------------------------------------------------------ bookings to look at

/// A booking that has really been made, in every table.
struct Template {
    header: Item,
    payment: Item,
    charge: Item,
    journal: Vec<Item>,
    /// Its parts, with `@0` for their first date and `@3` for their last.
    parts: String,
}

/// A booking in every table.
#[derive(Clone)]
struct Copied {
    id: BookingId,
    header: Item,
    payment: Item,
    charge: Item,
    journal: BTreeMap<Step, Item>,
    parts: Parts,
    is_confirmed: bool,
}

/// Stock and bookings of a stack, written straight into its tables.
struct Tables {
    house: House,
    /// Two of all parts, then one of each choice of some of them.
    confirmed: Vec<Template>,
    /// The same.
    failed: Vec<Template>,
}

/// What was taken of a line.
type Taken = BTreeMap<(PartName, String, Option<Date>), i64>;

/// How many units of each line were put on sale.
const SEEDED: i64 = 1_000_000;

fn reference(id: &BookingId, header: &Item) -> PaymentReference {
    PaymentReference::derive(id, header["validation"].as_s().unwrap())
}

impl Template {
    /// This booking once more, under another name and from another date on.
    fn copy(&self, key: &str, date: Date) -> Copied {
        let id = BookingId::derive("tests", &IdempotencyKey::try_from(key).unwrap());
        let parts =
            self.parts.replace("@0", &date.to_string()).replace("@3", &(date.saturating_add(3.days())).to_string());
        let mut header = self.header.clone();
        header.extend([("booking_id".into(), text(id.as_str())), ("parts".into(), text(&parts))]);
        let reference = reference(&id, &header);
        let (mut payment, mut charge) = (self.payment.clone(), self.charge.clone());
        payment.insert("booking_id".into(), text(id.as_str()));
        payment.entry("charge_id".into()).and_modify(|value| *value = text(format!("ch_{}", reference.as_str())));
        charge.insert("reference".into(), text(reference.as_str()));
        let step = |item: &Item| {
            let mut item = item.clone();
            item.insert("id".into(), text(id.as_str()));
            (Step::named(item["step"].as_s().unwrap()).unwrap(), item)
        };
        let journal = self.journal.iter().map(step).collect();
        let is_confirmed = header["status"].as_s().unwrap() == "confirmed";
        Copied { id, header, payment, charge, journal, parts: serde_json::from_str(&parts).unwrap(), is_confirmed }
    }

    /// What its parts are called.
    fn names(&self) -> Vec<PartName> {
        serde_json::from_str::<Parts>(&self.parts).unwrap().names().into_iter().collect()
    }

    /// A part that it does not have.
    fn other(&self) -> PartName {
        part_names().into_iter().find(|part| !self.names().contains(part)).unwrap()
    }
}

impl Copied {
    /// Adds what it has taken of each line, if it is confirmed.
    fn take(&self, taken: &mut Taken) {
        for part in self.parts.names().into_iter().filter(|_| self.is_confirmed) {
            self.take_part(part, taken);
        }
    }

    /// Adds what this part takes of each line.
    fn take_part(&self, part: PartName, taken: &mut Taken) {
        for line in self.lines(part) {
            *taken.entry((part, line.product, line.date)).or_default() += i64::from(line.units);
        }
    }

    fn lines(&self, part: PartName) -> Vec<StockLine> {
        lines(&self.parts.get(part).unwrap())
    }

    /// What the audit calls it.
    fn name(&self) -> String {
        format!("booking {}", self.id)
    }
}

impl Tables {
    /// Books trips to copy, of all parts in both variants, and of each choice of some of them: one that is confirmed, and
    /// one that fails, of all parts because one of them is sold out, of some because the card is declined.
    async fn of(house: House) -> Self {
        let mut tables = Self { house, confirmed: Vec::new(), failed: Vec::new() };
        let sold_out = part_names()[1];
        for variant in Variant::ALL {
            for units in [9, 0] {
                tables.book(variant, TRAVEL.parts, "tok_visa", Some((sold_out, units))).await;
            }
        }
        let some = choices().into_iter().filter(|choice| choice.len() < TRAVEL.parts.len());
        for (nth, choice) in some.enumerate() {
            for token in ["tok_visa", "tok_declined"] {
                tables.book(Variant::ALL[nth % 2], &choice, token, None).await;
            }
        }
        tables
    }

    async fn book(&mut self, variant: Variant, parts: &[PartType], token: &str, left: Option<(PartName, u32)>) {
        let (api, date) = (Client::new(&self.house.stack.api_url).unwrap(), date());
        let mut request = TripRequest { variant, ..TripRequest::of(parts, date, 3) };
        request.payment.token = token.into();
        self.house.seed(&trip_of(&request), 9).await;
        if let Some((part, units)) = left {
            self.house.seed_part(&part_of(&request, part), units).await;
        }
        let id = api.book_accepted(&request, &fresh_key("template")).await.unwrap().booking_id;
        let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
        let template = self.template(&id, date).await;
        let is_to_succeed = token == "tok_visa" && left.is_none_or(|(_, units)| units > 0);
        match (booking.status, is_to_succeed) {
            (Status::Confirmed, true) => self.confirmed.push(template),
            (Status::Failed, false) => self.failed.push(template),
            other => panic!("{other:?}: {booking:#?}"),
        }
    }

    /// How many were really booked.
    fn booked(&self) -> usize {
        self.confirmed.len() + self.failed.len()
    }

    /// Those of some of the parts only.
    fn small(templates: &[Template]) -> impl Iterator<Item = &Template> {
        templates.iter().filter(|template| template.names().len() < TRAVEL.parts.len())
    }

    async fn template(&self, id: &BookingId, date: Date) -> Template {
        let stack = &self.house.stack;
        let mut header = self.item(stack.bookings_table().unwrap(), "booking_id", id.as_str()).await;
        let payment = self.item(stack.payments_table().unwrap(), "booking_id", id.as_str()).await;
        let reference = reference(id, &header);
        let charge = self.item(stack.provider_ledger_table().unwrap(), "reference", reference.as_str()).await;
        let query = self.house.client.query().table_name(stack.journal_table().unwrap());
        let query = query.key_condition_expression("id = :id").expression_attribute_values(":id", text(id.as_str()));
        let mut journal = query.consistent_read(true).send().await.unwrap().items.unwrap();
        // All of it an hour ago: nothing of it has just been done.
        for value in journal.iter_mut().chain([&mut header]).flat_map(Item::iter_mut) {
            if let (name, AttributeValue::S(at)) = value
                && name.ends_with("_at")
            {
                let earlier = at.parse::<Timestamp>().unwrap() - SignedDuration::from_hours(1);
                *at = format!("{earlier:.3}");
            }
        }
        let parts = header["parts"].as_s().unwrap().replace(&date.to_string(), "@0");
        let parts = parts.replace(&date.saturating_add(3.days()).to_string(), "@3");
        Template { header, payment, charge, journal, parts }
    }

    async fn item(&self, table: &str, key: &str, value: &str) -> Item {
        let request = self.house.client.get_item().table_name(table).key(key, text(value)).consistent_read(true);
        request.send().await.unwrap().item.unwrap()
    }

    /// A booking to write, most of them confirmed.
    fn copy(&self, of: &str, number: usize, date: Date) -> Copied {
        let templates = if number % 10 == 9 { &self.failed } else { &self.confirmed };
        templates[number % templates.len()].copy(&format!("{of}-{number}"), date)
    }

    /// Writes items, in any order.
    async fn write(&self, items: impl IntoIterator<Item = (&str, Item)>) {
        let mut writing = JoinSet::new();
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let mut batch = HashMap::<String, Vec<WriteRequest>>::new();
            for (table, item) in items.by_ref().take(25) {
                let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
                batch.entry(table.to_owned()).or_default().push(WriteRequest::builder().put_request(put).build());
            }
            if writing.len() >= 4 {
                writing.join_next().await.unwrap().unwrap();
            }
            let request = self.house.client.batch_write_item().set_request_items(Some(batch));
            writing.spawn(async move {
                let left = request.send().await.unwrap().unprocessed_items.unwrap_or_default();
                assert!(left.is_empty());
            });
        }
        writing.join_all().await;
    }

    /// The items of bookings, with the tables that they are in.
    fn items(&self, bookings: impl IntoIterator<Item = Copied>) -> impl Iterator<Item = (&str, Item)> {
        let stack = &self.house.stack;
        let (headers, journal) = (stack.bookings_table().unwrap(), stack.journal_table().unwrap());
        let (payments, charges) = (stack.payments_table().unwrap(), stack.provider_ledger_table().unwrap());
        bookings.into_iter().flat_map(move |booking| {
            let whole = [(headers, booking.header), (payments, booking.payment), (charges, booking.charge)];
            whole.into_iter().chain(booking.journal.into_values().map(move |item| (journal, item)))
        })
    }

    /// Writes what is left of each line.
    async fn write_stock(&self, taken: &Taken) {
        let line = |((part, product, date), taken): (&(PartName, String, Option<Date>), &i64)| {
            let item = Item::from([
                ("product".into(), text(product)),
                ("date".into(), text(date.map_or_else(|| "-".to_owned(), |date| date.to_string()))),
                ("available".into(), number(SEEDED - taken)),
                ("seeded".into(), number(SEEDED)),
            ]);
            (self.house.stack.stock_table(*part).unwrap(), item)
        };
        self.write(taken.iter().map(line)).await;
    }
}

// -------------------------------------------------------------------------------------------------------- violations

/// The first date of the nth trip that shares no line with any other.
fn first_of(nth: usize) -> Date {
    traveller::trip::today().saturating_add((400 + 4 * nth as i64).days())
}

fn set(item: &mut Item, name: &str, value: AttributeValue) {
    item.insert(name.into(), value);
}

#[tokio::test]
async fn each_kind_of_violation_is_found_by_its_name_and_nothing_else_is() {
    make_build().await;
    let local = start("audit", &[("PendingMaxAgeSeconds", "60")]);
    let tables = Tables::of(House::of(local.stack()).await).await;
    let file = StackFile::of(local.stack(), "audit");

    // A clean stack, in pages so small that bookings are spread over them.
    let mut taken = Taken::new();
    let copies: Vec<_> = (0..300).map(|number| tables.copy("clean", number, first_of(number / 3))).collect();
    copies.iter().for_each(|booking| booking.take(&mut taken));
    tables.write_stock(&taken).await;
    tables.write(tables.items(copies)).await;
    for arguments in [&["--page", "25"][..], &["--page", "1000", "--all-ended"]] {
        let said = audit(&file, arguments).await;
        said.assert_clean();
        let (confirmed, failed) = (270 + tables.confirmed.len(), 30 + tables.failed.len());
        let counted = format!(
            "audited {} bookings ({confirmed} confirmed, {failed} failed, 0 pending, 0 needs_operator), ",
            confirmed + failed
        );
        assert!(said.closing().starts_with(&counted), "{}", said.closing());
        assert!(!said.closing().contains("in motion"), "{}", said.closing());
    }

    // Some that look wrong and are not: one is parked, one has just begun.
    let mut others = plants::Plants { before: 150, ..plants::Plants::default() };
    others.booking(&tables.confirmed[0], &[], |booking, _| {
        set(&mut booking.header, "status", text("needs_operator"));
        let mut park = booking.journal[&Step::Confirm].clone();
        let data = r#"{"outcome":"parked","detail":{"reason":{"step":null,"code":"parked","detail":""}}}"#;
        park.extend([("step".into(), text("booking.park")), ("data".into(), text(data))]);
        booking.journal.insert(Step::Park, park);
    });
    let young = others.booking(&tables.failed[0], &[], |booking, _| {
        set(&mut booking.header, "status", text("pending"));
        set(&mut booking.header, "created_at", text(Timestamp::now().to_string()));
        booking.journal.clear();
    });
    tables.write_stock(&others.taken).await;
    tables.write(tables.items(others.bookings)).await;
    let said = audit(&file, &["--page", "25"]).await;
    said.assert_clean();
    assert!(said.closing().contains("1 pending, 1 needs_operator"), "{}", said.closing());
    let said = audit(&file, &["--all-ended"]).await;
    assert_eq!((said.code, said.violations()), (Some(1), vec![("not-ended".into(), young.name())]));

    let mut plants = plants::plants(&tables);
    // A step of the very moment may come after the line was read: then its line is in motion and not wrong.
    let hurried = plants.booking(&tables.confirmed[1], &[], |booking, taken| {
        let reserve = booking.journal.get_mut(&Step::Reserve(part_names()[0])).unwrap();
        set(reserve, "finished_at", text("2199-01-01T00:00:00.000Z"));
        *taken.iter_mut().find(|((part, ..), _)| *part == part_names()[0]).unwrap().1 -= 1;
    });
    let hurried = format!("{} {}", part_names()[0], hurried.lines(part_names()[0]).remove(0));
    tables.write_stock(&plants.taken).await;
    tables.write(tables.items(plants.bookings.clone())).await;
    tables.write(plants.items.iter().map(|(table, item)| (table.as_str(), item.clone()))).await;
    let planted: std::collections::HashSet<_> = plants.expected.iter().map(|(kind, _)| kind.as_str()).collect();
    assert!(
        ViolationKind::ALL.iter().all(|kind| planted.contains(kind.name())),
        "not all kinds are planted: {planted:?}"
    );

    let said = audit(&file, &["--page", "25"]).await;
    plants.expected.sort();
    assert_eq!((said.code, said.violations()), (Some(1), plants.expected.clone()), "{}", said.out);
    assert!(said.out.lines().any(|line| line.starts_with(&format!("in motion {hurried}: "))), "{}", said.out);
    let closing = format!(": {} violations; 1 stock line in motion: audit again", plants.expected.len());
    assert!(said.closing().contains(&closing), "{}", said.closing());
    // Each with its timeline, as `harmony show` shows it.
    let uncharged = &plants.bookings[1];
    let shown = "status    confirmed, 1674.00 EUR\n";
    let (_, after) = said.out.split_once(&format!("violation not-charged {}: ", uncharged.name())).unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    assert!(after.starts_with(&format!("booking   {}, ", uncharged.id)) && after.contains(shown), "{after}");

    // Where nothing is under way, nothing is in motion. For programs: nothing but violations, and what was looked at.
    let said = audit(&file, &["--all-ended", "--brief"]).await;
    plants.expect(ViolationKind::Stock, hurried);
    plants.expect(ViolationKind::NotEnded, young.name());
    plants.expected.sort();
    assert_eq!((said.code, said.violations()), (Some(1), plants.expected.clone()), "{}", said.out);
    assert_eq!(said.out.lines().count(), plants.expected.len() + 1, "{}", said.out);
    assert_eq!(said.err, "");

    // The same, if not all charges can be kept in mind at once.
    let at_rest = Deadline { accepted_before: Timestamp::MAX, may_need_operator: true };
    let journal_since = Timestamp::now() - SignedDuration::from_hours(24);
    let mut reading = AuditOptions { deadline: at_rest, is_at_rest: true, journal_since, page: Some(25), charges: 40 };
    let found = violations(local.stack(), reading).await;
    assert_eq!(found, plants.expected);

    // One by one: what cannot be read of three of them is told, and hides no other.
    let ids: Vec<_> = plants.bookings.iter().map(|booking| booking.id.clone()).collect();
    let audit = Audit::of(local.stack(), &local.stack().sdk().await.unwrap()).unwrap();
    let found = audit.run(&ids, []).await.unwrap();
    assert_eq!(found.iter().filter(|violation| violation.contains("cannot be read")).count(), 3, "{found:#?}");
    assert!(found.iter().any(|violation| violation.starts_with(&plants.bookings[1].name())), "{found:#?}");

    // Of bookings that are older than their journals nothing is reported but that they were not checked.
    reading.journal_since = Timestamp::MAX;
    let found = violations(local.stack(), reading).await;
    let is_checked = |kind: &str| ["orphan", "below-zero", "stock", "unreadable", "not-ended"].contains(&kind);
    assert!(found.iter().all(|(kind, _)| is_checked(kind)), "{found:?}");
}

async fn violations(stack: &Stack, reading: AuditOptions) -> Vec<(String, String)> {
    let mut violations = Vec::new();
    let tell = |finding: Finding<'_>| {
        if let Finding::Wrong(wrong, _) = finding {
            violations.extend(wrong.iter().map(|wrong| (wrong.kind.to_string(), wrong.about.clone())));
        }
        Ok::<_, AuditError>(())
    };
    let audit = Audit::of(stack, &stack.sdk().await.unwrap()).unwrap();
    let report = audit.whole(reading, tell, |_| ()).await.unwrap();
    assert_eq!(report.violations, violations.len() as u64);
    violations.sort();
    violations
}

#[tokio::test]
async fn bookings_under_way_raise_no_alarm() {
    make_build().await;
    let local = start("audit-traffic", &[]);
    let house = House::of(local.stack()).await;
    let file = StackFile::of(local.stack(), "audit-traffic");
    let api = Client::new(&house.stack.api_url).unwrap();
    let request = TripRequest::of(TRAVEL.parts, date(), 3);
    house.seed(&trip_of(&request), 10_000).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for buyer in 0..6_usize {
        let (api, mut request, is_over) = (api.clone(), request.clone(), is_over.clone());
        request.variant = Variant::ALL[buyer % 2];
        let choice = choices().into_iter().rev().cycle().nth(buyer).unwrap(); // the first buys all that there is
        request.parts.retain(|name, _| choice.iter().any(|part_type| part_type.name == *name));
        buyers.spawn(async move {
            let mut ended = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                request.payment.token = if ended.len() % 2 == 0 { "tok_visa" } else { "tok_declined" }.into();
                let id = api.book_accepted(&request, &fresh_key(buyer)).await.unwrap().booking_id;
                ended.push(api.wait_until_settled(&id, 4 * DEADLINE).await.unwrap());
            }
            ended
        });
    }
    let (mut audits, mut of_open) = (0, 0);
    while of_open < 3 {
        let said = audit(&file, &["--page", "20"]).await;
        said.assert_clean();
        eprintln!("{}", said.closing());
        audits += 1;
        of_open += usize::from(!said.closing().contains(" 0 pending"));
        assert!(audits < 20, "only in {of_open} of {audits} audits something was under way: {}", said.closing());
    }
    is_over.store(true, Ordering::Relaxed);
    let ended: Vec<_> = buyers.join_all().await.into_iter().flatten().collect();
    assert!(ended.iter().any(|booking| booking.status == Status::Confirmed));
    assert!(ended.iter().any(|booking| booking.status == Status::Failed));
    audit(&file, &["--all-ended"]).await.assert_clean();
}

#[tokio::test]
async fn a_stack_that_cannot_be_audited_is_told_in_one_line() {
    make_build().await;
    let house = House::new().await;
    let said = async |name: &str, stack: &Stack| {
        let said = audit(&StackFile::of(stack, name), &[]).await;
        assert_eq!((said.code, said.out.as_str(), said.err.lines().count()), (Some(1), "", 1), "{}", said.err);
        said.err
    };
    let mut other = house.stack.clone();
    other.outputs.insert("PaymentsTableName".into(), "no-such-table".into());
    let error = said("no-table", &other).await;
    assert!(error.starts_with("harmony: there is no table no-such-table: deploy template.yaml again"), "{error}");

    let mut older = house.stack.clone();
    older.outputs.remove("PendingMaxAgeSeconds");
    let error = said("older", &older).await;
    let expected = "harmony: the stack has no output PendingMaxAgeSeconds: deploy this project's template.yaml again\n";
    assert_eq!(error, expected);

    let ended = Stack { endpoint: Some("http://127.0.0.1:9".into()), ..house.stack.clone() };
    let error = said("ended", &ended).await;
    let expected = "harmony: the local AWS at http://127.0.0.1:9 does not answer: see whether it still runs";
    assert!(error.starts_with(expected), "{error}");

    let gone = Command::new(PROGRAM).args(["audit", "--stack-file", "/there/is/none"]).output().unwrap();
    let error = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(!gone.status.success() && error.lines().count() == 1, "{error}");
}

/// Takes a quarter of an hour: the local AWS goes through a whole table for each page.
#[tokio::test]
#[ignore = "takes a quarter of an hour; `make prove` runs it"]
async fn a_hundred_thousand_bookings_take_hardly_more_memory_than_ten_thousand() {
    make_build().await;
    let local = start("audit-many", &[]);
    let tables = Tables::of(House::of(local.stack()).await).await;
    let file = StackFile::of(local.stack(), "audit-many");
    let (mut taken, mut written, mut memory) = (Taken::new(), 0, Vec::new());
    for bookings in [1_000, 10_000, 100_000] {
        let started = Instant::now();
        let copies = (written..bookings).map(|number| tables.copy("many", number, first_of(number % 50)));
        let copies = copies.inspect(|booking| booking.take(&mut taken));
        tables.write(tables.items(copies)).await;
        tables.write_stock(&taken).await;
        let wrote = started.elapsed().as_secs();
        written = bookings;
        let (said, most) = audit_measured(&file, &["--all-ended"]).await;
        said.assert_clean();
        assert!(
            said.closing().starts_with(&format!("audited {} bookings", bookings + tables.booked())),
            "{}",
            said.closing()
        );
        let figure = format!("audit: {}; {:.1} MiB at the most", said.closing(), most as f64 / 1024.0);
        note_figure(&figure);
        eprintln!("{figure}; written in {wrote} s");
        memory.push(most);
    }
    // From ten thousand on all pages are full. Only the charges are kept in mind, with some 20 bytes each.
    assert!(memory[2] < memory[1] + 8 * 1024, "{memory:?} KiB");
}

//! What is planted: one violation of each kind, and what looks like one and is not.

use super::*;

/// What is planted: bookings with something wrong, other items, and what the audit has to say of them.
#[derive(Default)]
pub(super) struct Plants {
    /// How many there are before these.
    pub(super) before: usize,
    /// A date of its own for each, so that lines of stock have nothing to do with each other.
    pub(super) bookings: Vec<Copied>,
    pub(super) items: Vec<(String, Item)>,
    pub(super) taken: Taken,
    pub(super) expected: Vec<(String, String)>,
}

impl Plants {
    /// Expects a violation of this kind.
    pub(super) fn expect(&mut self, kind: ViolationKind, about: impl Into<String>) {
        self.expected.push((kind.name().into(), about.into()));
    }

    /// A booking that is wrong in one way.
    pub(super) fn booking(
        &mut self,
        template: &Template,
        kinds: &[ViolationKind],
        change: impl FnOnce(&mut Copied, &mut Taken),
    ) -> Copied {
        let number = self.before + self.bookings.len();
        let mut booking = template.copy(&format!("plant-{number}"), first_of(200 + number));
        let mut taken = Taken::new();
        booking.take(&mut taken);
        change(&mut booking, &mut taken);
        self.taken.extend(taken);
        kinds.iter().for_each(|kind| self.expect(*kind, booking.name()));
        self.bookings.push(booking.clone());
        booking
    }
}

const OTHER: &str = r#"{"amount":1,"currency":"EUR"}"#;

/// One violation of each kind, and what looks like one and is none.
pub(super) fn plants(tables: &Tables) -> Plants {
    let (mut plants, stack) = (Plants::default(), &tables.house.stack);
    let (confirmed, failed) = (&tables.confirmed[0], &tables.failed[1]);
    let [one, other, third] = [0, 1, 2].map(|nth| part_names()[nth]); // any; the second is the one that was sold out
    // A step as another booking has recorded it, of this booking.
    let step = |template: &Template, step: Step, id: &BookingId| {
        let mut item = template.journal.iter().find(|item| item["step"] == text(step.to_string())).unwrap().clone();
        set(&mut item, "id", text(id.as_str()));
        item
    };
    let no_units = |taken: &mut Taken, part: PartName| {
        taken.iter_mut().filter(|((of, ..), _)| *of == part).for_each(|(_, taken)| *taken = 0);
    };

    // Of a confirmed booking.
    plants.booking(confirmed, &[ViolationKind::NotReserved], |booking, taken| {
        let cancelled = step(failed, Step::Cancel(other), &booking.id);
        booking.journal.insert(Step::Cancel(other), cancelled);
        no_units(taken, other);
    });
    plants.booking(confirmed, &[ViolationKind::NotCharged], |booking, _| {
        set(&mut booking.payment, "state", text("charging"))
    });
    plants
        .booking(confirmed, &[ViolationKind::WrongCharge], |booking, _| set(&mut booking.charge, "amount", number(1)));
    plants.booking(confirmed, &[ViolationKind::WrongCharge], |booking, _| {
        set(&mut booking.charge, "voided_at", text("now"))
    });
    plants
        .booking(confirmed, &[ViolationKind::WrongTotal], |booking, _| set(&mut booking.header, "total", text(OTHER)));
    plants.booking(confirmed, &[ViolationKind::NotRecorded], |booking, _| _ = booking.journal.remove(&Step::Confirm));
    let no_journal =
        [vec![ViolationKind::NotRecorded], vec![ViolationKind::NotReserved; confirmed.names().len()]].concat();
    plants.booking(confirmed, &no_journal, |booking, taken| {
        booking.journal.clear();
        taken.clear();
    });
    plants.booking(confirmed, &[ViolationKind::NotParked], |booking, _| {
        set(&mut booking.header, "status", text("needs_operator"));
    });

    // Of a failed one.
    plants.booking(failed, &[ViolationKind::StillReserved], |booking, taken| {
        booking.journal.remove(&Step::Cancel(one));
        booking.take_part(one, taken);
    });
    plants.booking(failed, &[ViolationKind::NotCancelled], |booking, _| {
        booking.journal.remove(&Step::Cancel(other));
    });
    plants.booking(failed, &[ViolationKind::NotAborted], |booking, _| {
        set(&mut booking.payment, "state", text("charging"))
    });
    plants.booking(failed, &[ViolationKind::StillCharged], |booking, _| {
        booking.charge = confirmed.charge.clone();
        let reference = reference(&booking.id, &booking.header);
        set(&mut booking.charge, "reference", text(reference.as_str()));
    });
    plants.booking(failed, &[ViolationKind::WrongTotal], |booking, _| set(&mut booking.header, "total", text(OTHER)));
    plants.booking(failed, &[ViolationKind::NotRecorded], |booking, _| _ = booking.journal.remove(&Step::Fail));

    // Of one that is pending: nobody has started it, or it was left in the middle.
    let ago = (Timestamp::now() - SignedDuration::from_hours(3)).to_string();
    for steps in [0, 2] {
        plants.booking(failed, &[ViolationKind::NotEnded], |booking, _| {
            set(&mut booking.header, "status", text("pending"));
            set(&mut booking.header, "created_at", text(&ago));
            booking.journal.retain(|step, _| steps > 0 && [Step::Reserve(other), Step::Abort].contains(step));
        });
    }

    // Of plans with some of the parts: what is wrong with one of them, and what belongs to none of them.
    for template in Tables::small(&tables.confirmed) {
        for part in template.names() {
            plants.booking(template, &[ViolationKind::NotReserved], |booking, taken| {
                booking.journal.remove(&Step::Reserve(part));
                no_units(taken, part);
            });
        }
        plants.booking(template, &[ViolationKind::Orphan], |booking, _| {
            let step = step(confirmed, Step::Reserve(template.other()), &booking.id);
            booking.journal.insert(Step::Reserve(template.other()), step);
        });
    }
    for template in Tables::small(&tables.failed) {
        for part in template.names() {
            plants.booking(template, &[ViolationKind::StillReserved], |booking, taken| {
                booking.journal.remove(&Step::Cancel(part));
                booking.take_part(part, taken);
            });
        }
        plants.booking(template, &[ViolationKind::Orphan], |booking, _| {
            let step = step(confirmed, Step::Reserve(template.other()), &booking.id);
            booking.journal.insert(Step::Reserve(template.other()), step);
        });
        // It is called off, and was not reserved: two steps, and neither is for it.
        plants.booking(template, &[ViolationKind::Orphan, ViolationKind::Orphan], |booking, _| {
            for step_of_other in [Step::Reserve(template.other()), Step::Cancel(template.other())] {
                booking.journal.insert(step_of_other, step(failed, step_of_other, &booking.id));
            }
        });
    }
    // And of one with a part that nobody sells.
    let unsold = |booking: &mut Copied| {
        let mut parts: serde_json::Value = serde_json::from_str(booking.header["parts"].as_s().unwrap()).unwrap();
        parts["sauna"] = serde_json::json!({"hours": 2});
        set(&mut booking.header, "parts", text(parts.to_string()));
    };
    plants.booking(confirmed, &[ViolationKind::NotReserved], |booking, _| unsold(booking));
    plants.booking(failed, &[ViolationKind::NotCancelled], |booking, _| unsold(booking));

    // What belongs to no booking. A card is attached before there is a header: that is none.
    let left = failed.copy("no-header", first_of(300));
    let journal = stack.journal_table().unwrap();
    plants.items.extend(left.journal.values().map(|item| (journal.to_owned(), item.clone())));
    plants.expect(ViolationKind::Orphan, left.name());
    let left = failed.copy("payment-only", first_of(301));
    plants.expect(ViolationKind::Orphan, left.name());
    plants.items.push((stack.payments_table().unwrap().to_owned(), left.payment));
    let left = confirmed.copy("charge-only", first_of(302));
    plants.expect(ViolationKind::Orphan, format!("payment {}", left.charge["reference"].as_s().unwrap()));
    plants.items.push((stack.provider_ledger_table().unwrap().to_owned(), left.charge));
    let mut attached = confirmed.copy("card-only", first_of(303)).charge;
    attached.retain(|name, _| !["charged_at", "amount", "currency"].contains(&name.as_str()));
    plants.items.push((stack.provider_ledger_table().unwrap().to_owned(), attached));

    // Stock.
    let mut line = |part: PartName, nth: usize, available: AttributeValue, kind| {
        let date = first_of(nth);
        let product = confirmed.copy("product", date).lines(part).remove(0).product;
        let item = Item::from([
            ("product".into(), text(&product)),
            ("date".into(), text(date.to_string())),
            ("available".into(), available),
            ("seeded".into(), number(5)),
        ]);
        plants.items.push((stack.stock_table(part).unwrap().to_owned(), item));
        let on = if kind == ViolationKind::Unreadable { "" } else { "on " };
        plants.expect(kind, format!("{part} {product} {on}{date}"));
    };
    line(one, 310, number(-1), ViolationKind::BelowZero);
    line(other, 311, number(4), ViolationKind::Stock);
    line(third, 312, number(6), ViolationKind::Stock);
    line(third, 313, text("five"), ViolationKind::Unreadable);
    let not_on_sale = plants.booking(confirmed, &[], |_, taken| taken.retain(|(part, ..), _| *part != third));
    for line in not_on_sale.lines(third) {
        plants.expect(ViolationKind::Stock, format!("{third} {line}"));
    }

    // What no program writes. Nothing else is reported of the booking then.
    let garbled = plants
        .booking(failed, &[ViolationKind::Unreadable], |booking, _| set(&mut booking.header, "variant", text("?")));
    assert!(!garbled.is_confirmed);
    let garbled = plants.booking(confirmed, &[], |booking, _| set(&mut booking.payment, "state", text("?")));
    plants.expect(ViolationKind::Unreadable, format!("payment record {}", garbled.id));
    let garbled = plants.booking(confirmed, &[], |booking, _| {
        set(booking.journal.get_mut(&Step::Confirm).unwrap(), "status", text("?"));
    });
    plants.expect(ViolationKind::Unreadable, format!("journal item {} booking.confirm", garbled.id));
    plants
}

//! A seller: reserve and cancel, of every part that there is.

use super::*;

#[tokio::test]
async fn a_reserve_takes_every_line_in_one_request_and_a_repeat_takes_nothing() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (seller, id) = (house.seller(part_type), booking_id("reserve"));
        house.seed_part(&part, 5).await;
        let left = all(5 - lines(&part)[0].units, &part);

        let (calls, outcome) = house.counted(seller.reserve(&id, &part)).await;
        let outcome = outcome.unwrap();
        assert_eq!(calls, 1, "{part:?}");
        assert!(matches!(outcome, Outcome::Reserved { .. }), "{outcome:?}");
        assert_eq!(house.available(&part).await, left, "{part:?}");

        let (calls, again) = house.counted(seller.reserve(&id, &part)).await;
        assert_eq!((calls, again.unwrap()), (1, outcome));
        assert_eq!(house.available(&part).await, left, "{part:?}");
    }
}

#[tokio::test]
async fn a_stay_with_one_full_night_takes_no_night_and_stays_rejected() {
    let house = House::new().await;
    let (hotel, seller, id) = (hotel_of(&trip(date())), house.seller(HOTEL), booking_id("sold-out"));
    house.seed_part(&hotel, 1).await;
    let full = StockLine { units: 0, ..lines(&hotel)[1].clone() };
    house.stock(HOTEL.name).seed(&[full]).await.unwrap();

    let (calls, outcome) = house.counted(seller.reserve(&id, &hotel)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (2, "sold_out"));
    assert_eq!(house.available(&hotel).await, [1, 0, 1]);

    house.seed_part(&hotel, 9).await; // somebody gives a room back: too late for this booking
    let (calls, outcome) = house.counted(seller.reserve(&id, &hotel)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (1, "sold_out"));
    assert_eq!(house.available(&hotel).await, [9, 9, 9]);
}

#[tokio::test]
async fn what_is_not_on_sale_is_rejected_and_what_is_unknown_without_a_look() {
    let house = House::new().await;
    let trip = trip(date());
    for (part_type, part) in each(&trip) {
        let (calls, outcome) = house.counted(house.seller(part_type).reserve(&booking_id("n"), &part)).await;
        assert_eq!((calls, code(&outcome.unwrap())), (2, "not_on_sale"), "{part:?}");
    }
    let mut unknown = trip.get(FLIGHT.name).unwrap();
    unknown.contents["flight_no"] = json!("XX1");
    let (calls, outcome) = house.counted(house.seller(FLIGHT).reserve(&booking_id("u"), &unknown)).await;
    assert_eq!((calls, code(&outcome.unwrap())), (1, "unknown_flight"));
}

#[tokio::test]
async fn a_cancel_gives_back_once_in_one_request() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (seller, id) = (house.seller(part_type), booking_id("cancel"));
        house.seed_part(&part, 3).await;
        seller.reserve(&id, &part).await.unwrap();
        assert_ne!(house.available(&part).await, all(3, &part), "{part:?}");

        for _ in 0..3 {
            let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
            assert_eq!((calls, outcome.unwrap()), (1, Outcome::Cancelled { released: true }), "{part:?}");
            assert_eq!(house.available(&part).await, all(3, &part), "{part:?}");
        }
        // A duplicate of the reserve that was under way: it is answered, and takes nothing.
        assert!(matches!(seller.reserve(&id, &part).await.unwrap(), Outcome::Reserved { .. }));
        assert_eq!(house.available(&part).await, all(3, &part), "{part:?}");
    }
}

#[tokio::test]
async fn a_cancel_that_comes_first_leaves_a_tombstone_that_refuses_the_late_reserve() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (seller, id) = (house.seller(part_type), booking_id("tombstone"));
        house.seed_part(&part, 3).await;

        let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
        assert_eq!((calls, outcome.unwrap()), (2, Outcome::Cancelled { released: false }), "{part:?}");
        let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
        assert_eq!((calls, outcome.unwrap()), (1, Outcome::Cancelled { released: false }), "{part:?}");

        let (calls, outcome) = house.counted(seller.reserve(&id, &part)).await;
        assert_eq!((calls, code(&outcome.unwrap())), (1, "cancelled"), "{part:?}");
        assert_eq!(house.available(&part).await, all(3, &part), "{part:?}");
    }
}

#[tokio::test]
async fn a_cancel_of_what_was_rejected_gives_nothing_back() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (seller, id) = (house.seller(part_type), booking_id("rejected"));
        house.seed_part(&part, 0).await;
        assert_eq!(code(&seller.reserve(&id, &part).await.unwrap()), "sold_out");

        let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
        assert_eq!((calls, outcome.unwrap()), (2, Outcome::Cancelled { released: false }), "{part:?}");
        assert_eq!(house.available(&part).await, all(0, &part), "{part:?}");
    }
}

#[tokio::test]
async fn the_same_step_with_other_contents_is_refused() {
    let house = House::new().await;
    let others = trip(date());
    for (part_type, one) in each(&trip(date())) {
        let (seller, id, other) = (house.seller(part_type), booking_id("other"), others.get(part_type.name).unwrap());
        house.seed_part(&one, 3).await;
        house.seed_part(&other, 3).await;
        seller.reserve(&id, &one).await.unwrap();
        let taken = all(3 - lines(&one)[0].units, &one);
        let unreadable = Part { contents: json!({"odd": true}), ..one.clone() };
        for part in [&other, &unreadable] {
            for result in [seller.reserve(&id, part).await, seller.cancel(&id, part).await] {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("with other contents"), "{error}");
            }
        }
        assert_eq!(house.available(&one).await, taken);
        assert_eq!(house.available(&other).await, all(3, &other));
        let (entries, _) = house.journal().entries(&id).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.step).collect::<Vec<_>>(), [Step::Reserve(one.name)]);
    }
}

/// What its seller cannot read, some of it nearly right.
fn unreadable(part: &Part) -> Vec<Part> {
    let mut odd = part.contents.clone();
    odd["odd"] = json!(true);
    let odd = [json!({}), json!(null), json!(["a"]), odd];
    odd.map(|contents| Part { contents, ..part.clone() }).into()
}

#[tokio::test]
async fn contents_that_a_seller_cannot_read_are_rejected_and_there_is_nothing_to_give_back() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (seller, invalid) = (house.seller(part_type), format!("invalid_{}", part.name));
        house.seed_part(&part, 3).await;
        for part in unreadable(&part) {
            let id = booking_id("unreadable");
            for _ in 0..2 {
                let (calls, outcome) = house.counted(seller.reserve(&id, &part)).await;
                assert_eq!((calls, code(&outcome.unwrap())), (1, invalid.as_str()), "{part:?}");
            }
            for requests in [2, 1] {
                let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
                assert_eq!((calls, outcome.unwrap()), (requests, Outcome::Cancelled { released: false }), "{part:?}");
            }
            // The same by command.
            let command =
                |verb| json!({"step": format!("{}.{verb}", part.name), "booking_id": id, "part": part.contents});
            let answer = json!(seller.handle(&command("reserve")).await.unwrap());
            assert_eq!((&answer["outcome"], &answer["detail"]["code"]), (&json!("rejected"), &json!(invalid)));
            assert_eq!(json!(seller.handle(&command("cancel")).await.unwrap())["detail"], json!({"released": false}));

            // The cancel comes first: here nobody tries to give back what nobody can have reserved.
            let id = booking_id("unreadable-late");
            for _ in 0..2 {
                let (calls, outcome) = house.counted(seller.cancel(&id, &part)).await;
                assert_eq!((calls, outcome.unwrap()), (1, Outcome::Cancelled { released: false }), "{part:?}");
            }
            let (calls, outcome) = house.counted(seller.reserve(&id, &part)).await;
            assert_eq!((calls, code(&outcome.unwrap())), (1, "cancelled"), "{part:?}");
        }
        assert_eq!(house.available(&part).await, all(3, &part), "{part:?}");
    }
}

fn refuses_all(fields: &mut Fields<'_, '_>, _earliest: Date) -> Option<Box<dyn PartRequest>> {
    fields.ignore_others();
    fields.violation("new", "is not known to this program");
    None
}

#[tokio::test]
async fn what_a_newer_program_reserved_stays_reserved_until_such_a_program_cancels_it() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        let (newer, id) = (house.seller(part_type), booking_id("newer"));
        house.seed_part(&part, 3).await;
        newer.reserve(&id, &part).await.unwrap();
        let taken = house.available(&part).await;

        let older = house.seller(PartType { read: refuses_all, ..part_type });
        for _ in 0..2 {
            let error = older.cancel(&id, &part).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("is reserved, and cannot be read"), "{error}");
        }
        assert_eq!(house.available(&part).await, taken, "{part:?}");
        let (entries, _) = house.journal().entries(&id).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.step).collect::<Vec<_>>(), [Step::Reserve(part.name)]);
        assert!(matches!(older.reserve(&id, &part).await.unwrap(), Outcome::Reserved { .. }), "as it was answered");

        assert_eq!(newer.cancel(&id, &part).await.unwrap(), Outcome::Cancelled { released: true });
        assert_eq!(house.available(&part).await, all(3, &part), "{part:?}");
        assert_eq!(older.cancel(&id, &part).await.unwrap(), Outcome::Cancelled { released: true });
    }
}

/// What the next saga sells: something that is the same on every date, and is taken off the price.
pub(super) const VOUCHER: PartType = PartType {
    name: PartName::new("voucher"),
    unit: "voucher",
    is_dated: false,
    price_list: r#"{"currency": "EUR", "products": [{"product": "stores-rs", "units": 3, "unit_price": 1000}]}"#,
    read: voucher,
    example: |_, _| json!({"vouchers": 2}),
};

#[derive(Debug)]
struct Vouchers(u32);

fn voucher(fields: &mut Fields<'_, '_>, _earliest: Date) -> Option<Box<dyn PartRequest>> {
    fields.count("vouchers", 9).map(|units| Box::new(Vouchers(units)) as Box<dyn PartRequest>)
}

impl PartRequest for Vouchers {
    fn lines(&self) -> Vec<StockLine> {
        vec![StockLine { product: "stores-rs".into(), date: None, units: self.0 }]
    }

    fn price(&self, sum: Money) -> Result<Price, MoneyError> {
        Price::credit(sum)
    }

    fn last_day(&self) -> Option<Date> {
        None
    }

    fn summary(&self) -> String {
        saga::stock::count(self.0, "voucher")
    }
}

#[tokio::test]
async fn what_is_sold_without_a_date_is_one_line_and_a_credit_is_a_price() {
    let house = House::new().await;
    // Beside what is sold by date: a table takes both.
    let table = || StockTable::new(house.client.clone(), house.stack.stock_table(HOTEL.name).unwrap(), house.journal());
    let (part_type, catalogue) = (VOUCHER, Catalogue::read(VOUCHER.price_list).unwrap());
    let seller = Seller { part_type, catalogue, store: table(), clock: Timestamp::now };
    let part = |vouchers: u32| Part { name: VOUCHER.name, contents: json!({ "vouchers": vouchers }) };
    let line = StockLine { product: "stores-rs".into(), date: None, units: 3 };
    assert_eq!(code(&seller.reserve(&booking_id("none"), &part(1)).await.unwrap()), "not_on_sale");
    table().seed(std::slice::from_ref(&line)).await.unwrap();
    let available = async || table().available(&line).await.unwrap();
    assert_eq!(available().await, Some((3, 3)));

    let [one, two] = ["one", "two"].map(booking_id);
    let (calls, outcome) = house.counted(seller.reserve(&one, &part(2))).await;
    let credit = Price { amount: -2000, currency: Currency::EUR };
    assert_eq!((calls, outcome.unwrap()), (1, Outcome::Reserved { price: credit }));
    assert_eq!(seller.reserve(&one, &part(2)).await.unwrap(), Outcome::Reserved { price: credit }, "as it is recorded");
    let Outcome::Rejected(sold_out) = seller.reserve(&two, &part(2)).await.unwrap() else {
        panic!("there is one left")
    };
    assert_eq!(
        (sold_out.code.as_str(), sold_out.message.as_str()),
        ("sold_out", "stores-rs has fewer than 2 vouchers left")
    );
    assert_eq!(available().await, Some((1, 3)));
    let mut page = table().page(None, None).await.unwrap();
    let mut found = Vec::new();
    loop {
        found.extend(page.items.into_iter().map(Result::unwrap).filter(|line| line.product == "stores-rs"));
        let Some(next) = page.next else { break };
        page = table().page(Some(next), None).await.unwrap();
    }
    assert_eq!(found, [OnSale { product: "stores-rs".into(), date: None, available: 1, seeded: 3 }]);

    assert_eq!(seller.cancel(&one, &part(2)).await.unwrap(), Outcome::Cancelled { released: true });
    assert_eq!(seller.cancel(&two, &part(2)).await.unwrap(), Outcome::Cancelled { released: false });
    assert_eq!(available().await, Some((3, 3)));
}

#[tokio::test]
async fn twenty_at_once_get_the_five_rooms_that_there_are_and_no_repeat_gets_a_second() {
    let house = House::new().await;
    let hotel = hotel_of(&trip(date()));
    house.seed_part(&hotel, 5).await;
    let mut racing = tokio::task::JoinSet::new();
    for buyer in 0..20 {
        let id = booking_id(&format!("racing{buyer}"));
        for _ in 0..2 {
            let (seller, hotel, id) = (house.seller(HOTEL), hotel.clone(), id.clone());
            racing.spawn(async move { (id.clone(), seller.reserve(&id, &hotel).await.unwrap()) });
        }
    }
    let mut reserved = BTreeMap::new();
    for (id, outcome) in racing.join_all().await {
        let before = reserved.insert(id.to_string(), outcome.clone());
        assert!(before.is_none_or(|before| before == outcome), "{id} was told two things");
    }
    let got = reserved.values().filter(|outcome| matches!(outcome, Outcome::Reserved { .. })).count();
    assert_eq!(got, 5);
    assert_eq!(house.available(&hotel).await, [0, 0, 0]);
}

#[tokio::test]
async fn a_reserve_and_its_cancel_at_once_leave_nothing_reserved() {
    let house = House::new().await;
    for (part_type, part) in each(&trip(date())) {
        house.seed_part(&part, 50).await;
        for round in 0..10 {
            let id = booking_id(&format!("both{round}"));
            let mut racing = tokio::task::JoinSet::new();
            for cancel in [false, true, false, true] {
                let (seller, part, id) = (house.seller(part_type), part.clone(), id.clone());
                racing.spawn(async move {
                    if cancel { seller.cancel(&id, &part).await } else { seller.reserve(&id, &part).await }.unwrap()
                });
            }
            racing.join_all().await;
            assert_eq!(house.available(&part).await, all(50, &part), "{part:?}");
        }
    }
}

#[tokio::test]
async fn journal_items_look_as_those_of_powertools() {
    let house = House::new().await;
    let (hotel, id) = (hotel_of(&trip(date())), booking_id("journal"));
    house.seed_part(&hotel, 1).await;
    house.seller(HOTEL).reserve(&id, &hotel).await.unwrap();
    let request = house.client.get_item().table_name(house.stack.journal_table().unwrap());
    let key = |text: &str| AttributeValue::S(text.to_owned());
    let item =
        request.key("id", key(id.as_str())).key("step", key("hotel.reserve")).send().await.unwrap().item.unwrap();
    assert_eq!(item["status"].as_s().unwrap(), "COMPLETED");
    let data: Value = serde_json::from_str(item["data"].as_s().unwrap()).unwrap();
    assert_eq!(data, json!({"outcome": "reserved", "detail": {"price": {"amount": 65700, "currency": "EUR"}}}));
    let expires: i64 = item["expiration"].as_n().unwrap().parse().unwrap();
    let in_730_days = Timestamp::now().as_second() + 730 * 24 * 3600;
    assert!((expires - in_730_days).abs() < 60, "{expires}");
    assert!(item["validation"].as_s().is_ok());
}

//! Answers that are lost.

use super::*;

/// What a step does to the tables, and how it is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Reserve,
    ReserveSoldOut,
    Cancel,
    CancelNothing,
    Charge,
    ChargeDeclined,
    Abort,
    AbortCharged,
    Confirm,
    Fail,
    Park,
    CollectPrice,
    CollectCancelled,
}

impl Case {
    const ALL: [Self; 13] = [
        Self::Reserve,
        Self::ReserveSoldOut,
        Self::Cancel,
        Self::CancelNothing,
        Self::Charge,
        Self::ChargeDeclined,
        Self::Abort,
        Self::AbortCharged,
        Self::Confirm,
        Self::Fail,
        Self::Park,
        Self::CollectPrice,
        Self::CollectCancelled,
    ];

    /// A booking that is as far as it has to be.
    async fn booking(self, house: &House, request: &TripRequest) -> Header {
        let mut request = request.clone();
        if self == Self::ChargeDeclined {
            request.payment.token = "tok_declined".into();
        }
        house.seed(&trip_of(&request), if self == Self::ReserveSoldOut { 0 } else { 5 }).await;
        let header = house.record_only(&request, &fresh_key("lost"), SignedDuration::ZERO).await;
        let before = match self {
            Self::Cancel => Some(Self::Reserve),
            Self::AbortCharged => Some(Self::Charge),
            _ => None,
        };
        if let Some(before) = before {
            before.act(house, &header, Timestamp::now).await.unwrap();
        }
        header
    }

    async fn act(self, house: &House, header: &Header, clock: Clock) -> Result<Value, StepError> {
        let (id, hotel) = (&header.booking_id, header.parts.get(HOTEL.name).unwrap());
        let (seller, reference) = (house.seller(HOTEL), header.plan().payment.reference);
        let payment = PaymentService { clock, ..house.payment() };
        let reason = Reason { step: Some(Step::Charge), code: "card_declined".into(), detail: "no".into() };
        let end = async |command: Value| Ok(json!(house.booking().handle(&command).await?));
        let outcome = match self {
            Self::Reserve | Self::ReserveSoldOut => seller.reserve(id, &hotel).await?,
            Self::Cancel | Self::CancelNothing => seller.cancel(id, &hotel).await?,
            Self::Charge | Self::ChargeDeclined => payment.charge(id, &reference, &of_trip()).await?,
            Self::Abort | Self::AbortCharged => payment.abort(id, &reference, Some(&reason)).await?,
            Self::Confirm => return end(json!({"step": "booking.confirm", "booking_id": id, "total": TOTAL})).await,
            Self::Fail => return end(json!({"step": "booking.fail", "booking_id": id, "reason": reason})).await,
            Self::Park => return end(json!({"step": "booking.park", "booking_id": id, "reason": reason})).await,
            Self::CollectPrice => {
                return Ok(json!(payment.store.collect(id, CAR.name, euro_cents(123)).await?));
            }
            Self::CollectCancelled => {
                let event = saga::Event::Cancelled { part: CAR.name, reason: Some(reason) };
                let (booking_id, time) = (id.clone(), Timestamp::now());
                let event = saga::Envelope { booking_id, event, causation_id: None, time, trace: None };
                return Ok(json!(house.booking().react(&json!(event)).await?));
            }
        };
        Ok(json!(outcome))
    }
}

/// What the tables hold on a booking, but for its names and times.
async fn tables(house: &House, request: &TripRequest, header: &Header) -> Value {
    let reference = header.plan().payment.reference;
    let (journal, _) = house.journal().entries(&header.booking_id).await.unwrap();
    let journal: Vec<_> = journal.into_iter().map(|entry| (entry.step, json!(entry.outcome))).collect();
    let decision = match house.payments().state(&header.booking_id).await.unwrap() {
        State::Aborted { reason } => json!(["aborted", reason]),
        state => json!(state.name()),
    };
    let status = house.headers().get(&header.booking_id).await.unwrap().unwrap();
    nameless(
        header,
        &json!({
            "left": house.left(request).await,
            "journal": journal,
            "decision": decision,
            "paid": house.ledger().paid(&reference).await.unwrap().map(|paid| paid.amount),
            "header": [json!(status.status), json!(status.total), json!(status.reason)],
        }),
    )
}

fn nameless(header: &Header, value: &Value) -> Value {
    let reference = header.plan().payment.reference;
    let text = value.to_string().replace(header.booking_id.as_str(), "ID").replace(reference.as_str(), "REFERENCE");
    serde_json::from_str(&text).unwrap()
}

/// When a lease that was taken now has ended.
fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(20)
}

#[tokio::test]
async fn each_step_has_one_effect_whichever_of_its_answers_is_lost() {
    let house = House::new().await;
    let request = TripRequest::on(date());
    let (mut lost, mut forgotten) = (0, 0);
    for case in Case::ALL {
        let wire = Wire::new(|_| Fate::Passes);
        let header = case.booking(&house, &request).await;
        let answer = case.act(&wire.house(&house).await, &header, Timestamp::now).await.unwrap();
        let (answer, right) = (nameless(&header, &answer), tables(&house, &request, &header).await);

        let requests = wire.sent();
        for (place, is_token_known) in (0..requests.len()).flat_map(|place| [(place, true), (place, false)]) {
            if requests[place].operation != "TransactWriteItems" && !is_token_known {
                continue; // it has none
            }
            let told = format!("{case:?}, request {place} ({}), {is_token_known}", requests[place].operation);
            let wire = Wire::new(move |sent| match sent.len() - 1 {
                this if this == place => Fate::IsAnsweredInVain,
                this if this == place + 1 && !is_token_known => Fate::PassesAsNew,
                _ => Fate::Passes,
            });
            let header = case.booking(&house, &request).await;
            let over = wire.house(&house).await;
            let again = match case.act(&over, &header, Timestamp::now).await {
                // Its own lease looks like another worker's: that is told after the lease has ended.
                Err(error) if place == 0 && !is_token_known && matches!(case, Case::Charge | Case::ChargeDeclined) => {
                    assert_eq!((error.kind(), error.kind().is_retriable()), (ErrorKind::ChargeInProgress, true));
                    case.act(&over, &header, later).await
                }
                result => result,
            };
            assert_eq!(nameless(&header, &again.unwrap_or_else(|error| panic!("{told}: {error}"))), answer, "{told}");
            assert_eq!(tables(&house, &request, &header).await, right, "{told}");
            let sent = wire.sent();
            assert_eq!(sent[place], sent[place + 1], "{told}: the retry is the same request, token and all");
            lost += 1;
            forgotten += usize::from(!is_token_known);
        }
    }
    end_to_end::note_figure(&format!("lost answers: {lost}, in {forgotten} the retry was taken for a new request"));
    assert!(lost > 30 && forgotten > 10, "{lost}, {forgotten}");
}

#[tokio::test]
async fn a_booking_whose_creation_was_not_answered_is_found_as_its_own() {
    let house = House::new().await;
    let header = Case::Confirm.booking(&house, &TripRequest::on(date())).await;
    let customer = Customer { name: "Ada".into(), email: "a@b".into() };
    // DynamoDB knows the token of the first request for ten minutes.
    for (name, is_known) in [("known", true), ("forgotten", false)] {
        let wire = Wire::new(move |sent| match (sent.len(), is_known) {
            (1, _) => Fate::IsAnsweredInVain,
            (_, true) => Fate::Passes,
            (_, false) => Fate::PassesAsNew,
        });
        let header = Header { booking_id: end_to_end::booking_id(name), ..header.clone() };
        match wire.house(&house).await.intake().accept(&header, &customer, Timestamp::now()).await.unwrap() {
            Commit::Done => assert!(is_known, "the retry must meet what the first request has put there"),
            Commit::Found(found) => {
                assert!(!is_known);
                assert_eq!(
                    (found.request_digest, found.booking_id),
                    (header.request_digest, header.booking_id.clone())
                );
            }
        }
        assert_eq!(wire.sent().len(), 2);
        let kept = house.intake().customer(&header.booking_id).await.unwrap();
        assert_eq!(kept.as_ref(), Some(&customer));
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_a_lost_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut tokens = Vec::new();
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            tokens.push(serde_json::from_slice::<Value>(&body).unwrap()["ClientRequestToken"].clone());
        }
        tokens
    });
    let stack = Stack {
        endpoint: Some(endpoint),
        region: None,
        api_url: String::new(),
        outputs: Default::default(),
        pid: None,
    };
    let client = store::client(&stack.sdk().await.unwrap());
    let outcome = seller(&client).reserve(&id(), &flight()).await;
    assert!(is_reserved(&outcome), "{outcome:?}");
    let tokens = server.join().unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0].is_string() && tokens[0] == tokens[1], "{tokens:?}");
}

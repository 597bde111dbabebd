//! A provider that is out of order, or silent.

use super::*;

/// What a provider does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    Fail,
    /// It does what it is asked to, and answers later than anybody waits.
    AnswerLate,
}

/// A provider that does this, call by call, and then always the last; with what it was asked, and whether it has charged.
struct Scripted {
    does: &'static [Does],
    asked: Mutex<Vec<&'static str>>,
    has_charged: AtomicBool,
}

impl Scripted {
    /// What it does when it is asked this.
    async fn called<T>(&self, what: &'static str, answer: impl FnOnce() -> T) -> Result<T, ProviderError> {
        let nth = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(what);
            asked.len() - 1
        };
        match self.does[nth.min(self.does.len() - 1)] {
            Does::Answer => Ok(answer()),
            Does::Fail => Err(ProviderError::Unavailable("it is out of order".into())),
            Does::AnswerLate => {
                let answer = answer();
                tokio::time::sleep(2 * PROVIDER_TIMEOUT).await;
                Ok(answer)
            }
        }
    }
}

impl PaymentProvider for &Scripted {
    async fn attach(&self, _: &PaymentReference, _: &PaymentToken) -> Result<Result<(), UnknownToken>, ProviderError> {
        self.called("attach", || Ok(())).await
    }

    async fn charge(&self, _: &PaymentReference, amount: Money) -> Result<Outcome, ProviderError> {
        self.called("charge", || {
            self.has_charged.store(true, Ordering::Relaxed);
            charged(amount)
        })
        .await
    }

    async fn find(&self, _: &PaymentReference) -> Result<Option<Outcome>, ProviderError> {
        self.called("find", || self.has_charged.load(Ordering::Relaxed).then(|| charged(TOTAL))).await
    }

    async fn void(&self, _: &PaymentReference) -> Result<(), ProviderError> {
        self.called("void", || ()).await
    }
}

fn charged(amount: Money) -> Outcome {
    Outcome::Charged { amount, charge_id: "ch".into() }
}

/// The time of a test in which time passes at once.
fn paused_clock() -> Timestamp {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let passed = tokio::time::Instant::now().into_std().saturating_duration_since(*START);
    Timestamp::UNIX_EPOCH + SignedDuration::try_from(passed).unwrap()
}

/// What a step at a provider comes to: what it answers, how long it takes, what the provider is asked, and what
/// DynamoDB is.
struct Course {
    answer: Result<Outcome, ErrorKind>,
    took: Duration,
    asked: Vec<&'static str>,
    requests: Vec<String>,
}

/// Lets payment carry a step out, with a provider that does this and a DynamoDB that does that.
async fn course(step: Step, does: &'static [Does], wire: &Wire) -> Course {
    let provider = Scripted { does, asked: Mutex::default(), has_charged: AtomicBool::new(false) };
    let payment = PaymentService { store: payments(&wire.client()), provider: &provider, clock: paused_clock };
    let began = tokio::time::Instant::now();
    let answer = match step {
        Step::Charge => payment.charge(&id(), &reference(), &of_trip()).await,
        _ => payment.abort(&id(), &reference(), None).await,
    };
    Course {
        answer: answer.map_err(|error| error.kind()),
        took: began.elapsed(),
        asked: provider.asked.into_inner().unwrap(),
        requests: wire.sent().into_iter().map(|sent| sent.operation).collect(),
    }
}

/// The lease and the completion.
const DONE: [&str; 2] = ["TransactWriteItems"; 2];
/// The lease and its release.
const RELEASED: [&str; 2] = ["TransactWriteItems", "UpdateItem"];

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_out_of_order_for_a_moment_charges_within_one_lease() {
    use Does::{Answer, AnswerLate, Fail};
    for (does, asked, late) in [
        (&[Answer][..], &["charge"][..], 0_u32),
        (&[Fail, Answer], &["charge", "find", "charge"], 0),
        (&[Fail, Answer, Fail, Answer], &["charge", "find", "charge", "find", "charge"], 0),
        (&[Fail, Fail, Answer], &["charge", "find", "find", "charge"], 0),
        (&[AnswerLate, Answer], &["charge", "find"], 1),
        (&[AnswerLate, AnswerLate, Answer], &["charge", "find", "find"], 2),
    ] {
        let course = course(Step::Charge, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, &*course.asked), (Ok(charged(TOTAL)), asked), "{does:?}");
        assert_eq!(course.requests, DONE, "{does:?}: one lease");
        let pauses = course.took - late * PROVIDER_TIMEOUT;
        assert!(pauses < Duration::from_secs(1), "{does:?}: {pauses:?} beside the waiting for answers");
        assert_eq!(course.took.is_zero(), does == [Answer], "{does:?}: no pause before the first attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stays_out_of_order_is_left_to_the_retries_outside_in_good_time() {
    for (does, asked) in [
        (&[Does::Fail][..], &["charge", "find", "find"][..]),
        (&[Does::AnswerLate], &["charge", "find", "find"]),
        (
            &[Does::Fail, Does::Answer, Does::Fail, Does::Answer, Does::Fail],
            &["charge", "find", "charge", "find", "charge"],
        ),
    ] {
        let course = course(Step::Charge, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, &*course.asked), (Err(ErrorKind::ProviderUnavailable), asked), "{does:?}");
        assert_eq!(course.requests, RELEASED, "{does:?}");
        assert!(course.took < ATTEMPTS_WINDOW + PROVIDER_TIMEOUT, "{does:?}: {:?}", course.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waited_for_its_lease_asks_less_often_and_ends_before_its_function_does() {
    // Two answers of DynamoDB get lost, which takes the client two seconds each.
    let slow = || Wire::new(|sent| if sent.len() < 3 { Fate::IsNotAnswered } else { done() });
    let slowed = course(Step::Charge, &[Does::AnswerLate], &slow()).await;
    assert_eq!((slowed.answer, &*slowed.asked), (Err(ErrorKind::ProviderUnavailable), &["charge"][..]));
    assert!(slowed.took < Duration::from_secs(10) && slowed.took < LEASE, "{:?}", slowed.took);
    let quick = course(Step::Charge, &[Does::AnswerLate], &Wire::new(|_| done())).await;
    assert_eq!(quick.asked.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_void_is_tried_again_as_a_charge_is() {
    let (aborted, gave_up) = (Ok(Outcome::Aborted { reason: None }), Err(ErrorKind::ProviderUnavailable));
    for (does, answer) in [
        (&[Does::Fail, Does::AnswerLate, Does::Answer][..], aborted),
        (&[Does::Fail], gave_up.clone()),
        (&[Does::AnswerLate], gave_up),
    ] {
        let course = course(Step::Abort, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, course.asked), (answer, vec!["void"; 3]), "{does:?}");
        assert_eq!(course.requests, ["TransactWriteItems"], "{does:?}: one fence");
        assert!(course.took < ATTEMPTS_WINDOW + PROVIDER_TIMEOUT, "{does:?}: {:?}", course.took);
    }
}

//! A provider that is out of order for a moment.

use super::*;

/// What becomes of an attempt at the provider.
#[derive(Clone, Copy)]
enum Attempt {
    Fails,
    /// It charges, and nobody hears of it in time.
    IsLate,
    Succeeds,
}

/// How long one invocation of payment waits at the most, and whether it then knows that it is charged.
fn invocation(attempts: &mut impl Iterator<Item = Attempt>) -> (Duration, bool) {
    let milliseconds = |time: Duration| time.as_millis() as i64;
    let (mut waited, mut charging) =
        (Duration::ZERO, Charging::leased(milliseconds(LEASE), milliseconds(ATTEMPTS_WINDOW), None));
    while let Charge::Ask { pause, .. } = charging.next(milliseconds(waited)) {
        waited += pause;
        match attempts.next() {
            None | Some(Attempt::Succeeds) => return (waited, true),
            Some(Attempt::IsLate) => waited += PROVIDER_TIMEOUT,
            Some(Attempt::Fails) => {}
        }
        charging = charging.answered(None);
    }
    (waited, false)
}

/// How long a charge waits at the most, if these are the waits between invocations of payment.
fn charge(attempts: &[Attempt], outside: &[Duration]) -> Option<Duration> {
    let (mut attempts, mut waits) = (attempts.iter().copied(), outside.iter());
    let mut total = Duration::ZERO;
    loop {
        let (waited, is_charged) = invocation(&mut attempts);
        total += waited;
        if is_charged {
            return Some(total);
        }
        total += *waits.next()?;
    }
}

/// Lambda's waits before it invokes a function again that failed asynchronously:
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>.
const LAMBDA: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// The longest waits of the state machine before it asks payment again to charge, after an error of the provider.
fn state_machine() -> Vec<Duration> {
    let definition: serde_json::Value =
        serde_json::from_str(include_str!("../../statemachines/booking.asl.json")).expect("the state machine is JSON");
    let names = [ErrorKind::ProviderUnavailable.name(), "States.ALL"];
    let retries = definition["States"]["Charge"]["Retry"].as_array().unwrap();
    let is_of_provider = |retry: &&serde_json::Value| {
        retry["ErrorEquals"].as_array().unwrap().iter().any(|error| names.iter().any(|name| error == name))
    };
    let retry = retries.iter().find(is_of_provider).unwrap();
    // What is not said is as in <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>.
    let number = |name: &str, unsaid: f64| retry[name].as_f64().unwrap_or(unsaid);
    let wait = |nth: i32| number("IntervalSeconds", 1.0) * number("BackoffRate", 2.0).powi(nth);
    let waits = (0..number("MaxAttempts", 3.0) as i32).map(|nth| wait(nth).min(number("MaxDelaySeconds", f64::MAX)));
    waits.map(Duration::from_secs_f64).collect()
}

/// Computed, not measured: on a local AWS with these waits, `tests/events.rs` shows it.
#[test]
fn a_provider_that_is_out_of_order_for_a_moment_costs_a_few_seconds_in_both_variants() {
    use Attempt::{Fails, IsLate, Succeeds};
    let (tok_flaky, tok_timeout) = ([Fails, Fails, Succeeds], [IsLate, Succeeds]);
    for outside in [&LAMBDA[..], &state_machine()] {
        for attempts in [&tok_flaky[..], &tok_timeout] {
            let took = charge(attempts, outside).unwrap();
            assert!(took < Duration::from_secs(15), "{took:?}");
            assert_eq!(Some(took), charge(attempts, &[]), "one invocation is enough");
        }
    }
    // What lasts longer is for the waits outside.
    let outage = [Fails; ATTEMPTS as usize];
    assert_eq!(charge(&outage, &[]), None);
    assert!(charge(&outage, &LAMBDA).unwrap() > LAMBDA[0]);
    assert!(charge(&outage, &state_machine()).is_some());
}

#[test]
fn payment_stops_asking_the_provider_while_its_function_still_has_time_and_its_lease_lasts() {
    let timeout = Duration::from_secs(Template(template(), BTreeSet::new()).timeout("PaymentFunction"));
    let (longest, _) = invocation(&mut std::iter::repeat(Attempt::IsLate));
    assert!(longest <= ATTEMPTS_WINDOW + PROVIDER_TIMEOUT, "{longest:?}");
    // What was answered has to be recorded and published.
    assert!(ATTEMPTS_WINDOW + PROVIDER_TIMEOUT + Duration::from_secs(1) < timeout, "{timeout:?}");
    assert!(timeout < LEASE, "a worker outlives its lease");
}

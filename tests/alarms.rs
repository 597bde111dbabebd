//! Breaks each part of the stack in each way in which it can be broken for five minutes, and demands that an alarm of the
//! template rings; and lets everything run, with a retry here and there, and demands that none does.
//!
//! Nothing is deployed. What breaks, and what AWS counts then, is told here: for each metric where AWS says so. The parts
//! are those of the template, so a new function or queue without alarms fails this test. The alarms are evaluated as
//! CloudWatch does: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html>.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

use end_to_end::deployed::{logical, sellers, template};
use serde_yaml_ng::Value;

/// How long is looked at. What is broken is so from the first minute on.
const MINUTES: usize = 10;

/// What a metric has in each minute: its samples, or counts. CloudWatch knows nothing of a minute that has none.
type Series = Vec<Option<f64>>;

/// The values of metrics, each by namespace, name, and the resource (or the value of the first dimension) that it is of.
#[derive(Clone, Default)]
struct Metrics(BTreeMap<(String, String, String), Series>);

impl Metrics {
    fn with(mut self, namespace: &str, name: &str, of: &str, values: impl Fn(usize) -> Option<f64>) -> Self {
        let key = (namespace.to_owned(), name.to_owned(), of.to_owned());
        self.0.insert(key, (0..MINUTES).map(values).collect());
        self
    }

    /// Counted once in each of these minutes, and not at all in the others, as AWS's counts of what goes wrong are.
    fn counted(self, namespace: &str, name: &str, of: &str, in_minutes: &[usize]) -> Self {
        let count = |minute| in_minutes.iter().filter(|at| **at == minute).count();
        self.with(namespace, name, of, |minute| Some(count(minute) as f64).filter(|count| *count > 0.0))
    }
}

fn resources<'t>(template: &'t Value, kind: &'t str) -> impl Iterator<Item = (&'t str, &'t Value)> {
    let all = template["Resources"].as_mapping().unwrap().iter();
    all.filter(move |(_, resource)| resource["Type"] == kind)
        .map(|(name, resource)| (name.as_str().unwrap(), &resource["Properties"]))
}

/// The name behind `!Ref X`, `!GetAtt X.Arn` or the like; a text as it is.
fn target(value: &Value) -> String {
    let text = match value {
        Value::Tagged(tagged) => tagged.value.as_str(),
        other => other.as_str(),
    };
    text.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

/// The names of the alarms that are in the state ALARM after this minute, given what all metrics have had.
fn ringing(template: &Value, metrics: &Metrics, minute: usize) -> Vec<String> {
    let alarms = resources(template, "AWS::CloudWatch::Alarm");
    alarms.filter(|(_, alarm)| rings(alarm, metrics, minute)).map(|(name, _)| name.to_owned()).collect()
}

fn rings(alarm: &Value, metrics: &Metrics, minute: usize) -> bool {
    let text = |name: &str| alarm[name].as_str().unwrap_or_else(|| panic!("no {name} in {alarm:?}"));
    let number = |name: &str| alarm[name].as_f64();
    let of = alarm["Dimensions"].as_sequence().map_or(String::new(), |all| target(&all[0]["Value"]));
    let key = (target(&alarm["Namespace"]), text("MetricName").to_owned(), of);
    let none = vec![None; MINUTES];
    let series = metrics.0.get(&key).unwrap_or(&none);
    let minutes = (number("Period").unwrap() / 60.0) as usize;
    let periods = number("EvaluationPeriods").unwrap() as usize;
    let wanted = number("DatapointsToAlarm").map_or(periods, |wanted| wanted as usize);
    let threshold = number("Threshold").unwrap();
    let breaching = |period: usize| {
        let end = (minute + 1).saturating_sub(period * minutes);
        let values: Vec<f64> = series[end.saturating_sub(minutes)..end].iter().copied().flatten().collect();
        if values.is_empty() {
            return text("TreatMissingData") == "breaching";
        }
        let value = match text("Statistic") {
            "Sum" => values.iter().sum(),
            "Maximum" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            other => panic!("what {other} is is not computed here"),
        };
        match text("ComparisonOperator") {
            "GreaterThanThreshold" => value > threshold,
            "LessThanThreshold" => value < threshold,
            other => panic!("{other} is not compared here"),
        }
    };
    (0..periods).filter(|period| breaching(*period)).count() >= wanted
}

/// Whether a message is one that somewhere in these programs is logged as an error, so that no `LogLevel` drops it.
fn is_logged_as_error(message: &str) -> bool {
    fn search(folder: &Path, message: &str) -> bool {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            if path.is_dir() {
                return search(&path, message);
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let end = format!("\"{message}\");");
            text.match_indices(&end).any(|(at, _)| {
                text[..at].rfind("tracing::").is_some_and(|from| text[from..].starts_with("tracing::error!("))
            })
        })
    }
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates");
    ["runtime/src", "services/src"].iter().any(|folder| search(&Path::new(crates).join(folder), message))
}

/// What a log filter counts when a function logs this: only with a filter on its log group, and in that filter's metric.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForMetricFilters.html>
fn logged(template: &Value, metrics: Metrics, function: &str, message: &str, in_minutes: &[usize]) -> Metrics {
    assert!(is_logged_as_error(message), "no program logs {message:?} as an error");
    let group = target(&template["Resources"][function]["Properties"]["LoggingConfig"]["LogGroup"]);
    let pattern = format!("{{ $.message = \"{message}\" }}");
    let filters = resources(template, "AWS::Logs::MetricFilter");
    let mut filters = filters.filter(|(_, it)| target(&it["LogGroupName"]) == group && it["FilterPattern"] == *pattern);
    let Some((_, filter)) = filters.next() else { return metrics };
    let metric = &filter["MetricTransformations"][0];
    let name = metric["MetricName"].as_str().unwrap();
    metrics.counted(&target(&metric["MetricNamespace"]), name, "", in_minutes)
}

const STUCK: &str = "message keeps coming back";

/// Nobody books and nothing is broken: the reconciler runs each minute.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>: *Invocations*.
fn idle() -> Metrics {
    Metrics::default().with("AWS/Lambda", "Invocations", "ReconcilerFunction", |_| Some(1.0))
}

/// Each part of the template with each way in which it can be broken, and the metrics that there are then.
fn breakages(template: &Value) -> Vec<(String, Metrics)> {
    let mut all = Vec::new();
    let minutes: Vec<usize> = (0..MINUTES).collect();
    let mut add = |what: String, metrics: Metrics| all.push((what, metrics));

    for (name, function) in resources(template, "AWS::Serverless::Function") {
        let events = || function["Events"].as_mapping().into_iter().flat_map(|events| events.values());
        let is_http = events().any(|event| event["Type"] == "Api");
        // The gateway answers 502, or 500 if Lambda throttles:
        // https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html.
        let seen = |metrics: Metrics| {
            if is_http { metrics.counted("AWS/ApiGateway", "5XXError", "AWS::StackName", &minutes) } else { metrics }
        };
        // "The number of invocations that result in a function error": what the function returns as one, a timeout, a
        // crash. "Throttles are not counted as Invocations or Errors". Both from
        // https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html.
        let failing = idle().counted("AWS/Lambda", "Errors", name, &minutes);
        add(format!("{name} fails each time"), seen(failing));
        let mut throttled = idle().counted("AWS/Lambda", "Throttles", name, &minutes);
        let is_scheduled = events().any(|event| event["Type"] == "Schedule");
        if is_scheduled {
            throttled = throttled.with("AWS/Lambda", "Invocations", name, |_| None);
        }
        add(format!("{name} is throttled each time"), seen(throttled));
        if is_scheduled {
            // Nothing is published for what does not happen.
            let stopped = idle().with("AWS/Lambda", "Invocations", name, |_| None);
            add(format!("{name} is not invoked any more"), stopped);
        }
        if !function["EventInvokeConfig"]["DestinationConfig"].is_null() {
            // https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html: "If Lambda can't send a
            // record to a destination you have configured, it sends a DestinationDeliveryFailures metric".
            let lost = idle().counted("AWS/Lambda", "DestinationDeliveryFailures", name, &[3]);
            add(format!("a destination of {name} refuses"), lost);
        }
    }

    let fed: Vec<_> = resources(template, "AWS::Lambda::EventSourceMapping")
        .map(|(_, mapping)| (target(&mapping["EventSourceArn"]), target(&mapping["FunctionName"])))
        .collect();
    for (queue, function) in &fed {
        // "If a message is received three or more times and not deleted, SQS moves it to the back of the queue. The metric
        // then reflects the age of the next message":
        // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html.
        // A message that fails is received for the third time at 3 s at the latest. Errors has nothing: a batch with
        // failures in it is answered.
        let stuck =
            idle().with("AWS/SQS", "ApproximateAgeOfOldestMessage", queue, |minute| (minute == 0).then_some(3.0));
        let attempts = [0, 0, 1, 2, 4]; // the fifth to the ninth, if each wait is as long as it can be
        add(
            format!("each message of {queue} fails in {function}"),
            logged(template, stuck, function, STUCK, &attempts),
        );
        let age = |minute: usize| Some(60.0 * (minute + 1) as f64);
        let waiting = idle().with("AWS/SQS", "ApproximateAgeOfOldestMessage", queue, age);
        add(format!("nobody takes what is in {queue}"), waiting);
    }
    for (queue, _) in resources(template, "AWS::SQS::Queue") {
        if !fed.iter().any(|(fed, _)| fed == queue) {
            // "The number of messages currently available for retrieval", sampled: in one sample of two the reconciler
            // has just looked at it, and it is not available for some seconds.
            let visible = |minute: usize| Some((minute % 2) as f64);
            let given_up = idle().with("AWS/SQS", "ApproximateNumberOfMessagesVisible", queue, visible);
            add(format!("a message is in {queue}"), given_up);
        }
    }

    // https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html
    for (topic, _) in resources(template, "AWS::SNS::Topic") {
        for metric in ["NumberOfNotificationsFailed", "NumberOfNotificationsFailedToRedriveToDlq"] {
            add(format!("{topic}: {metric}"), idle().counted("AWS/SNS", metric, topic, &[5]));
        }
    }

    // Each is an end of its own, and none counts as another:
    // https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html.
    for (machine, _) in resources(template, "AWS::Serverless::StateMachine") {
        for metric in ["ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"] {
            add(format!("{machine}: {metric}"), idle().counted("AWS/States", metric, machine, &[5]));
        }
    }

    // A filter policy that lets nothing through, or a subscription that is gone, has no metric of its own: bookings do not
    // end, are driven again, and then need an operator.
    let (booking, reconciler) = ("BookingFunction", "ReconcilerFunction");
    let lost = logged(template, idle(), reconciler, "booking needs an operator", &[7]);
    add("an event reaches nobody".to_owned(), lost);
    // Two attempts at any of the sellers fail, and the booking with them.
    for part in sellers() {
        let failed = idle().counted("AWS/Lambda", "Errors", &logical(part, "Function"), &[5, 5]);
        let failed = logged(template, failed, booking, "booking failed for a technical reason", &[5]);
        add(format!("one booking fails for a technical reason of {part}"), failed);
    }
    all
}

/// What is broken without any alarm.
fn unnoticed(template: &Value) -> Vec<String> {
    let silent = breakages(template)
        .into_iter()
        .filter(|(_, metrics)| (0..MINUTES).all(|minute| ringing(template, metrics, minute).is_empty()));
    silent.map(|(what, _)| what).collect()
}

/// What each seller has is what every other has: none was forgotten for one of them.
#[test]
fn every_seller_has_the_same_alarms_and_log_filters() {
    let template = template();
    let of = |part: &str| -> Vec<String> {
        let kinds = ["AWS::CloudWatch::Alarm", "AWS::Logs::MetricFilter"];
        let names =
            kinds.into_iter().flat_map(|kind| resources(&template, kind).map(|(name, _)| name).collect::<Vec<_>>());
        let capital = logical(part, "");
        let mut own: Vec<_> = names.filter_map(|name| name.strip_prefix(&capital)).map(str::to_owned).collect();
        own.sort();
        own
    };
    let expected =
        ["DeadLettersAlarm", "DestinationAlarm", "ErrorsAlarm", "InboxAlarm", "StuckMessages", "ThrottlesAlarm"];
    for part in sellers() {
        assert_eq!(of(part.as_str()), expected, "{part}");
    }
}

#[test]
fn whatever_breaks_raises_an_alarm() {
    assert_eq!(unnoticed(&template()), Vec::<String>::new());
}

#[test]
fn a_message_that_is_hidden_now_and_then_does_not_end_its_alarm() {
    let (template, of) = (template(), "a message is in ParkedQueue");
    let (_, metrics) = breakages(&template).into_iter().find(|(what, _)| what == of).unwrap();
    for minute in 2..MINUTES {
        assert_eq!(ringing(&template, &metrics, minute), ["ParkedQueueAlarm"], "minute {minute}");
    }
}

#[test]
fn while_all_is_well_no_alarm_rings() {
    let template = template();
    // Each function errs once, is throttled in a burst, and gets a message a second time; messages are in flight.
    let mut well = idle().counted("AWS/ApiGateway", "5XXError", "AWS::StackName", &[4]);
    for (function, _) in resources(&template, "AWS::Serverless::Function") {
        well = well.counted("AWS/Lambda", "Errors", function, &[4]);
        well = well.with("AWS/Lambda", "Throttles", function, |minute| (minute == 4).then_some(40.0));
    }
    for (queue, _) in resources(&template, "AWS::SQS::Queue") {
        let fed = resources(&template, "AWS::Lambda::EventSourceMapping");
        if fed.into_iter().any(|(_, mapping)| target(&mapping["EventSourceArn"]) == queue) {
            well = well.with("AWS/SQS", "ApproximateNumberOfMessagesVisible", queue, |_| Some(3.0));
            well = well.with("AWS/SQS", "ApproximateAgeOfOldestMessage", queue, |_| Some(30.0));
        } else {
            well = well.with("AWS/SQS", "ApproximateNumberOfMessagesVisible", queue, |_| Some(0.0));
        }
    }
    for minute in 4..MINUTES {
        assert_eq!(ringing(&template, &well, minute), Vec::<String>::new(), "minute {minute}");
        assert_eq!(ringing(&template, &idle(), minute), Vec::<String>::new(), "minute {minute}, idle");
    }
}

#[test]
fn every_alarm_goes_to_the_topic_that_is_given() {
    for (name, alarm) in resources(&template(), "AWS::CloudWatch::Alarm") {
        let Value::Tagged(topic) = &alarm["AlarmActions"][0] else { panic!("{name} alarms nobody") };
        assert_eq!(
            (&topic.value[0], target(&topic.value[1])),
            (&"HasAlarmTopic".into(), "AlarmTopicArn".into()),
            "{name}"
        );
    }
}

/// Each is there for something: without it, something that breaks is not noticed.
#[test]
fn each_alarm_and_each_log_filter_is_missed_if_it_is_not_there() {
    let whole = template();
    for kind in ["AWS::CloudWatch::Alarm", "AWS::Logs::MetricFilter"] {
        for (name, _) in resources(&whole, kind) {
            let mut without = whole.clone();
            without["Resources"].as_mapping_mut().unwrap().remove(name);
            assert!(!unnoticed(&without).is_empty(), "{name} is not needed");
        }
    }
}

#[test]
fn alarms_are_evaluated_as_cloudwatch_does() {
    let alarm = |more: &str| -> Value {
        let common = "Namespace: N\nMetricName: M\nThreshold: 1\nComparisonOperator: GreaterThanThreshold\n";
        serde_yaml_ng::from_str(&format!("{common}{more}")).unwrap()
    };
    let metrics = Metrics::default().counted("N", "M", "", &[2, 2, 5, 6]);
    let minutes = |alarm: &Value| (0..MINUTES).filter(|minute| rings(alarm, &metrics, *minute)).collect::<Vec<_>>();
    let each = "Statistic: Sum\nPeriod: 60\nTreatMissingData: notBreaching\n";
    assert_eq!(minutes(&alarm(&format!("{each}EvaluationPeriods: 1"))), [2]);
    assert_eq!(minutes(&alarm(&format!("{each}EvaluationPeriods: 3\nDatapointsToAlarm: 1"))), [2, 3, 4]);
    assert_eq!(minutes(&alarm(&format!("{each}EvaluationPeriods: 2"))), [0; 0]);
    let long = "Statistic: Sum\nPeriod: 120\nTreatMissingData: notBreaching\nEvaluationPeriods: 1";
    assert_eq!(minutes(&alarm(long)), [2, 3, 6]);
    let missing = "Statistic: Maximum\nPeriod: 60\nTreatMissingData: breaching\nEvaluationPeriods: 2";
    assert_eq!(minutes(&alarm(missing)), [0, 1, 2, 3, 4, 8, 9]);
}

//! From Lambda's JSON to what a handler takes, and back.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use lambda_runtime::{Diagnostic, Error, LambdaEvent, run, service_fn};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

#[cfg(feature = "fault-points")]
use crate::faults::Task;
use crate::{Input, Queue, UnreadableMessage, message};

/// The kind of a handler's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The error type that `Retry` and `Catch` can match.
    pub error_type: &'static str,
    /// Whether trying again can help.
    pub is_retriable: bool,
}

tokio::task_local! {
    /// When Lambda ends the current invocation.
    static DEADLINE: SystemTime;
}

/// How long the current invocation may still take; zero outside an invocation.
pub fn remaining() -> Duration {
    let deadline = DEADLINE.try_get().unwrap_or(SystemTime::UNIX_EPOCH);
    deadline.duration_since(SystemTime::now()).unwrap_or_default()
}

const UNREADABLE: &str = "InvalidInput";

/// From this attempt on, a message's failure is treated as permanent and raises an alarm. The waits before it add up to
/// at most fifteen seconds.
const STUCK: u32 = 5;

/// Who publishes the event that a function returns to SNS.
///
/// A destination gets a record of every success, even without an event, and such records cannot be filtered out before
/// they are sent. A record also contains the function's input, so it is much longer than the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedBy {
    /// The destination `OnSuccess`: the function returns the event. For functions that always return one.
    Destination,
    /// The function itself, which then returns nothing. For functions that often have no event; they need no
    /// `OnSuccess`.
    Function,
}

/// A function that takes part in a saga, whatever invokes it.
///
/// | invoked by | `handle` gets | its answer | its error |
/// |---|---|---|---|
/// | a state machine, a schedule, or by hand | the payload | is the reply | is the function's error |
/// | SNS, and its answer is published by a [`Destination`](PublishedBy::Destination) | the event | is returned, and Destinations carry it to a topic | is the function's error: Lambda retries, then records the failure |
/// | SNS, and its answer is published by the [`Function`](PublishedBy::Function) | the event | is published, then nothing is returned | the same, also if publishing fails |
/// | SQS | each event of a batch | is published, then the message is acknowledged | the message is redelivered; if that cannot help, it is parked with the reason |
///
/// Publishing may fail, or the function may die before it: the event is redelivered, the step returns the same outcome,
/// and that is published then. A function that dies after publishing, before Lambda or SQS knows, publishes twice; a
/// repeated event changes nothing.
#[derive(Debug)]
pub struct Handler<H, P, E> {
    /// Carries out the function's input and returns the answer; none if there is no answer.
    pub handle: H,
    /// Publishes an event.
    pub publish: P,
    /// Who publishes the answer when SNS invokes the function.
    pub published_by: PublishedBy,
    /// Classifies an error.
    pub fault: fn(&E) -> Fault,
    /// The queue that the function is fed from by SQS.
    pub queue: Queue,
}

impl<H, P, E> Handler<H, P, E> {
    /// Serves invocations until Lambda ends the process.
    pub async fn serve<R, F>(self) -> Result<(), Error>
    where
        H: AsyncFn(Input) -> Result<Option<R>, E>,
        P: AsyncFn(String) -> Result<(), F>,
        R: Serialize,
        E: std::error::Error,
        F: std::error::Error + Into<E>,
    {
        let this = &self;
        run(service_fn(move |event: LambdaEvent<Value>| {
            Box::pin(async move {
                #[cfg(feature = "fault-points")]
                let task = Task::of(&event.payload);
                let answer = DEADLINE.scope(event.context.deadline(), this.invoked(event.payload)).await;
                #[cfg(feature = "fault-points")]
                let answer = task.end(answer, Option::is_some);
                answer
            })
        }))
        .await
    }

    /// Carries out one invocation from any source and returns its answer: see the table above.
    pub async fn invoked<R, F>(&self, payload: Value) -> Result<Option<Value>, Diagnostic>
    where
        H: AsyncFn(Input) -> Result<Option<R>, E>,
        P: AsyncFn(String) -> Result<(), F>,
        R: Serialize,
        E: std::error::Error,
        F: std::error::Error + Into<E>,
    {
        let source = payload.pointer("/Records/0/eventSource").or(payload.pointer("/Records/0/EventSource"));
        let (input, published_by) = match source.and_then(Value::as_str) {
            Some("aws:sqs") => {
                let batch = Batch::deserialize(payload).map_err(|error| UnreadableMessage(error.to_string()))?;
                return Ok(Some(self.batch(batch).await));
            }
            Some("aws:sns") => match message::read(message::notified(&payload)?)? {
                Some(input) => (input, Some(self.published_by)),
                None => {
                    tracing::info!("notification of a function that returned no event, ignored");
                    return Ok(None);
                }
            },
            _ => (Input::Command(payload), None),
        };
        let answer = match ((self.handle)(input).await, published_by) {
            (Ok(Some(answer)), Some(PublishedBy::Function)) => {
                let event = serde_json::to_string(&answer).map_err(|error| UnreadableMessage(error.to_string()))?;
                (self.publish)(event).await.map(|()| None).map_err(Into::into)
            }
            (answer, _) => answer,
        };
        match answer {
            Ok(answer) => answer
                .map(serde_json::to_value)
                .transpose()
                .map_err(|error| UnreadableMessage(error.to_string()).into()),
            Err(error) => Err(Diagnostic {
                error_type: (self.fault)(&error).error_type.to_owned(),
                error_message: error.to_string(),
            }),
        }
    }

    /// All messages at once, so that a slow one does not use up the others' time.
    async fn batch<R, F>(&self, batch: Batch) -> Value
    where
        H: AsyncFn(Input) -> Result<Option<R>, E>,
        P: AsyncFn(String) -> Result<(), F>,
        R: Serialize,
        E: std::error::Error,
        F: std::error::Error,
    {
        let done = batch.records.iter().map(async |message| {
            #[cfg(feature = "fault-points")]
            let task = Task::message("Message", &message.body);
            let done = self.message(message).await;
            #[cfg(feature = "fault-points")]
            let done = task.end(Ok(done), |done| *done).unwrap_or(false);
            done
        });
        let done = join_all(done).await;
        let failed: Vec<_> = batch
            .records
            .iter()
            .zip(done)
            .filter(|(_, done)| !done)
            .map(|(message, _)| json!({"itemIdentifier": message.message_id}))
            .collect();
        json!({ "batchItemFailures": failed })
    }

    /// Whether the message can be acknowledged: its work is done and published, or it is parked.
    async fn message<R, F>(&self, message: &Message) -> bool
    where
        H: AsyncFn(Input) -> Result<Option<R>, E>,
        P: AsyncFn(String) -> Result<(), F>,
        R: Serialize,
        E: std::error::Error,
        F: std::error::Error,
    {
        let message_id = message.message_id.as_str();
        let retry = match message::read(&message.body) {
            Err(error) => Err(error.to_string()),
            Ok(None) => {
                tracing::info!(message_id, "message of a function that returned no event, ignored");
                return true;
            }
            Ok(Some(input)) => match (self.handle)(input).await {
                Ok(None) => return true,
                Ok(Some(answer)) => match serde_json::to_string(&answer) {
                    Err(error) => Err(error.to_string()),
                    Ok(answer) => match (self.publish)(answer).await {
                        Ok(()) => return true,
                        Err(error) => Ok(error.to_string()),
                    },
                },
                Err(error) if (self.fault)(&error).is_retriable => Ok(error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        match retry {
            Ok(error) => {
                let received = message.attributes.received.parse().unwrap_or(1); // always a number
                if received < STUCK {
                    tracing::warn!(message_id, received, %error, "message will be redelivered");
                } else {
                    tracing::error!(message_id, received, %error, "message keeps coming back");
                }
                if let Err(error) = self.queue.back_off(&message.receipt_handle, received).await {
                    tracing::warn!(message_id, %error, "message will be redelivered only after the visibility timeout");
                }
                false
            }
            Err(reason) => {
                tracing::error!(message_id, %reason, "message parked");
                match self.queue.park(&message.body, &reason).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(message_id, %error, "message could not be parked, and will be redelivered");
                        false
                    }
                }
            }
        }
    }
}

/// An invocation by SQS: <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: String,
    receipt_handle: String,
    body: String,
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(rename = "ApproximateReceiveCount")]
    received: String,
}

impl From<UnreadableMessage> for Diagnostic {
    fn from(error: UnreadableMessage) -> Self {
        Self { error_type: UNREADABLE.into(), error_message: error.to_string() }
    }
}

/// Serves requests to a REST API of API Gateway (Lambda proxy integration). The handler gets the caller's identity: the
/// IAM user or role, the subject of a Cognito token, the authorizer's principal, or `anonymous`. The request's path is
/// that of the resource: without the stage, and without the base path of a custom domain.
pub async fn serve_http(handle: impl AsyncFn(&str, Request<Vec<u8>>) -> Response<String>) -> Result<(), Error> {
    let handle = &handle;
    run(service_fn(move |event: LambdaEvent<Value>| {
        Box::pin(async move {
            #[cfg(feature = "fault-points")]
            let task = Task::begin("Request", event.payload.to_string());
            let answer = answer_http(event.payload, handle).await;
            #[cfg(feature = "fault-points")]
            let answer = task.end(answer, |answer| answer.status_code < 500);
            answer
        })
    }))
    .await
}

/// Answers one such request. The only error is a payload that is not one.
pub async fn answer_http(
    payload: Value,
    handle: impl AsyncFn(&str, Request<Vec<u8>>) -> Response<String>,
) -> Result<ApiGatewayProxyResponse, Diagnostic> {
    let refused = |why: String| Diagnostic {
        error_type: UNREADABLE.into(),
        error_message: format!("the payload is not a request of a REST API: {why}"),
    };
    let event = ProxyEvent::deserialize(payload).map_err(|error| refused(error.to_string()))?;
    let caller = event.request_context.caller();
    let request = event.into_request().map_err(|error| refused(error.to_string()))?;
    Ok(response(handle(&caller, request).await))
}

/// The fields of an event that are needed, and no others: an event must not be refused because of a field that is not
/// used.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html#api-gateway-simple-proxy-for-lambda-input-format>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProxyEvent {
    http_method: String,
    resource: String,
    path: Option<String>,
    path_parameters: Option<HashMap<String, String>>,
    headers: Option<Map<String, Value>>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
    request_context: RequestContext,
}

#[derive(Deserialize)]
struct RequestContext {
    authorizer: Option<Value>,
    identity: Option<Value>,
}

impl RequestContext {
    fn caller(&self) -> String {
        let text = |value: &Option<Value>, pointer| value.as_ref()?.pointer(pointer)?.as_str().map(str::to_owned);
        let iam = text(&self.identity, "/userArn").map(|arn| identity(&arn).to_owned());
        let cognito = || text(&self.authorizer, "/claims/sub");
        let principal = || text(&self.authorizer, "/principalId");
        iam.or_else(cognito).or_else(principal).unwrap_or_else(|| "anonymous".into())
    }
}

/// The IAM user or role in an ARN. A session of a role counts as the role: sessions change names all the time, and
/// repeated requests would not be recognized.
fn identity(arn: &str) -> &str {
    match arn.split_once(":assumed-role/").and_then(|(_, role)| role.find('/').map(|end| role.len() - end)) {
        Some(session) => &arn[..arn.len() - session],
        None => arn,
    }
}

impl ProxyEvent {
    fn into_request(self) -> Result<Request<Vec<u8>>, http::Error> {
        let path = self.resource_path();
        let body = self.body.unwrap_or_default();
        let body = if self.is_base64_encoded == Some(true) { decoded(&body) } else { body.into_bytes() };
        let mut request =
            Request::builder().method(Method::from_bytes(self.http_method.as_bytes())?).uri(path).body(body)?;
        let headers = self.headers.unwrap_or_default();
        request.headers_mut().extend(headers.iter().filter_map(|(name, value)| {
            // A value that HTTP cannot carry is not a header: a handler that needs it reports it as missing.
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value.as_str()?.as_bytes()).ok()?))
        }));
        Ok(request)
    }

    /// The resource's path with its parameters, and with a trailing slash if the caller's path has one. `path` itself
    /// includes the base path of a custom domain: <https://github.com/CodeGenieApp/serverless-express/issues/216>.
    fn resource_path(&self) -> String {
        let mut path = self.resource.clone();
        for (name, value) in self.path_parameters.iter().flatten() {
            path = path.replace(&format!("{{{name}}}"), &utf8_percent_encode(value, NON_ALPHANUMERIC).to_string());
        }
        if self.path.as_ref().is_some_and(|path| path.ends_with('/')) && !path.ends_with('/') {
            path.push('/');
        }
        path
    }
}

fn response(answer: Response<String>) -> ApiGatewayProxyResponse {
    let (parts, body) = answer.into_parts();
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = parts.status.as_u16().into();
    response.headers = parts.headers;
    response.body = Some(body.into());
    response
}

/// The body that API Gateway encoded. If it is not Base64 it is not text either, and is passed on to be refused.
fn decoded(body: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(body).unwrap_or_else(|_| vec![0xff])
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aws_sdk_sqs::config::BehaviorVersion;
    use aws_types::SdkConfig;
    use futures_util::FutureExt;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the topic is gone")]
    struct Gone;

    /// The result of an invocation by SNS whose handler returns this, and what is published.
    fn answered(
        published_by: PublishedBy,
        answer: Option<&str>,
        is_published: bool,
    ) -> (Result<Option<Value>, Diagnostic>, Vec<String>) {
        let published = RefCell::new(Vec::new());
        let handler = Handler {
            handle: async |_| Ok(answer),
            publish: async |event| {
                published.borrow_mut().push(event);
                if is_published { Ok(()) } else { Err(Gone) }
            },
            published_by,
            fault: |_: &Gone| Fault { error_type: "Gone", is_retriable: true },
            queue: Queue::new(&SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build(), "", ""),
        };
        let payload = json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]});
        let result = handler.invoked(payload).now_or_never().unwrap_or_else(|| panic!("it waits for nothing"));
        (result, published.into_inner())
    }

    #[test]
    fn an_event_in_answer_to_sns_is_returned_or_published() {
        let (returned, published) = answered(PublishedBy::Destination, Some("this"), true);
        assert_eq!((returned.ok(), published.len()), (Some(Some(json!("this"))), 0));
        let (returned, published) = answered(PublishedBy::Function, Some("this"), true);
        assert_eq!((returned.ok(), published), (Some(None), vec!["\"this\"".to_owned()]));
        for published_by in [PublishedBy::Destination, PublishedBy::Function] {
            let (returned, published) = answered(published_by, None, true);
            assert_eq!((returned.ok(), published.len()), (Some(None), 0));
        }
    }

    #[test]
    fn the_remaining_time_is_known_during_an_invocation() {
        let remaining_until = |deadline| DEADLINE.sync_scope(deadline, remaining);
        let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
        let remains = remaining_until(now + minute);
        assert!(remains <= minute && remains > minute / 2, "{remains:?}");
        assert_eq!([remaining_until(now - minute), remaining()], [Duration::ZERO; 2]);
    }

    #[test]
    fn what_cannot_be_published_is_an_error_of_its_own_type() {
        let (failed, _) = answered(PublishedBy::Function, Some("this"), false);
        assert_eq!(failed.map_err(|error| error.error_type), Err("Gone".to_owned()));
    }

    /// What the handler receives of a request with these fields, besides those that every request has.
    fn handed_over(fields: Value) -> (String, String, Option<String>) {
        let mut payload = json!({"httpMethod": "GET", "resource": "/bookings", "requestContext": {}});
        payload.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let got = RefCell::new(None);
        let handle = async |caller: &str, request: Request<Vec<u8>>| {
            let key =
                request.headers().get("idempotency-key").map(|key| String::from_utf8_lossy(key.as_bytes()).into());
            got.replace(Some((caller.to_owned(), request.uri().path().to_owned(), key)));
            Response::new(String::new())
        };
        answer_http(payload, handle).now_or_never().unwrap().unwrap();
        got.take().unwrap()
    }

    #[test]
    fn a_request_is_for_its_resource_wherever_the_api_is_served() {
        let path = |fields: Value| handed_over(fields).1;
        assert_eq!(path(json!({"path": "/bookings"})), "/bookings");
        assert_eq!(path(json!({"path": "/trips/bookings"})), "/bookings");
        assert_eq!(path(json!({"path": "/trips/bookings/"})), "/bookings/");
        let one = |id: &str| {
            path(json!({
                "path": format!("/trips/bookings/{id}"), "resource": "/bookings/{booking_id}",
                "pathParameters": {"booking_id": id}
            }))
        };
        assert_eq!(one("0123abcd"), "/bookings/0123abcd");
        assert_eq!(one("a?b#c d/é"), "/bookings/a%3Fb%23c%20d%2F%C3%A9");
    }

    #[test]
    fn an_unused_field_does_not_make_a_request_fail() {
        let odd = json!({
            "headers": {"x-client": "a\nb", "a b": "c", "x-count": 1, "X-Name": "Zo\u{eb}", "Idempotency-Key": "k"},
            "multiValueHeaders": {"x-client": [1]}, "queryStringParameters": 5, "stageVariables": {"a": [1]},
            "requestContext": {"requestTimeEpoch": "now", "identity": {"sourceIp": 5, "userArn": "arn:aws:iam::1:user/ann"}}
        });
        let (caller, _, key) = handed_over(odd);
        assert_eq!((caller.as_str(), key.as_deref()), ("arn:aws:iam::1:user/ann", Some("k")));
        let umlaut = json!({"headers": {"Idempotency-Key": "clé"}});
        assert_eq!(handed_over(umlaut).2.as_deref(), Some("clé"), "it is there, and the handler refuses it");
    }
}

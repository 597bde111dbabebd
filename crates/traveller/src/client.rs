//! A client of the HTTP API.
//!
//! It sends with the AWS SDK's own HTTP connector, because that is compiled anyway.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{config::ProvideCredentials, error::DisplayErrorContext};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, SharedHttpConnector},
        orchestrator::HttpRequest,
        result::ConnectorError,
    },
    http::Headers,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use jiff::Timestamp;
use saga::{BookingId, Currency, Customer, Money, PartName, Status, Step, Variant};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// How long to wait for an answer. API Gateway itself gives up after 29 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before the next look at a booking: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// How long the last look may take.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Why a request had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not a URL of an API.
    #[error(
        "{url:?} is not the address of an API: it must be http:// or https:// and a host, as `harmony local` prints it"
    )]
    NoAddress { url: String },
    /// The request cannot be sent: nothing left this machine.
    #[error("{method} {url} was not sent: {cause}")]
    NotSent { method: &'static str, url: String, cause: String },
    /// The API was not reached, or did not answer in time. The booking may or may not be accepted.
    #[error("{method} {url} got no answer: {cause}; check that the API is running, then send it again")]
    NoAnswer { method: &'static str, url: String, cause: String },
    /// The API answered, but not as expected.
    #[error("{method} {url} was answered with {status}: {answer}")]
    Refused {
        method: &'static str,
        url: String,
        status: u16,
        /// The answer in one line: see [`Answer::summary`].
        answer: String,
        /// Whether the API itself answered: its errors are problems (RFC 9457), those of a proxy are not.
        is_problem: bool,
    },
    /// A booking did not end in time.
    #[error("booking {booking_id} has not ended within {} s ({last}): look at it again with `harmony show {booking_id} --wait`", within.as_secs())]
    NotEnded {
        booking_id: BookingId,
        /// The result of the last look at it.
        last: String,
        /// The time limit.
        within: Duration,
    },
}

impl ClientError {
    /// Whether the same request may be answered differently in a moment: by the API instead of a proxy, or by an API
    /// that is less busy.
    pub fn can_pass(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Refused { status, is_problem, .. } => !is_problem || matches!(status, 408 | 425 | 429 | 500..),
            Self::NoAddress { .. } | Self::NotSent { .. } | Self::NotEnded { .. } => false,
        }
    }
}

/// A response of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Header names are case-insensitive.
    pub headers: Headers,
    pub body: String,
}

/// The body of the response to an accepted booking.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    pub booking_id: BookingId,
    pub variant: Variant,
    /// Always `pending`.
    pub status: Status,
}

impl Answer {
    /// The body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.body)
    }

    /// The booking, if it was accepted.
    pub fn accepted(&self) -> Option<Accepted> {
        if self.status == 202 { self.json().ok() } else { None }
    }

    /// Whether the same request had been accepted before.
    pub fn is_replay(&self) -> bool {
        self.headers.get("idempotency-replayed") == Some("true")
    }

    /// The answer in one line: the title of a problem with all its errors, or the body.
    pub fn summary(&self) -> String {
        let Ok(problem) = self.json::<Problem>() else {
            return self.body.split_whitespace().collect::<Vec<_>>().join(" ");
        };
        if problem.errors.is_empty() {
            return problem.detail.unwrap_or(problem.title);
        }
        let errors = problem.errors.iter().map(|error| format!("{} {}", error.pointer, error.detail));
        let more = problem.more_errors.map(|more| format!("and {more} more"));
        let errors = errors.map(|error| error.trim().to_owned()).chain(more).collect::<Vec<_>>();
        format!("{}: {}", problem.title, errors.join("; "))
    }
}

#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<ProblemError>,
    more_errors: Option<usize>,
}

#[derive(Deserialize)]
struct ProblemError {
    pointer: String,
    detail: String,
}

/// A booking as the API shows it. A newer API may send more: unknown fields are ignored, and step names are text,
/// because they need not be names of a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    pub booking_id: BookingId,
    pub variant: Variant,
    pub status: Status,
    /// The amount paid, once the booking is confirmed.
    #[serde(default, deserialize_with = "total")]
    pub total: Option<Money>,
    pub reason: Option<FailureReason>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The customer; none if it is no longer kept.
    pub traveller: Option<Customer>,
    /// The steps so far, in the order in which they began.
    pub timeline: Vec<TimelineEntry>,
    /// All other fields: the parts, and whatever a newer API adds.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// Why a booking failed, or needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReason {
    /// The name of the step that failed, if it was one.
    pub step: Option<String>,
    /// Machine-readable: a rejection's code, or `technical_failure`.
    pub code: String,
    /// Human-readable.
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub step: String,
    /// `reserved`, `rejected`, …, or `in_progress`.
    pub outcome: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Depends on the outcome.
    pub detail: Value,
}

impl Booking {
    /// The entry of this step.
    pub fn entry(&self, step: Step) -> Option<&TimelineEntry> {
        let step = step.to_string();
        self.timeline.iter().find(|entry| entry.step == step)
    }

    /// The parts of the booking, in the order in which the saga lists them.
    pub fn parts(&self) -> Vec<(PartName, &Value)> {
        let steps = |name| [Step::Reserve(name), Step::Cancel(name)];
        let is_part =
            |name| travel::part_type(name).is_some() || steps(name).into_iter().any(|step| self.entry(step).is_some());
        let part = |(name, contents): (&String, &'_ Value)| {
            PartName::try_from(name.as_str()).ok().filter(|name| contents.is_object() && is_part(*name))
        };
        let parts = self.others.iter().filter_map(|(name, contents)| Some((part((name, contents))?, contents)));
        let mut parts: Vec<_> = parts.collect();
        let listed = travel::part_names();
        parts.sort_by_key(|(name, _)| listed.iter().position(|part| part == name).unwrap_or(listed.len()));
        parts
    }
}

/// Money in a response. [`Money`] itself refuses unknown fields, because events and commands are read with it.
#[derive(Deserialize)]
struct Amount {
    amount: u64,
    currency: Currency,
}

impl From<Amount> for Money {
    fn from(Amount { amount, currency }: Amount) -> Self {
        Self { amount, currency }
    }
}

fn total<'de, D: Deserializer<'de>>(total: D) -> Result<Option<Money>, D::Error> {
    Ok(Option::<Amount>::deserialize(total)?.map(Money::from))
}

impl TimelineEntry {
    /// Whether a cancel released a reservation.
    pub fn released(&self) -> Option<bool> {
        self.detail.get("released").and_then(Value::as_bool)
    }

    /// The amount in the step's detail: a price, an amount or a total.
    pub fn money(&self) -> Option<Money> {
        let money = ["price", "amount", "total"].into_iter().find_map(|name| self.detail.get(name))?;
        Amount::deserialize(money).ok().map(Money::from)
    }
}

/// How requests authenticate their caller.
#[derive(Clone, Debug, Default)]
pub enum Authorization {
    /// Not at all.
    #[default]
    None,
    /// With a token in the header `Authorization`, for a Cognito authorizer.
    Token(String),
    /// With a signature by AWS credentials (Signature Version 4), for AWS_IAM.
    Signature {
        /// Holds the credentials and the region.
        sdk: Box<SdkConfig>,
        /// The signing name of the service: `execute-api` for an API.
        service: &'static str,
    },
}

/// A client of the API at one address. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    connector: SharedHttpConnector,
    api_url: String,
    authorization: Authorization,
}

impl Client {
    /// A client of the API at this address. For `https` it trusts the system's root certificates; it uses the
    /// environment's proxy.
    pub fn new(api_url: &str) -> Result<Self, ClientError> {
        let builder = Connector::builder().pool_idle_timeout(Duration::from_secs(20));
        let address = api_url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let connector = match address.as_ref().and_then(http::Uri::scheme_str) {
            Some("https") => {
                builder.proxy_config(ProxyConfig::from_env()).tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
            }
            Some("http") => builder.proxy_config(ProxyConfig::disabled()).build_http(),
            _ => return Err(ClientError::NoAddress { url: api_url.to_owned() }),
        };
        let api_url = api_url.trim_end_matches('/').to_owned();
        Ok(Self { connector: SharedHttpConnector::new(connector), api_url, authorization: Authorization::None })
    }

    /// The same client, with authentication.
    pub fn with(self, authorization: Authorization) -> Self {
        Self { authorization, ..self }
    }

    /// The address of the API, without a trailing slash.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Sends any request to a path of the API, such as `/bookings`.
    pub async fn send(
        &self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.api_url);
        let no_answer = |cause: String| ClientError::NoAnswer { method, url: url.clone(), cause };
        let not_sent = |cause: String| ClientError::NotSent { method, url: url.clone(), cause };
        let mut request = http::Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, fit_for_header(name, value).map_err(not_sent)?);
        }
        let body = body.into();
        if !body.is_empty() || method == "POST" {
            request = request.header(http::header::CONTENT_LENGTH, body.len());
        }
        let mut request = request.body(body).map_err(|error| not_sent(error.to_string()))?;
        self.authorize(&mut request).await.map_err(not_sent)?;
        let request = request.map(SdkBody::from);
        let request = HttpRequest::try_from(request).map_err(|error| not_sent(error.to_string()))?;
        let exchange = async {
            let answer = self.connector.call(request).await.map_err(cause)?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = ByteStream::new(answer.into_body()).collect().await;
            let body = body.map_err(|error| DisplayErrorContext(error).to_string())?.to_vec();
            Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let late = || Err(format!("there was no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| late()).map_err(no_answer)
    }

    async fn authorize(&self, request: &mut http::Request<Vec<u8>>) -> Result<(), String> {
        let (sdk, service) = match &self.authorization {
            Authorization::None => return Ok(()),
            Authorization::Token(token) => {
                let token = fit_for_header("token of --id-token or HARMONY_ID_TOKEN", token)?;
                request.headers_mut().insert(http::header::AUTHORIZATION, token);
                return Ok(());
            }
            Authorization::Signature { sdk, service } => (sdk, service),
        };
        let provider = sdk.credentials_provider().ok_or("there are no AWS credentials to sign with")?;
        let credentials =
            provider.provide_credentials().await.map_err(|error| DisplayErrorContext(&error).to_string())?;
        // The signature goes into headers, and the signer panics on a value that does not fit there.
        let region = sdk.region().ok_or("no AWS region is set: set AWS_REGION")?.as_ref();
        fit_for_header("AWS region", region)?;
        fit_for_header("AWS access key id", credentials.access_key_id())?;
        fit_for_header("AWS session token", credentials.session_token().unwrap_or_default())?;
        let credentials = credentials.into();
        let params = SigningParams::builder()
            .identity(&credentials)
            .region(region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let uri = request.uri().to_string();
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        request.headers_mut().insert(http::header::HOST, host.parse().map_err(|_| "the address has no host")?);
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let what = SignableRequest::new(request.method().as_str(), &uri, headers, SignableBody::Bytes(request.body()))
            .map_err(|error| error.to_string())?;
        let (instructions, _) = sign(what, &params).map_err(|error| error.to_string())?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// Requests a booking. The same request with the same key is the same booking.
    pub async fn book(&self, request: &impl Serialize, key: &str) -> Result<Answer, ClientError> {
        let body = serde_json::json!(request).to_string();
        self.send("POST", "/bookings", &[("content-type", "application/json"), ("idempotency-key", key)], body).await
    }

    /// Requests a booking, which must be accepted.
    pub async fn book_accepted(&self, request: &impl Serialize, key: &str) -> Result<Accepted, ClientError> {
        let answer = self.book(request, key).await?;
        answer.accepted().ok_or_else(|| self.refused("POST", "/bookings", &answer))
    }

    /// The current state of a booking.
    pub async fn show(&self, booking_id: &BookingId) -> Result<Booking, ClientError> {
        let path = format!("/bookings/{booking_id}");
        let answer = self.send("GET", &path, &[], "").await?;
        let refused = self.refused("GET", &path, &answer);
        if answer.status != 200 {
            return Err(refused);
        }
        answer.json().map_err(|error| match refused {
            ClientError::Refused { method, url, status, is_problem, .. } => {
                let answer = format!("a body that is not a booking: {error}");
                ClientError::Refused { method, url, status, answer, is_problem }
            }
            other => other,
        })
    }

    /// A booking once it has ended or needs an operator.
    pub async fn wait_until_settled(&self, booking_id: &BookingId, within: Duration) -> Result<Booking, ClientError> {
        self.follow(booking_id, within, |_| ()).await
    }

    /// A booking once it has ended or needs an operator; `look` gets every intermediate state that was read. Errors
    /// that [can pass](ClientError::can_pass) are retried.
    pub async fn follow(
        &self,
        booking_id: &BookingId,
        within: Duration,
        look: impl Fn(&Booking),
    ) -> Result<Booking, ClientError> {
        self.follow_until(Status::is_settled, booking_id, within, look).await
    }

    /// A booking once it has one of these statuses; `look` gets every intermediate state that was read.
    pub async fn follow_until(
        &self,
        ends: impl Fn(Status) -> bool,
        booking_id: &BookingId,
        within: Duration,
        look: impl Fn(&Booking),
    ) -> Result<Booking, ClientError> {
        let deadline = Instant::now() + within;
        let mut pause = LOOK_AGAIN.0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let last = match tokio::time::timeout(left.max(LAST_LOOK), self.show(booking_id)).await {
                Ok(Ok(booking)) if ends(booking.status) => return Ok(booking),
                Ok(Ok(booking)) => {
                    look(&booking);
                    format!("it is {}", booking.status)
                }
                Ok(Err(error)) if error.can_pass() => error.to_string(),
                Ok(Err(error)) => return Err(error),
                Err(_) => "the API did not answer".into(),
            };
            if left.is_zero() {
                return Err(ClientError::NotEnded { booking_id: booking_id.clone(), last, within });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LOOK_AGAIN.1);
        }
    }

    fn refused(&self, method: &'static str, path: &str, answer: &Answer) -> ClientError {
        let url = format!("{}{path}", self.api_url);
        let is_problem = answer.json::<Problem>().is_ok();
        ClientError::Refused { method, url, status: answer.status, answer: answer.summary(), is_problem }
    }
}

/// A header value, or what is wrong with it. The value may be secret, so the error does not show it.
fn fit_for_header(name: &str, value: &str) -> Result<http::HeaderValue, String> {
    let unfit = |_| format!("the {name} has a character that no header can hold, such as a line break at its end");
    value.parse().map_err(unfit)
}

/// The innermost cause of a connector's error: the outer ones are about the connector itself.
fn cause(error: ConnectorError) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A new key. Time and process id are unique enough for bookings made by hand.
pub fn fresh_key(of: impl fmt::Display) -> String {
    let now = Timestamp::now().as_nanosecond();
    format!("{of}-{now:x}-{:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Headers::new(), body: body.to_owned() }
    }

    #[test]
    fn the_summary_of_an_answer_is_one_line() {
        let problem = r#"{"type": "t", "title": "The request is not valid", "status": 400, "detail": "see errors",
            "errors": [{"pointer": "", "detail": "no key"}, {"pointer": "/flight/date", "detail": "is in the past"}]}"#;
        assert_eq!(answer(400, problem).summary(), "The request is not valid: no key; /flight/date is in the past");
        let problem = problem.replace("}]}", r#"}], "more_errors": 7}"#);
        let says = "The request is not valid: no key; /flight/date is in the past; and 7 more";
        assert_eq!(answer(400, &problem).summary(), says);
        let problem = r#"{"title": "Not found", "status": 404, "detail": "there is no such booking"}"#;
        assert_eq!(answer(404, problem).summary(), "there is no such booking");
        assert_eq!(answer(502, "<html>\n  Bad gateway</html>").summary(), "<html> Bad gateway</html>");
    }

    #[test]
    fn only_a_202_is_accepted() {
        let body =
            r#"{"booking_id": "0123456789abcdef0123456789abcdef", "variant": "orchestrated", "status": "pending"}"#;
        assert_eq!(answer(202, body).accepted().unwrap().status, Status::Pending);
        let newer = body.replace('{', r#"{"new": [], "#);
        assert_eq!(answer(202, &newer).accepted(), answer(202, body).accepted());
        assert_eq!(answer(200, body).accepted(), None);
        assert_eq!(answer(202, "{}").accepted(), None);
    }

    #[test]
    fn a_booking_of_a_newer_api_is_read() {
        let eur = json!({"amount": 100, "currency": "EUR", "formatted": "1.00"});
        let entry = |step: &str, detail: Value| {
            json!({"step": step, "outcome": "done", "started_at": "2027-01-01T10:00:00Z",
                "finished_at": null, "detail": detail, "new": 1})
        };
        let newer = json!({
            "booking_id": "0123456789abcdef0123456789abcdef", "variant": "orchestrated", "status": "failed",
            "total": eur, "reason": {"step": "visa.check", "code": "refused", "detail": "no", "new": 1},
            "created_at": "2027-01-01T10:00:00Z", "updated_at": "2027-01-01T10:00:00Z", "traveller": null,
            "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
            "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 1},
            "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-04"},
            "timeline": [entry("flight.reserve", json!({"price": eur})), entry("visa.check", json!({}))], "new": 1,
        });
        let booking: Booking = answer(200, &newer.to_string()).json().unwrap();
        assert_eq!(booking.total, Some(Money::eur(100)));
        assert_eq!(booking.reason.as_ref().and_then(|reason| reason.step.as_deref()), Some("visa.check"));
        assert_eq!(
            booking.entry(Step::Reserve(travel::FLIGHT.name)).and_then(TimelineEntry::money),
            Some(Money::eur(100))
        );
        assert_eq!(booking.timeline[1].step, "visa.check");
        let parts: Vec<_> = booking.parts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(parts, travel::part_names());
    }

    #[test]
    fn an_address_has_a_scheme() {
        for url in ["", "localhost:4566", "http://", "https:///live", "http://a b/", "http://a/\n"] {
            assert!(matches!(Client::new(url), Err(ClientError::NoAddress { .. })), "{url:?}");
        }
        assert_eq!(Client::new("http://localhost:4566/live/").unwrap().api_url(), "http://localhost:4566/live");
    }

    #[tokio::test]
    async fn what_no_header_can_hold_is_named_and_not_sent() {
        let client = Client::new("http://127.0.0.1:9").unwrap(); // no server is there
        let refusal = async |client: &Client, key: &str| client.book(&(), key).await.unwrap_err().to_string();
        let unfit = "has a character that no header can hold, such as a line break at its end";
        let not_sent = "POST http://127.0.0.1:9/bookings was not sent:";
        assert_eq!(refusal(&client, "a\nb").await, format!("{not_sent} the idempotency-key {unfit}"));
        let with_token = client.clone().with(Authorization::Token("secret\r".into()));
        let token = "the token of --id-token or HARMONY_ID_TOKEN";
        assert_eq!(refusal(&with_token, "k").await, format!("{not_sent} {token} {unfit}"));
        let credentials = Credentials::new("AKIA", "secret", Some("token\n".into()), None, "test");
        let sdk = SdkConfig::builder()
            .region(aws_config::Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let signed = client.with(Authorization::Signature { sdk: Box::new(sdk), service: "execute-api" });
        assert_eq!(refusal(&signed, "k").await, format!("{not_sent} the AWS session token {unfit}"));
    }

    #[test]
    fn only_the_api_refuses_for_good() {
        let client = Client::new("http://127.0.0.1:9").unwrap();
        let can_pass = |status, body: &str| client.refused("GET", "/", &answer(status, body)).can_pass();
        let problem = r#"{"title": "Not found", "status": 404}"#;
        assert!(!can_pass(404, problem) && !can_pass(422, problem));
        assert!(can_pass(404, "<html>") && can_pass(407, "") && can_pass(200, "<html>") && can_pass(302, ""));
        assert!(can_pass(429, problem) && can_pass(500, problem) && can_pass(503, "busy"));
    }

    #[test]
    fn keys_are_fresh() {
        assert_ne!(fresh_key("book"), fresh_key("book"));
    }
}

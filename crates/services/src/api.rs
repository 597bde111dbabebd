//! The HTTP API of a saga: `POST /bookings`, `GET /bookings/{booking_id}` and `GET /openapi.yaml`, with the saga's own
//! name for `bookings`.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp, Unit, civil::Date, tz::TimeZone};
use saga::{
    BookingId, BookingRequest, Claim, Customer, Definition, Document, IdempotencyKey, Owner, PaymentReference, Status,
    Step, Variant, Violation,
};
use serde_json::{Value, json};
use store::{Commit, Header, IntakeStore, Journal, JournalEntry, Receipt};

use crate::{Clock, EventPublisher, Executions, PaymentProvider, StepError, start::Starter};

/// The maximum size of a request body, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// The maximum number of errors that a response lists, and the maximum size of the list in bytes if there is more than
/// one.
const MAX_ERRORS: (usize, usize) = (50, 8 * 1024);

/// A response of the API.
pub type ApiResponse = Response<String>;

/// The API of one saga, over its stores and services.
#[derive(Debug)]
pub struct Api<I, E, T, P> {
    /// The saga that requests are for.
    pub saga: Definition,
    /// Booking headers and customers.
    pub intake: I,
    /// The journal, from which timelines are read.
    pub journal: Journal,
    /// Starts the orchestrated bookings.
    pub executions: E,
    /// Publishes `booking.requested` for the choreographed bookings.
    pub events: T,
    /// Receives the customer's payment token.
    pub provider: P,
    /// The origin whose pages may call the API from a browser, or `*`; none to allow no page.
    pub cors_origin: Option<HeaderValue>,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

impl<I: IntakeStore, E: Executions, T: EventPublisher, P: PaymentProvider> Api<I, E, T, P> {
    /// Handles a request. `caller` identifies the caller according to the gateway; a booking belongs to its caller. The
    /// URI's path is one of the paths in the API's OpenAPI description, wherever the API is served. A trailing slash
    /// makes no difference, as in API Gateway.
    pub async fn handle(&self, caller: &str, request: Request<Vec<u8>>) -> ApiResponse {
        let path = request.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(self.saga.collection));
        let (is_collection, id) = (below == Some(""), below.and_then(|below| below.strip_prefix('/')));
        let mut answer = match (request.method(), id, path) {
            (&Method::POST, None, _) if is_collection => self.post(caller, &request).await,
            (&Method::GET, Some(id), _) => self.get(caller, id).await,
            (&Method::GET, None, "/openapi.yaml") => {
                Ok(answer(StatusCode::OK, "application/yaml", self.saga.openapi.to_owned()))
            }
            (&Method::OPTIONS, ..) if (is_collection || id.is_some()) && self.cors_origin.is_some() => Ok(preflight()),
            _ => Ok(problem(Problem::NotFound, "there is no such path, or it does not support this method")),
        }
        .unwrap_or_else(|error| {
            tracing::error!(%error, kind = error.kind().name(), "request failed");
            problem(
                Problem::Unavailable,
                "the request could not be completed; send it again with the same Idempotency-Key",
            )
        });
        if let Some(origin) = &self.cors_origin {
            let headers = answer.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            if origin != "*" {
                headers.insert(header::VARY, HeaderValue::from_static("Origin"));
            }
        }
        answer
    }

    async fn post(&self, caller: &str, request: &Request<Vec<u8>>) -> Result<ApiResponse, StepError> {
        let (headers, body) = (request.headers(), request.body());
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
        {
            return Ok(problem(Problem::UnsupportedMediaType, "the body must be application/json"));
        }
        if body.len() > MAX_BYTES {
            return Ok(problem(Problem::TooLarge, "the body must be at most 16384 bytes"));
        }
        let now = (self.clock)();
        let key = headers.get("idempotency-key").map(|value| value.to_str().map(IdempotencyKey::try_from));
        let key = match key {
            Some(Ok(Ok(key))) => Ok(key),
            Some(_) => Err("the Idempotency-Key header must be 1 to 255 visible ASCII characters"),
            None => Err(
                "the Idempotency-Key header is required: use a new key for each request, and the same key to repeat it",
            ),
        };
        let document =
            Document::parse(body).map_err(|error| vec![violation("", format!("must be JSON in UTF-8: {error}"))]);
        let read = |document: &Document| document.read(|body| self.saga.read(body, earliest_today(now)));
        let (key, document) = match (key, document) {
            (Ok(key), Ok(document)) => (key, document),
            (key, document) => {
                let mut violations: Vec<_> = key.err().map(|detail| violation("", detail)).into_iter().collect();
                violations.extend(document.and_then(|document| read(&document)).err().unwrap_or_default());
                return Ok(invalid(&violations));
            }
        };
        let trace = headers.get("x-amzn-trace-id").and_then(|trace| trace.to_str().ok());
        let asked = Asked {
            booking_id: BookingId::derive(caller, &key),
            request_digest: document.digest(),
            now,
            trace,
            is_below: request.uri().path().ends_with('/'),
        };
        match read(&document) {
            Ok(request) => self.accept(&asked, Owner::of(caller), request).await,
            Err(violations) => self.refuse(&asked, &violations).await,
        }
    }

    // Token first, then header, then start. A crash after the token leaves a payment that is never charged. A crash
    // after the header leaves a booking with everything that the reconciler needs to start it, and a claim on the
    // start, which a repeated request respects: the start may have been made.
    async fn accept(&self, asked: &Asked<'_>, owner: Owner, request: BookingRequest) -> Result<ApiResponse, StepError> {
        let reference = PaymentReference::derive(&asked.booking_id, &asked.request_digest);
        if self.provider.attach(&reference, &request.token).await?.is_err() {
            let unknown = violation("/payment/token", "is not known to the payment provider");
            return self.refuse(asked, &[unknown]).await;
        }
        // The claim on the start is part of the header, and costs no write of its own.
        let header = Header {
            booking_id: asked.booking_id.clone(),
            request_digest: asked.request_digest.clone(),
            variant: request.variant,
            status: Status::Pending,
            owner,
            parts: request.parts,
            total: None,
            reason: None,
            claim: Claim::first(asked.now),
            created_at: asked.now,
            updated_at: asked.now,
        };
        let needed_until = request.last_day.map_or(asked.now, midnight);
        match self.intake.accept(&header, &request.customer, needed_until).await? {
            Commit::Done => self.starter().start(&header, asked.now, asked.trace()).await?,
            Commit::Found(found) => return self.repeat(asked, &found).await,
        }
        Ok(asked.accepted(self.saga.collection, header.variant, false))
    }

    // An accepted request stays accepted: rules that refuse it now, even if only because time has passed, apply to new
    // requests. So a request that violates rules is looked up before it is refused.
    async fn refuse(&self, asked: &Asked<'_>, violations: &[Violation]) -> Result<ApiResponse, StepError> {
        match self.intake.receipt(&asked.booking_id).await? {
            Some(found) => self.repeat(asked, &found).await,
            None => Ok(invalid(violations)),
        }
    }

    async fn repeat(&self, asked: &Asked<'_>, found: &Receipt) -> Result<ApiResponse, StepError> {
        if found.request_digest != asked.request_digest {
            return Ok(problem(Problem::KeyReused, "this Idempotency-Key was already used for another request"));
        }
        match &found.header {
            _ if found.status != Status::Pending => {}
            Ok(header) => {
                if let Some(claim) = header.claim.repeat(asked.now) {
                    self.starter().claim_and_start(header, claim, asked.now, asked.trace()).await?;
                }
            }
            Err(unreadable) => {
                let booking_id = asked.booking_id.as_str();
                tracing::error!(booking_id, error = %unreadable, "booking not started again; an operator has to look");
            }
        }
        Ok(asked.accepted(self.saga.collection, found.variant, true))
    }

    fn starter(&self) -> Starter<'_, I, E, T> {
        Starter { claims: &self.intake, executions: &self.executions, events: &self.events }
    }

    // A booking of another caller is treated like one that does not exist.
    async fn get(&self, caller: &str, id: &str) -> Result<ApiResponse, StepError> {
        let unknown = || problem(Problem::NotFound, "there is no such booking");
        let Ok(booking_id) = BookingId::try_from(id.to_owned()) else { return Ok(unknown()) };
        let header = self.intake.header(&booking_id).await?;
        let Some(header) = header.filter(|header| header.owner == Owner::of(caller)) else { return Ok(unknown()) };
        let ((entries, unreadable), customer) =
            tokio::try_join!(self.journal.entries(&booking_id), self.intake.customer(&booking_id))?;
        for item in unreadable {
            tracing::error!(booking_id = booking_id.as_str(), %item, "a step is not shown");
        }
        Ok(answer(
            StatusCode::OK,
            "application/json",
            view(&self.saga, &header, customer.as_ref(), &entries).to_string(),
        ))
    }
}

/// A POST of a booking, whether its body is valid or not.
struct Asked<'a> {
    booking_id: BookingId,
    request_digest: String,
    now: Timestamp,
    trace: Option<&'a str>,
    /// Whether relative references are resolved below the request's path, and not beside its last segment.
    is_below: bool,
}

impl Asked<'_> {
    fn trace(&self) -> Option<String> {
        self.trace.map(|trace| trace.chars().take(256).collect())
    }

    // `Location` is a reference relative to the URI that the client requested (RFC 9110, section 10.2.2). The whole URI
    // is not known here: in front of the resource's path there may be the stage, the base path of a custom domain, or a
    // prefix that a proxy has removed.
    fn accepted(&self, collection: &str, variant: Variant, replayed: bool) -> ApiResponse {
        let body = json!({"booking_id": self.booking_id, "variant": variant, "status": Status::Pending});
        let mut answer = answer(StatusCode::ACCEPTED, "application/json", body.to_string());
        let location =
            if self.is_below { self.booking_id.to_string() } else { format!("{collection}/{}", self.booking_id) };
        if let Ok(location) = location.parse() {
            answer.headers_mut().insert(header::LOCATION, location);
        }
        tracing::info!(booking_id = self.booking_id.as_str(), variant = variant.name(), replayed, "booking accepted");
        if replayed {
            answer.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        answer
    }
}

/// A booking as its owner sees it in `GET /bookings/{booking_id}`.
pub fn view(saga: &Definition, header: &Header, customer: Option<&Customer>, entries: &[JournalEntry]) -> Value {
    let timeline: Vec<_> = entries.iter().map(timeline_entry).collect();
    let payment = entries.iter().filter(|entry| matches!(entry.step, Step::Abort | Step::Charge));
    let mut view = json!({
        "booking_id": header.booking_id,
        "variant": header.variant,
        "status": header.status.shown(payment.filter_map(|entry| entry.outcome.as_ref())),
        "total": header.total,
        "reason": header.reason,
        "created_at": time(header.created_at),
        "updated_at": time(header.updated_at),
        "timeline": timeline,
    });
    view[saga.customer] = json!(customer);
    for (name, contents) in header.parts.iter() {
        view[name.as_str()] = contents.clone();
    }
    view
}

fn timeline_entry(entry: &JournalEntry) -> Value {
    // An outcome is written as {"outcome": …, "detail": …}, which is what the timeline wants.
    let mut view = match &entry.outcome {
        Some(outcome) => json!(outcome),
        None => json!({"outcome": "in_progress", "detail": {}}),
    };
    view["step"] = json!(entry.step);
    view["started_at"] = json!(entry.started_at);
    view["finished_at"] = json!(entry.finished_at);
    view
}

fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The start of this day, in UTC.
fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |day| day.timestamp())
}

/// The earliest current date on earth: at UTC-12, where each day ends last.
fn earliest_today(now: Timestamp) -> Date {
    let there = now.saturating_sub(SignedDuration::from_hours(12)).unwrap_or(Timestamp::MIN);
    there.to_zoned(TimeZone::UTC).round(Unit::Second).map_or(Date::MIN, |zoned| zoned.date())
}

/// The kinds of problem, each with a stable type.
#[derive(Clone, Copy, Debug)]
enum Problem {
    InvalidRequest,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
    KeyReused,
    Unavailable,
}

impl Problem {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key was used for another request",
            ),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"),
        }
    }
}

fn violation(pointer: &str, detail: impl Into<String>) -> Violation {
    Violation { pointer: pointer.into(), detail: detail.into() }
}

/// Lists the violations, and says how many more there are.
fn invalid(violations: &[Violation]) -> ApiResponse {
    let mut bytes = 0;
    let fits = |violation: &&Violation| {
        bytes += violation.pointer.len() + violation.detail.len();
        bytes <= MAX_ERRORS.1
    };
    let listed = violations.iter().take(MAX_ERRORS.0).take_while(fits).count().max(1);
    let (errors, more) = violations.split_at_checked(listed).unwrap_or((violations, &[]));
    let mut body = described(Problem::InvalidRequest, "see errors");
    body["errors"] = json!(errors);
    if !more.is_empty() {
        body["more_errors"] = json!(more.len());
    }
    refused(Problem::InvalidRequest, &body)
}

fn problem(problem: Problem, detail: &str) -> ApiResponse {
    refused(problem, &described(problem, detail))
}

/// RFC 9457.
fn described(problem: Problem, detail: &str) -> Value {
    let (status, name, title) = problem.parts();
    json!({
        "type": format!("urn:problem-type:harmony:{name}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    })
}

fn refused(problem: Problem, body: &Value) -> ApiResponse {
    let mut answer = answer(problem.parts().0, "application/problem+json", body.to_string());
    if let Problem::Unavailable = problem {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// The headers that a page's script may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("Location, Idempotency-Replayed, Retry-After");

/// The answer to a browser's preflight request: <https://fetch.spec.whatwg.org/#http-cors-protocol>.
fn preflight() -> ApiResponse {
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Authorization, Content-Type, Idempotency-Key, X-Amz-Date, X-Amz-Security-Token"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    answer
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> ApiResponse {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_lasts_until_it_has_ended_everywhere() {
        let at = |text: &str| earliest_today(text.parse().unwrap()).to_string();
        assert_eq!(at("2027-03-01T11:59:59Z"), "2027-02-28");
        assert_eq!(at("2027-03-01T12:00:00Z"), "2027-03-01");
    }

    #[test]
    fn a_response_lists_a_limited_number_of_errors_and_counts_the_others() {
        let listed = |violations: &[Violation]| {
            let answer: Value = serde_json::from_str(invalid(violations).body()).unwrap();
            (answer["errors"].as_array().unwrap().len(), answer["more_errors"].as_u64())
        };
        let short = |n| vec![violation("/a", "is odd"); n];
        assert_eq!(listed(&short(1)), (1, None));
        assert_eq!(listed(&short(50)), (50, None));
        assert_eq!(listed(&short(1_900)), (50, Some(1_850)));
        let long = |n| vec![violation(&"/a".repeat(8 * 1024), "is odd"); n];
        assert_eq!(listed(&long(1)), (1, None));
        assert_eq!(listed(&long(3)), (1, Some(2)));
    }
}

//! Explanations: how many queries an operator needs to find out why a booking failed.
//!
//! A booking is made to fail for a technical reason (the hotel service looks for its stock in a table that does not
//! exist), and is then investigated, once with the booking's journal and once with what AWS keeps, until an answer
//! contains the reason.

use std::time::Duration;

use saga::{BookingId, Status, Variant};
use serde::Serialize;
use serde_json::{Value, json};

use super::{ComparisonError, Mode, local_aws};
use crate::load::Travellers;
use local_aws::Stack;
use traveller::{Answer, Client, TripRequest, client::fresh_key};

/// A table that does not exist.
const MISSING: &str = "no-such-table";
/// DynamoDB's error for it. An answer explains the failure if it contains this.
const WHY: &str = "ResourceNotFoundException";
/// How long a booking may take to fail: its retries take about a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// An investigation of one booking.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub mode: Mode,
    /// The source that was queried.
    pub by: &'static str,
    /// The queries, in order; the last one's answer contains the explanation.
    pub questions: Vec<String>,
    /// Whether the explanation was found.
    pub found: bool,
    /// The total size of the answers, in bytes.
    pub bytes: usize,
}

/// Queries until an answer contains the explanation.
struct Operator<'s> {
    aws: Client,
    api: Client,
    stack: &'s Stack,
    questions: Vec<String>,
    bytes: usize,
}

impl<'s> Operator<'s> {
    fn of(stack: &'s Stack) -> Result<Self, ComparisonError> {
        let aws = Client::new(stack.endpoint.as_deref().ok_or(ComparisonError::NotLocal)?)?;
        Ok(Self { aws, api: Client::new(&stack.api_url)?, stack, questions: Vec::new(), bytes: 0 })
    }

    fn answered(&mut self, question: String, answer: &str, explanation: &str) -> bool {
        self.questions.push(question);
        self.bytes += answer.len();
        answer.contains(explanation)
    }

    async fn ask(&mut self, what: &str, target: &str, body: Value, explanation: &str) -> Result<bool, ComparisonError> {
        let content = if target.starts_with("AWSStepFunctions") {
            "application/x-amz-json-1.0"
        } else {
            "application/x-amz-json-1.1"
        };
        let headers = [("x-amz-target", target), ("content-type", content)];
        let answer = self.aws.send("POST", "/", &headers, body.to_string()).await?;
        if answer.status != 200 {
            return Err(refused(target, &answer));
        }
        Ok(self.answered(what.to_owned(), &answer.body, explanation))
    }

    /// Which step failed, according to the booking itself.
    async fn booking(&mut self, booking_id: &BookingId, explanation: &str) -> Result<bool, ComparisonError> {
        let answer = self.api.send("GET", &format!("/bookings/{booking_id}"), &[], "").await?;
        Ok(self.answered("the booking: GET /bookings/{id}".into(), &answer.body, explanation))
    }

    /// The log of one function, for this booking.
    async fn log(
        &mut self,
        function: &str,
        booking_id: &BookingId,
        explanation: &str,
    ) -> Result<bool, ComparisonError> {
        let group = format!("/aws/lambda/{EXPLAINED}-{function}");
        let body = json!({"logGroupName": group, "filterPattern": format!("\"{booking_id}\"")});
        self.ask(&format!("log of {function}: FilterLogEvents"), "Logs_20140328.FilterLogEvents", body, explanation)
            .await
    }

    async fn history(&mut self, booking_id: &BookingId, explanation: &str) -> Result<bool, ComparisonError> {
        let machine = self.stack.state_machine_arn()?;
        let execution = format!("{}:{booking_id}", machine.replace(":stateMachine:", ":execution:"));
        let body = json!({"executionArn": execution, "maxResults": 1000});
        let what = "history of the execution: GetExecutionHistory";
        self.ask(what, "AWSStepFunctions.GetExecutionHistory", body, explanation).await
    }

    fn path(&mut self, mode: Mode, by: &'static str, found: bool) -> Explanation {
        let (questions, bytes) = (std::mem::take(&mut self.questions), std::mem::take(&mut self.bytes));
        Explanation { mode, by, questions, found, bytes }
    }
}

const EXPLAINED: &str = "explained";
/// The functions in the order in which a booking passes through them.
const FUNCTIONS: [&str; 6] = ["api", "flight", "hotel", "car", "payment", "booking"];

/// Makes bookings fail in both variants, and investigates each in every way.
pub async fn explanations() -> Result<Vec<Explanation>, ComparisonError> {
    let aws = local_aws(EXPLAINED, "STANDARD", &[], None)?;
    let stack = aws.stack();
    let trip = TripRequest::default();
    Travellers::of(stack, Client::new(&stack.api_url)?, trip.first_day()).await?.seed(stack).await?;
    let whole = stock_table_of_hotel(stack, MISSING).await?;
    let api = Client::new(&stack.api_url)?;
    let fail = async |variant: Variant| -> Result<BookingId, ComparisonError> {
        let request = TripRequest { variant, ..trip.clone() };
        let id = api.book_accepted(&request, &fresh_key("explain")).await?.booking_id;
        api.follow_until(|status| status != Status::Pending, &id, PATIENCE, |_| ()).await?;
        Ok(id)
    };
    let (danced, conducted) = tokio::try_join!(fail(Variant::Choreographed), fail(Variant::Orchestrated))?;
    stock_table_of_hotel(stack, &whole).await?; // otherwise the cancel could not end either
    for id in [&danced, &conducted] {
        api.wait_until_settled(id, PATIENCE).await?;
    }

    let mut operator = Operator::of(stack)?;
    let mut paths = Vec::new();
    for (mode, id) in [(Mode::Choreographed, &danced), (Mode::Standard, &conducted)] {
        let step = operator.booking(id, "\"hotel.reserve\"").await?;
        paths.push(operator.path(mode, "the booking: which step failed", step));

        let mut found = operator.booking(id, WHY).await?;
        if !found {
            found = operator.log("hotel", id, WHY).await?;
        }
        paths.push(operator.path(mode, "the booking, then the log of the step that it names: why", found));
    }
    let found = operator.history(&conducted, WHY).await?;
    paths.push(operator.path(Mode::Standard, "AWS alone: why", found));
    for (mode, id) in [(Mode::Choreographed, &danced), (Mode::Express, &conducted)] {
        let mut found = false;
        for function in FUNCTIONS {
            if !found {
                found = operator.log(function, id, WHY).await?;
            }
        }
        paths.push(operator.path(mode, "AWS alone: why", found));
    }
    Ok(paths)
}

/// Makes the hotel service look for its stock in this table; returns the previous table.
async fn stock_table_of_hotel(stack: &Stack, table: &str) -> Result<String, ComparisonError> {
    let lambda = Client::new(stack.endpoint.as_deref().ok_or(ComparisonError::NotLocal)?)?;
    let path = format!("/2015-03-31/functions/{EXPLAINED}-hotel/configuration");
    let settings = lambda.send("GET", &path, &[], "").await?;
    let mut settings: Value = settings.json().map_err(|_| refused(&path, &settings))?;
    let before = settings["Environment"]["Variables"]["STOCK_TABLE"].as_str().unwrap_or_default().to_owned();
    settings["Environment"]["Variables"]["STOCK_TABLE"] = table.into();
    let changed = json!({"Environment": settings["Environment"]});
    let answer = lambda.send("PUT", &path, &[], changed.to_string()).await?;
    if answer.status == 200 { Ok(before) } else { Err(refused(&path, &answer)) }
}

fn refused(asked: &str, answer: &Answer) -> ComparisonError {
    ComparisonError::Refused { asked: asked.into(), answer: format!("{}: {}", answer.status, answer.summary()) }
}

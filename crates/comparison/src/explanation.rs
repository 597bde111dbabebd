//! Explanations: how many questions an operator asks to learn why a booking failed.
//!
//! A booking is made to fail for a technical reason (the hotel service looks for its stock in a table that is not there),
//! and then looked into, once from the booking's journal and once with what AWS keeps, until an answer has the reason.

use std::time::Duration;

use saga::{BookingId, Status, Variant};
use serde::Serialize;
use serde_json::{Value, json};

use super::{ComparisonError, Mode, local_aws};
use crate::load::Travellers;
use local_aws::Stack;
use traveller::{Answer, Client, TripRequest, client::fresh_key};

/// The table that is not there.
const MISSING: &str = "no-such-table";
/// What DynamoDB says of it. It is what an answer must have to be the explanation.
const WHY: &str = "ResourceNotFoundException";
/// How long a booking may take to fail: its retries take about a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// A way to look into a booking.
#[derive(Clone, Debug, Serialize)]
pub struct Path {
    /// Who coordinated the booking.
    pub mode: Mode,
    /// What was asked.
    pub by: &'static str,
    /// The questions, in order; the last one's answer has the explanation.
    pub questions: Vec<String>,
    /// Whether it was found.
    pub found: bool,
    /// Bytes to read in the answers.
    pub bytes: usize,
}

/// Asks until an answer explains it.
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

    /// Which step failed, from the booking itself.
    async fn booking(&mut self, id: &BookingId, explanation: &str) -> Result<bool, ComparisonError> {
        let answer = self.api.send("GET", &format!("/bookings/{id}"), &[], "").await?;
        Ok(self.answered("the booking: GET /bookings/{id}".into(), &answer.body, explanation))
    }

    /// The log of one function, for this booking.
    async fn log(&mut self, function: &str, id: &BookingId, explanation: &str) -> Result<bool, ComparisonError> {
        let group = format!("/aws/lambda/{EXPLAINED}-{function}");
        let body = json!({"logGroupName": group, "filterPattern": format!("\"{id}\"")});
        self.ask(&format!("log of {function}: FilterLogEvents"), "Logs_20140328.FilterLogEvents", body, explanation)
            .await
    }

    async fn history(&mut self, id: &BookingId, explanation: &str) -> Result<bool, ComparisonError> {
        let machine = self.stack.state_machine_arn()?;
        let execution = format!("{}:{id}", machine.replace(":stateMachine:", ":execution:"));
        let body = json!({"executionArn": execution, "maxResults": 1000});
        let what = "history of the execution: GetExecutionHistory";
        self.ask(what, "AWSStepFunctions.GetExecutionHistory", body, explanation).await
    }

    fn path(&mut self, mode: Mode, by: &'static str, found: bool) -> Path {
        let (questions, bytes) = (std::mem::take(&mut self.questions), std::mem::take(&mut self.bytes));
        Path { mode, by, questions, found, bytes }
    }
}

const EXPLAINED: &str = "explained";
/// The functions in the order in which a booking comes to them.
const FUNCTIONS: [&str; 6] = ["api", "flight", "hotel", "car", "payment", "booking"];

/// Makes bookings fail in both variants and looks into them in each way.
pub async fn explanations() -> Result<Vec<Path>, ComparisonError> {
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
    stock_table_of_hotel(stack, &whole).await?; // or the cancellation could not end either
    for id in [&danced, &conducted] {
        api.wait_until_final(id, PATIENCE).await?;
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

/// Lets the hotel service look for its stock in this table, and says where it did before.
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

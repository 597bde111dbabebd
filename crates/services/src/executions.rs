//! Executions of the state machine that orchestrates bookings.

use aws_sdk_sfn::{Client, error::SdkError, operation::start_execution::StartExecutionError};
use aws_smithy_runtime_api::client::{
    interceptors::context::InterceptorContext,
    orchestrator::HttpResponse,
    retries::classifiers::{ClassifyRetry, RetryAction},
};

/// Starts executions of a state machine.
pub trait Executions {
    /// Starts an execution with this name. The caller makes sure to call this once per name: each call starts another
    /// EXPRESS execution.
    fn start(&self, name: &str, input: &str) -> impl Future<Output = Result<(), ExecutionsError>> + Send;
}

/// Step Functions did not answer, or refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "starting an execution failed: {cause}; try again, and if it keeps failing check the state machine's ARN and permissions"
)]
pub struct ExecutionsError {
    /// Whether it is certain that nothing was started. If the answer is missing, it may have been lost.
    pub is_refused: bool,
    /// The error of the SDK.
    pub cause: String,
}

/// A state machine on AWS Step Functions.
#[derive(Clone, Debug)]
pub struct StateMachine {
    client: Client,
    arn: String,
}

impl StateMachine {
    /// The state machine with this ARN. Its requests are repeated only if they were refused.
    pub fn new(client: Client, arn: impl Into<String>) -> Self {
        let config = client.config().to_builder().retry_classifier(RefusalsOnly).build();
        Self { client: Client::from_conf(config), arn: arn.into() }
    }
}

impl Executions for StateMachine {
    async fn start(&self, name: &str, input: &str) -> Result<(), ExecutionsError> {
        let request = self.client.start_execution().state_machine_arn(&self.arn).name(name).input(input);
        let Err(error) = request.send().await else { return Ok(()) };
        // A claim has one name, so the existing execution is that of this claim.
        if error.as_service_error().is_some_and(StartExecutionError::is_execution_already_exists) {
            return Ok(());
        }
        Err(ExecutionsError { is_refused: is_refused(&error), cause: store::causes(&error) })
    }
}

/// Whether it is certain that a request had no effect: it could not be sent, or was answered with a client error, which
/// includes throttling. A request without an answer, or with a server error, may have been carried out.
pub(crate) fn is_refused<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        other => other.raw_response().is_some_and(|answer| answer.status().is_client_error()),
    }
}

/// Keeps the SDK from repeating a start whose answer may be lost: each repetition would start another EXPRESS execution
/// (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html>). It may repeat what was
/// refused.
#[derive(Debug)]
struct RefusalsOnly;

impl ClassifyRetry for RefusalsOnly {
    fn name(&self) -> &'static str {
        "Refusals Only"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let is_answered = context.response().is_some_and(|answer| !answer.status().is_server_error());
        if is_answered { RetryAction::NoActionIndicated } else { RetryAction::RetryForbidden }
    }
}

//! The state machine that conducts bookings, seen from outside.

use aws_sdk_sfn::{Client, error::SdkError, operation::start_execution::StartExecutionError};
use aws_smithy_runtime_api::client::{
    interceptors::context::InterceptorContext,
    orchestrator::HttpResponse,
    retries::classifiers::{ClassifyRetry, RetryAction},
};

/// Executions of a state machine.
pub trait Executions {
    /// Starts an execution of that name. Whoever calls this makes sure that it is called once for each name: an EXPRESS
    /// execution is started again for each call.
    fn start(&self, name: &str, input: &str) -> impl Future<Output = Result<(), ExecutionsError>> + Send;
}

/// Step Functions did not answer, or refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "starting an execution failed: {cause}; try again, and check the state machine's ARN and permissions if it stays so"
)]
pub struct ExecutionsError {
    /// Whether nothing was started for certain. An answer that is missing may have been lost.
    pub is_refused: bool,
    /// What went wrong.
    pub cause: String,
}

/// A state machine on AWS Step Functions.
#[derive(Clone, Debug)]
pub struct StateMachine {
    client: Client,
    arn: String,
}

impl StateMachine {
    /// The state machine of that ARN.
    pub fn new(client: Client, arn: impl Into<String>) -> Self {
        let config = client.config().to_builder().retry_classifier(RefusalsOnly).build();
        Self { client: Client::from_conf(config), arn: arn.into() }
    }
}

impl Executions for StateMachine {
    async fn start(&self, name: &str, input: &str) -> Result<(), ExecutionsError> {
        let request = self.client.start_execution().state_machine_arn(&self.arn).name(name).input(input);
        let Err(error) = request.send().await else { return Ok(()) };
        // A claim has one name, so the one that there is, or was, is that of this claim.
        if error.as_service_error().is_some_and(StartExecutionError::is_execution_already_exists) {
            return Ok(());
        }
        Err(ExecutionsError { is_refused: is_refused(&error), cause: store::causes(&error) })
    }
}

/// Whether a request had no effect for certain: it could not be made, or was answered with a client error, to which
/// throttling belongs. What is not answered, or with a server error, may have been carried out.
pub(crate) fn is_refused<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        other => other.raw_response().is_some_and(|answer| answer.status().is_client_error()),
    }
}

/// Keeps the SDK from sending a start again whose answer may be lost: each time Step Functions would start another EXPRESS
/// execution (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html>). What was refused
/// it may try again.
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

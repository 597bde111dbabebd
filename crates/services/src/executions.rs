//! The state machine that conducts bookings, seen from outside.

use aws_sdk_sfn::{
    Client,
    operation::{describe_execution::DescribeExecutionError, start_execution::StartExecutionError},
    types::ExecutionStatus,
};

/// Executions of a state machine, by name.
pub trait Executions {
    /// Starts the execution of that name, unless there is one.
    fn start(&self, name: &str, input: &str) -> impl Future<Output = Result<Started, ExecutionsError>> + Send;

    /// Whether the execution of that name is still at work.
    fn is_running(&self, name: &str) -> impl Future<Output = Result<bool, ExecutionsError>> + Send;
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It runs.
    Now,
    /// There is, or was in the last 90 days, an execution of that name.
    Before,
}

/// Step Functions did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {cause}; try again, and check the state machine's ARN and permissions if it stays so")]
pub struct ExecutionsError {
    operation: &'static str,
    cause: String,
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
        Self { client, arn: arn.into() }
    }
}

impl Executions for StateMachine {
    async fn start(&self, name: &str, input: &str) -> Result<Started, ExecutionsError> {
        let request = self.client.start_execution().state_machine_arn(&self.arn).name(name).input(input);
        match request.send().await {
            // The same name with the same input is answered like the first start, as long as it runs.
            Ok(_) => Ok(Started::Now),
            Err(error) => match error.as_service_error() {
                Some(StartExecutionError::ExecutionAlreadyExists(_)) => Ok(Started::Before),
                _ => Err(failed("starting an execution", error)),
            },
        }
    }

    async fn is_running(&self, name: &str) -> Result<bool, ExecutionsError> {
        let execution = format!("{}:{name}", self.arn.replacen(":stateMachine:", ":execution:", 1));
        match self.client.describe_execution().execution_arn(execution).send().await {
            Ok(found) => Ok(*found.status() == ExecutionStatus::Running),
            Err(error) => match error.as_service_error() {
                Some(DescribeExecutionError::ExecutionDoesNotExist(_)) => Ok(false),
                _ => Err(failed("describing an execution", error)),
            },
        }
    }
}

fn failed(operation: &'static str, error: impl std::error::Error) -> ExecutionsError {
    ExecutionsError { operation, cause: store::causes(&error) }
}

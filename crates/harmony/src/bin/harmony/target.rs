//! What a command works on: the API or the stack that is named, or the local AWS that runs.

use std::path::Path;

use clap::Args;
use harmony::{
    Client, Stack,
    local::root,
    stack::{Found, Running},
};

use crate::Result;

#[derive(Args)]
#[command(next_help_heading = "What to work on, if not the local AWS of this project")]
pub struct Options {
    /// Where the API is
    #[arg(long, global = true, env = "HARMONY_API_URL", hide_env_values = true, value_name = "URL")]
    api_url: Option<String>,
    /// A stack on AWS; region and credentials come from the environment or the profile. Or on LocalStack, if
    /// AWS_ENDPOINT_URL says where that is
    #[arg(long, global = true, env = "HARMONY_STACK", hide_env_values = true, value_name = "NAME")]
    stack_name: Option<String>,
    /// A stack that a file describes, as `harmony local` writes it
    #[arg(long, global = true, env = "HARMONY_STACK_FILE", hide_env_values = true, value_name = "PATH")]
    stack_file: Option<String>,
}

/// What to work on.
pub struct Target {
    /// Its API.
    pub client: Client,
    /// Its stack; none if only an API is named.
    pub stack: Option<Stack>,
    /// Whether the user named it, so that nothing else will do.
    pub is_named: bool,
}

impl Options {
    /// What is named, or the local AWS that runs; none if neither.
    pub fn find(&self) -> Result<Option<Target>> {
        let url = given(&self.api_url);
        let stack = match (self.stack_name(), given(&self.stack_file)) {
            (Some(_), Some(_)) => return Err("give either --stack-name or --stack-file: they name two stacks".into()),
            (Some(name), None) => Some(Stack::deployed(name)?),
            (None, Some(path)) => Some(Stack::from_file(Path::new(path))?),
            (None, None) => None,
        };
        let is_named = url.is_some() || stack.is_some();
        let stack = if is_named { stack } else { running()?.map(|found| found.stack) };
        let Some(url) = url.or(stack.as_ref().map(|stack| stack.api_url.as_str())) else { return Ok(None) };
        Ok(Some(Target { client: Client::new(url)?, stack, is_named }))
    }

    /// The stack that is named.
    pub fn stack_name(&self) -> Option<&str> {
        given(&self.stack_name)
    }

    /// The API to work on.
    pub fn client(&self) -> Result<Client> {
        let nothing =
            "no API to work on: start one with `harmony local`, or give --api-url, --stack-name or --stack-file";
        Ok(self.find()?.ok_or(nothing)?.client)
    }

    /// The stack to work on, and its API.
    pub fn stack(&self) -> Result<(Stack, Client)> {
        match self.find()? {
            Some(Target { client, stack: Some(stack), .. }) => Ok((stack, client)),
            _ => {
                Err("no stack to work on: start one with `harmony local`, or give --stack-name or --stack-file".into())
            }
        }
    }
}

/// Set to nothing, an environment variable is not set.
fn given(option: &Option<String>) -> Option<&str> {
    option.as_deref().filter(|value| !value.is_empty())
}

/// The local AWS of this project that runs.
pub fn running() -> Result<Option<Found>> {
    // Elsewhere there is no project, and nothing of it runs.
    let Ok(root) = root() else { return Ok(None) };
    Ok(Running::find(&Running::folder(&root))?)
}

//! What a command works on: the API that is named, the stack that is named, or the local AWS that runs.

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
    /// A stack on AWS; region and credentials come from the environment or the profile
    #[arg(long, global = true, env = "HARMONY_STACK", hide_env_values = true, value_name = "NAME")]
    stack_name: Option<String>,
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
        let (url, stack) = (given(&self.api_url), given(&self.stack_name));
        let is_named = url.is_some() || stack.is_some();
        let stack = match stack {
            Some(name) => Some(Stack::deployed(name)?),
            None if url.is_some() => None,
            None => running()?.map(|found| found.stack),
        };
        let Some(url) = url.or(stack.as_ref().map(|stack| stack.api_url.as_str())) else { return Ok(None) };
        Ok(Some(Target { client: Client::new(url)?, stack, is_named }))
    }

    /// The API to work on.
    pub fn client(&self) -> Result<Client> {
        let nothing = "no API to work on: start one with `harmony local`, or give --api-url or --stack-name";
        Ok(self.find()?.ok_or(nothing)?.client)
    }

    /// The stack to work on.
    pub fn stack(&self) -> Result<Stack> {
        let nothing = "no stack to work on: start one with `harmony local`, or give --stack-name";
        Ok(self.find()?.and_then(|target| target.stack).ok_or(nothing)?)
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

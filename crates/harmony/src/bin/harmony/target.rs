//! The target of a command: the API or the stack that is named, or the running local AWS.

use std::path::Path;

use clap::{ArgMatches, Args, parser::ValueSource};
use local_aws::{
    Stack,
    checkout::root,
    cloud::Cloud,
    stack::{Running, RunningStack},
};
use traveller::{Client, client::Authorization};

use crate::Result;

#[derive(Args)]
#[command(next_help_heading = "What to work on, if not the local AWS of this project")]
pub struct Options {
    /// URL of the API
    #[arg(long, global = true, env = "HARMONY_API_URL", hide_env_values = true, value_name = "URL")]
    api_url: Option<String>,
    /// Name of a stack on AWS, with region and credentials from the environment or the profile; or on LocalStack, if
    /// AWS_ENDPOINT_URL or the profile's endpoint_url points there
    #[arg(long, global = true, env = "HARMONY_STACK", hide_env_values = true, value_name = "NAME")]
    stack_name: Option<String>,
    /// File that describes a stack, as written by `harmony local`
    #[arg(long, global = true, env = "HARMONY_STACK_FILE", hide_env_values = true, value_name = "PATH")]
    stack_file: Option<String>,
    /// Sign requests to the API with AWS credentials, for Authorization AWS_IAM
    #[arg(long, global = true, conflicts_with = "id_token")]
    sign: bool,
    /// Send this token to the API, for Authorization COGNITO
    #[arg(long, global = true, env = "HARMONY_ID_TOKEN", hide_env_values = true, value_name = "JWT")]
    id_token: Option<String>,
}

/// The target of a command.
pub struct Target {
    pub client: Client,
    /// Its stack; none if only an API is named.
    pub stack: Option<Stack>,
    /// Whether the user named it, so that no other target will do.
    pub is_named: bool,
}

impl Options {
    /// The named target, or the running local AWS; none if there is neither.
    pub async fn find(&self) -> Result<Option<Target>> {
        let url = given(&self.api_url);
        let stack = match (self.stack_name(), given(&self.stack_file)) {
            (Some(_), Some(_)) => return Err("give either --stack-name or --stack-file, not both".into()),
            (Some(name), None) => Some(Stack::deployed(name).await?),
            (None, Some(path)) => Some(Stack::from_file(Path::new(path))?),
            (None, None) => None,
        };
        let is_named = url.is_some() || stack.is_some();
        let stack = if is_named { stack } else { running()?.map(|found| found.stack) };
        let Some(url) = url.or(stack.as_ref().map(|stack| stack.api_url.as_str())) else { return Ok(None) };
        let authorization = match given(&self.id_token) {
            Some(token) => Authorization::Token(token.to_owned()),
            None if self.sign => {
                let sdk = match &stack {
                    Some(stack) => stack.sdk().await?,
                    None => Cloud::resolve().await?.sdk(),
                };
                Authorization::Signature { sdk: Box::new(sdk), service: "execute-api" }
            }
            None => Authorization::None,
        };
        Ok(Some(Target { client: Client::new(url)?.with(authorization), stack, is_named }))
    }

    /// The name of the stack, if one is named.
    pub fn stack_name(&self) -> Option<&str> {
        given(&self.stack_name)
    }

    /// The API to work on, with its stack if that is known.
    pub async fn any(&self) -> Result<Target> {
        let nothing =
            "no API to work on: start one with `harmony local`, or give --api-url, --stack-name or --stack-file";
        Ok(self.find().await?.ok_or(nothing)?)
    }

    pub async fn stack(&self) -> Result<Stack> {
        match self.find().await? {
            Some(Target { stack: Some(stack), .. }) => Ok(stack),
            _ => {
                Err("no stack to work on: start one with `harmony local`, or give --stack-name or --stack-file".into())
            }
        }
    }
}

/// An option that is given on the command line but empty. Treating it as not given would mean working on a different
/// target than the user meant.
pub fn empty_option(matches: &ArgMatches) -> Option<String> {
    let options = ["api_url", "stack_name", "stack_file", "id_token"];
    let is_empty = |option: &&str| {
        matches.value_source(option) == Some(ValueSource::CommandLine)
            && matches.get_one::<String>(option).is_some_and(String::is_empty)
    };
    options.into_iter().find(is_empty).map(|option| option.replace('_', "-"))
}

/// The value of an option; an empty environment variable counts as not set.
fn given(option: &Option<String>) -> Option<&str> {
    option.as_deref().filter(|value| !value.is_empty())
}

/// This project's running local AWS.
pub fn running() -> Result<Option<RunningStack>> {
    // Outside a checkout there is no project, and no local AWS of it.
    let Ok(root) = root() else { return Ok(None) };
    Ok(Running::find(&Running::folder(&root))?)
}

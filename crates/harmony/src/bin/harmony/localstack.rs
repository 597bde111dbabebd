//! `harmony localstack`: deploys to a running LocalStack, and books every scenario there.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use harmony::localstack::LocalStack;
use local_aws::{Stack, checkout::root, local::key_and_value, stack::Running};
use traveller::Client;

use crate::{
    Result, demo,
    output::{Progress, say},
    target::{self, Target},
};

/// The default name of the stack.
const STACK: &str = "harmony";
/// How long the first invocation of a function may take: LocalStack pulls the container image for it.
const FIRST: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Options {
    /// Delete the stack afterwards, even if something failed
    #[arg(long)]
    delete: bool,
    /// A value for a parameter of the template; may be repeated
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = key_and_value)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    demo: demo::Options,
}

pub async fn run(target: &target::Options, options: &Options) -> Result<ExitCode> {
    let (root, name) = (root()?, target.stack_name().unwrap_or(STACK));
    let there = LocalStack::find(&root, Running::folder(&root)).await?;
    let code = deploy_and_book(&there, name, options).await;
    if options.delete {
        let _progress = Progress::of(format!("deleting the stack {name}"));
        let deleted = there.delete(name).await;
        // The first failure is the one to report.
        if code.is_ok() {
            deleted?;
        }
    }
    code
}

async fn deploy_and_book(there: &LocalStack, name: &str, options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let progress = Progress::of(format!("deploying the stack {name} to {}", there.endpoint()));
    there.deploy(name, &options.parameters).await?;
    let stack = Stack::deployed(name).await?;
    drop(progress);
    say(format!("stack {name} is deployed at {}, after {:.1?}", stack.api_url, started.elapsed()))?;
    let client = Client::new(&stack.api_url)?;
    wait_for_answer(&client).await?;
    demo::on(&Target { client, stack: Some(stack), is_named: true }, &options.demo).await
}

/// Waits until the API's function answers.
async fn wait_for_answer(client: &Client) -> Result<()> {
    let _progress = Progress::of("waiting for the API's function to start");
    let deadline = Instant::now() + FIRST;
    loop {
        let answer = client.send("GET", "/openapi.yaml", &[], "").await;
        let found = match answer {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => format!("answers {}: {}", answer.status, answer.summary()),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            let way_out = "see LocalStack's log, and check that `docker info` works where it runs";
            return Err(format!("the API at {} does not run functions ({found}): {way_out}", client.api_url()).into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

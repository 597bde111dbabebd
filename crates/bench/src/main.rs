//! Measures the functions and prints figures and ratios, all from one run: see [`report`] for where they are stored.

#![allow(missing_docs)] // docs where a contract is
#![allow(clippy::print_stdout)] // printing is this program's purpose

mod cold;
mod decoding;
mod instructions;
mod peers;
mod process;
mod report;
mod step;
mod waiting;
mod warm;

use std::{env, error::Error, fs, path::PathBuf};

use local_aws::LocalAwsOptions;

use crate::{report::Report, step::Steps};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match env::args().nth(1).as_deref() {
        None => runtime.block_on(all()),
        // These run as separate processes, with the environment of a function.
        Some(waiting::STEP) => runtime.block_on(waiting::steps()),
        Some(decoding::DECODE) => decoding::decode(),
        Some(other) => Err(format!("unknown argument {other:?}: the benchmark takes none").into()),
    }
}

async fn all() -> Outcome<()> {
    let mut report = Report::default();
    cold::measure(&mut report)?;
    {
        let mut steps = Steps::on(LocalAwsOptions::default()).await?;
        let processor = warm::measure(&mut report, &mut steps).await?;
        waiting::measure(&mut report, &steps, processor)?;
        peers::measure(&mut report, &mut steps).await?;
    }
    instructions::measure(&mut report).await?;
    decoding::measure(&mut report)?;
    report.publish()
}

/// A program built by `make bench`, like this one.
fn built(name: &str) -> Outcome<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `make bench`", path.display()).into()) }
}

/// The folder for the results.
fn folder() -> Outcome<PathBuf> {
    let folder = local_aws::checkout::root()?.join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

//! Measures the functions and prints figures and ratios, all from one run: see [`report`] for where it leaves them.

#![allow(clippy::print_stdout)] // it is what this program is for

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

use local_aws::Options;

use crate::{report::Report, step::Steps};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match env::args().nth(1).as_deref() {
        None => runtime.block_on(all()),
        // These are processes of their own, with the environment of a function.
        Some(waiting::STEP) => runtime.block_on(waiting::steps()),
        Some(decoding::DECODE) => decoding::decode(),
        Some(other) => Err(format!("{other:?} is not known: the benchmark takes no arguments").into()),
    }
}

async fn all() -> Outcome<()> {
    let mut report = Report::default();
    cold::measure(&mut report)?;
    {
        let mut steps = Steps::on(Options::default()).await?;
        let processor = warm::measure(&mut report, &mut steps).await?;
        waiting::measure(&mut report, &steps, processor)?;
        peers::measure(&mut report, &mut steps).await?;
    }
    instructions::measure(&mut report).await?;
    decoding::measure(&mut report)?;
    report.publish()
}

/// A program that `make bench` has built, as it has this one.
fn built(name: &str) -> Outcome<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `make bench`", path.display()).into()) }
}

/// Where this program leaves what it finds.
fn folder() -> Outcome<PathBuf> {
    let folder = local_aws::checkout::root()?.join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

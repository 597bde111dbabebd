//! `harmony load`: puts stock on sale.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use jiff::civil::Date;
use local_aws::Stack;
use operator::loader::{DAYS, StockLoader, dates};
use traveller::trip::today;

use crate::{
    Result,
    output::{Progress, say},
    target,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    days: Days,
    /// Also load a stack on AWS, where units that were sold are then for sale again
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub struct Days {
    /// How many days of stock to put on sale, from today on
    #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

impl Days {
    pub fn dates(&self) -> Vec<Date> {
        dates(today(), self.days)
    }
}

pub async fn load(target: &target::Options, options: Options) -> Result<ExitCode> {
    let stack = target.stack().await?;
    if !stack.is_local() && !options.yes {
        let what = "loading replaces the stock of a stack on AWS, and units that were sold would be for sale again";
        return Err(format!("{what}: give --yes to do it anyway").into());
    }
    let started = Instant::now();
    let lines = load_into(&stack, &options.days.dates()).await?;
    say(format!("{lines} lines of stock for {} days are on sale, after {:.1?}", options.days.days, started.elapsed()))?;
    Ok(ExitCode::SUCCESS)
}

/// Loads stock with a progress bar, and returns the number of lines.
pub async fn load_into(stack: &Stack, dates: &[Date]) -> Result<usize> {
    let stock = StockLoader::of(stack, &stack.sdk().await?)?;
    let lines = stock.count(dates);
    let progress = Progress::counting("loading stock", lines);
    stock.load(dates, |lines| progress.done(lines)).await?;
    Ok(lines)
}

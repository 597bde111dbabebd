//! `harmony load`: puts stock on sale.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use jiff::civil::Date;
use local_aws::Stack;
use operator::loader::{DAYS, StockLoader, dates};
use saga::PartName;
use traveller::trip::today;

use crate::{
    Result,
    booking::part,
    output::{Progress, say},
    target,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    days: Days,
    /// The part whose stock is loaded; all if none is named (may be repeated)
    #[arg(long = "part", value_name = "NAME", value_parser = part())]
    parts: Vec<PartName>,
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
        let what = "loading replaces stock, and on AWS units that were sold would be for sale again";
        return Err(format!("{what}: give --yes to do it anyway").into());
    }
    let started = Instant::now();
    let stock = StockLoader::of(&stack, &stack.sdk().await?)?;
    let stock = if options.parts.is_empty() { stock } else { stock.only(&options.parts) };
    let lines = fill(&stock, &options.days.dates()).await?;
    say(format!("{lines} lines of stock for {} days are on sale, after {:.1?}", options.days.days, started.elapsed()))?;
    Ok(ExitCode::SUCCESS)
}

/// Loads stock with a progress bar, and returns the number of lines.
pub async fn load_into(stack: &Stack, dates: &[Date]) -> Result<usize> {
    fill(&StockLoader::of(stack, &stack.sdk().await?)?, dates).await
}

async fn fill(stock: &StockLoader, dates: &[Date]) -> Result<usize> {
    let lines = stock.count(dates);
    let progress = Progress::counting("loading stock", lines);
    stock.load(dates, |lines| progress.done(lines)).await?;
    Ok(lines)
}

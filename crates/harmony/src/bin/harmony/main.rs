//! `harmony`: the command-line program of this project. `harmony help` lists what it can do.

mod audit;
mod booking;
mod compare;
mod dead_letters;
mod demo;
mod local;
mod localstack;
mod output;
mod sam_local;
mod stock;
mod target;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};

/// Books trips as sagas, on a local AWS or a deployed stack.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, subcommand_required = true)]
struct Cli {
    #[command(flatten)]
    target: target::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Book every scenario in both variants and show what became of it
    Demo(demo::Options),
    /// Start a local AWS with the template and stock, and keep it running
    Local(local::Options),
    /// Stop the local AWS that `harmony local` started
    Down,
    /// Deploy to the LocalStack that AWS_ENDPOINT_URL names, and book every scenario there
    Localstack(localstack::Options),
    /// Book a trip, wait until it has ended, and show it
    Book(booking::Options),
    /// Show a booking and its timeline
    Show {
        /// The booking_id that the booking was answered with
        #[arg(value_parser = booking::id)]
        id: saga::BookingId,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// List the messages that were given up and wait for an operator
    Parked,
    /// Put those messages back, and wait until their bookings have ended
    Redrive(dead_letters::Options),
    /// Check all that the tables hold against what must always be true
    Audit(audit::Options),
    /// Put the same load on every mode, in turns, and show what is different
    Compare(compare::Options),
    /// Put stock on sale, replacing what there was
    Load(stock::Options),
    /// Run the functions with `sam local`, in Docker, and check what they answer
    SamLocal(sam_local::Options),
}

/// Whatever goes wrong is told to the user in one line.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Demo(options) => wait_for(demo::run(&cli.target, &options)),
        Command::Local(options) => local::up(options).map(|()| ExitCode::SUCCESS),
        Command::Down => local::down().map(|()| ExitCode::SUCCESS),
        Command::Localstack(options) => wait_for(localstack::run(&cli.target, &options)),
        Command::Book(options) => wait_for(booking::book(&cli.target, options)),
        Command::Show { id, wait } => wait_for(booking::show(&cli.target, &id, wait)),
        Command::Parked => wait_for(dead_letters::parked(&cli.target)),
        Command::Redrive(options) => wait_for(dead_letters::redrive(&cli.target, options)),
        Command::Audit(options) => wait_for(audit::audit(&cli.target, options)),
        Command::Compare(options) => wait_for(compare::run(&options)),
        Command::Load(options) => wait_for(stock::load(&cli.target, options)),
        Command::SamLocal(options) => sam_local::run(&options),
    };
    result.unwrap_or_else(|error| {
        match error.downcast_ref::<io::Error>() {
            // Who reads the output has seen enough: `harmony demo | head`.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            _ => eprintln!("harmony: {error}"),
        }
        ExitCode::FAILURE
    })
}

/// Runs an asynchronous command.
fn wait_for<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?.block_on(command)
}

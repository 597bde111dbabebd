//! `harmony`: the command-line program of this project. `harmony help` lists its commands.

mod audit;
mod booking;
mod compare;
mod dead_letters;
mod demo;
mod ending;
mod local;
mod localstack;
mod output;
mod sam_local;
mod signals;
mod stock;
mod target;

use std::{io, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

/// Books trips as sagas, on a local AWS or a deployed stack.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, subcommand_required = true, after_help = ending::HELP)]
struct Cli {
    #[command(flatten)]
    target: target::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Book every scenario in both variants and show how each ended
    Demo(demo::Options),
    /// Start a local AWS with the template and stock, and keep it running
    Local(local::Options),
    /// Stop the local AWS that `harmony local` started
    Down,
    /// Deploy to the LocalStack that AWS_ENDPOINT_URL names, and book every scenario there
    Localstack(localstack::Options),
    /// Book a trip, wait until it has ended, and show it
    #[command(after_help = ending::HELP)]
    Book(booking::Options),
    /// Show a booking and its timeline
    #[command(after_help = ending::SHOW_HELP)]
    Show(booking::ShowOptions),
    /// List the messages that were given up and wait for an operator
    Parked {
        /// Print one JSON document instead: see docs/command-line.md
        #[arg(long)]
        json: bool,
    },
    /// Put those messages back, and wait until their bookings have ended
    Redrive(dead_letters::Options),
    /// Check everything in the tables against what must always be true
    Audit(audit::Options),
    /// Put the same load on each mode in turn, and show the differences
    Compare(compare::Options),
    /// Put stock on sale, replacing what there was
    Load(stock::Options),
    /// Run the functions with `sam local`, in Docker, and check what they answer
    SamLocal(sam_local::Options),
}

/// Every error is reported to the user in one line.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(empty) = target::empty_option(&matches) {
        let message = format!("--{empty} is empty: is the variable that it came from set?");
        Cli::command().error(ErrorKind::InvalidValue, message).exit();
    }
    let result = match cli.command {
        Command::Demo(options) => wait_for(demo::run(&cli.target, &options)),
        Command::Local(options) => local::up(options).map(|()| ExitCode::SUCCESS),
        Command::Down => local::down().map(|()| ExitCode::SUCCESS),
        Command::Localstack(options) => wait_for(localstack::run(&cli.target, &options)),
        Command::Book(options) => wait_for(booking::book(&cli.target, options)),
        Command::Show(options) => wait_for(booking::show(&cli.target, &options)),
        Command::Parked { json } => wait_for(dead_letters::parked(&cli.target, json)),
        Command::Redrive(options) => wait_for(dead_letters::redrive(&cli.target, options)),
        Command::Audit(options) => wait_for(audit::audit(&cli.target, options)),
        Command::Compare(options) => wait_for(compare::run(&options)),
        Command::Load(options) => wait_for(stock::load(&cli.target, options)),
        Command::SamLocal(options) => sam_local::run(&options),
    };
    result.unwrap_or_else(|error| {
        match error.downcast_ref::<io::Error>() {
            // The reader of the output has gone, as in `harmony demo | head`.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            _ => output::complain(&error),
        }
        ExitCode::FAILURE
    })
}

/// Runs an asynchronous command.
fn wait_for<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background(); // an interrupted command must not wait, for example for a name server
    done
}

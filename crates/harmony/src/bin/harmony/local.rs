//! `harmony local` and `harmony down`.

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use harmony::docker;
use local_aws::{
    LocalAws,
    checkout::root,
    local::{self, key_and_value},
    stack::Running,
};
use traveller::TripRequest;

use crate::{
    Result,
    output::{Progress, say},
    sam_local,
    signals::{Signal, TICK},
    stock::{Days, load_into},
    wait_for,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    days: Days,
    /// The port to listen on [default: a free one]
    #[arg(long)]
    port: Option<u16>,
    /// Let containers reach it, and make it ready for `sam local invoke` with the events in events/
    #[arg(long)]
    docker: bool,
    /// A value for a parameter of the template; may be repeated
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = key_and_value)]
    parameters: Vec<(String, String)>,
}

/// The address that no other machine can reach.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long `harmony down` waits for the local AWS to end.
const END: Duration = Duration::from_secs(20);

pub fn up(options: Options) -> Result<()> {
    let root = root()?;
    let folder = Running::folder(&root);
    let Some(mut running) = Running::claim(&folder)? else {
        let at = Running::find(&folder)?.map(|found| format!(" at {}", found.stack.api_url)).unwrap_or_default();
        return Err(format!("a local AWS of this project is already running{at}: `harmony down` stops it").into());
    };
    let bind = if options.docker { docker::host_address()? } else { LOOPBACK };
    let mut aws = start(&root, options.parameters, bind, options.port)?;
    let lines = wait_for(load_into(aws.stack(), &options.days.dates()))?;
    if options.docker {
        wait_for(sam_local::prepare(aws.stack(), &folder.join("env-vars.json")))?;
    }

    // From here on a signal needs a clean-up. Before, being killed is enough: the launcher notices.
    let signal = Signal::watch()?;
    running.announce(aws.stack())?;
    say(welcome(aws.stack().api_url.as_str(), lines))?;
    if options.docker {
        say(
            "\nRun a function in Docker, once `sam build` has built it:\n  sam local invoke FlightFunction -e events/flight/command-reserve.json",
        )?;
    }
    while signal.came().is_none() {
        if !aws.is_running() {
            return Err(format!("the local AWS ended unexpectedly: see {}", log(&root).display()).into());
        }
        if !running.keep(aws.stack())? {
            return Err("another local AWS of this project was started after its files were cleaned away".into());
        }
        thread::sleep(TICK);
    }
    drop(aws);
    Ok(say("the local AWS has ended")?)
}

/// Starts a local AWS that logs into this project's folder.
pub fn start(root: &Path, parameters: Vec<(String, String)>, bind: IpAddr, port: Option<u16>) -> Result<LocalAws> {
    let _progress = Progress::of("starting a local AWS and deploying template.yaml to it");
    Ok(LocalAws::start(local::LocalAwsOptions {
        parameters,
        bind,
        port,
        log: Some(log(root)),
        ..local::LocalAwsOptions::default()
    })?)
}

fn log(root: &Path) -> std::path::PathBuf {
    Running::folder(root).join("local.log")
}

fn welcome(api_url: &str, lines: usize) -> String {
    let program = env::args().next().unwrap_or_else(|| "harmony".to_owned());
    format!(
        "{lines} lines of stock are on sale. In another terminal, set the address of the API:
  export API={api_url}

Book a trip:
  curl -i \"$API/bookings\" \\
    -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first-trip' -d '{}'

See how it ended, with the booking_id from the answer:
  curl \"$API/bookings/BOOKING_ID\"
  {program} show BOOKING_ID

Ctrl-C ends it, and so does `{program} down`. Nothing is kept.",
        body(&TripRequest::default())
    )
}

/// A request with one line per field.
fn body(trip: &TripRequest) -> String {
    let body = trip.to_json();
    let parts = travel::part_names();
    let names = ["variant", "traveller"].into_iter().chain(parts.iter().map(|part| part.as_str())).chain(["payment"]);
    let lines = names.filter_map(|name| Some(format!("\n      \"{name}\": {}", body.get(name)?)));
    let lines: Vec<_> = lines.collect();
    format!("{{{}}}", lines.join(","))
}

pub fn down() -> Result<()> {
    let folder = Running::folder(&root()?);
    if !Running::is_claimed(&folder)? {
        return Ok(say("no local AWS of this project is running")?);
    }
    let Some(found) = Running::find(&folder)? else {
        return Err("a local AWS of this project is just starting or ending: try again in a few seconds".into());
    };
    let pid = found.harmony_pid.to_string();
    // The shell has `kill` built in; not every machine has the program. The process exists: it holds the lock.
    let killed = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).output()?;
    let deadline = Instant::now() + END;
    while Running::is_claimed(&folder)? {
        if Instant::now() >= deadline {
            let stderr = String::from_utf8_lossy(&killed.stderr);
            return Err(format!("process {pid} was asked to end but did not: {}; kill it", stderr.trim()).into());
        }
        thread::sleep(TICK / 2);
    }
    Ok(say("the local AWS has ended")?)
}

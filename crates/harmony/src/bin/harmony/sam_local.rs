//! `harmony sam-local`: runs the functions with `sam local`, in Docker, against a local AWS, and checks their answers.

use std::{
    env, fs,
    io::{self, Read},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use harmony::docker::{self, ADD_HOST, DockerError, logical_id};
use local_aws::{LocalAws, Stack, checkout::root, cloud, local, stack::Running};
use operator::{
    events::{self, ENDS, Sample, difference},
    loader::dates,
};
use saga::Status;
use serde_json::{Value, json};
use traveller::{Client, TripRequest, client::fresh_key, scenarios::VARIANTS, show::plain};

use crate::{
    Result,
    booking::PATIENCE,
    output::{Progress, say},
    signals::{Signal, TICK},
    stock::load_into,
    wait_for,
};

#[derive(Args)]
pub struct Options {
    /// Send only the events whose name begins with this, such as `payment/` [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    events: String,
    /// How many functions to run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
}

/// The exit code of test programs that were skipped.
const SKIPPED: u8 = 77;
/// How long one `sam local invoke` may take. The first one builds an image.
const INVOCATION: Duration = Duration::from_secs(120);
/// How long `sam` may take to stop its containers.
const END: Duration = Duration::from_secs(20);

pub fn run(options: &Options) -> Result<ExitCode> {
    let root = root()?;
    let address = match docker::host_address() {
        Err(error @ (DockerError::NoClient(_) | DockerError::NoEngine(_))) => {
            eprintln!("harmony: SKIPPED, nothing was checked: {error}");
            return Ok(ExitCode::from(SKIPPED));
        }
        address => address?,
    };
    let samples: Vec<_> = events::samples(&root)?;
    let samples: Vec<_> = samples.into_iter().filter(|sample| sample.name.starts_with(&options.events)).collect();
    if samples.is_empty() {
        return Err(format!("no event's name begins with {}: see events/", options.events).into());
    }
    let built = root.join(".aws-sam/build/template.yaml");
    if !built.is_file() {
        return Err("the functions are not built for Lambda: run `sam build`".into());
    }
    let signal = Signal::watch()?;

    let folder = Running::folder(&root).join("sam-local");
    let aws = start(address, &folder)?;
    let env_vars = folder.join("env-vars.json");
    wait_for(load_into(aws.stack(), &dates(TripRequest::default().first_day(), 3)))?;
    wait_for(prepare(aws.stack(), &env_vars))?;
    let sam = Sam { root, env_vars, region: aws.stack().region.clone(), signal };
    sam.check()?;

    let started = Instant::now();
    let mut checked = sam.invoke_all(&samples, options.jobs)?;
    if options.events.is_empty() {
        checked.extend(ends(aws.stack(), &sam.signal)?);
        checked.extend(sam.book(&folder)?);
    }
    let wrong = checked.iter().filter(|checked| checked.wrong.is_some()).count();
    let all = checked.len();
    say(format!("{} of {all} as expected, in {:.0?}", all - wrong, started.elapsed()))?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(address: std::net::IpAddr, folder: &Path) -> Result<LocalAws> {
    let _progress = Progress::of("starting a local AWS that containers can reach");
    let log = Some(folder.join("local.log"));
    Ok(LocalAws::start(local::LocalAwsOptions { bind: address, log, ..local::LocalAwsOptions::default() })?)
}

/// Sets up a stack for the events in `events/`, and writes the functions' environment to a file.
pub async fn prepare(stack: &Stack, env_vars: &Path) -> Result<()> {
    events::prepare(stack).await?;
    let text = serde_json::to_string_pretty(&docker::env_vars(stack).await?)?;
    Ok(fs::write(env_vars, text).map_err(|error| format!("{} cannot be written: {error}", env_vars.display()))?)
}

/// The number of checks, and how many failed.
struct Checked {
    wrong: Option<String>,
}

impl Checked {
    /// Prints the result of a check.
    fn report(name: &str, wrong: Option<String>, took: Duration) -> io::Result<Self> {
        let mark = if wrong.is_some() { "✗" } else { "✓" };
        let wrong_line = wrong.as_ref().map(|wrong| format!("\n    {wrong}")).unwrap_or_default();
        say(format!("{mark} {name:55} {:5.1} s{wrong_line}", took.as_secs_f32()))?;
        Ok(Self { wrong })
    }
}

/// Checks how the bookings of the events ended. The functions on the local AWS take part in that.
fn ends(stack: &Stack, signal: &Signal) -> Result<Vec<Checked>> {
    let api = Client::new(&stack.api_url)?;
    let mut checked = Vec::new();
    for (number, _, status) in ENDS {
        let id = events::booking(number);
        let started = Instant::now();
        let booking = unless(signal, api.follow_until(|now| now == status, &id, PATIENCE, |_| ()))?;
        let wrong = booking.err().map(|error| error.to_string());
        checked.push(Checked::report(&format!("booking {number} of the events: {status}"), wrong, started.elapsed())?);
    }
    Ok(checked)
}

/// Runs this work unless the user interrupts it.
fn unless<T>(signal: &Signal, work: impl Future<Output = T>) -> Result<T> {
    wait_for(async { signal.unless(work).await.ok_or_else(interrupted) })
}

fn interrupted() -> Box<dyn std::error::Error> {
    "interrupted; what was started is stopped".into()
}

/// The AWS SAM CLI, in an environment that leads only to the local AWS.
struct Sam {
    root: PathBuf,
    env_vars: PathBuf,
    region: Option<String>,
    signal: Signal,
}

impl Sam {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = cloud::sam();
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        command.env("AWS_DEFAULT_REGION", self.region.as_deref().unwrap_or("eu-central-1"));
        // SAM asks STS for the account, and waits for seconds where there is no answer. It works without.
        command.env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9").env("AWS_MAX_ATTEMPTS", "1");
        command.args(["local"]).args(arguments).arg("--env-vars").arg(&self.env_vars);
        command.args(["--add-host", ADD_HOST, "--skip-pull-image"]).current_dir(&self.root);
        // A group of its own: Ctrl-C in a terminal then reaches only this process, which ends the others in order.
        command.process_group(0).stdin(Stdio::null());
        command
    }

    fn check(&self) -> Result<()> {
        match self.command(&["--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("`sam` cannot be run ({error}): install the AWS SAM CLI, or `make lint`").into()),
        }
    }

    /// Sends each event to its function, several at once.
    fn invoke_all(&self, samples: &[Sample], jobs: u8) -> Result<Vec<Checked>> {
        let [first, others @ ..] = samples else { return Ok(Vec::new()) };
        // Alone: SAM builds the image of the runtime, which the others then use.
        let mut checked = vec![self.checked(first)?];
        let next = Mutex::new(others.iter());
        let take = || next.lock().ok().and_then(|mut next| next.next()); // no holder of the lock panics
        let work = || -> std::result::Result<Vec<Checked>, String> {
            let mut checked = Vec::new();
            while let Some(sample) = take() {
                checked.push(self.checked(sample).map_err(|error| error.to_string())?);
            }
            Ok(checked)
        };
        let done = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
        });
        for done in done {
            checked.extend(done.map_err(|_| "an invocation could not be followed")??);
        }
        Ok(checked)
    }

    fn checked(&self, sample: &Sample) -> Result<Checked> {
        let started = Instant::now();
        let wrong = match self.invoke(sample)? {
            Ok(answer) => difference(&sample.answer, &answer),
            Err(error) => Some(error),
        };
        Ok(Checked::report(&format!("events/{}", sample.name), wrong, started.elapsed())?)
    }

    /// The function's answer, or why there is none.
    fn invoke(&self, sample: &Sample) -> Result<std::result::Result<Value, String>> {
        let path = sample.path.display().to_string();
        let mut command = self.command(&["invoke", &logical_id(&sample.function), "--event", &path]);
        let mut job = Job::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let stdout = reader(job.child.stdout.take());
        let stderr = reader(job.child.stderr.take());
        let deadline = Instant::now() + INVOCATION;
        while job.child.try_wait()?.is_none() {
            if self.signal.came().is_some() {
                return Err(interrupted());
            }
            if Instant::now() >= deadline {
                return Ok(Err(format!("no answer after {} s", INVOCATION.as_secs())));
            }
            thread::sleep(TICK);
        }
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        let answer = stdout.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        Ok(serde_json::from_str(answer).map_err(|_| {
            let lines: Vec<_> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = lines[lines.len().saturating_sub(4)..].iter().map(|line| plain(line));
            last.collect::<Vec<_>>().join("\n    ")
        }))
    }

    /// Books a trip in each variant through `sam local start-api`; the other functions run on the local AWS.
    fn book(&self, folder: &Path) -> Result<Vec<Checked>> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let log = fs::File::create(folder.join("start-api.log"))?;
        let arguments = ["start-api", "--port", &port.to_string(), "--warm-containers", "LAZY"];
        let mut command = self.command(&arguments);
        let mut api = Job::start(command.stdout(log.try_clone()?).stderr(log))?;
        let client = Client::new(&format!("http://127.0.0.1:{port}"))?;
        let deadline = Instant::now() + INVOCATION;
        loop {
            match unless(&self.signal, client.send("GET", "/openapi.yaml", &[], ""))? {
                Ok(answer) if answer.status == 200 => break,
                _ if api.child.try_wait()?.is_some() || Instant::now() >= deadline => {
                    let log = folder.join("start-api.log");
                    return Err(format!("`sam local start-api` does not answer: see {}", log.display()).into());
                }
                _ => thread::sleep(TICK),
            }
        }
        let mut checked = Vec::new();
        for variant in VARIANTS {
            let request = TripRequest { variant, ..TripRequest::default() };
            let started = Instant::now();
            let booked = unless(&self.signal, async {
                let id = client.book_accepted(&request, &fresh_key("sam-local")).await?.booking_id;
                client.wait_until_settled(&id, PATIENCE).await
            })?;
            let wrong = match booked {
                Ok(booking) if booking.status == Status::Confirmed => None,
                Ok(booking) => Some(format!("{}, {}", booking.status, json!(booking.reason))),
                Err(error) => Some(error.to_string()),
            };
            let name = format!("start-api: {} booking confirmed", variant.name());
            checked.push(Checked::report(&name, wrong, started.elapsed())?);
        }
        Ok(checked)
    }
}

fn reader(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes)); // as much as there is
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A running `sam`, which is stopped with its containers when the value is dropped.
struct Job {
    child: Child,
}

impl Job {
    fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self { child: command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))? })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.child.id().to_string();
        // The shell has `kill` built in; not every machine has the program.
        let _ = Command::new("sh").args(["-c", "kill -INT \"$1\"", "sh", &pid]).output();
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(TICK);
        }
        let _ = self.child.kill(); // if it is still there, its containers may be too
        let _ = self.child.wait();
    }
}

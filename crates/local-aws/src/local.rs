//! A local AWS, with the template deployed to it, for as long as a value lives.
//!
//! The launcher ends when its standard input does. This process holds the other end of that pipe, so that however it
//! ends, killed included, nothing is left running.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Stack,
    checkout::{CheckoutError, LAUNCHER, root},
};

/// How long the launcher may take to start and to deploy.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// Why there is no local AWS.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The launcher is in the project's folder.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The launcher is a Python program with requirements.
    #[error("{0} is missing: run `make setup`")]
    NoPython(PathBuf),
    /// The folder for the log cannot be made.
    #[error("the folder of the log {path} cannot be made: {cause}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The launcher cannot be run.
    #[error("{program} cannot be run: {cause}; run `make setup` again")]
    NotRun {
        /// Its Python.
        program: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The launcher gave up.
    #[error("the local AWS did not start: {0}")]
    Ended(String),
    /// The launcher takes longer than anyone should wait.
    #[error("the local AWS did not start within {} s: see {log}, or start fewer programs at once", START.as_secs())]
    Late {
        /// Where it writes.
        log: String,
    },
    /// The launcher printed something else than where the stack is.
    #[error("the launcher printed {line:?}, which does not describe a stack: {cause}")]
    NoStack {
        /// What it printed.
        line: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stack's name, which the names of its tables and functions begin with.
    pub stack_name: String,
    /// Values for the template's parameters.
    pub parameters: Vec<(String, String)>,
    /// Environment variables for the launcher, such as `SFN_WAIT_SCALE`. It passes on only those that it knows.
    pub env: Vec<(String, String)>,
    /// Where the log goes, the functions' lines included; without it, nowhere.
    pub log: Option<PathBuf>,
    /// Where each piece of its work is recorded, for `make compare`; without it, nowhere.
    pub work: Option<PathBuf>,
    /// The address of this machine to listen on.
    pub bind: IpAddr,
    /// The port to listen on; without it, a free one.
    pub port: Option<u16>,
    /// A folder with a folder for each function to deploy, seen from the project's; without it, `target/lambda`.
    pub functions: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stack_name: "harmony".into(),
            parameters: Vec::new(),
            env: Vec::new(),
            log: None,
            work: None,
            bind: Ipv4Addr::LOCALHOST.into(),
            port: None,
            functions: None,
        }
    }
}

/// A local AWS that runs until this value is dropped or this process ends.
#[derive(Debug)]
pub struct LocalAws {
    stack: Stack,
    launcher: Launcher,
}

#[derive(Debug)]
struct Launcher {
    child: Child,
    /// Closed, it tells the launcher to end.
    lifeline: Option<ChildStdin>,
}

impl LocalAws {
    /// Starts a local AWS and deploys the template. Returns when the stack stands, which takes a few seconds.
    pub fn start(options: Options) -> Result<Self, LocalError> {
        let root = root()?;
        let python = root.join(".venv/bin/python");
        if !python.exists() {
            return Err(LocalError::NoPython(python));
        }
        let mut command = Command::new(&python);
        // Isolated from the user's own settings of Python, and leaving no `__pycache__` behind.
        command.current_dir(&root).args(["-I", "-B", LAUNCHER]);
        command.args(["--template", "template.yaml", "--stack", &options.stack_name]);
        for (key, value) in &options.parameters {
            command.args(["--parameter", &format!("{key}={value}")]);
        }
        if let Some(log) = &options.log {
            if let Some(folder) = log.parent() {
                fs::create_dir_all(folder).map_err(|cause| LocalError::Log { path: log.clone(), cause })?;
            }
            command.arg("--log").arg(std::path::absolute(log).unwrap_or_else(|_| log.clone()));
        }
        if let Some(work) = &options.work {
            command.arg("--work").arg(std::path::absolute(work).unwrap_or_else(|_| work.clone()));
        }
        command.args(["--bind", &options.bind.to_string()]);
        if let Some(port) = options.port {
            command.args(["--port", &port.to_string()]);
        }
        if let Some(functions) = &options.functions {
            command.arg("--functions").arg(functions);
        }
        command.envs(options.env).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C in a terminal then reaches this process only, which ends the launcher in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(|cause| LocalError::NotRun { program: python, cause })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut launcher = Launcher { lifeline: child.stdin.take(), child };

        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            // Nobody listens any more if it took too long.
            let _ = sender.send(if let Some(Ok(_)) = read { line } else { String::new() });
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut text)); // as far as it is text
            text
        });
        let Ok(line) = receiver.recv_timeout(START) else {
            let log = options.log.map_or("a log (there is none: give one)".into(), |log| log.display().to_string());
            return Err(LocalError::Late { log });
        };
        if line.trim().is_empty() {
            let status = launcher.end().map_err(|cause| LocalError::NotRun { program: root, cause })?;
            let printed = stderr.join().unwrap_or_default();
            let printed = printed.trim().rsplit('\n').next().unwrap_or_default().trim_start_matches("local_aws.py: ");
            return Err(LocalError::Ended(if printed.is_empty() { status.to_string() } else { printed.to_owned() }));
        }
        match serde_json::from_str(&line) {
            Ok(stack) => Ok(Self { stack, launcher }),
            Err(cause) => Err(LocalError::NoStack { line: line.trim().to_owned(), cause: cause.to_string() }),
        }
    }

    /// What is deployed.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// From now on a share of what coordinators do is refused, as a `throttle` or a `denial`; zero ends that.
    pub fn refuse(&mut self, share: f64, how: &str) -> std::io::Result<()> {
        let order = serde_json::json!({"refuse": share, "as": how});
        let Some(lifeline) = &mut self.launcher.lifeline else { return Ok(()) }; // it is there until the end
        writeln!(lifeline, "{order}")
    }

    /// Whether the launcher is still there. It ends early only if somebody kills it.
    pub fn is_running(&mut self) -> bool {
        matches!(self.launcher.child.try_wait(), Ok(None))
    }
}

impl Launcher {
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.lifeline = None;
        let deadline = Instant::now() + END;
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        if self.child.try_wait()?.is_none() {
            self.child.kill()?;
        }
        self.child.wait()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.end(); // there is nobody left to tell
    }
}

/// Reads `KEY=VALUE`.
pub fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".into()),
    }
}

/// The outputs of a stack by name.

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_found_from_a_test() {
        let root = root().unwrap();
        assert!(root.join(LAUNCHER).is_file());
    }

    #[test]
    fn a_parameter_may_hold_an_equals_sign() {
        assert_eq!(key_and_value("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(key_and_value("A="), Ok(("A".into(), String::new())));
        assert!(key_and_value("=b").is_err());
        assert!(key_and_value("A").is_err());
    }
}

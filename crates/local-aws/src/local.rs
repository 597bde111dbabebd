//! A local AWS with the template deployed to it, which runs as long as a value lives.
//!
//! The launcher ends when its standard input does. This process holds the other end of that pipe, so nothing is left
//! running however the process ends, even if it is killed.

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
/// How long the launcher may take to end.
const END: Duration = Duration::from_secs(10);

/// Why there is no local AWS.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The launcher was not found.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The launcher's Python environment is missing.
    #[error("{0} is missing: run `make setup`")]
    NoPython(PathBuf),
    #[error("the folder of the log {path} cannot be made: {cause}")]
    Log { path: PathBuf, cause: std::io::Error },
    #[error("{program} cannot be run: {cause}; run `make setup` again")]
    NotRun { program: PathBuf, cause: std::io::Error },
    #[error("the local AWS did not start: {0}")]
    Ended(String),
    /// The launcher took too long.
    #[error("the local AWS did not start within {} s: see {log}, or start fewer programs at once", START.as_secs())]
    Late { log: String },
    /// The launcher printed something other than the description of a stack.
    #[error("the launcher printed {line:?}, which does not describe a stack: {cause}")]
    NoStack { line: String, cause: String },
}

/// How to start a local AWS.
#[derive(Clone, Debug)]
pub struct LocalAwsOptions {
    /// The stack's name, which prefixes the names of its tables and functions.
    pub stack_name: String,
    /// Values for the template's parameters.
    pub parameters: Vec<(String, String)>,
    /// Environment variables for the launcher, such as `SFN_WAIT_SCALE`. It passes on only those that it knows.
    pub env: Vec<(String, String)>,
    /// The file for the log, including the functions' log lines; none for no log.
    pub log: Option<PathBuf>,
    /// The file for the record of all work done, for `make compare`; none for no record.
    pub work: Option<PathBuf>,
    /// The address of this machine to listen on.
    pub bind: IpAddr,
    /// The port to listen on; none for a free one.
    pub port: Option<u16>,
    /// A folder with one folder per function to deploy, relative to the project's; none for `target/lambda`.
    pub functions: Option<PathBuf>,
}

impl Default for LocalAwsOptions {
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
    /// Closing it tells the launcher to end.
    lifeline: Option<ChildStdin>,
}

impl LocalAws {
    /// Starts a local AWS and deploys the template. Returns when the stack is complete, which takes a few seconds.
    pub fn start(options: LocalAwsOptions) -> Result<Self, LocalError> {
        let root = root()?;
        let python = root.join(".venv/bin/python");
        if !python.exists() {
            return Err(LocalError::NoPython(python));
        }
        let mut command = Command::new(&python);
        // Isolated from the user's own Python settings, and without leaving a `__pycache__` behind.
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
        // A group of its own: Ctrl-C in a terminal then reaches only this process, which ends the launcher in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(|cause| LocalError::NotRun { program: python, cause })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut launcher = Launcher { lifeline: child.stdin.take(), child };

        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            // If it took too long, the receiver is gone.
            let _ = sender.send(if let Some(Ok(_)) = read { line } else { String::new() });
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut text)); // as far as it is valid text
            text
        });
        let Ok(line) = receiver.recv_timeout(START) else {
            let log =
                options.log.map_or("its log (none was requested: set one)".into(), |log| log.display().to_string());
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

    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// From now on, refuses this share of the coordinator's requests, as a `throttle` or a `denial`; zero ends that.
    pub fn refuse(&mut self, share: f64, how: &str) -> std::io::Result<()> {
        let order = serde_json::json!({"refuse": share, "as": how});
        let Some(lifeline) = &mut self.launcher.lifeline else { return Ok(()) }; // it exists until the end
        writeln!(lifeline, "{order}")
    }

    /// Whether the launcher is still running. It only ends early if it is killed.
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
        let _ = self.end(); // there is nowhere left to report to
    }
}

/// Parses `KEY=VALUE`.
pub fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".into()),
    }
}

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

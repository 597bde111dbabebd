//! What the system knows about a process: <https://man7.org/linux/man-pages/man5/proc.5.html>.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use local_aws::Stack;

use crate::Outcome;

/// A process, by its folder in `/proc`.
#[derive(Debug)]
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn new(id: u32) -> Self {
        Self(format!("/proc/{id}").into())
    }

    /// The process that serves a function: the child of the local AWS with the function's name in its environment.
    pub(crate) fn of_function(stack: &Stack, function: &str) -> Outcome<Self> {
        let parent = stack.pid.ok_or("the stack is not on the local AWS")?;
        let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}\0");
        for entry in fs::read_dir("/proc")? {
            let process = Self(entry?.path());
            let is_named = fs::read(process.0.join("environ"))
                .is_ok_and(|all| all.windows(name.len()).any(|part| part == name.as_bytes()));
            if is_named && process.parent() == Some(parent) {
                return Ok(process);
            }
        }
        Err(format!("no process serves {function}").into())
    }

    fn parent(&self) -> Option<u32> {
        self.status("PPid").ok()?.parse().ok()
    }

    fn status(&self, name: &str) -> Outcome<String> {
        let status = fs::read_to_string(self.0.join("status"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.ok_or_else(|| format!("a process without {name}"))?.trim().to_owned())
    }

    pub(crate) fn id(&self) -> &str {
        self.0.file_name().and_then(|id| id.to_str()).unwrap_or_default() // a number
    }

    /// Its resident memory, in MB.
    pub(crate) fn resident(&self) -> Outcome<f64> {
        Ok(self.status("VmRSS")?.trim_end_matches(" kB").parse::<f64>()? / 1e3)
    }

    /// How often its first thread has waited and was woken again so far.
    pub(crate) fn waits(&self) -> Outcome<u64> {
        Ok(self.status("voluntary_ctxt_switches")?.parse()?)
    }

    /// The processor time of all its threads so far: the first field of `schedstat`.
    pub(crate) fn processor_time(&self) -> Outcome<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(self.0.join("task"))? {
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue }; // just ended
            sum += text.split_whitespace().next().ok_or("no schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// The path of a program, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// An empty folder for the files of a measurement.
pub(crate) fn fresh(folder: &Path) -> Outcome<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}

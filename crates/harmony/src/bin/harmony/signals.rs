//! Signals that ask a command to end: Ctrl-C, `kill`, and a closed terminal.

use std::{
    io,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// How often to check whether it is time to end.
pub const TICK: Duration = Duration::from_millis(50);

/// The signal that has arrived, if any.
#[derive(Clone)]
pub struct Signal(Arc<AtomicUsize>);

impl Signal {
    /// From now on signals are recorded here and do not end this process. `nohup` starts programs with SIGHUP ignored,
    /// so that they outlive the terminal: for them it stays ignored.
    pub fn watch() -> io::Result<Self> {
        let came = Self(Arc::default());
        let hang_up = if hang_up_is_ignored() { None } else { Some(SIGHUP) };
        for signal in [SIGINT, SIGTERM].into_iter().chain(hang_up) {
            flag::register_usize(signal, Arc::clone(&came.0), signal.unsigned_abs() as usize)?;
        }
        Ok(came)
    }

    /// The number of the signal, if one has arrived.
    pub fn came(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|number| *number > 0)
    }

    /// The result of this work; none if a signal arrived first.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let came = async {
            while self.came().is_none() {
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = came => None,
        }
    }
}

/// Whether this process was started with SIGHUP ignored. Child processes inherit that and can report it: a shell that
/// sends itself the signal survives.
fn hang_up_is_ignored() -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -HUP $$"]).stdin(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

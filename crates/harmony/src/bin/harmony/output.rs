//! Output for the user: results on standard output, progress on standard error.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use traveller::show::plain;

/// Prints one or more lines. Unlike `println!` it does not panic when the reader has gone.
pub fn say(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a value as one line of JSON. The format is documented in `docs/command-line.md`, and tests check it.
pub fn say_json(value: &impl serde::Serialize) -> crate::Result<()> {
    Ok(say(serde_json::to_string(value)?)?)
}

/// Prints an error to standard error, safely and on one line, whatever text it contains.
pub fn complain(text: impl Display) {
    eprintln!("harmony: {}", plain(&text.to_string()));
}

/// A task that takes a while, shown while it lasts, on a terminal only.
pub struct Progress(ProgressBar);

/// Several tasks at once, one line each.
#[derive(Default)]
pub struct ProgressGroup(MultiProgress);

fn spinning(bar: ProgressBar, message: String) -> Progress {
    bar.set_style(style("{spinner} {wide_msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    Progress(bar)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()) // ours are all valid
}

impl Progress {
    /// A task of unknown length.
    pub fn of(what: impl Display) -> Self {
        spinning(ProgressBar::new_spinner(), format!("{what} …"))
    }

    /// A task with this many steps.
    pub fn counting(what: impl Display, things: usize) -> Self {
        let bar = ProgressBar::new(things as u64);
        bar.set_style(style("{msg} {wide_bar} {pos}/{len}"));
        bar.set_message(what.to_string());
        Self(bar)
    }

    /// This many more steps are done.
    pub fn done(&self, things: usize) {
        self.0.inc(things as u64);
    }

    /// Prints something while the task is shown.
    pub fn aside<T>(&self, say: impl FnOnce() -> T) -> T {
        self.0.suspend(say)
    }

    /// Updates the description of the task.
    pub fn now(&self, what: impl Display) {
        self.0.set_message(what.to_string());
    }

    /// The task is over; its line stays.
    pub fn end(self, what: impl Display) {
        self.0.set_style(style("  {wide_msg}"));
        self.0.finish_with_message(what.to_string());
    }
}

impl ProgressGroup {
    /// Adds a task.
    pub fn add(&self, what: impl Display) -> Progress {
        spinning(self.0.add(ProgressBar::new_spinner()), what.to_string())
    }

    /// All tasks are over, and their lines can go.
    pub fn clear(&self) -> io::Result<()> {
        self.0.clear()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

#[cfg(test)]
pub mod tests {
    use serde::Serialize;
    use serde_json::Value;

    /// The JSON documented in docs/command-line.md under the heading of a command.
    pub fn documented(command: &str) -> Value {
        let page = include_str!("../../../../../docs/command-line.md");
        let (_, section) = page.split_once(&format!("\n### {command}\n")).unwrap();
        let (_, json) = section.split_once("```json\n").unwrap();
        serde_json::from_str(json.split_once("```").unwrap().0).unwrap()
    }

    /// Checks a command's output against its documentation.
    pub fn is_documented(command: &str, printed: &impl Serialize) {
        assert_eq!(serde_json::to_value(printed).unwrap(), documented(command));
    }
}

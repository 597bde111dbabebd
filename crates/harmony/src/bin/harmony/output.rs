//! What the user sees: results on standard output, progress on standard error.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use traveller::show::plain;

/// Prints a line or more. Unlike `println!` it does not panic when nobody reads any more.
pub fn say(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a value as one line of JSON. Their forms are documented in `docs/command-line.md`, where tests hold them.
pub fn say_json(value: &impl serde::Serialize) -> crate::Result<()> {
    Ok(say(serde_json::to_string(value)?)?)
}

/// Says on standard error what went wrong, in one line, whatever an answer or a program has put into it.
pub fn complain(text: impl Display) {
    eprintln!("harmony: {}", plain(&text.to_string()));
}

/// Something that takes a while. Shown while it lasts, on a terminal only.
pub struct Progress(ProgressBar);

/// Several things at once, a line each.
#[derive(Default)]
pub struct Several(MultiProgress);

fn spinning(bar: ProgressBar, message: String) -> Progress {
    bar.set_style(style("{spinner} {wide_msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    Progress(bar)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()) // ours are all good
}

impl Progress {
    /// Nobody knows how long it will take.
    pub fn of(what: impl Display) -> Self {
        spinning(ProgressBar::new_spinner(), format!("{what} …"))
    }

    /// So many things have to be done.
    pub fn counting(what: impl Display, things: usize) -> Self {
        let bar = ProgressBar::new(things as u64);
        bar.set_style(style("{msg} {wide_bar} {pos}/{len}"));
        bar.set_message(what.to_string());
        Self(bar)
    }

    /// So many more are done.
    pub fn done(&self, things: usize) {
        self.0.inc(things as u64);
    }

    /// Says something in between.
    pub fn aside<T>(&self, say: impl FnOnce() -> T) -> T {
        self.0.suspend(say)
    }

    /// Something new is known.
    pub fn now(&self, what: impl Display) {
        self.0.set_message(what.to_string());
    }

    /// It is over; the line stays.
    pub fn end(self, what: impl Display) {
        self.0.set_style(style("  {wide_msg}"));
        self.0.finish_with_message(what.to_string());
    }
}

impl Several {
    /// One of them.
    pub fn add(&self, what: impl Display) -> Progress {
        spinning(self.0.add(ProgressBar::new_spinner()), what.to_string())
    }

    /// All are over, and their lines can go.
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

    /// The JSON that docs/command-line.md has under the heading of a command.
    pub fn documented(command: &str) -> Value {
        let page = include_str!("../../../../../docs/command-line.md");
        let (_, section) = page.split_once(&format!("\n### {command}\n")).unwrap();
        let (_, json) = section.split_once("```json\n").unwrap();
        serde_json::from_str(json.split_once("```").unwrap().0).unwrap()
    }

    /// Holds what a command prints against its documentation.
    pub fn is_documented(command: &str, printed: &impl Serialize) {
        assert_eq!(serde_json::to_value(printed).unwrap(), documented(command));
    }
}

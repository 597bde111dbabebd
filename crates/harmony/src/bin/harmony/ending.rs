//! How a command ended, as scripts see it.

use std::process::ExitCode;

use saga::Status;

/// The exit codes in `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done; of `book`: confirmed
  1    something went wrong, and standard error says what
  2    the command line is wrong
  3    the booking failed
  4    the booking needs an operator
  5    the booking was accepted, but did not end in time
  6    the booking was not accepted
  7    it is unknown whether the booking was accepted: send it again with the same --key
  130  interrupted (128 and the number of the signal)";

/// The exit codes of `show`, which has done its work when it has shown a booking.
pub const SHOW_HELP: &str = "\
Exit codes: 0 if it is shown; with --wait the same as for `harmony book`: 0 confirmed, 3 failed, 4 needs an operator,
5 not ended in time; 1 if something went wrong";

/// The possible ends of a booking, and of an attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// The booking has this status.
    Seen(Status),
    /// It was accepted, but has not ended in time.
    NotEnded,
    /// It was refused, or not sent.
    NotAccepted,
    /// It was sent, but it is unknown whether it was accepted.
    Unclear,
    /// A signal came.
    Interrupted(u8),
}

impl From<CommandEnd> for ExitCode {
    fn from(end: CommandEnd) -> Self {
        Self::from(match end {
            CommandEnd::Seen(Status::Confirmed) => 0,
            CommandEnd::Seen(Status::Failed) => 3,
            CommandEnd::Seen(Status::NeedsOperator) => 4,
            CommandEnd::Seen(Status::Pending | Status::Compensating) | CommandEnd::NotEnded => 5,
            CommandEnd::NotAccepted => 6,
            CommandEnd::Unclear => 7,
            CommandEnd::Interrupted(signal) => 128 + signal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_and_the_page_know_every_exit_code() {
        let page = include_str!("../../../../../docs/command-line.md");
        for code in ["0", "1", "2", "3", "4", "5", "6", "7", "130"] {
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(code)), "{code}");
            assert!(page.lines().any(|line| line.starts_with(&format!("| {code}"))), "{code}");
        }
    }
}

//! `harmony audit`: holds everything that the tables of a stack hold against what must always be true.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use console::Style;
use jiff::{SignedDuration, Timestamp};
use operator::audit::{
    Audit, AuditViolation, BookingRecords, Deadline,
    whole::{AuditError, AuditOptions, AuditReport, Finding, SLACK},
};
use serde::Serialize;
use store::JournalEntry;
use traveller::show::{Look, count, plain, render};

use crate::{
    Result,
    output::{Progress, complain, say, say_json},
    target,
};

#[derive(Args)]
pub struct Options {
    /// Assume that nothing is under way: a pending booking is a violation, and all stock must add up exactly
    #[arg(long)]
    all_ended: bool,
    /// Age in seconds at which a pending booking is a violation [default: an hour more than the stack's
    /// PendingMaxAgeSeconds]
    #[arg(long, value_name = "SECONDS", conflicts_with = "all_ended")]
    stuck_after: Option<u32>,
    /// Print one line per violation, without timelines
    #[arg(long)]
    brief: bool,
    /// How many items to read at once [default: as many as fit into a megabyte]
    #[arg(long, value_name = "ITEMS", value_parser = clap::value_parser!(i32).range(1..))]
    page: Option<i32>,
    /// Print one JSON document instead: see docs/command-line.md
    #[arg(long)]
    json: bool,
}

/// The output of `audit --json`.
#[derive(Serialize)]
struct Audited {
    violations: Vec<Violated>,
    /// Stock lines that changed while they were read, so that they could not be checked.
    in_motion: Vec<String>,
    /// How many bookings there are in each status.
    bookings: BTreeMap<&'static str, u64>,
    /// How many of those were not checked, because their journals may have expired.
    expired: u64,
    stock_lines: u64,
    journal_items: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Violated {
    kind: &'static str,
    about: String,
    says: String,
}

pub async fn audit(target: &target::Options, options: Options) -> Result<ExitCode> {
    let stack = target.stack().await?;
    let audit = Audit::of(&stack, &stack.sdk().await?)?;
    let now = Timestamp::now();
    let before = |age: SignedDuration| now.saturating_sub(age).unwrap_or(Timestamp::MIN);
    let stuck_after = match options.stuck_after {
        Some(seconds) => SignedDuration::from_secs(seconds.into()),
        None => stack.pending_max_age()? + SLACK,
    };
    let accepted_before = if options.all_ended { Timestamp::MAX } else { before(stuck_after) };
    let reading = AuditOptions {
        deadline: Deadline { accepted_before, may_need_operator: true },
        is_at_rest: options.all_ended,
        journal_since: before(stack.journal_retention()?),
        page: options.page,
        charges: AuditOptions::CHARGES,
    };
    let size = match audit.size().await {
        Err(AuditError::Store(error)) if stack.is_local() => {
            let at = stack.endpoint.as_deref().unwrap_or_default();
            return Err(format!("the local AWS at {at} does not answer: see whether it still runs ({error})").into());
        }
        size => size?,
    };
    let progress = Progress::counting("auditing", usize::try_from(size)?);
    let look = Look::of_stdout();
    let (mut violations, mut in_motion) = (Vec::new(), Vec::new());
    let on_finding = |finding: Finding<'_>| match finding {
        _ if !options.json => progress.aside(|| print_finding(&finding, look, options.brief)),
        Finding::InMotion(line) => {
            in_motion.push(line.to_owned());
            Ok(())
        }
        Finding::Wrong(wrong, _) => {
            violations.extend(wrong.iter().map(|AuditViolation { kind, about, says }| Violated {
                kind: kind.name(),
                about: about.clone(),
                says: says.clone(),
            }));
            Ok(())
        }
    };
    let report = audit.whole(reading, on_finding, |items| progress.done(items as usize)).await;
    drop(progress);
    if report.is_err() {
        // Half an audit makes no document, but these are its findings.
        for Violated { kind, about, says } in &violations {
            complain(format!("violation {kind} {about}: {says}"));
        }
    }
    let report = report?;
    if options.json {
        say_json(&Audited {
            violations,
            in_motion,
            bookings: report.bookings.iter().map(|(status, count)| (status.name(), *count)).collect(),
            expired: report.expired,
            stock_lines: report.lines,
            journal_items: report.journal_items,
            seconds: report.took.as_secs_f64(),
        })?;
    } else {
        say(closing(&report))?;
    }
    Ok(if report.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a finding: `violation KIND ABOUT: WHAT`, one line each, then the timeline.
fn print_finding(finding: &Finding<'_>, look: Look, brief: bool) -> Result<()> {
    match finding {
        Finding::InMotion(line) => say(format!("in motion {}", plain(line)))?,
        Finding::Wrong(violations, records) => {
            for violation in *violations {
                let violation = plain(&format!("{} {violation}", violation.kind));
                say(format!("{} {violation}", look.style(Style::new().red(), "violation")))?;
            }
            if let Some(records) = records.filter(|_| !brief) {
                say(timeline(records, look))?;
            }
        }
    }
    Ok(())
}

/// The booking as in `harmony show`, or the steps that belong to no booking.
fn timeline(records: &BookingRecords, look: Look) -> String {
    match records.booking() {
        Some(booking) => render(&booking, look),
        None => records.journal.iter().map(step).collect::<Vec<_>>().join("\n"),
    }
}

fn step(entry: &JournalEntry) -> String {
    let outcome = entry.outcome.as_ref().map_or("in progress", saga::Outcome::name);
    plain(&format!("{} {}: {outcome}", entry.started_at, entry.step))
}

fn closing(report: &AuditReport) -> String {
    let statuses: Vec<_> = report.bookings.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let mut closing = format!(
        "audited {} ({}), {}, {} in {:.1} s: {}",
        count(report.bookings.iter().map(|(_, count)| count).sum::<u64>(), "booking"),
        statuses.join(", "),
        count(report.lines, "stock line"),
        count(report.journal_items, "journal item"),
        report.took.as_secs_f64(),
        count(report.violations, "violation"),
    );
    if report.in_motion > 0 {
        let lines = count(report.in_motion, "stock line");
        closing.push_str(&format!("; {lines} in motion: audit again when less is under way"));
    }
    if report.expired > 0 {
        closing.push_str(&format!("; {} too old to be checked: journal expired", count(report.expired, "booking")));
    }
    closing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::is_documented;

    #[test]
    fn json_is_as_documented() {
        let (about, says) = ("flight LH400 on 2027-03-01".into(), "8 available and 1 reserved of 10".into());
        is_documented(
            "audit",
            &Audited {
                violations: vec![Violated { kind: "stock", about, says }],
                in_motion: Vec::new(),
                bookings: [("confirmed", 1), ("failed", 0), ("needs_operator", 0), ("pending", 0)].into(),
                expired: 0,
                stock_lines: 12,
                journal_items: 5,
                seconds: 0.5,
            },
        );
    }
}

//! `harmony parked` and `harmony redrive`: shows dead letters, and puts them back.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use console::Style;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use local_aws::Stack;
use operator::{
    audit::Audit,
    dead_letters::{DeadLetter, DeadLetterQueue, DriveError, HELD, QueueContent, contents, drive, render},
};
use saga::{BookingId, Status};
use serde::Serialize;
use store::StoreError;
use traveller::show::{Look, count, plain, wrap};

use crate::{
    Result,
    output::{Progress, complain, say, say_json},
    target,
};

/// How long a booking may take to end after its messages were put back.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before looking at a booking again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How many bookings are followed at once.
const AT_ONCE: usize = 16;

#[derive(Args)]
pub struct Options {
    /// Only the messages of this dead-letter queue; may be repeated [default: all]
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
    /// Drive this booking again, whether a message of it is parked or not; may be repeated
    #[arg(long = "booking", value_name = "ID", value_parser = crate::booking::id, conflicts_with = "queues")]
    bookings: Vec<BookingId>,
    /// Do not wait until the bookings have ended
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON document instead: see docs/command-line.md
    #[arg(long)]
    json: bool,
}

/// The content of several queues.
#[derive(Default)]
struct Looked {
    found: Vec<(DeadLetterQueue, QueueContent)>,
    /// The queues that could not be read.
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    queue: String,
    error: String,
}

/// The output of `parked --json`.
#[derive(Default, Serialize)]
struct Parked<'p> {
    messages: Vec<InQueue<'p>>,
    /// How many more messages could not be received.
    held: usize,
    /// The queues that could not be read.
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct InQueue<'p> {
    queue: &'p str,
    #[serde(flatten)]
    message: &'p DeadLetter,
}

/// The output of `redrive --json`.
#[derive(Default, Serialize)]
struct Redriven {
    queues: Vec<Emptied>,
    /// How many messages could not be received, and may still be there.
    held: usize,
    bookings: Vec<Driven>,
}

/// The result for a queue.
#[derive(Default, Serialize)]
struct Emptied {
    queue: String,
    /// The queue that the messages are in now.
    into: Option<String>,
    moved: u64,
    /// How many messages arrived since then, or came back.
    came: usize,
    error: Option<String>,
}

/// The result for a booking. Without a status, there is no such booking or it could not be read.
#[derive(Serialize)]
struct Driven {
    booking_id: BookingId,
    status: Option<Status>,
    error: Option<String>,
}

impl Redriven {
    fn is_done(&self) -> bool {
        let is_empty = |queue: &Emptied| queue.error.is_none() && queue.came == 0;
        self.held == 0 && self.queues.iter().all(is_empty) && self.bookings.iter().all(|driven| driven.error.is_none())
    }
}

pub async fn parked(target: &target::Options, json: bool) -> Result<ExitCode> {
    let stack = target.stack().await?;
    let (Looked { found, failed }, look) = (look_into(queues(&stack, &[]).await?).await, Look::of_stdout());
    let code = if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let mut parked = Parked { failed, ..Parked::default() };
        for (queue, QueueContent { messages, held }) in &found {
            parked.messages.extend(messages.iter().map(|message| InQueue { queue: queue.name(), message }));
            parked.held += held;
        }
        say_json(&parked)?;
        return Ok(code);
    }
    for (queue, QueueContent { messages, held }) in &found {
        let name = look.style(Style::new().bold(), queue.name());
        if !messages.is_empty() {
            say(format!("{name}: {}", count(messages.len() as u64, "message")))?;
            say(render(messages, Timestamp::now(), look))?;
        }
        if *held > 0 {
            let held = count(*held as u64, "message");
            say(format!("{name}: {held} more that could not be received; try again in a moment"))?;
        }
    }
    let (messages, held) = (all(&found), found.iter().map(|(_, content)| content.held).sum::<usize>());
    if messages + held == 0 && failed.is_empty() {
        say("nothing is parked")?;
    } else if messages > 0 {
        let (messages, bookings) = (count(messages as u64, "message"), bookings(&found).len());
        let of = if bookings == 0 { String::new() } else { format!(" of {}", count(bookings as u64, "booking")) };
        let text = format!("{messages}{of}: fix the cause, then `harmony redrive` puts these messages back");
        say(wrap(look, &text, 0))?;
    }
    Ok(code)
}

pub async fn redrive(target: &target::Options, options: Options) -> Result<ExitCode> {
    let stack = target.stack().await?;
    let printer = Printer { json: options.json, look: Look::of_stdout() };
    let mut redriven = Redriven::default();
    let bookings = if options.bookings.is_empty() {
        put_back(queues(&stack, &options.queues).await?, printer, &mut redriven).await?
    } else {
        drive_again(&stack, options.bookings, printer, &mut redriven).await?
    };
    if !options.no_wait {
        follow(&stack, bookings, printer, &mut redriven).await?;
    }
    if options.json {
        say_json(&redriven)?;
    }
    Ok(if redriven.is_done() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints progress, unless the user wants one JSON document at the end.
#[derive(Clone, Copy)]
struct Printer {
    json: bool,
    look: Look,
}

impl Printer {
    fn good(self, text: impl std::fmt::Display) -> Result<()> {
        if self.json { Ok(()) } else { Ok(say(text)?) }
    }

    fn bad(self, text: &str) -> Result<()> {
        self.good(self.look.style(Style::new().red(), plain(text)))
    }
}

/// Asks for those of these bookings to be driven again that exist, and returns them. A message about an unknown booking
/// would be redelivered until it is parked, and every redrive would put it back. Records the others.
async fn drive_again(
    stack: &Stack,
    bookings: Vec<BookingId>,
    printer: Printer,
    redriven: &mut Redriven,
) -> Result<Vec<BookingId>> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let mut not_driven = |booking_id: BookingId, error: String| {
        complain(&error);
        redriven.bookings.push(Driven { booking_id, status: None, error: Some(error) });
    };
    let mut there = Vec::new();
    for id in bookings {
        let nothing_sent = match audit.booking(&id).await {
            Ok(Some(_)) => {
                there.push(id);
                continue;
            }
            Ok(None) => format!(
                "there is no booking {id} in this stack, and nothing was sent for it: check that it was made there"
            ),
            Err(error) => format!("booking {id} cannot be read, and nothing was sent for it: {error}"),
        };
        not_driven(id, nothing_sent);
    }
    match drive(stack, &there).await {
        Err(DriveError::NotAsked(not_asked)) => {
            for failed in not_asked {
                there.retain(|id| *id != failed.booking_id);
                let error = failed.to_string();
                not_driven(failed.booking_id, error);
            }
        }
        driven => driven?,
    }
    for id in &there {
        printer.good(format!("booking {id}: the reconciler drives it again"))?;
    }
    Ok(there)
}

/// Puts the messages of these queues back, and returns the bookings that they name. Records the queues that it cannot
/// read.
async fn put_back(queues: Vec<DeadLetterQueue>, printer: Printer, redriven: &mut Redriven) -> Result<Vec<BookingId>> {
    let Looked { mut found, failed } = look_into(queues).await;
    let failed = failed.into_iter();
    redriven.queues.extend(failed.map(|Failed { queue, error }| Emptied {
        queue,
        error: Some(error),
        ..Emptied::default()
    }));
    redriven.held = found.iter().map(|(_, content)| content.held).sum();
    found.retain(|(_, content)| !content.messages.is_empty());
    if redriven.held > 0 {
        let held = count(redriven.held as u64, "message");
        printer.bad(&format!(
            "{held} messages could not be received, and may still be there: redrive again in a moment"
        ))?;
    } else if found.is_empty() && redriven.queues.is_empty() {
        printer.good("nothing is parked, so there is nothing to put back")?;
    }
    for (queue, QueueContent { messages, .. }) in &found {
        let progress = Progress::of(queue.name());
        let put_back = queue.put_back(messages, |now| progress.now(now)).await;
        drop(progress);
        let name = queue.name().to_owned();
        redriven.queues.push(match put_back {
            Ok(done) => {
                let moved = u64::try_from(done.moved).unwrap_or(0);
                printer.good(format!("{name}: {} put back into {}", count(moved, "message"), done.into))?;
                if done.came > 0 {
                    let came = count(done.came as u64, "message");
                    printer.bad(&format!("{name}: {came} arrived since then, or came back: see `harmony parked`"))?;
                }
                Emptied { queue: name, into: Some(done.into), moved, came: done.came, error: None }
            }
            Err(error) => {
                complain(&error);
                Emptied { queue: name, error: Some(error.to_string()), ..Emptied::default() }
            }
        });
    }
    Ok(bookings(&found))
}

/// All dead-letter queues of the stack, or those with these names.
async fn queues(stack: &Stack, names: &[String]) -> Result<Vec<DeadLetterQueue>> {
    let mut queues = DeadLetterQueue::all(stack, &stack.sdk().await?)?;
    if let Some(unknown) = names.iter().find(|name| queues.iter().all(|queue| queue.name() != *name)) {
        let known: Vec<_> = queues.iter().map(DeadLetterQueue::name).collect();
        return Err(format!("{unknown} is not a dead-letter queue of the stack; those are {}", known.join(", ")).into());
    }
    queues.retain(|queue| names.is_empty() || names.iter().any(|name| queue.name() == name));
    Ok(queues)
}

/// Reads all of these queues, and reports those that cannot be read.
async fn look_into(queues: Vec<DeadLetterQueue>) -> Looked {
    let progress = Progress::of(format!("looking into {}", count(queues.len() as u64, "dead-letter queue")));
    let contents = contents(queues, HELD).await;
    drop(progress);
    let mut looked = Looked::default();
    for (queue, content) in contents {
        match content {
            Ok(content) => looked.found.push((queue, content)),
            Err(error) => {
                complain(&error);
                looked.failed.push(Failed { queue: queue.name().to_owned(), error: error.to_string() });
            }
        }
    }
    looked
}

fn all(found: &[(DeadLetterQueue, QueueContent)]) -> usize {
    found.iter().map(|(_, content)| content.messages.len()).sum()
}

/// The bookings that the messages name, each once.
fn bookings(found: &[(DeadLetterQueue, QueueContent)]) -> Vec<BookingId> {
    let named =
        found.iter().flat_map(|(_, content)| &content.messages).filter_map(|message| message.booking_id.clone());
    let mut bookings = Vec::new();
    named.for_each(|booking| {
        if !bookings.contains(&booking) {
            bookings.push(booking);
        }
    });
    bookings
}

/// Follows bookings until they end, and records the results. It reads the tables, because the API shows a booking only
/// to its owner.
async fn follow(stack: &Stack, bookings: Vec<BookingId>, printer: Printer, redriven: &mut Redriven) -> Result<()> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let progress = Progress::of(format!("waiting for {}", count(bookings.len() as u64, "booking")));
    let ends = stream::iter(&bookings).map(async |id| end(&audit, id).await);
    let ends: Vec<_> = ends.buffered(AT_ONCE).collect().await;
    drop(progress);
    for (id, end) in bookings.into_iter().zip(ends) {
        let (status, error) = match end {
            Ok(Some(status @ (Status::Confirmed | Status::Failed))) => (Some(status), None),
            Ok(Some(Status::NeedsOperator)) => {
                let why = format!("still needs an operator: see `harmony show {id}`, and `harmony parked` for why");
                (Some(Status::NeedsOperator), Some(why))
            }
            Ok(Some(status)) => (Some(status), Some(format!("is still {status}: see `harmony show {id}`"))),
            Ok(None) => (None, Some("does not exist: its message names a booking that was never accepted".to_owned())),
            Err(error) => (None, Some(format!("cannot be read: {error}"))),
        };
        match (status, &error) {
            (_, Some(error)) => printer.bad(&format!("booking {id} {error}"))?,
            (Some(status), None) => printer.good(format!("booking {id}: {}", printer.look.status(status)))?,
            (None, None) => {}
        }
        redriven.bookings.push(Driven { booking_id: id, status, error });
    }
    Ok(())
}

/// The status of a booking once it has ended or the time is up; none if there is no such booking.
async fn end(audit: &Audit, booking_id: &BookingId) -> std::result::Result<Option<Status>, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = audit.booking(booking_id).await?.map(|booking| booking.status);
        let has_ended = matches!(status, None | Some(Status::Confirmed | Status::Failed));
        if has_ended || Instant::now() >= deadline {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::is_documented;

    #[test]
    fn json_is_as_documented() {
        let id = BookingId::try_from("5b7c1f0a9e2d4c6b8a1f3e5d7c9b0a2e".to_owned()).unwrap();
        let message = DeadLetter {
            id: "m1".into(),
            booking_id: Some(id.clone()),
            says: "payment.charged".into(),
            sent: Some("2027-01-01T11:56:00Z".parse().unwrap()),
            why: "given up after 8 attempts".into(),
        };
        let message = InQueue { queue: "harmony-booking-dead", message: &message };
        let error = "looking into harmony-hotel-dead failed: …".into();
        let failed = vec![Failed { queue: "harmony-hotel-dead".into(), error }];
        is_documented("parked", &Parked { messages: vec![message], held: 0, failed });
        let (queue, into) = ("harmony-booking-dead".into(), Some("harmony-booking".into()));
        let redriven = Redriven {
            queues: vec![Emptied { queue, into, moved: 1, came: 0, error: None }],
            held: 0,
            bookings: vec![Driven { booking_id: id, status: Some(Status::Confirmed), error: None }],
        };
        is_documented("redrive", &redriven);
        assert!(redriven.is_done());
        let queue = Emptied { queue: "harmony-hotel-dead".into(), error: Some("…".into()), ..Emptied::default() };
        assert!(!Redriven { queues: vec![queue], ..Redriven::default() }.is_done());
    }
}

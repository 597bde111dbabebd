//! `harmony parked` and `harmony redrive`: what was given up, and how it is put back.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use console::Style;
use futures_util::{StreamExt, future::try_join_all, stream};
use harmony::{
    Stack,
    audit::Audit,
    dead_letters::{Content, DeadLetterQueue, HELD, drive, render},
    show::{Look, count},
};
use jiff::Timestamp;
use saga::{BookingId, Status};
use store::StoreError;

use crate::{
    Result,
    output::{Progress, say},
    target,
};

/// How long a booking may take to end after its messages were put back.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before a further look at a booking.
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
}

type Looked = Vec<(DeadLetterQueue, Content)>;

pub async fn parked(target: &target::Options) -> Result<ExitCode> {
    let stack = target.stack().await?;
    let (found, look) = (look_into(queues(&stack, &[]).await?).await?, Look::of_stdout());
    for (queue, Content { messages, held }) in &found {
        let name = look.style(Style::new().bold(), queue.name());
        if !messages.is_empty() {
            say(format!("{name}: {}", count(messages.len() as u64, "message")))?;
            say(render(messages, Timestamp::now(), look))?;
        }
        if *held > 0 {
            let held = count(*held as u64, "message");
            say(format!("{name}: and {held} that could not be looked at: look again in a moment"))?;
        }
    }
    let (messages, held) = (all(&found), found.iter().map(|(_, content)| content.held).sum::<usize>());
    if messages + held == 0 {
        say("nothing is parked")?;
    } else if messages > 0 {
        let (messages, bookings) = (count(messages as u64, "message"), bookings(&found).len());
        let of = if bookings == 0 { String::new() } else { format!(" of {}", count(bookings as u64, "booking")) };
        say(format!("{messages}{of}: once the cause is gone, `harmony redrive` puts back what is parked"))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn redrive(target: &target::Options, options: Options) -> Result<ExitCode> {
    let stack = target.stack().await?;
    if !options.bookings.is_empty() {
        drive(&stack, &options.bookings).await?;
        for id in &options.bookings {
            say(format!("booking {id}: the reconciler drives it again"))?;
        }
        let is_done = options.no_wait || follow(&stack, &options.bookings).await?;
        return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut found = look_into(queues(&stack, &options.queues).await?).await?;
    let held: usize = found.iter().map(|(_, content)| content.held).sum();
    found.retain(|(_, content)| !content.messages.is_empty());
    if found.is_empty() && held == 0 {
        say("nothing is parked, so there is nothing to put back")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut left = false;
    if held > 0 {
        let held = count(held as u64, "message");
        complain(format!("{held} could not be looked at, and may still be there: redrive again in a moment"))?;
        left = true;
    }
    for (queue, Content { messages, .. }) in &found {
        let progress = Progress::of(queue.name());
        let put_back = queue.put_back(messages, |now| progress.now(now)).await;
        drop(progress);
        match put_back {
            Ok(done) => {
                let moved = count(u64::try_from(done.moved).unwrap_or(0), "message");
                say(format!("{}: {moved} put back into {}", queue.name(), done.into))?;
                if done.came > 0 {
                    let came = count(done.came as u64, "message");
                    complain(format!(
                        "{}: {came} came in since then, or came back: see `harmony parked`",
                        queue.name()
                    ))?;
                    left = true;
                }
            }
            Err(error) => {
                complain(error)?;
                left = true;
            }
        }
    }
    if !options.no_wait {
        left |= !follow(&stack, &bookings(&found)).await?;
    }
    Ok(if left { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The dead-letter queues of the stack, or those of these names.
async fn queues(stack: &Stack, names: &[String]) -> Result<Vec<DeadLetterQueue>> {
    let mut queues = DeadLetterQueue::all(stack, &stack.sdk().await?)?;
    if let Some(unknown) = names.iter().find(|name| queues.iter().all(|queue| queue.name() != *name)) {
        let known: Vec<_> = queues.iter().map(DeadLetterQueue::name).collect();
        return Err(format!("{unknown} is no dead-letter queue of the stack: they are {}", known.join(", ")).into());
    }
    queues.retain(|queue| names.is_empty() || names.iter().any(|name| queue.name() == name));
    Ok(queues)
}

async fn look_into(queues: Vec<DeadLetterQueue>) -> Result<Looked> {
    let _progress = Progress::of(format!("looking into {}", count(queues.len() as u64, "dead-letter queue")));
    Ok(try_join_all(queues.into_iter().map(async |queue| {
        let content = queue.content(HELD).await?;
        Ok::<_, harmony::dead_letters::DeadLetterError>((queue, content))
    }))
    .await?)
}

fn all(found: &Looked) -> usize {
    found.iter().map(|(_, content)| content.messages.len()).sum()
}

/// The bookings that messages name, each once.
fn bookings(found: &Looked) -> Vec<BookingId> {
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

/// Follows bookings to their ends, and says whether all have ended. It looks into the tables, as the API shows a booking
/// to its owner only.
async fn follow(stack: &Stack, bookings: &[BookingId]) -> Result<bool> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let progress = Progress::of(format!("waiting for {}", count(bookings.len() as u64, "booking")));
    let ends = stream::iter(bookings).map(async |id| end(&audit, id).await);
    let ends: Vec<_> = ends.buffered(AT_ONCE).collect().await;
    drop(progress);
    let (look, mut all_ended) = (Look::of_stdout(), true);
    for (id, end) in bookings.iter().zip(ends) {
        match end {
            Ok(Some(status @ (Status::Confirmed | Status::Failed))) => {
                say(format!("booking {id}: {}", look.status(status)))?;
            }
            otherwise => {
                complain(match otherwise {
                    Ok(Some(Status::NeedsOperator)) => format!(
                        "booking {id} still needs an operator: see `harmony show {id}`, and `harmony parked` for why"
                    ),
                    Ok(Some(status)) => format!("booking {id} is still {status}: see `harmony show {id}`"),
                    Ok(None) => {
                        format!("booking {id} is not there: its message is about a booking that was never accepted")
                    }
                    Err(error) => format!("booking {id} cannot be looked at: {error}"),
                })?;
                all_ended = false;
            }
        }
    }
    Ok(all_ended)
}

/// The status of a booking when it has ended, or when that was waited for long enough; none if there is no such booking.
async fn end(audit: &Audit, id: &BookingId) -> std::result::Result<Option<Status>, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = audit.booking(id).await?.map(|booking| booking.status);
        let has_ended = matches!(status, None | Some(Status::Confirmed | Status::Failed));
        if has_ended || Instant::now() >= deadline {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn complain(text: impl std::fmt::Display) -> Result<()> {
    Ok(say(Look::of_stdout().style(Style::new().red(), text))?)
}

//! `harmony book` and `harmony show`.

use std::{process::ExitCode, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::{ToSpan, civil::Date};
use operator::audit::Audit;
use saga::{BookingId, IdempotencyKey, PartName, Variant};
use serde::Serialize;
use serde_json::Value;
use travel::{CAR, FLIGHT, HOTEL};
use traveller::{
    Booking, Client, ClientError, TripRequest,
    client::fresh_key,
    scenarios::VARIANTS,
    show::{Look, line, render},
    trip::{USUAL, today},
};

use crate::{
    Result,
    ending::CommandEnd,
    output::{Progress, complain, say, say_json},
    signals::Signal,
    target::{self, Target},
};

/// How long a booking may take. A step that must succeed may be retried for minutes, but rarely is.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Options {
    /// Idempotency-Key of the request: the same key means the same booking [default: a new one, printed first]
    #[arg(long, value_parser = key)]
    key: Option<String>,
    /// Who coordinates the booking
    #[arg(long, default_value = Variant::Orchestrated.name(), value_parser = variant())]
    variant: Variant,
    /// First day of the trip [default: in 30 days]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,
    /// How many nights
    #[arg(long, default_value_t = 3)]
    nights: u16,
    /// A part of the trip, such as flight; once for each [default: flight, hotel and car]
    #[arg(long, value_name = "NAME", value_parser = part())]
    part: Vec<PartName>,
    /// Flight number
    #[arg(long, default_value = "LH400", value_name = "NUMBER")]
    flight: String,
    /// How many seats
    #[arg(long, default_value_t = 2)]
    seats: u32,
    /// Hotel
    #[arg(long, default_value = "nyc-plaza", value_name = "ID")]
    hotel: String,
    /// How many rooms
    #[arg(long, default_value_t = 1)]
    rooms: u32,
    /// Station to pick the car up at
    #[arg(long, default_value = "jfk", value_name = "ID")]
    station: String,
    /// Category of the car
    #[arg(long, default_value = "compact")]
    category: String,
    /// Payment token: tok_visa, tok_declined, tok_insufficient_funds, tok_timeout or tok_flaky at the sandbox provider
    #[arg(long, default_value = "tok_visa")]
    token: String,
    /// The traveller's name
    #[arg(long, default_value = "Ada Lovelace")]
    name: String,
    /// The traveller's e-mail address
    #[arg(long, default_value = "ada@example.com", value_name = "ADDRESS")]
    email: String,
    /// Print one JSON document instead, and the key on standard error first: see docs/command-line.md
    #[arg(long)]
    json: bool,
}

impl Options {
    fn request(self) -> TripRequest {
        let date = self.date.unwrap_or_else(|| today().saturating_add(TripRequest::DAYS_AHEAD.days()));
        let parts: Vec<_> = match self.part.is_empty() {
            true => USUAL.to_vec(),
            false => travel::TRAVEL.parts.iter().filter(|part| self.part.contains(&part.name)).copied().collect(),
        };
        let mut trip = TripRequest::of(&parts, date, self.nights);
        trip.variant = self.variant;
        (trip.traveller.name, trip.traveller.email) = (self.name, self.email);
        let options = [
            (FLIGHT.name, "flight_no", Value::from(self.flight)),
            (FLIGHT.name, "seats", self.seats.into()),
            (HOTEL.name, "hotel_id", self.hotel.into()),
            (HOTEL.name, "rooms", self.rooms.into()),
            (CAR.name, "station_id", self.station.into()),
            (CAR.name, "category", self.category.into()),
        ];
        for (part, field, value) in options {
            if trip.parts.contains_key(&part) {
                trip.set(part, field, value);
            }
        }
        trip.payment.token = self.token;
        trip
    }
}

/// The output of `book --json`, whatever the result.
#[derive(Serialize)]
struct Booked<'b> {
    /// Sending the request with this key again repeats it.
    idempotency_key: &'b str,
    /// Null if it was not accepted, or if that is unknown.
    booking_id: Option<&'b BookingId>,
    /// The booking once it has ended, as `show --json` prints it.
    booking: Option<&'b Booking>,
    /// Why there is no booking.
    error: Option<String>,
}

pub async fn book(target: &target::Options, options: Options) -> Result<ExitCode> {
    let Target { client, .. } = target.any().await?;
    let (json, look) = (options.json, Look::of_stdout());
    let key = options.key.clone().unwrap_or_else(|| fresh_key("book"));
    let request = options.request();
    if json {
        eprintln!("Idempotency-Key: {key}");
    } else {
        say(line(look, "key", &key))?;
    }
    let end = |end: CommandEnd, booked: Booked<'_>| -> Result<ExitCode> {
        booked.error.iter().for_each(complain);
        if json {
            say_json(&booked)?;
        } else if let Some(booking) = booked.booking {
            say(render(booking, look))?;
        }
        Ok(end.into())
    };
    let nothing = Booked { idempotency_key: &key, booking_id: None, booking: None, error: None };

    let again = format!(
        "the same command with --key {key} --date {} repeats the request without booking twice",
        request.first_day()
    );
    let signal = Signal::watch()?;
    let interrupted = || CommandEnd::Interrupted(signal.came().unwrap_or(0));
    let id = match signal.unless(client.book_accepted(&request, &key)).await {
        Some(Ok(accepted)) => accepted.booking_id,
        Some(Err(error)) => {
            // A 4xx is a refusal, even from a proxy. After anything else, only the same key can find out what happened.
            let (is_unclear, error) = match error {
                ClientError::Refused { status: 400..500, .. } if !error.can_pass() => (false, error.to_string()),
                ClientError::Refused { status: 400..500, .. } => (false, format!("{error}; later, {again}")),
                ClientError::NoAddress { .. } | ClientError::NotSent { .. } => (false, error.to_string()),
                error => (true, format!("{error}; it is unknown whether it was booked: {again}")),
            };
            return end(
                if is_unclear { CommandEnd::Unclear } else { CommandEnd::NotAccepted },
                Booked { error: Some(error), ..nothing },
            );
        }
        None => {
            let error = format!("interrupted; it is unknown whether it was booked: {again}");
            return end(interrupted(), Booked { error: Some(error), ..nothing });
        }
    };
    if !json {
        say(line(look, "accepted", &id))?;
    }
    let accepted = Booked { booking_id: Some(&id), ..nothing };
    match signal.unless(follow(&client, &id)).await {
        Some(Ok(booking)) => end(CommandEnd::Seen(booking.status), Booked { booking: Some(&booking), ..accepted }),
        Some(Err(error @ ClientError::NotEnded { .. })) => {
            end(CommandEnd::NotEnded, Booked { error: Some(error.to_string()), ..accepted })
        }
        Some(Err(error)) => {
            let error = format!("booking {id} is accepted, but cannot be read: {error}; try `harmony show {id}`");
            end(CommandEnd::NotEnded, Booked { error: Some(error), ..accepted })
        }
        None => {
            let error = format!("interrupted; booking {id} is accepted and still runs: see `harmony show {id} --wait`");
            end(interrupted(), Booked { error: Some(error), ..accepted })
        }
    }
}

#[derive(Args)]
pub struct ShowOptions {
    /// The booking_id that `book` printed or the API returned
    #[arg(value_parser = id)]
    id: BookingId,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Print one JSON document instead: see docs/command-line.md
    #[arg(long)]
    json: bool,
}

pub async fn show(target: &target::Options, ShowOptions { id, wait, json }: &ShowOptions) -> Result<ExitCode> {
    let Target { client, stack, .. } = target.any().await?;
    let (booking, code) = if *wait {
        match follow(&client, id).await {
            Ok(booking) => {
                let code = CommandEnd::Seen(booking.status).into();
                (Some(booking), code)
            }
            Err(error @ ClientError::NotEnded { .. }) => {
                complain(error);
                return Ok(CommandEnd::NotEnded.into());
            }
            Err(error) => return Err(error.into()),
        }
    } else {
        let booking = match (client.show(id).await, stack) {
            // The API shows a booking only to its owner. Whoever may read the stack's tables may see all.
            (Err(ClientError::Refused { status: 401 | 403 | 404, .. }), Some(stack)) => {
                Audit::of(&stack, &stack.sdk().await?)?.booking(id).await?
            }
            (Err(ClientError::Refused { status: 404, .. }), None) => None,
            (answer, _) => Some(answer?),
        };
        (booking, ExitCode::SUCCESS)
    };
    let nothing = || format!("there is no booking {id} at {}: check that it was made there", client.api_url());
    let booking = booking.ok_or_else(nothing)?;
    if *json {
        say_json(&booking)?
    } else {
        say(render(&booking, Look::of_stdout()))?
    }
    Ok(code)
}

/// The booking once it has ended.
async fn follow(client: &Client, booking_id: &BookingId) -> std::result::Result<Booking, ClientError> {
    let progress = Progress::of(format!("booking {booking_id}"));
    client
        .follow(booking_id, PATIENCE, |booking| progress.now(format!("booking {booking_id}: {} …", booking.status)))
        .await
}

/// Parses a variant's name.
pub fn variant() -> impl TypedValueParser<Value = Variant> {
    let named = |name: String| VARIANTS.into_iter().find(|variant| variant.name() == name).ok_or("no such variant");
    PossibleValuesParser::new(VARIANTS.map(Variant::name)).try_map(named)
}

pub fn part() -> impl TypedValueParser<Value = PartName> {
    let names: Vec<_> = travel::TRAVEL.parts.iter().map(|part| part.name.as_str()).collect();
    PossibleValuesParser::new(names).try_map(PartName::try_from)
}

fn key(text: &str) -> std::result::Result<String, String> {
    IdempotencyKey::try_from(text).map(|_| text.to_owned())
}

pub fn id(text: &str) -> std::result::Result<BookingId, String> {
    BookingId::try_from(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{documented, is_documented};

    #[test]
    fn json_is_as_documented() {
        let booking: Booking = serde_json::from_value(documented("show")).unwrap();
        is_documented("show", &booking);
        let error = Some("interrupted".into());
        let booked =
            Booked { idempotency_key: "book-18f0a2-1a", booking_id: Some(&booking.booking_id), booking: None, error };
        is_documented("book", &booked);
    }
}

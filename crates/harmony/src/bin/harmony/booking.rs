//! `harmony book` and `harmony show`.

use std::{process::ExitCode, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use harmony::{
    Client, ClientError, TripRequest,
    audit::Audit,
    client::fresh_key,
    scenarios::VARIANTS,
    show::{Look, render},
    trip::today,
};
use jiff::{ToSpan, civil::Date};
use saga::{BookingId, Variant};

use crate::{
    Result,
    output::{Progress, say},
    target::{self, Target},
};

/// How long a booking may take. A step that must succeed is tried for minutes, but not as a rule.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Options {
    /// What to call this request: the same key again is the same booking [default: a new one]
    #[arg(long)]
    key: Option<String>,
    /// Who coordinates
    #[arg(long, default_value = Variant::Orchestrated.name(), value_parser = variant())]
    variant: Variant,
    /// First day of the trip [default: in 30 days]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,
    /// How many nights
    #[arg(long, default_value_t = 3)]
    nights: u16,
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
}

impl Options {
    fn request(self) -> TripRequest {
        let date = self.date.unwrap_or_else(|| today().saturating_add(TripRequest::DAYS_AHEAD.days()));
        let mut trip = TripRequest::default().lasting(date, self.nights);
        trip.variant = self.variant;
        (trip.traveller.name, trip.traveller.email) = (self.name, self.email);
        (trip.flight.flight_no, trip.flight.seats) = (self.flight, self.seats);
        (trip.hotel.hotel_id, trip.hotel.rooms) = (self.hotel, self.rooms);
        (trip.car.station_id, trip.car.category) = (self.station, self.category);
        trip.payment.token = self.token;
        trip
    }
}

pub async fn book(target: &target::Options, options: Options) -> Result<ExitCode> {
    let Target { client, .. } = target.any().await?;
    let key = options.key.clone().unwrap_or_else(|| fresh_key("book"));
    let accepted = match client.book_accepted(&options.request(), &key).await {
        // The booking may have been accepted all the same: only the same key finds out without booking twice.
        Err(error @ (ClientError::NoAnswer { .. } | ClientError::Refused { status: 500.., .. })) => {
            return Err(format!("{error}; with --key {key} it can be sent again and is booked once").into());
        }
        answer => answer?,
    };
    say(&accepted.booking_id)?;
    follow(&client, &accepted.booking_id).await
}

pub async fn show(target: &target::Options, id: &BookingId, wait: bool) -> Result<ExitCode> {
    let Target { client, stack, .. } = target.any().await?;
    if wait {
        return follow(&client, id).await;
    }
    let booking = match (client.show(id).await, stack) {
        // The API shows a booking to who made it. Who may read the stack's tables, may see all.
        (Err(ClientError::Refused { status: 401 | 403 | 404, .. }), Some(stack)) => {
            Audit::of(&stack, &stack.sdk().await?)?.booking(id).await?
        }
        (Err(ClientError::Refused { status: 404, .. }), None) => None,
        (answer, _) => Some(answer?),
    };
    let nothing = || format!("there is no booking {id} at {}: see whether it was made there", client.api_url());
    let booking = booking.ok_or_else(nothing)?;
    say(render(&booking, Look::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

async fn follow(client: &Client, id: &BookingId) -> Result<ExitCode> {
    let progress = Progress::of(format!("booking {id}"));
    let booking = client.follow(id, PATIENCE, |booking| progress.now(format!("booking {id}: {} …", booking.status)));
    let booking = booking.await?;
    drop(progress);
    say(render(&booking, Look::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a variant by its name.
pub fn variant() -> impl TypedValueParser<Value = Variant> {
    let named = |name: String| VARIANTS.into_iter().find(|variant| variant.name() == name).ok_or("no such variant");
    PossibleValuesParser::new(VARIANTS.map(Variant::name)).try_map(named)
}

pub fn id(text: &str) -> std::result::Result<BookingId, String> {
    BookingId::try_from(text.to_owned())
}

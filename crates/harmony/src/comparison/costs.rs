//! Costs: what counted work costs at published prices, and which quota it meets first.
//!
//! Prices and quotas are data (`prices.json`), each with where it is published. The work is counted, on a local AWS; only
//! how long functions and executions take is other on AWS, and that is the small part of what they cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Mode,
    work::{Unit, Work},
};

const PRICES: &str = include_str!("prices.json");
/// What the template gives each function; a test holds it against the template.
const MEMORY_GB: f64 = 0.25;
/// What an EXPRESS execution of this size is billed for: <https://aws.amazon.com/step-functions/pricing/>, chunks of 64 MB.
const EXECUTION_GB: f64 = 0.0625;
/// A month, as AWS's own examples have it.
const SECONDS_A_MONTH: f64 = 30.0 * 24.0 * 3600.0;
/// What a mapping asks an empty queue in a month: five connections that wait for 20 s each,
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html>.
const POLLS_A_MONTH: f64 = 5.0 * SECONDS_A_MONTH / 20.0;

/// Mappings in the template.
const MAPPINGS: usize = 6;
/// Alarms in the template, …
const ALARMS: usize = 41;
/// … those of them that only watch the state machine, …
const CONDUCTORS_ALARMS: usize = 3;
/// … and those that only watch topics, destinations and inboxes.
const DANCERS_ALARMS: usize = 18;

/// Why nothing has a price.
#[derive(Debug, thiserror::Error)]
pub enum CostsError {
    /// The file is ours.
    #[error("prices.json cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Something is missing.
    #[error("prices.json has no {what} in {region}")]
    Missing {
        /// A region's, price's or quota's name.
        what: String,
        /// Where.
        region: String,
    },
}

/// Published prices and quotas.
#[derive(Clone, Debug, Deserialize)]
pub struct Published {
    /// Such as `USD`.
    pub currency: String,
    /// When they were read.
    pub read_on: String,
    regions: BTreeMap<String, Region>,
}

/// Those of a region.
#[derive(Clone, Debug, Deserialize)]
pub struct Region {
    #[serde(skip)]
    name: String,
    /// By id.
    pub prices: BTreeMap<String, Price>,
    /// By id.
    pub quotas: BTreeMap<String, Quota>,
}

/// What something costs, in its first tier and without any free one.
#[derive(Clone, Debug, Deserialize)]
pub struct Price {
    /// This much …
    pub usd: f64,
    /// … for so many.
    pub per: f64,
    /// Of what.
    pub unit: String,
    /// Where it is published.
    pub source: String,
    /// When, as far as the source says.
    pub source_date: Option<String>,
    /// What else to know.
    pub note: Option<String>,
}

/// How much AWS allows an account unless it is asked for more.
#[derive(Clone, Debug, Deserialize)]
pub struct Quota {
    /// How many a second, or at once; nothing if there is no limit.
    pub per_second: Option<f64>,
    /// Of what.
    pub what: String,
    /// Whether AWS gives more to those who ask.
    pub adjustable: bool,
    /// Where it is published.
    pub source: String,
    /// When, as far as the source says.
    pub source_date: Option<String>,
    /// What else to know.
    pub note: Option<String>,
}

impl Published {
    /// What this program was built with.
    pub fn read() -> Result<Self, CostsError> {
        let mut read: Self = serde_json::from_str(PRICES)?;
        for (name, region) in &mut read.regions {
            region.name.clone_from(name);
        }
        Ok(read)
    }

    /// The names of the regions.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }

    /// A region by name.
    pub fn region(&self, name: &str) -> Result<&Region, CostsError> {
        let missing = || CostsError::Missing { what: "region".into(), region: name.into() };
        self.regions.get(name).ok_or_else(missing)
    }
}

/// Who is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The API.
    ApiGateway,
    /// Functions.
    Lambda,
    /// The conductor.
    StepFunctions,
    /// The topics.
    Sns,
    /// The inboxes.
    Sqs,
    /// The tables.
    DynamoDb,
    /// Logs.
    CloudWatch,
}

impl Service {
    /// All there are.
    pub const ALL: [Self; 7] =
        [Self::DynamoDb, Self::Lambda, Self::ApiGateway, Self::StepFunctions, Self::Sns, Self::Sqs, Self::CloudWatch];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiGateway => "API Gateway",
            Self::Lambda => "Lambda",
            Self::StepFunctions => "Step Functions",
            Self::Sns => "SNS",
            Self::Sqs => "SQS",
            Self::DynamoDb => "DynamoDB",
            Self::CloudWatch => "CloudWatch Logs",
        }
    }
}

/// Dollars, by who is paid.
pub type Costs = BTreeMap<Service, f64>;

/// A limit that a rate of bookings meets.
#[derive(Clone, Debug)]
pub struct Limit<'q> {
    /// What it limits, in short.
    pub name: &'static str,
    /// Which.
    pub quota: &'q Quota,
    /// How much of it a booking a second takes.
    pub each: f64,
    /// How many bookings a second are possible within it.
    pub bookings_per_second: f64,
}

impl Region {
    /// What one of something costs.
    fn each(&self, id: &str) -> Result<f64, CostsError> {
        let missing = || CostsError::Missing { what: format!("price {id}"), region: self.name.clone() };
        let price = self.prices.get(id).ok_or_else(missing)?;
        Ok(price.usd / price.per)
    }

    /// What work costs.
    pub fn costs(&self, mode: Mode, work: &Work) -> Result<Costs, CostsError> {
        let count = |unit: Unit| work.get(&unit).copied().unwrap_or_default();
        let gb_seconds = |unit: Unit, gb: f64| count(unit) / 1e3 * gb;
        let execution = match mode {
            Mode::Express => {
                count(Unit::Executions) * self.each("states.request.express")?
                    + gb_seconds(Unit::ExecutionMs, EXECUTION_GB) * self.each("states.gb_second.express")?
            }
            Mode::Choreographed | Mode::Standard => {
                count(Unit::Transitions) * self.each("states.transition.standard")?
            }
        };
        Ok([
            (Service::ApiGateway, count(Unit::ApiRequests) * self.each("apigateway.rest.request")?),
            (
                Service::Lambda,
                count(Unit::Invocations) * self.each("lambda.request")?
                    + gb_seconds(Unit::BilledMs, MEMORY_GB) * self.each("lambda.gb_second.x86_64")?,
            ),
            (Service::StepFunctions, execution),
            (
                Service::Sns,
                count(Unit::Publishes) * self.each("sns.publish")?
                    + count(Unit::FilteredKilobytes) / 1e6 * self.each("sns.filtered_gb")?,
            ),
            (Service::Sqs, count(Unit::QueueRequests) * self.each("sqs.request.standard")?),
            (
                Service::DynamoDb,
                count(Unit::WriteUnits) * self.each("dynamodb.write_request_unit")?
                    + count(Unit::ReadUnits) * self.each("dynamodb.read_request_unit")?,
            ),
            (Service::CloudWatch, count(Unit::LoggedKilobytes) / 1e6 * self.each("logs.ingested_gb")?),
        ]
        .into())
    }

    /// What a mode costs in a month in which nobody books, beside what all have alike: its mappings ask their queues, and
    /// its alarms watch.
    pub fn standing(&self, mode: Mode) -> Result<f64, CostsError> {
        let (mappings, alarms) = match mode {
            Mode::Choreographed => (MAPPINGS, ALARMS - CONDUCTORS_ALARMS),
            Mode::Standard | Mode::Express => (1, ALARMS - DANCERS_ALARMS), // one asks the reconciler's inbox
        };
        let polls = mappings as f64 * POLLS_A_MONTH * self.each("sqs.request.standard")?;
        Ok(polls + alarms as f64 * self.each("cloudwatch.alarm_month")?)
    }

    /// Which limits bookings of this kind meet, the first one first. `busiest` is how many units a booking writes to the
    /// table that is written to most.
    pub fn limits(&self, mode: Mode, work: &Work, busiest: f64) -> Result<Vec<Limit<'_>>, CostsError> {
        let count = |unit: Unit| work.get(&unit).copied().unwrap_or_default();
        let mut takes = vec![
            ("API Gateway requests", "apigateway.account.requests", count(Unit::ApiRequests)),
            ("Lambda at once", "lambda.concurrency", count(Unit::BilledMs) / 1e3),
            ("SNS messages", "sns.publish", count(Unit::Publishes)),
            ("writes to one table", "dynamodb.table.writes", busiest),
        ];
        match mode {
            Mode::Choreographed => {}
            Mode::Standard => {
                takes.push(("STANDARD starts", "states.start_execution.standard", count(Unit::Executions)));
                takes.push(("STANDARD transitions", "states.transitions.standard", count(Unit::Transitions)));
            }
            Mode::Express => takes.push(("EXPRESS starts", "states.start_execution.express", count(Unit::Executions))),
        }
        let mut limits = Vec::new();
        for (name, id, each) in takes {
            let missing = || CostsError::Missing { what: format!("quota {id}"), region: self.name.clone() };
            let quota = self.quotas.get(id).ok_or_else(missing)?;
            if let Some(allowed) = quota.per_second.filter(|_| each > 0.0) {
                limits.push(Limit { name, quota, each, bookings_per_second: allowed / each });
            }
        }
        limits.sort_by(|one, other| one.bookings_per_second.total_cmp(&other.bookings_per_second));
        Ok(limits)
    }
}

/// All of it.
pub fn total(costs: &Costs) -> f64 {
    costs.values().sum()
}

/// What so many bookings a second cost in a month.
pub fn monthly(each: f64, per_second: f64) -> f64 {
    each * per_second * SECONDS_A_MONTH
}

/// From how many bookings a month on the one with the lower price for each is cheaper, although it costs more when
/// nobody books. Nothing if one of the two is always cheaper.
pub fn crossover((standing, each): (f64, f64), (other_standing, other_each): (f64, f64)) -> Option<f64> {
    let volume = (standing - other_standing) / (other_each - each);
    (volume.is_finite() && volume > 0.0).then_some(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKING: [(Unit, f64); 5] = [
        (Unit::Invocations, 10.0),
        (Unit::BilledMs, 1_000.0),
        (Unit::Transitions, 8.0),
        (Unit::Executions, 1.0),
        (Unit::WriteUnits, 40.0),
    ];

    #[test]
    fn everything_that_is_counted_has_a_price_in_every_region() {
        let published = Published::read().unwrap();
        for name in published.regions() {
            let region = published.region(name).unwrap();
            for mode in Mode::ALL {
                let costs = region.costs(mode, &BOOKING.into()).unwrap();
                assert_eq!(costs.len(), Service::ALL.len());
                assert!(!region.limits(mode, &BOOKING.into(), 20.0).unwrap().is_empty());
            }
            assert!(region.standing(Mode::Choreographed).unwrap() > region.standing(Mode::Express).unwrap());
        }
        assert!(matches!(published.region("mars-1"), Err(CostsError::Missing { .. })));
    }

    #[test]
    fn a_million_transitions_cost_what_aws_says() {
        let published = Published::read().unwrap();
        let region = published.region("us-east-1").unwrap();
        let work = Work::from([(Unit::Transitions, 8.0)]);
        let costs = region.costs(Mode::Standard, &work).unwrap();
        assert!((costs[&Service::StepFunctions] * 1e6 - 200.0).abs() < 1e-6); // 25 USD a million
        assert!(costs[&Service::Lambda].abs() < 1e-12);
    }

    #[test]
    fn the_first_limit_is_the_one_that_the_fewest_bookings_meet() {
        let published = Published::read().unwrap();
        let limits = published.region("eu-central-1").unwrap().limits(Mode::Standard, &BOOKING.into(), 20.0).unwrap();
        assert!(limits.windows(2).all(|two| two[0].bookings_per_second <= two[1].bookings_per_second));
        assert!(limits.iter().any(|limit| (limit.each - 8.0).abs() < 1e-9));
    }

    #[test]
    fn lines_cross_where_both_cost_the_same() {
        let volume = crossover((10.0, 0.001), (2.0, 0.002)).unwrap();
        assert!((volume - 8_000.0).abs() < 1e-6);
        assert_eq!(crossover((2.0, 0.001), (10.0, 0.002)), None);
        assert_eq!(crossover((1.0, 0.001), (2.0, 0.001)), None);
    }

    #[test]
    fn the_template_has_what_is_paid_for() {
        let template = std::fs::read_to_string(crate::local::root().unwrap().join("template.yaml")).unwrap();
        let sizes: Vec<_> = template.lines().filter_map(|line| line.trim().strip_prefix("MemorySize: ")).collect();
        assert_eq!(sizes, [(MEMORY_GB * 1024.0).to_string()]);
        // By their names, as types are merged in. Counted for a trip's three sellers; each more has a mapping and five alarms.
        let is_named = |line: &str, end: &str| {
            let name = line.strip_prefix("  ").and_then(|line| line.split_once(':')).map_or("", |(name, _)| name);
            !name.starts_with(' ') && name.ends_with(end)
        };
        let count = |end: &str| template.lines().filter(|line| is_named(line, end)).count();
        let more = count("StockTable") - 3;
        assert_eq!([count("Mapping"), count("Alarm")], [MAPPINGS + more, ALARMS + 5 * more]);
    }
}

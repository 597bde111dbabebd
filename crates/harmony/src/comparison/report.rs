//! The report: the same sections as one page of HTML, which needs nothing else, and as Markdown with its plots beside it.

mod rendering;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use self::rendering::difference;
use super::{
    ComparisonError, Mode,
    costs::{self, Costs, Published, Region, Service},
    explanation::Path,
    outage::{self, Suffered},
    plots,
    work::{self, Counted, Unit, Work},
};
use crate::load::{Fate, Measured, Mix};

/// One turn of a mode: the closed load, then the open one.
#[derive(Clone, Debug)]
pub struct Turn {
    /// As much as there can be.
    pub closed: Measured,
    /// So many a second.
    pub open: Measured,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Measurements {
    /// What was run, on what, when: names and values.
    pub about: Vec<(&'static str, String)>,
    /// What share of bookings could not succeed.
    pub mix: Mix,
    /// All turns.
    pub turns: BTreeMap<Mode, Vec<Turn>>,
    /// Work, by mode and fate.
    pub counted: Vec<Counted>,
    /// Outages, by mode and kind.
    pub suffered: Vec<Suffered>,
    /// Explanations.
    pub explanations: Vec<Path>,
    /// Violations that the audits found.
    pub violations: Vec<String>,
}

/// A figure of one mode in relation to the choreographed one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// What is compared.
    pub what: String,
    /// This mode …
    pub mode: String,
    /// … has so many times as much.
    pub value: f64,
}

/// A table. The first column is text, the others are figures.
#[derive(Clone, Debug)]
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

enum Part {
    Text(String),
    Table(Table),
    Plot { name: &'static str, caption: String, svg: String },
}

struct Section {
    title: &'static str,
    parts: Vec<Part>,
}

/// What is written.
#[derive(Clone, Debug)]
pub struct Report {
    /// The page.
    pub html: String,
    /// The same as Markdown, which shows plots from files in the folder `comparison`.
    pub markdown: String,
    /// Those files.
    pub plots: Vec<(String, String)>,
    /// The ratios, to hold two runs against each other.
    pub ratios: Vec<Ratio>,
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> Part {
    Part::Table(Table { head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows })
}

fn ms(micros: u64) -> String {
    number(micros as f64 / 1e3)
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        ..0.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Measurements {
    /// The region that the report prices everything in, and the one that it only sums up.
    const REGIONS: [&'static str; 2] = ["eu-central-1", "us-east-1"];

    /// Writes the report.
    pub fn report(&self) -> Result<Report, ComparisonError> {
        let published = Published::read()?;
        let (mut ratios, mut sections) = (Vec::new(), Vec::new());
        if !self.turns.is_empty() {
            sections.extend([self.latency(&mut ratios)?, self.throughput(&mut ratios)]);
        }
        if !self.counted.is_empty() {
            sections.extend([
                self.timelines()?,
                self.work(),
                self.costs(&published, &mut ratios)?,
                self.limits(&published)?,
            ]);
        }
        if !self.suffered.is_empty() {
            sections.push(self.outages()?);
        }
        if !self.explanations.is_empty() {
            sections.push(self.explained());
        }
        if !self.counted.is_empty() {
            sections.push(self.sources(&published)?);
        }
        let plots = sections.iter().flat_map(|section| &section.parts).filter_map(|part| match part {
            Part::Plot { name, svg, .. } => Some((format!("{name}.svg"), svg.clone())),
            _ => None,
        });
        Ok(Report {
            html: self.page(&sections).into_string(),
            markdown: self.markdown(&sections),
            plots: plots.collect(),
            ratios,
        })
    }

    fn turns(&self, mode: Mode) -> impl Iterator<Item = &Turn> {
        self.turns.get(&mode).into_iter().flatten()
    }

    fn latency(&self, ratios: &mut Vec<Ratio>) -> Result<Section, ComparisonError> {
        type Of = fn(&Measured) -> Vec<&Histogram<u64>>;
        let accepted: Of = |measured| vec![&measured.accepted];
        let confirmed: Of = |measured| measured.ended.get(&Fate::Confirmed).into_iter().collect();
        let failed: Of =
            |measured| [Fate::SoldOut, Fate::Declined].iter().filter_map(|fate| measured.ended.get(fate)).collect();
        let mut rows = Vec::new();
        let mut drawn = Vec::new();
        for (what, of) in
            [("until 202", accepted), ("until confirmed", confirmed), ("until failed, all given back", failed)]
        {
            let mut all = BTreeMap::new();
            for mode in Mode::ALL {
                let mut merged = Histogram::<u64>::new(3).map_err(|error| ComparisonError::Plot(error.to_string()))?;
                for histogram in self.turns(mode).flat_map(|turn| of(&turn.open)) {
                    merged.add(histogram).map_err(|error| ComparisonError::Plot(error.to_string()))?;
                }
                all.insert(mode, merged);
            }
            let at =
                |mode: Mode, quantile: f64| all.get(&mode).map_or(0, |histogram| histogram.value_at_quantile(quantile));
            for mode in Mode::ALL {
                let Some(histogram) = all.get(&mode).filter(|histogram| !histogram.is_empty()) else { continue };
                let mut row = vec![format!("{what}, {}", mode.name()), histogram.len().to_string()];
                row.extend([0.5, 0.9, 0.99].map(|quantile| ms(at(mode, quantile))));
                row.push(ms(histogram.max()));
                for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
                    let base = at(Mode::Choreographed, quantile);
                    let ratio = at(mode, quantile) as f64 / base.max(1) as f64;
                    row.push(if base == 0 { String::new() } else { format!("{ratio:.2}") });
                    if mode != Mode::Choreographed && base > 0 {
                        ratios.push(Ratio { what: format!("{what}, {name}"), mode: mode.name().into(), value: ratio });
                    }
                }
                rows.push(row);
            }
            drawn.push((what, all));
        }
        let mut parts = vec![
            Part::Text(
                "Open load: requests come at a fixed rate, whatever becomes of those before, and times count from when a \
                 request was due. Ratios are to the choreographed mode. A local AWS runs STANDARD and EXPRESS with the same \
                 engine: where those two differ there, it is noise."
                    .into(),
            ),
            table(&["ms", "bookings", "p50", "p90", "p99", "max", "p50 ratio", "p99 ratio"], rows),
        ];
        for (name, (what, all)) in ["latency-accepted", "latency-confirmed", "latency-failed"].into_iter().zip(&drawn) {
            if all.values().any(|histogram| !histogram.is_empty()) {
                let caption = format!("Time {what}, by percentile (both scales are logarithmic)");
                parts.push(Part::Plot { name, caption, svg: plots::latencies(all)? });
            }
        }
        Ok(Section { title: "How long bookings take", parts })
    }

    fn throughput(&self, ratios: &mut Vec<Ratio>) -> Section {
        let rates = |mode: Mode| self.turns(mode).map(|turn| turn.closed.per_second).collect::<Vec<_>>();
        let base = median(rates(Mode::Choreographed));
        let mut rows = Vec::new();
        for mode in Mode::ALL.into_iter().filter(|mode| self.turns.contains_key(mode)) {
            let (own, all) = (median(rates(mode)), rates(mode));
            let used = |of: fn(&crate::load::Used) -> f64| {
                let shares = self.turns(mode).map(|turn| of(&turn.closed.used)).collect();
                format!("{:.0}%", 100.0 * median(shares))
            };
            let again: usize = self.turns(mode).map(|turn| turn.closed.repeated + turn.open.repeated).sum();
            if mode != Mode::Choreographed && base > 0.0 {
                ratios.push(Ratio { what: "bookings a second".into(), mode: mode.name().into(), value: own / base });
            }
            rows.push(vec![
                mode.name().into(),
                number(own),
                format!(
                    "{} to {}",
                    number(all.iter().copied().fold(f64::MAX, f64::min)),
                    number(all.iter().copied().fold(0.0, f64::max))
                ),
                format!("{:.2}", own / base),
                used(|used| used.local_aws),
                used(|used| used.functions),
                used(|used| used.generator),
                again.to_string(),
            ]);
        }
        let otherwise: usize = self
            .turns
            .values()
            .flatten()
            .map(|turn| turn.closed.otherwise().count() + turn.open.otherwise().count())
            .sum();
        let head = [
            "closed load",
            "bookings/s",
            "least to most",
            "ratio",
            "local AWS, of a core",
            "functions",
            "generator",
            "sent again",
        ];
        let parts = vec![
            Part::Text(
                "Closed load: so many travellers, each of whom books again as soon as a booking is accepted. On a local AWS \
                 this is the limit of one emulator process, which is full when its share nears a core: it says how much \
                 work a mode makes, not what AWS can bear. The limits on AWS are below."
                    .into(),
            ),
            table(&head, rows),
            Part::Text(format!(
                "{otherwise} bookings ended otherwise than they must. The audit of all tables found {} violations.",
                self.violations.len()
            )),
        ];
        Section { title: "How many bookings there can be", parts }
    }

    fn counted(&self, mode: Mode, fate: Fate) -> Option<&Counted> {
        self.counted.iter().find(|counted| counted.mode == mode && counted.fate == fate)
    }

    /// The mean work for a booking of the mix.
    fn mixed(&self, mode: Mode, mix: Mix) -> Work {
        let (sold_out, declined) = (f64::from(mix.sold_out) / 100.0, f64::from(mix.declined) / 100.0);
        let shares =
            [(Fate::Confirmed, 1.0 - sold_out - declined), (Fate::SoldOut, sold_out), (Fate::Declined, declined)];
        let of = |(fate, share)| self.counted(mode, fate).map(|counted| work::times(&work::mean(&counted.each), share));
        shares.into_iter().filter_map(of).fold(Work::new(), |sum, part| work::sum(sum, &part))
    }

    fn work(&self) -> Section {
        let mut parts = vec![Part::Text(
            "Counted from what happened on a local AWS: each request, message, invocation and state names its booking. \
             Where bookings differ, least and most are given. The client's own looks at its booking are not counted. Of \
             SQS, what AWS itself sends, receives and deletes counts as well; that mappings also ask when there is \
             nothing is part of the standing costs."
                .into(),
        )];
        for fate in Fate::ALL {
            let modes: Vec<_> = Mode::ALL.into_iter().filter_map(|mode| self.counted(mode, fate)).collect();
            if modes.is_empty() {
                continue;
            }
            let rows = Unit::ALL.map(|unit| {
                let mut row = vec![unit.name().to_owned()];
                for counted in &modes {
                    let counts = || counted.each.iter().map(|work| work.get(&unit).copied().unwrap_or_default());
                    let (least, most) = (counts().fold(f64::MAX, f64::min), counts().fold(0.0, f64::max));
                    let mean = number(work::mean(&counted.each).get(&unit).copied().unwrap_or_default());
                    let differ = (most - least) > 0.02 * most && number(least) != number(most);
                    row.push(if differ { format!("{mean} ({} to {})", number(least), number(most)) } else { mean });
                }
                row
            });
            let mut head = vec![fate.name()];
            head.extend(modes.iter().map(|counted| counted.mode.name()));
            parts.push(table(&head, rows.to_vec()));
        }
        Section { title: "What is done for a booking", parts }
    }

    fn timelines(&self) -> Result<Section, ComparisonError> {
        let mut parts = Vec::new();
        for (name, fate) in [("timeline-confirmed", Fate::Confirmed), ("timeline-failed", Fate::SoldOut)] {
            let of = |mode| self.counted(mode, fate).map(|counted| (mode, counted.fastest.clone()));
            let all: BTreeMap<_, _> = Mode::ALL.into_iter().filter_map(of).collect();
            if !all.is_empty() {
                let caption = format!(
                    "One booking in each mode ({}): invocations, states or messages, and requests to DynamoDB",
                    fate.name()
                );
                parts.push(Part::Plot { name, caption, svg: plots::timelines(&all)? });
            }
        }
        Ok(Section { title: "What happens when", parts })
    }

    fn costs_of(&self, region: &Region, mode: Mode, mix: Mix) -> Result<Costs, ComparisonError> {
        Ok(region.costs(mode, &self.mixed(mode, mix))?)
    }

    fn costs(&self, published: &Published, ratios: &mut Vec<Ratio>) -> Result<Section, ComparisonError> {
        let [main, second] = Self::REGIONS;
        let region = published.region(main)?;
        let mut by_mode = BTreeMap::new();
        for mode in Mode::ALL {
            by_mode.insert(mode, self.costs_of(region, mode, self.mix)?);
        }
        let total = |mode: Mode| by_mode.get(&mode).map_or(0.0, costs::total);
        let cell = |mode: &Mode, service: Service| {
            number(by_mode.get(mode).and_then(|costs| costs.get(&service)).copied().unwrap_or_default() * 1e6)
        };
        let mut rows: Vec<Vec<String>> = Service::ALL
            .iter()
            .map(|service| {
                let cells = Mode::ALL.iter().map(|mode| cell(mode, *service));
                std::iter::once(service.name().to_owned()).chain(cells).collect()
            })
            .collect();
        let row = |name: String, cell: &dyn Fn(Mode) -> Result<String, ComparisonError>| {
            let cells = Mode::ALL.into_iter().map(cell);
            std::iter::once(Ok(name)).chain(cells).collect::<Result<Vec<_>, _>>()
        };
        rows.push(row(format!("all, {main}"), &|mode| Ok(number(total(mode) * 1e6)))?);
        rows.push(row("as a ratio".into(), &|mode| Ok(format!("{:.2}", total(mode) / total(Mode::Choreographed))))?);
        let coordination = |mode: Mode| {
            let of = |service| by_mode.get(&mode).and_then(|costs| costs.get(&service)).copied().unwrap_or_default();
            [Service::StepFunctions, Service::Sns, Service::Sqs].map(of).iter().sum::<f64>()
        };
        rows.push(row("coordination only (Step Functions, SNS, SQS)".into(), &|mode| {
            Ok(number(coordination(mode) * 1e6))
        })?);
        let other = published.region(second)?;
        rows.push(row(format!("all, {second}"), &|mode| {
            Ok(number(costs::total(&self.costs_of(other, mode, self.mix)?) * 1e6))
        })?);
        for mode in [Mode::Standard, Mode::Express] {
            let value = total(mode) / total(Mode::Choreographed);
            ratios.push(Ratio { what: "cost of a booking".into(), mode: mode.name().into(), value });
        }
        let heads = |first: &'static str| {
            let mut head = vec![first];
            head.extend(Mode::ALL.map(Mode::name));
            head
        };

        let mut by_mix = Vec::new();
        for failing in [0_u8, 10, 20, 30, 50, 100] {
            let mix = Mix { sold_out: failing / 2, declined: failing - failing / 2 };
            by_mix.push(row(format!("{failing}% fail"), &|mode| {
                Ok(number(costs::total(&self.costs_of(region, mode, mix)?) * 1e6))
            })?);
        }

        let mut lines = BTreeMap::new();
        for mode in Mode::ALL {
            lines.insert(mode, (region.standing(mode)?, total(mode)));
        }
        let mut crossings = Vec::new();
        for (one, other) in [
            (Mode::Choreographed, Mode::Standard),
            (Mode::Choreographed, Mode::Express),
            (Mode::Standard, Mode::Express),
        ] {
            let (a, b) = (lines.get(&one).copied().unwrap_or_default(), lines.get(&other).copied().unwrap_or_default());
            crossings.push(match costs::crossover(a, b) {
                Some(volume) => {
                    let (below, above) = if a.0 < b.0 { (one, other) } else { (other, one) };
                    format!(
                        "{} is cheaper below {} bookings a month, {} above",
                        below.name(),
                        plots::thousands(volume),
                        above.name()
                    )
                }
                None => {
                    let cheaper = if a.1 <= b.1 { one } else { other };
                    format!(
                        "{} is cheaper than {} at any volume",
                        cheaper.name(),
                        if cheaper == one { other.name() } else { one.name() }
                    )
                }
            });
        }
        let standing = Mode::ALL
            .map(|mode| format!("{} {:.2} USD", mode.name(), lines.get(&mode).map_or(0.0, |line| line.0)))
            .join(", ");
        let parts = vec![
            Part::Text(format!(
                "Dollars for a million bookings of the mix ({}% sold out, {}% declined) at list prices of {main}, in the first \
                 tier, no free tier, x86_64. Counted work, priced; a client's looks at its booking, storage and data \
                 transfer are not in it.",
                self.mix.sold_out, self.mix.declined
            )),
            table(&heads("USD for a million bookings"), rows),
            Part::Plot {
                name: "costs",
                caption: format!("What a million bookings cost, by service ({main})"),
                svg: plots::costs_by_service(&by_mode)?,
            },
            Part::Text("As a function of the mix, half of those that fail being sold out and half declined:".into()),
            table(&heads("USD for a million bookings"), by_mix),
            Part::Text(format!(
                "When nobody books, mappings ask their queues and alarms watch all the same: {standing} a month. So {}.",
                crossings.join("; ")
            )),
            Part::Plot {
                name: "costs-by-volume",
                caption: format!("What a month costs, by volume ({main}; both scales are logarithmic)"),
                svg: plots::costs_by_volume(&lines)?,
            },
        ];
        Ok(Section { title: "What it costs", parts })
    }

    fn limits(&self, published: &Published) -> Result<Section, ComparisonError> {
        let mut parts = vec![Part::Text(
            "The quotas that an account has unless it asks for more, divided by what a booking of the mix takes of each. The \
             first three of each mode; AWS raises all of them for those who ask. The stack's own ApiRateLimit (100 requests \
             a second) comes before. Bookings of one and the same flight and date meet another limit in every mode: one \
             item takes 1,000 write units a second, that is 500 reservations."
                .into(),
        )];
        for name in Self::REGIONS {
            let region = published.region(name)?;
            let mut rows = Vec::new();
            for mode in Mode::ALL {
                let work = self.mixed(mode, self.mix);
                for (nth, limit) in region.limits(mode, &work, self.busiest(mode))?.into_iter().take(3).enumerate() {
                    rows.push(vec![
                        format!("{}, {}", mode.name(), ["first", "then", "then"].get(nth).copied().unwrap_or_default()),
                        plots::thousands(limit.bookings_per_second),
                        limit.quota.per_second.map_or(String::new(), plots::thousands),
                        number(limit.each),
                        format!("{}: {}", limit.name, limit.quota.what),
                    ]);
                }
            }
            parts.push(Part::Text(format!("In {name}:")));
            parts.push(table(&["mode", "bookings/s", "quota", "each takes", "of what"], rows));
        }
        let main = Self::REGIONS[0];
        let region = published.region(main)?;
        let mut rows = Vec::new();
        for exponent in 0..=5 {
            let rate = 10_f64.powi(exponent);
            for mode in Mode::ALL {
                let work = self.mixed(mode, self.mix);
                let each = costs::total(&region.costs(mode, &work)?);
                let limits = region.limits(mode, &work, self.busiest(mode))?;
                let over: Vec<_> = limits
                    .iter()
                    .filter(|limit| limit.bookings_per_second < rate)
                    .map(|limit| format!("{} ({}×)", limit.name, number(rate / limit.bookings_per_second)))
                    .collect();
                let at_once = work.get(&Unit::BilledMs).copied().unwrap_or_default() / 1e3 * rate;
                rows.push(vec![
                    format!("{}/s, {}", plots::thousands(rate), mode.name()),
                    plots::thousands(costs::monthly(each, rate)),
                    plots::thousands(at_once),
                    if over.is_empty() { "none".into() } else { over.join("; ") },
                ]);
            }
        }
        parts.push(Part::Text(format!(
            "Out to 100,000 bookings a second, on paper, in {main}: what a month costs at that rate, how many functions run at \
             once with the durations seen here, and which quotas have to be raised first, and to how many times their default."
        )));
        parts.push(table(&["rate", "USD a month", "functions at once", "quotas exceeded"], rows));
        Ok(Section { title: "Where it ends", parts })
    }

    /// How many units a booking of the mix writes to the table that is written to most.
    fn busiest(&self, mode: Mode) -> f64 {
        let (sold_out, declined) = (f64::from(self.mix.sold_out) / 100.0, f64::from(self.mix.declined) / 100.0);
        let mut tables: BTreeMap<&str, f64> = BTreeMap::new();
        for (fate, share) in
            [(Fate::Confirmed, 1.0 - sold_out - declined), (Fate::SoldOut, sold_out), (Fate::Declined, declined)]
        {
            for (table, units) in self.counted(mode, fate).into_iter().flat_map(|counted| &counted.tables) {
                *tables.entry(table).or_default() += units * share;
            }
        }
        tables.into_values().fold(0.0, f64::max)
    }

    fn outages(&self) -> Result<Section, ComparisonError> {
        let mut parts = vec![Part::Text(
            "The coordinator is out of order for a while under open load: what the state machine asks of functions, or what \
             anybody publishes to the topic, is refused. Every booking asked for could succeed. \"Given back\" means failed, \
             with nothing reserved and nothing charged; a booking that had not ended would be lost, and the run would fail. \
             A record that a destination cannot publish is gone, and its booking waits for the reconciler, which takes up \
             bookings after 60 s here (the template's default is 600 s)."
                .into(),
        )];
        let mut rows = Vec::new();
        for suffered in &self.suffered {
            rows.push(vec![
                format!("{}, {}", suffered.kind.name(), suffered.mode.name()),
                number(suffered.outage.1 - suffered.outage.0),
                suffered.asked.to_string(),
                suffered.delayed().to_string(),
                suffered.failed().to_string(),
                suffered.lost().to_string(),
                number(suffered.recovery()),
                number(suffered.longest()),
                suffered.repeated.to_string(),
                suffered.violations.len().to_string(),
            ]);
        }
        let head = [
            "outage",
            "s",
            "bookings",
            "took over 2 s",
            "given back",
            "lost",
            "s to recover",
            "longest, s",
            "requests sent again",
            "violations",
        ];
        parts.push(table(&head, rows));
        for (kind, name) in outage::Kind::ALL.into_iter().zip(["outage-throttled", "outage-stopped"]) {
            let all: Vec<_> = self.suffered.iter().filter(|suffered| suffered.kind == kind).collect();
            if !all.is_empty() {
                let caption = format!("Each booking around an outage: {}", kind.name());
                parts.push(Part::Plot { name, caption, svg: plots::outages(&all)? });
            }
        }
        Ok(Section { title: "When the coordinator is out of order", parts })
    }

    fn explained(&self) -> Section {
        let rows = self.explanations.iter().map(|path| {
            vec![
                format!("{}: {}", path.mode.name(), path.by),
                if path.found {
                    path.questions.len().to_string()
                } else {
                    format!("not found with {}", path.questions.len())
                },
                number(path.bytes as f64 / 1e3),
                path.questions.join(", "),
            ]
        });
        let parts = vec![
            Part::Text(
                "A booking failed because the hotel service was set up with a table that is not there. An operator who knows \
                 the booking's id asks until an answer names the failed step, or has DynamoDB's error. Logs are asked one by \
                 one, in the order in which a booking comes to the functions; CloudWatch Logs Insights asks all of them with \
                 two questions, StartQuery and GetQueryResults. EXPRESS keeps no history: its row looks at the same booking \
                 without one."
                    .into(),
            ),
            table(&["what is asked", "questions", "kB to read", "which"], rows.collect()),
        ];
        Section { title: "How a failure is explained", parts }
    }

    fn sources(&self, published: &Published) -> Result<Section, ComparisonError> {
        let mut parts = vec![Part::Text(format!(
            "Prices in {} and quotas (a second, or at once), as read on {}. `prices.json` has them, with what else is to know of \
             each: some could only be read second-hand. Put in your own.",
            published.currency, published.read_on
        ))];
        for name in Self::REGIONS {
            let region = published.region(name)?;
            let mut rows = Vec::new();
            for (id, price) in &region.prices {
                let date = price.source_date.clone().unwrap_or_default();
                let each = if price.per > 1.0 {
                    format!("{} {}s", plots::thousands(price.per), price.unit)
                } else {
                    price.unit.clone()
                };
                rows.push(vec![id.clone(), format!("{} for {each}", price.usd), date, price.source.clone()]);
            }
            for (id, quota) in &region.quotas {
                let date = quota.source_date.clone().unwrap_or_default();
                let allowed = quota.per_second.map_or("none".into(), plots::thousands);
                rows.push(vec![id.clone(), allowed, date, quota.source.clone()]);
            }
            parts.push(table(&[name, "price or quota", "dated", "source"], rows));
        }
        Ok(Section { title: "Where prices and quotas come from", parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_say_something() {
        assert_eq!([0.0, 0.123, 1.0, 12.34, 123.4].map(number), ["0", "0.12", "1.0", "12.3", "123"]);
    }
}

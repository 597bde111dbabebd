//! Plots, as SVG.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use plotters::{
    coord::{CoordTranslate, Shift},
    prelude::{
        ChartBuilder, ChartContext, Circle, Color, Cross, DrawingArea, DrawingBackend, EmptyElement, IntoDrawingArea,
        IntoFont, IntoLogRange, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text,
        WHITE,
    },
    style::{
        TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    ComparisonError, Mode,
    costs::{Costs, Service, total},
    outage::OutageResult,
    work::WorkRecord,
};

/// Width of every plot, in pixels.
const WIDTH: u32 = 920;
const INK: RGBColor = RGBColor(44, 48, 56);
const PALE: RGBColor = RGBColor(224, 227, 232);
const FONT: &str = "system-ui, sans-serif";

const fn colour(mode: Mode) -> RGBColor {
    match mode {
        Mode::Choreographed => RGBColor(13, 125, 140),
        Mode::Standard => RGBColor(209, 84, 24),
        Mode::Express => RGBColor(112, 72, 200),
    }
}

const fn service_colour(service: Service) -> RGBColor {
    match service {
        Service::DynamoDb => RGBColor(63, 94, 160),
        Service::Lambda => RGBColor(232, 144, 52),
        Service::ApiGateway => RGBColor(150, 96, 170),
        Service::StepFunctions => RGBColor(209, 60, 96),
        Service::Sns => RGBColor(58, 150, 110),
        Service::Sqs => RGBColor(120, 180, 90),
        Service::CloudWatch => RGBColor(140, 146, 156),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn failed(error: impl std::fmt::Display) -> ComparisonError {
    ComparisonError::Plot(error.to_string())
}

/// Draws on white, so that a plot can be read on any page.
fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Result<(), ComparisonError>) -> Result<String, ComparisonError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(text)
}

fn small() -> TextStyle<'static> {
    (FONT, 13).into_font().color(&INK)
}

fn legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, B, C>,
    position: SeriesLabelPosition,
) -> Result<(), ComparisonError> {
    let labels = &mut chart.configure_series_labels();
    labels.position(position).background_style(WHITE.mix(0.9)).label_font(small()).draw().map_err(failed)
}

/// Times by percentile, on scales that show the slowest few: one line per mode.
pub fn latencies(histograms: &BTreeMap<Mode, Histogram<u64>>) -> Result<String, ComparisonError> {
    let all = || histograms.values().filter(|histogram| !histogram.is_empty());
    let most = all().map(Histogram::max).max().unwrap_or(1_000) as f64 / 1e3;
    let least = all().map(Histogram::min).min().unwrap_or(1_000) as f64 / 1e3;
    let rarest = all().map(Histogram::len).max().unwrap_or(100) as f64;
    svg(360, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((1.0..rarest * 1.3).log_scale(), (least * 0.8..most * 1.25).log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .bold_line_style(PALE)
            .light_line_style(WHITE)
            .axis_style(INK)
            .label_style(small())
            .x_desc("percentile of the bookings")
            .y_desc("ms")
            .y_labels(24)
            .x_label_formatter(&|one_in: &f64| percentile(*one_in))
            .y_label_formatter(&|ms: &f64| format!("{ms:.0}"))
            .draw()
            .map_err(failed)?;
        for (mode, histogram) in histograms.iter().filter(|(_, histogram)| !histogram.is_empty()) {
            let points = (0..=200).map(|step| (rarest.ln() * f64::from(step) / 200.0).exp());
            let points = points
                .filter(|one_in| *one_in <= histogram.len() as f64)
                .map(|one_in| (one_in, histogram.value_at_quantile(1.0 - 1.0 / one_in).max(1) as f64 / 1e3));
            let colour = colour(*mode);
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                .map_err(failed)?
                .label(mode.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}

/// The percentile for "one in so many", for the usual ones.
fn percentile(one_in: f64) -> String {
    if ![1.0, 2.0, 10.0, 100.0, 1_000.0, 10_000.0].iter().any(|named| (one_in - named).abs() < 1e-6 * named) {
        return String::new();
    }
    let text = format!("{:.3}", 100.0 * (1.0 - 1.0 / one_in));
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// USD per month against bookings per month.
pub fn costs_by_volume(lines: &BTreeMap<Mode, (f64, f64)>) -> Result<String, ComparisonError> {
    const FROM: f64 = 1e2;
    const TO: f64 = 1e10;
    let cost = |(standing, each): (f64, f64), volume: f64| (standing + each * volume).max(0.01);
    let most = lines.values().map(|line| cost(*line, TO)).fold(1.0, f64::max);
    let least = lines.values().map(|line| cost(*line, FROM)).fold(most, f64::min);
    svg(360, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d((FROM..TO).log_scale(), (least * 0.5..most * 2.0).log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .bold_line_style(PALE)
            .light_line_style(WHITE)
            .axis_style(INK)
            .label_style(small())
            .x_desc("bookings a month")
            .y_desc("USD a month")
            .x_label_formatter(&|volume: &f64| thousands(*volume))
            .y_label_formatter(&|usd: &f64| if *usd < 1.0 { format!("{usd:.2}") } else { thousands(*usd) })
            .draw()
            .map_err(failed)?;
        for (mode, line) in lines {
            let points = (0..=160).map(|step| FROM * 10_f64.powf(f64::from(step) / 20.0));
            let colour = colour(*mode);
            let width = if *mode == Mode::Express { 3 } else { 2 };
            chart
                .draw_series(LineSeries::new(
                    points.map(|volume| (volume, cost(*line, volume))),
                    colour.stroke_width(width),
                ))
                .map_err(failed)?
                .label(mode.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}

/// 1k, 10k, 100k, 1M …
pub fn thousands(number: f64) -> String {
    let (scaled, suffix) = match number {
        ..1e3 => (number, ""),
        ..1e6 => (number / 1e3, "k"),
        ..1e9 => (number / 1e6, "M"),
        _ => (number / 1e9, "G"),
    };
    let text = if scaled < 10.0 { format!("{scaled:.1}") } else { format!("{scaled:.0}") };
    format!("{}{suffix}", text.strip_suffix(".0").unwrap_or(&text))
}

/// USD per million bookings: one bar per mode, with a part per service.
pub fn costs_by_service(costs: &BTreeMap<Mode, Costs>) -> Result<String, ComparisonError> {
    let most = costs.values().map(total).fold(0.0, f64::max) * 1e6;
    let bars = costs.len() as f64;
    svg(260, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(190)
            .build_cartesian_2d(0.0..most * 1.16, 0.0..bars)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .bold_line_style(PALE)
            .light_line_style(WHITE)
            .axis_style(INK)
            .label_style(small())
            .x_desc("USD for a million bookings")
            .x_label_formatter(&|usd: &f64| format!("{usd:.0}"))
            .draw()
            .map_err(failed)?;
        for (nth, (mode, costs)) in costs.iter().enumerate() {
            let middle = bars - nth as f64 - 0.5;
            let mut from = 0.0;
            for service in Service::ALL {
                let cost = costs.get(&service).copied().unwrap_or_default() * 1e6;
                let part = Rectangle::new(
                    [(from, middle - 0.32), (from + cost, middle + 0.32)],
                    service_colour(service).filled(),
                );
                chart.draw_series([part]).map_err(failed)?;
                if cost > most * 0.07 {
                    let style = (FONT, 12).into_font().color(&WHITE).pos(Pos::new(HPos::Center, VPos::Center));
                    let text = Text::new(format!("{cost:.1}"), (from + cost / 2.0, middle), style);
                    chart.draw_series([text]).map_err(failed)?;
                }
                from += cost;
            }
            let sum = small().pos(Pos::new(HPos::Left, VPos::Center));
            let sum = Text::new(format!("{:.1}", total(costs) * 1e6), (8, 0), sum);
            chart.draw_series([EmptyElement::at((from, middle)) + sum]).map_err(failed)?;
            let name = small().pos(Pos::new(HPos::Right, VPos::Center));
            let name = Text::new(mode.name(), (-8, 0), name);
            chart.draw_series([EmptyElement::at((0.0, middle)) + name]).map_err(failed)?;
        }
        // A legend beside the axis title, as there is one colour per service.
        let mut x = 190;
        for service in Service::ALL {
            let box_ = Rectangle::new([(x, 4), (x + 11, 15)], service_colour(service).filled());
            area.draw(&box_).map_err(failed)?;
            let style = (FONT, 12).into_font().color(&INK);
            area.draw(&Text::new(service.name(), (x + 16, 3), style)).map_err(failed)?;
            x += 34 + 7 * i32::try_from(service.name().len()).unwrap_or(0);
        }
        Ok(())
    })
}

/// Each booking that was requested around an outage: one point at its duration.
pub fn outages(all: &[&OutageResult]) -> Result<String, ComparisonError> {
    let points = || all.iter().flat_map(|result| &result.points);
    let last = points().map(|point| point.due).fold(1.0, f64::max);
    let longest = points().map(|point| point.ended - point.due).fold(1.0, f64::max);
    let top = longest * 40.0; // room for the legend, on a logarithmic scale
    svg(420, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last * 1.02, (0.02..top).log_scale())
            .map_err(failed)?;
        if let Some((from, to)) = all.first().map(|result| result.outage) {
            let shade = Rectangle::new([(from, 0.02), (to, top)], RGBColor(250, 236, 228).filled());
            chart.draw_series([shade]).map_err(failed)?;
        }
        chart
            .configure_mesh()
            .bold_line_style(PALE)
            .light_line_style(WHITE.mix(0.0))
            .axis_style(INK)
            .label_style(small())
            .x_desc("asked for, in seconds; the outage is shaded")
            .x_label_formatter(&|seconds: &f64| format!("{seconds:.0}"))
            .y_desc("took, in seconds")
            .y_label_formatter(&|seconds: &f64| format!("{seconds}"))
            .draw()
            .map_err(failed)?;
        for result in all {
            let colour = colour(result.mode);
            let at = |point: &super::outage::OutagePoint| (point.due, (point.ended - point.due).max(0.021));
            let good = result.points.iter().filter(|point| point.confirmed);
            chart
                .draw_series(good.map(|point| Circle::new(at(point), 3, colour.mix(0.75).filled())))
                .map_err(failed)?
                .label(format!("{}: confirmed", result.mode.name()))
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
            let bad: Vec<_> = result.points.iter().filter(|point| !point.confirmed).collect();
            if !bad.is_empty() {
                chart
                    .draw_series(bad.into_iter().map(|point| Cross::new(at(point), 4, colour.stroke_width(2))))
                    .map_err(failed)?
                    .label(format!("{}: given back", result.mode.name()))
                    .legend(move |(x, y)| Cross::new((x + 8, y), 4, colour.stroke_width(2)));
            }
        }
        legend(&mut chart, SeriesLabelPosition::UpperRight)
    })
}

/// The rows of a timeline, from top to bottom.
const ROWS: [&str; 8] = ["api", "coordinator", "flight", "hotel", "car", "payment", "booking", "DynamoDB"];

fn row(record: &WorkRecord) -> Option<usize> {
    let name = match record.kind.as_str() {
        "invocation" => record.name.rsplit('-').next().unwrap_or_default(),
        "execution" | "transition" | "publish" | "delivery" | "receive" | "delete" => "coordinator",
        "request" if record.service == "DynamoDB" => "DynamoDB",
        _ => return None,
    };
    ROWS.iter().position(|row| *row == name)
}

/// The work for one booking in each mode, one below the other on the same scale.
pub fn timelines(all: &BTreeMap<Mode, Vec<WorkRecord>>) -> Result<String, ComparisonError> {
    let first = |records: &[WorkRecord]| records.iter().map(|record| record.at).fold(f64::MAX, f64::min);
    let end = |records: &[WorkRecord]| records.iter().map(|record| record.at + record.took).fold(0.0, f64::max);
    let longest = all.values().map(|records| (end(records) - first(records)) * 1e3).fold(1.0, f64::max);
    let panel = 250;
    svg(panel * u32::try_from(all.len()).unwrap_or(3) + 10, |area| {
        for (area, (mode, records)) in area.split_evenly((all.len(), 1)).iter().zip(all) {
            let from = first(records);
            let height = ROWS.len() as f64;
            let mut chart = ChartBuilder::on(area)
                .margin_left(16)
                .margin_right(24)
                .margin_top(4)
                .caption(mode.name(), (FONT, 16).into_font().color(&colour(*mode)))
                .x_label_area_size(34)
                .y_label_area_size(92)
                .build_cartesian_2d(0.0..longest * 1.03, 0.0..height)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .disable_y_mesh()
                .disable_y_axis()
                .bold_line_style(PALE)
                .light_line_style(WHITE)
                .axis_style(INK)
                .label_style((FONT, 12).into_font().color(&INK))
                .x_desc("ms since the request")
                .x_label_formatter(&|ms: &f64| format!("{ms:.0}"))
                .draw()
                .map_err(failed)?;
            for (nth, name) in ROWS.iter().enumerate() {
                let name = match (*name, mode) {
                    ("coordinator", Mode::Choreographed) => "topic, inboxes",
                    ("coordinator", _) => "state machine",
                    (name, _) => name,
                };
                let style = (FONT, 12).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
                let at = (0.0, height - nth as f64 - 0.5);
                chart
                    .draw_series([EmptyElement::at(at) + Text::new(name.to_owned(), (-8, 0), style)])
                    .map_err(failed)?;
            }
            for record in records {
                let Some(row) = row(record) else { continue };
                let middle = height - row as f64 - 0.5;
                let (start, stop) = ((record.at - from) * 1e3, (record.at + record.took - from) * 1e3);
                let (half, fill) = match record.kind.as_str() {
                    "execution" => (0.12, colour(*mode).mix(0.35)),
                    "transition" | "publish" | "delivery" | "receive" | "delete" => (0.38, colour(*mode).mix(0.9)),
                    "request" => (0.3, service_colour(Service::DynamoDb).mix(0.9)),
                    _ => (0.34, service_colour(Service::Lambda).mix(0.85)),
                };
                let least = longest / 700.0; // so that instantaneous work is visible too
                let bar =
                    Rectangle::new([(start, middle - half), (stop.max(start + least), middle + half)], fill.filled());
                chart.draw_series([bar]).map_err(failed)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outage::{OutageKind, OutagePoint};

    fn histogram() -> Histogram<u64> {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..1_000_u64).for_each(|n| histogram.record(n * 100).unwrap());
        histogram
    }

    #[test]
    fn every_plot_is_drawn_even_of_little() {
        let of_each = |mode: Mode| (mode, histogram());
        let plots = [
            latencies(&Mode::ALL.map(of_each).into()).unwrap(),
            latencies(&BTreeMap::from([(Mode::Express, Histogram::<u64>::new(3).unwrap())])).unwrap(),
            costs_by_volume(&Mode::ALL.map(|mode| (mode, (3.0, 1e-4))).into()).unwrap(),
            costs_by_service(&Mode::ALL.map(|mode| (mode, [(Service::Lambda, 1e-5)].into())).into()).unwrap(),
        ];
        for plot in plots {
            assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "{plot}");
        }
    }

    #[test]
    fn a_booking_that_was_given_back_is_not_drawn_as_one_that_was_confirmed() {
        let point = |due, confirmed| OutagePoint { due, ended: due + 1.0, confirmed };
        let result = |confirmed| OutageResult {
            mode: Mode::Standard,
            kind: OutageKind::Stopped,
            outage: (1.0, 2.0),
            asked: 2,
            points: vec![point(0.5, true), point(1.5, confirmed)],
            repeated: 0,
            violations: Vec::new(),
        };
        let [all_good, one_bad] = [true, false].map(|confirmed| outages(&[&result(confirmed)]).unwrap());
        assert!(!all_good.contains("given back") && one_bad.contains("given back"));
    }

    #[test]
    fn scales_are_labelled_as_people_read_them() {
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(percentile), ["0%", "90%", "99%", "99.9%"]);
        assert_eq!(percentile(3.0), "");
        assert_eq!([12.0, 1e3, 2.5e6, 1e10].map(thousands), ["12", "1k", "2.5M", "10G"]);
    }
}

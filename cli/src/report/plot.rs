//! The lifts as a drawing: every journey and rule with its interval, and how each journey's came to be.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::groups::{Compared, Group, JourneyCompared};
use usher_domain::off_policy::Verdict;
use usher_domain::off_policy::lift::Lift;

/// Pixels.
const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 26;
const HEAD_HEIGHT: u32 = 90;
const LOOKS_HEIGHT: u32 = 260;
const LABELS_WIDTH: u32 = 220;
const MARGIN: u32 = 12;
const AXIS_HEIGHT: u32 = 36;
const DOT_RADIUS: u32 = 4;
const FONT: &str = "sans-serif";
const FONT_SIZE: u32 = 14;
const TITLE_SIZE: u32 = 17;
/// Marks on an axis of values.
const VALUE_LABELS: usize = 8;
/// Marks on an axis of time.
const TIME_LABELS: usize = 6;
/// What is left free beside the widest interval.
const ROOM_SHARE: f64 = 0.06;
/// The date of a time in RFC 3339, and its date and minute.
const DATE_CHARS: usize = 10;
const MINUTE_CHARS: usize = 16;
const DAY_MS: f64 = 24.0 * 60.0 * 60.0 * 1000.0;

const BETTER: RGBColor = RGBColor(34, 120, 70);
const WORSE: RGBColor = RGBColor(180, 50, 40);
const UNCLEAR: RGBColor = RGBColor(110, 110, 110);
const AXIS: RGBColor = RGBColor(120, 120, 120);

/// Draws them (SVG).
///
/// # Errors
/// When they can't be drawn.
pub fn draw(compared: &Compared, confidence: f64) -> Result<String> {
    let rows: Vec<(String, Group)> = compared.journeys.iter().flat_map(rows_of).collect();
    let looked: Vec<&JourneyCompared> = compared
        .journeys
        .iter()
        .filter(|journey| journey.looks.len() > 1)
        .collect();
    let lifts_height = HEAD_HEIGHT + ROW_HEIGHT * rows.len() as u32;
    let height = lifts_height + LOOKS_HEIGHT * looked.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = (|| {
            area.fill(&WHITE).map_err(failed)?;
            let (above, below) = area.split_vertically(lifts_height);
            lifts(&above, &rows, confidence)?;
            for (journey, panel) in looked.iter().zip(below.split_evenly((looked.len().max(1), 1))) {
                looks(&panel, journey)?;
            }
            area.present().map_err(failed)
        })();
        drawn?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the plot can't be drawn: {error}")
}

fn rows_of(journey: &JourneyCompared) -> Vec<(String, Group)> {
    let whole = (journey.name.clone(), journey.whole);
    let rules = journey
        .rules
        .iter()
        .map(|(rule, group)| (format!("\u{2003}{rule}"), *group));
    std::iter::once(whole).chain(rules).collect()
}

fn color(lift: &Lift) -> RGBColor {
    match lift.verdict {
        Verdict::Better => BETTER,
        Verdict::Worse => WORSE,
        Verdict::CannotTell => UNCLEAR,
    }
}

/// A range that holds these intervals and 0, with room beside them.
fn range_of<'l>(lifts: impl Iterator<Item = &'l Lift>) -> (f64, f64) {
    let (mut low, mut high) = (0.0f64, 0.0f64);
    for lift in lifts {
        low = low.min(lift.interval.low);
        high = high.max(lift.interval.high);
    }
    let room = ROOM_SHARE * (high - low).max(f64::MIN_POSITIVE);
    (low - room, high + room)
}

fn lifts(area: &Area<'_>, rows: &[(String, Group)], confidence: f64) -> Result<()> {
    let (low, high) = range_of(rows.iter().filter_map(|(_, group)| group.lift.as_ref()));
    let last = rows.len() as f64;
    let title = format!("Lift over users who were held out, with {confidence} % intervals that hold at any look");
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, TITLE_SIZE))
        .margin(MARGIN)
        .x_label_area_size(AXIS_HEIGHT)
        .y_label_area_size(LABELS_WIDTH)
        .build_cartesian_2d(low..high, last..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(VALUE_LABELS)
        .x_desc("reward of a user's first decision, difference")
        .label_style((FONT, FONT_SIZE))
        .axis_style(AXIS)
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    let zero = PathElement::new(vec![(0.0, 0.0), (0.0, last)], AXIS.stroke_width(1));
    chart.draw_series([zero]).map_err(failed)?;
    for (index, (_, group)) in rows.iter().enumerate() {
        let Some(lift) = group.lift else { continue };
        let (y, color) = (index as f64 + 0.5, color(&lift));
        let line = vec![(lift.interval.low, y), (lift.interval.high, y)];
        chart
            .draw_series([PathElement::new(line, color.stroke_width(2))])
            .map_err(failed)?;
        let dot = Circle::new((lift.difference, y), DOT_RADIUS, color.filled());
        chart.draw_series([dot]).map_err(failed)?;
    }
    for (index, (label, group)) in rows.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(low, index as f64 + 0.5));
        let style = (FONT, FONT_SIZE).into_font().color(&BLACK);
        let place = (MARGIN as i32, y - FONT_SIZE as i32 / 2);
        let note = if group.lift.is_none() { " (not comparable)" } else { "" };
        area.draw(&Text::new(format!("{label}{note}"), place, style))
            .map_err(failed)?;
    }
    Ok(())
}

/// A journey's lift as its log grew.
fn looks(area: &Area<'_>, journey: &JourneyCompared) -> Result<()> {
    let looks = &journey.looks;
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Ok(());
    };
    let at = |look: &super::groups::Look| look.at.epoch_ms() as f64;
    let (from, until) = (at(first), at(last).max(at(first) + 1.0));
    // The first intervals say nothing and are as wide as the rewards' range, so the drawing is cut to the later half's.
    let (low, high) = range_of(looks[looks.len() / 4..].iter().map(|look| &look.lift));
    let chars = if until - from > 3.0 * DAY_MS {
        DATE_CHARS
    } else {
        MINUTE_CHARS
    };
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{}: the same, as the log grew", journey.name),
            (FONT, TITLE_SIZE),
        )
        .margin(MARGIN)
        .x_label_area_size(AXIS_HEIGHT)
        .y_label_area_size(LABELS_WIDTH / 3)
        .build_cartesian_2d(from..until, low..high)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(TIME_LABELS)
        .y_labels(VALUE_LABELS)
        .x_label_formatter(&|ms| {
            let time = usher_domain::time::Timestamp::from_epoch_ms(*ms as i64).to_string();
            time.chars().take(chars).collect::<String>().replace('T', " ")
        })
        .label_style((FONT, FONT_SIZE))
        .axis_style(AXIS)
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    let within = |value: f64| value.clamp(low, high);
    let highs = looks.iter().map(|look| (at(look), within(look.lift.interval.high)));
    let lows = looks
        .iter()
        .rev()
        .map(|look| (at(look), within(look.lift.interval.low)));
    let color = color(&last.lift);
    let band = Polygon::new(highs.chain(lows).collect::<Vec<_>>(), color.mix(0.2));
    chart.draw_series([band]).map_err(failed)?;
    let line = looks.iter().map(|look| (at(look), within(look.lift.difference)));
    let line = PathElement::new(line.collect::<Vec<_>>(), color.stroke_width(2));
    chart.draw_series([line]).map_err(failed)?;
    let zero = PathElement::new(vec![(from, 0.0), (until, 0.0)], AXIS.stroke_width(1));
    chart.draw_series([zero]).map_err(failed)?;
    Ok(())
}

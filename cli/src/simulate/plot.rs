//! The share of best offers over time, as an SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Of the image, in pixels.
const WIDTH: u32 = 900;
const HEIGHT: u32 = 480;
/// Blue, vermilion, bluish green, reddish purple, orange, sky blue: told apart by colour-blind readers too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const FONT: &str = "sans-serif";
const LINE_WIDTH: u32 = 2;
/// Of a line in the legend.
const LEGEND_LINE_PIXELS: i32 = 22;
const PERCENT: f64 = 100.0;

/// A line of the plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// Minutes, and shares from 0 to 1.
    pub points: Vec<(f64, f64)>,
    /// Whether it is what nobody can beat, and so drawn as a thin grey line.
    pub is_ceiling: bool,
}

/// Draws the lines.
///
/// # Errors
/// When the file can't be written.
pub fn draw(path: &Path, title: &str, minutes: f64, lines: &[Line]) -> Result<()> {
    draw_on(path, title, minutes, lines)
        .map_err(|error| anyhow!("{error}").context(format!("cannot draw {}", path.display())))
}

fn draw_on(path: &Path, title: &str, minutes: f64, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..minutes, 0.0..PERCENT)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("minutes")
        .y_desc("best offers")
        .x_label_formatter(&|minute| format!("{minute:.0}"))
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .label_style((FONT, 13))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let style = match line.is_ceiling {
            true => RGBColor(128, 128, 128).stroke_width(1),
            false => COLOURS[index % COLOURS.len()].stroke_width(LINE_WIDTH),
        };
        let points: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(minute, share)| (*minute, share * PERCENT))
            .collect();
        chart
            .draw_series(std::iter::once(PathElement::new(points, style)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + LEGEND_LINE_PIXELS, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .legend_area_size(LEGEND_LINE_PIXELS + 8)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        let line = |name: &str, is_ceiling| Line {
            name: name.to_owned(),
            points: vec![(0.5, 0.2), (1.5, 0.4)],
            is_ceiling,
        };
        draw(&path, "best", 2.0, &[line("learner", false), line("who knows", true)]).expect("it is drawn");
        let text = std::fs::read_to_string(&path).expect("it is there");
        for part in ["<svg", "learner", "who knows", "best offers", "100 %"] {
            assert!(text.contains(part), "{part}");
        }
        let elsewhere = folder.path().join("no/such/folder.svg");
        assert!(draw(&elsewhere, "best", 2.0, &[]).is_err());
    }
}

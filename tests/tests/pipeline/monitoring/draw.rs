//! A dashboard as a picture: its panels, drawn from the values that Prometheus returned for their
//! queries.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

/// Width and height of a grid cell in pixels.
const CELL: (u32, u32) = (60, 28);
/// Pixels around a panel.
const GAP: u32 = 4;
/// Maximum number of legend entries below a plot.
const NAMES: usize = 6;
const INK: RGBColor = RGBColor(40, 44, 52);
/// Colors of the Okabe-Ito palette, which people with color blindness can tell apart, and a gray.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 86, 86),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel.
pub struct Line {
    /// The legend text.
    pub name: String,
    /// Seconds and values; values that are not numbers are left out.
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// Converts a series of Prometheus, named by `legend`.
    pub fn new(legend: &str, series: &Value) -> Self {
        let mut name = legend.to_owned();
        for (label, value) in series["metric"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            name = name.replace(&format!("{{{{{label}}}}}"), value);
        }
        let values = series["values"].as_array().into_iter().flatten();
        let points = values.filter_map(|point| {
            let value: f64 = point[1].as_str()?.parse().ok()?;
            value.is_finite().then_some((point[0].as_f64()?, value))
        });
        Self {
            name,
            points: points.collect(),
        }
    }

    fn last(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |point| point.1)
    }
}

/// Draws `panels` with their lines into `path`.
pub fn dashboard(path: &Path, panels: &[(Value, Vec<Line>)]) {
    let end = |panel: &Value| place(panel, "y") + place(panel, "h");
    let rows = panels.iter().map(|(panel, _)| end(panel)).max().unwrap();
    let root = SVGBackend::new(path, (24 * CELL.0, rows * CELL.1)).into_drawing_area();
    root.fill(&RGBColor(244, 245, 247)).unwrap();
    for (panel, lines) in panels {
        let corner = (place(panel, "x") * CELL.0, place(panel, "y") * CELL.1);
        let size = (place(panel, "w") * CELL.0, place(panel, "h") * CELL.1);
        let area = root.clone().shrink(corner, size);
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            let style = ("sans-serif", 15).into_font().style(FontStyle::Bold);
            area.draw_text(title, &style.color(&INK), (GAP.cast_signed(), 7))
                .unwrap();
            continue;
        }
        let inner = (size.0 - 2 * GAP, size.1 - 2 * GAP);
        let area = area.shrink((GAP, GAP), inner);
        area.fill(&WHITE).unwrap();
        let style = ("sans-serif", 13).into_font().color(&INK);
        area.draw_text(title, &style, (8, 6)).unwrap();
        let body = area.shrink((8, 24), (inner.0 - 16, inner.1 - 28));
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        if panel["type"] == "timeseries" {
            plot(&body, lines, unit);
        } else {
            numbers(&body, lines, unit);
        }
    }
    root.present().unwrap();
}

fn place(panel: &Value, key: &str) -> u32 {
    u32::try_from(panel["gridPos"][key].as_u64().unwrap()).unwrap()
}

fn plot(area: &Area<'_>, lines: &[Line], unit: &str) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (from, to) = all().fold((f64::MAX, f64::MIN), |(from, to), point| {
        (from.min(point.0), to.max(point.0))
    });
    let most = all().map(|point| point.1).fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.1 } else { 1.0 };
    let height = area.dim_in_pixel().1.cast_signed();
    let (upper, lower) = area.split_vertically(height - 32);
    let mut chart = ChartBuilder::on(&upper)
        .x_label_area_size(16)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..(to - from).max(1.0), 0.0..most)
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(4)
        .x_labels(4)
        .label_style(("sans-serif", 10).into_font().color(&INK))
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| written(*value, unit))
        .draw()
        .unwrap();
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let points = line.points.iter().map(|point| (point.0 - from, point.1));
        chart.draw_series(LineSeries::new(points, color)).unwrap();
    }
    let mut x = 0;
    for (index, (line, color)) in lines.iter().zip(COLORS).take(NAMES).enumerate() {
        let style = ("sans-serif", 10).into_font().color(&color);
        let y = if index < NAMES / 2 { 4 } else { 18 };
        x = if index == NAMES / 2 { 0 } else { x };
        lower.draw_text(&line.name, &style, (x, y)).unwrap();
        x += i32::try_from(line.name.len() * 6 + 14).unwrap();
    }
    if lines.len() > NAMES {
        let more = format!("and {}", lines.len() - NAMES);
        let style = ("sans-serif", 10).into_font().color(&INK);
        lower.draw_text(&more, &style, (x, 18)).unwrap();
    }
}

/// Draws the last values, as many as fit.
fn numbers(area: &Area<'_>, lines: &[Line], unit: &str) {
    let (width, height) = area.dim_in_pixel();
    let room = usize::try_from(height / 22).unwrap();
    for (index, line) in lines.iter().take(room).enumerate() {
        let y = i32::try_from(index * 22 + 6).unwrap();
        let name = ("sans-serif", 12).into_font().color(&INK);
        area.draw_text(&line.name, &name, (0, y)).unwrap();
        let value = ("sans-serif", 15)
            .into_font()
            .style(FontStyle::Bold)
            .color(&COLORS[0]);
        let x = (width * 3 / 5).cast_signed();
        area.draw_text(&written(line.last(), unit), &value, (x, y))
            .unwrap();
    }
}

fn written(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{:.1} %", value * 100.0),
        "bytes" => format!("{:.0} MiB", value / 1_048_576.0),
        "s" if value.abs() >= 86_400.0 * 3.0 => format!("{:.0} d", value / 86_400.0),
        "s" if value >= 0.1 => format!("{value:.1} s"),
        "s" => format!("{:.1} ms", value * 1_000.0),
        "ops" | "reqps" => format!("{value:.1}/s"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

//! Line and bar charts as SVG on a light background. A chart without points writes no file.

use std::fmt::Debug;
use std::path::Path;

use anyhow::anyhow;
use plotters::coord::CoordTranslate;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (720, 420);
/// Colors that color-blind readers can distinguish.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 86, 86),
];
/// Maximum number of points drawn per curve.
const POINTS: usize = 120;

/// Series of points.
#[derive(Debug)]
pub struct Curve {
    label: String,
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// Creates a curve through `points`, from left to right, thinned evenly if there are too many.
    pub fn new(label: String, mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let step = points.len().div_ceil(POINTS).max(1);
        let points = points.into_iter().step_by(step).collect();
        Self { label, points }
    }
}

/// Line chart.
#[derive(Debug)]
pub struct Chart {
    /// Title.
    pub title: &'static str,
    /// Label of the horizontal axis, with its unit.
    pub x: &'static str,
    /// Label of the vertical axis, with its unit.
    pub y: &'static str,
    /// Whether the axes are logarithmic.
    pub is_log: (bool, bool),
    /// Curves to draw.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// Draws the chart into the file `path` if there are points.
    pub fn draw(&self, path: &Path) -> anyhow::Result<bool> {
        let curves = self.curves.iter();
        let all: Vec<_> = curves
            .flat_map(|curve| curve.points.iter().copied())
            .collect();
        if all.is_empty() {
            return Ok(false);
        }
        let least = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).fold(0.0, f64::max);
        let range = |is_log: bool, room: f64, of: fn(&(f64, f64)) -> f64| {
            let (from, to) = (least(of).max(1e-3) * 0.7, most(of).max(1e-3));
            if is_log {
                from..to * (to / from).powf(room) * 1.2
            } else {
                0.0..to * (1.05 + room)
            }
        };
        // Leave room at the top for the legend.
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let above = self.curves.len() as f64 * 0.1;
        let x = range(self.is_log.0, 0.0, |point| point.0);
        let y = range(self.is_log.1, above, |point| point.1);
        match self.is_log {
            (false, false) => self.on(path, x, y),
            (true, false) => self.on(path, x.log_scale(), y),
            (false, true) => self.on(path, x, y.log_scale()),
            (true, true) => self.on(path, x.log_scale(), y.log_scale()),
        }?;
        Ok(true)
    }

    fn on<X, Y>(&self, path: &Path, x: X, y: Y) -> anyhow::Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(if self.is_log.0 { 5 } else { 10 })
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(failed)?;
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            let style = color.stroke_width(2);
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), style))
                .map_err(failed)?
                .label(curve.label.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            let dots = curve
                .points
                .iter()
                .map(|at| Circle::new(*at, 3, color.filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
        legend(&mut chart)?;
        root.present().map_err(failed)
    }
}

/// Stacked bar chart.
#[derive(Debug)]
pub struct Stack {
    /// Title.
    pub title: &'static str,
    /// Label of the vertical axis, with its unit.
    pub y: &'static str,
    /// Names of the parts.
    pub parts: Vec<&'static str>,
    /// Name of each bar and the heights of its parts.
    pub bars: Vec<(String, Vec<f64>)>,
}

impl Stack {
    /// Draws the chart into the file `path` if there are bars.
    pub fn draw(&self, path: &Path) -> anyhow::Result<bool> {
        let heights = self.bars.iter().map(|(_, parts)| parts.iter().sum::<f64>());
        let Some(most) = heights.reduce(f64::max) else {
            return Ok(false);
        };
        let count = u32::try_from(self.bars.len())?;
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let x: std::ops::Range<f64> = 0.0..f64::from(count);
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            // Leave room at the top for the legend.
            .build_cartesian_2d::<_, std::ops::Range<f64>>(x, 0.0..most * 1.35)
            .map_err(failed)?;
        self.frame(&mut chart)?;
        for (place, (part, color)) in self.parts.iter().zip(COLORS).enumerate() {
            let mut bars = Vec::new();
            for (number, (_, parts)) in (0_u32..).zip(&self.bars) {
                let below: f64 = parts[..place].iter().sum();
                let (from, above) = (f64::from(number), below + parts[place]);
                let corners = [(from + 0.2, below), (from + 0.8, above)];
                bars.push(Rectangle::new(corners, color.filled()));
            }
            let square =
                move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled());
            chart
                .draw_series(bars)
                .map_err(failed)?
                .label(*part)
                .legend(square);
        }
        legend(&mut chart)?;
        root.present().map_err(failed)?;
        Ok(true)
    }

    /// Draws the axes, with the names of the bars below.
    fn frame<'a>(
        &self,
        chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    ) -> anyhow::Result<()> {
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .x_labels(0)
            .x_desc("system")
            .y_desc(self.y)
            .y_label_formatter(&|value| short(*value))
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(failed)?;
        let style = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Center, VPos::Top));
        let names = (0_u32..).zip(&self.bars);
        let names = names.map(|(number, (name, _))| {
            EmptyElement::at((f64::from(number) + 0.5, 0.0))
                + Text::new(name.clone(), (0, 6), style.clone())
        });
        chart.draw_series(names).map_err(failed)?;
        Ok(())
    }
}

/// Draws the legend in the upper left corner.
fn legend<'a, T: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, T>,
) -> anyhow::Result<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(failed)
}

/// Formats `1000000` as `1M` and `2500` as `2.5k`.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn failed<E: Debug>(error: E) -> anyhow::Error {
    anyhow!("cannot draw the plot: {error:?}")
}

//! Markdown tables and plots of measured figures. All input comes from the JSON files, so that
//! output can be regenerated without measuring. A table or plot without figures is left out.

mod chart;
mod growth;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

pub use growth::tables as growth_tables;

use crate::figures::median;
use chart::{Chart, Curve, Stack};

const BEGIN: &str = "<!-- figures:begin -->";
const END: &str = "<!-- figures:end -->";

/// Input files and output locations.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// JSON files that a measurement wrote with `--json`.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Writes plots to this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Replaces the tables between the marks `figures:begin` and `figures:end` in this file.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// Draws the plots and writes the tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut all = Value::Object(serde_json::Map::default());
    for path in &arguments.files {
        let text = fs::read_to_string(path).context("a file of figures")?;
        let file: serde_json::Map<String, Value> =
            serde_json::from_str(&text).context("figures")?;
        for (name, value) in file {
            all[name] = value;
        }
    }
    let mut text = format!("{}{}", tables::all(&all), growth_tables(&all));
    if let Some(folder) = &arguments.plots {
        let drawn = plots(&all, folder)?;
        let document = arguments.write.as_deref().and_then(Path::parent);
        text.push_str(&images(&drawn, folder, document));
    }
    match &arguments.write {
        Some(path) => {
            let before = fs::read_to_string(path).context("the document")?;
            fs::write(path, replaced(&before, &text)?)?;
        }
        None => println!("{text}"),
    }
    Ok(())
}

/// Returns Markdown that shows the plots in a document in the folder `beside`, if `folder` is below
/// that folder.
fn images(drawn: &[(&str, &str)], folder: &Path, beside: Option<&Path>) -> String {
    let Some(path) = beside.and_then(|beside| folder.strip_prefix(beside).ok()) else {
        return String::new();
    };
    let one = |(name, title): &(&str, &str)| format!("\n![{title}]({}/{name})\n", path.display());
    drawn.iter().map(one).collect()
}

/// Returns `document` with `text` between the marks.
fn replaced(document: &str, text: &str) -> anyhow::Result<String> {
    let (head, rest) = document.split_once(BEGIN).context("figures:begin")?;
    let (_, tail) = rest.split_once(END).context("figures:end")?;
    Ok(format!("{head}{BEGIN}\n\n{}\n\n{END}{tail}", text.trim()))
}

/// Returns minimum, median and maximum of the figure `name`.
fn figure(all: &Value, name: &str) -> Option<[f64; 3]> {
    let rounds = all[name]["rounds"].as_array()?;
    let rounds: Vec<f64> = rounds.iter().filter_map(Value::as_f64).collect();
    let least = rounds.iter().copied().reduce(f64::min)?;
    let most = rounds.iter().copied().reduce(f64::max)?;
    Some([least, median(&rounds), most])
}

/// Draws every plot for which there are figures into `folder`. Returns the files and their titles.
pub fn plots(all: &Value, folder: &Path) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    fs::create_dir_all(folder)?;
    let mut drawn = Vec::new();
    let stack = cost(all);
    if stack.draw(&folder.join("cost.svg"))? {
        drawn.push(("cost.svg", stack.title));
    }
    let charts = growth::charts(all);
    for (name, chart) in std::iter::once(("latency.svg", latency(all))).chain(charts) {
        if chart.draw(&folder.join(name))? {
            drawn.push((name, chart.title));
        }
    }
    Ok(drawn)
}

fn latency(all: &Value) -> Chart {
    let shares = |kind: &str, quantile: &str| {
        let at = |share: u32| {
            let name = format!("{kind}.handover_{quantile}_ms_{share}pc");
            Some((f64::from(share), figure(all, &name)?[1]))
        };
        [25, 50, 75].into_iter().filter_map(at).collect()
    };
    let mut curves = Vec::new();
    for (kind, title) in [("lean", "lean"), ("one_process", "Watchword")] {
        for (quantile, label) in [("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")] {
            curves.push(Curve::new(
                format!("{title} {label}"),
                shares(kind, quantile),
            ));
        }
    }
    Chart {
        title: "Request to hand-over by load",
        x: "share of the system's own highest rate, %",
        y: "milliseconds",
        is_log: (false, true),
        curves,
    }
}

fn cost(all: &Value) -> Stack {
    let sides = [
        ("own_us", "own"),
        ("broker_us", "broker"),
        ("store_us", "store"),
        ("driver_us", "load and provider"),
    ];
    let mut bars = Vec::new();
    for (kind, title) in tables::SYSTEMS {
        let parts = sides.map(|(side, _)| figure(all, &format!("{kind}.{side}")));
        let parts: Option<Vec<_>> = parts.into_iter().map(|part| Some(part?[1])).collect();
        bars.extend(parts.map(|parts| (title.to_owned(), parts)));
    }
    Stack {
        title: "Processor time of one code",
        y: "microseconds",
        parts: sides.map(|(_, title)| title).to_vec(),
        bars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replaced(&document, "new\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert!(replaced("no marks", "new").is_err());
    }

    #[test]
    fn a_plot_is_shown_by_its_path_from_the_document() {
        let drawn = [("a.svg", "A")];
        let shown = images(&drawn, Path::new("docs/plots"), Some(Path::new("docs")));
        assert_eq!(shown, "\n![A](plots/a.svg)\n");
        assert_eq!(images(&drawn, Path::new("x"), Some(Path::new("docs"))), "");
    }

    #[test]
    fn a_figure_is_told_by_its_rounds() {
        let all = serde_json::json!({ "a": { "median": 2.0, "rounds": [3.0, 1.0, 2.0] } });
        assert_eq!(figure(&all, "a"), Some([1.0, 2.0, 3.0]));
        assert_eq!(figure(&all, "b"), None);
    }
}

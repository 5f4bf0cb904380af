//! Figures by round, and their output as JSON and Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

/// Values by name, one for each round.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Adds the value of a round.
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    /// Returns the values of `name`.
    pub fn rounds(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Removes `name`.
    pub fn drop(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Returns the latest value of `name`.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.last().copied()
    }

    /// Adds the ratio of the latest values of two figures, if both were measured.
    pub fn add_ratio(&mut self, name: &str, above: &str, below: &str) {
        if let (Some(above), Some(below)) = (self.last(above), self.last(below)) {
            self.add(name, above / below);
        }
    }

    /// Returns one object per figure, with its median and its rounds.
    pub fn json(&self) -> Value {
        let one = |(name, rounds): (&String, &Vec<f64>)| {
            (
                name.clone(),
                json!({ "median": round(median(rounds)), "rounds": rounds.iter().copied().map(round).collect::<Vec<_>>() }),
            )
        };
        Value::Object(self.0.iter().map(one).collect())
    }

    /// Returns a Markdown table.
    pub fn table(&self) -> String {
        let mut text = "| figure | min | median | max |\n|---|--:|--:|--:|\n".to_owned();
        for (name, rounds) in &self.0 {
            let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let _ = writeln!(
                text,
                "| {name} | {} | **{}** | {} |",
                show(least),
                show(median(rounds)),
                show(most)
            );
        }
        text
    }
}

/// Returns the median; `NaN` without values.
pub fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Rounds to four decimal places.
pub fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Formats a value with two decimal places, or with none from 100 on.
pub fn show(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

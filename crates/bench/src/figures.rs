//! Figures by round, and what is written of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

/// Values by name, one a round.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Adds a round's value.
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    /// The values of `name`.
    pub fn rounds(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Forgets `name`.
    pub fn drop(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The newest value of `name`.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.last().copied()
    }

    /// Adds the quotient of the newest values of two others, if both were measured.
    pub fn add_ratio(&mut self, name: &str, above: &str, below: &str) {
        if let (Some(above), Some(below)) = (self.last(above), self.last(below)) {
            self.add(name, above / below);
        }
    }

    /// One object a figure: its median and its rounds.
    pub fn json(&self) -> Value {
        let one = |(name, rounds): (&String, &Vec<f64>)| {
            (
                name.clone(),
                json!({ "median": round(median(rounds)), "rounds": rounds.iter().copied().map(round).collect::<Vec<_>>() }),
            )
        };
        Value::Object(self.0.iter().map(one).collect())
    }

    /// A table in Markdown.
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

/// The middle one, or the mean of the middle two.
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

/// To four places.
pub fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// A value with two places, or none from a hundred on.
pub fn show(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

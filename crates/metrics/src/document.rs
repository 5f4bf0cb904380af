//! The Markdown page of all declared series.

use std::fmt::Write;

use crate::{Kind, Series};

/// Renders a heading and a table for each group of series.
pub fn markdown(groups: &[(&str, &[Series])]) -> String {
    let mut text = String::new();
    for (heading, series) in groups {
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "\n## {heading}\n\n| series | type | labels | meaning | when it moves |\n|---|---|---|---|---|\n"
        );
        for one in *series {
            let labels: Vec<_> = one.labels.iter().map(|name| format!("`{name}`")).collect();
            let kind = match one.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let _ = writeln!(
                text,
                "| `{}` | {kind} | {} | {} | {} |",
                one.name,
                labels.join(" "),
                one.help,
                one.action
            );
        }
    }
    text
}

//! Measurements of how cost grows with load, recipients, providers, backlog, slow providers and
//! workers. Each case has its own broker and store, is bounded in count and time, and cleans up.
//! Every row was measured; none is extrapolated.

mod backlog;
mod cases;
mod stale;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::draw;
use crate::figures::round;
use crate::noise::Watch;
use crate::peers::Peers;

/// Cases in the order in which they run.
const CASES: [&str; 7] = [
    "load",
    "recipients",
    "providers",
    "backlog",
    "stale",
    "slow",
    "workers",
];

/// Selection and size of the cases.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Runs only these cases: `load`, `recipients`, `providers`, `backlog`, `stale`, `slow`,
    /// `workers`.
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    only: Vec<String>,
    /// Writes the rows to this file as a JSON object.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes plots of the rows to this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Messages of the backlog; a queue holds at most 1,000,000.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    events: u64,
    /// Messages that are in the queue before a fresh one.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    stale: u64,
    /// Maximum number of live verifications. Memory is measured at 10,000, at each power of ten
    /// above, and at this number.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    recipients: u64,
    /// Duration of each measurement under load, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

impl Arguments {
    const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Row of a table: values by column.
pub type Row = BTreeMap<String, f64>;

/// Rows by the name of their table.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<String, Vec<Row>>);

impl Rows {
    /// Adds a row to the table `name`.
    pub fn add<'a>(&mut self, name: &str, row: impl IntoIterator<Item = (&'a str, f64)>) {
        let row = row
            .into_iter()
            .map(|(column, value)| (column.to_owned(), value));
        self.0
            .entry(format!("growth.{name}"))
            .or_default()
            .push(row.collect());
    }

    /// Adds a row to the table `name` with the values of a case and of a meter.
    pub fn add_with<'a>(
        &mut self,
        name: &str,
        row: impl IntoIterator<Item = (&'a str, f64)>,
        metered: &'a [(String, f64)],
    ) {
        let metered = metered.iter().map(|(name, value)| (name.as_str(), *value));
        self.add(name, row.into_iter().chain(metered));
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let values = row
                .iter()
                .map(|(name, value)| (name.clone(), json!(round(*value))));
            Value::Object(values.collect())
        };
        let table = |(name, rows): (&String, &Vec<Row>)| {
            (name.clone(), Value::Array(rows.iter().map(row).collect()))
        };
        Value::Object(self.0.iter().map(table).collect())
    }
}

/// Runs the cases, prints the tables, and writes the files that `arguments` name. A case that fails
/// is reported, and the others still run.
pub async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut rows, mut failed) = (Rows::default(), Vec::new());
    let mut all = Value::Null;
    for case in CASES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == case) {
            continue;
        }
        let (watch, started) = (Watch::begin(), Instant::now());
        let peers = Peers::start().await;
        let done = match case {
            "load" => cases::load(arguments, &peers, &mut rows).await,
            "recipients" => cases::recipients(arguments, &peers, &mut rows).await,
            "providers" => cases::providers(arguments, &peers, &mut rows).await,
            "backlog" => backlog::measure(arguments, &peers, &mut rows).await,
            "stale" => stale::measure(arguments, &peers, &mut rows).await,
            "slow" => cases::slow(arguments, &peers, &mut rows).await,
            _ => cases::workers(arguments, &peers, &mut rows).await,
        };
        if let Err(error) = done {
            println!("{case} failed: {error:#}");
            failed.push(case);
        }
        let noise = [
            ("took_s", started.elapsed().as_secs_f64()),
            ("others_share", watch.others()),
        ];
        rows.add(&format!("{case}_noise"), noise);
        all = rows.json();
        all["growth.run"] = json!({
            "seconds": arguments.seconds, "events": arguments.events, "stale": arguments.stale,
            "recipients": arguments.recipients, "took_s": begun.elapsed().as_secs(),
            "on": peers.versions().await?,
        });
        if let Some(path) = &arguments.json {
            std::fs::write(path, format!("{all:#}\n"))?;
        }
        println!("{case}: {:.0} s", started.elapsed().as_secs_f64());
    }
    println!("{}", draw::growth_tables(&all));
    if let Some(folder) = &arguments.plots {
        draw::plots(&all, folder)?;
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

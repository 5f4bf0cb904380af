//! A series as it is declared, and the collectors made of it. Refuses a collector for which there
//! is no declaration.

use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// From 5 ms (a healthy pipeline) to 300 s (the life of a code), with an edge at the objective of
/// 5 s.
pub const LATENCY: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
];

/// What a series is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often which size was seen; the upper edges of its buckets.
    Histogram(&'static [f64]),
}

/// One series.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels; their values come from closed sets.
    pub labels: &'static [&'static str],
    /// What it says. A sentence.
    pub help: &'static str,
    /// What to do when it moves.
    pub action: &'static str,
}

/// Makes collectors of declarations and registers them.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    registry: &'a Registry,
    fixed: Option<(&'static str, &'a str)>,
}

impl<'a> Maker<'a> {
    /// Collectors of `registry`.
    pub const fn new(registry: &'a Registry) -> Self {
        let fixed = None;
        Self { registry, fixed }
    }

    /// Collectors whose label `name` always has `value`: a process may have several such.
    pub const fn fixed(registry: &'a Registry, name: &'static str, value: &'a str) -> Self {
        let fixed = Some((name, value));
        Self { registry, fixed }
    }

    /// A counter for each set of labels.
    pub fn counters(&self, series: &Series) -> Result<IntCounterVec, Error> {
        let made = IntCounterVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// The one counter of a series without further labels.
    pub fn counter(&self, series: &Series) -> Result<IntCounter, Error> {
        self.counters(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// A gauge of whole numbers for each set of labels.
    pub fn gauges(&self, series: &Series) -> Result<IntGaugeVec, Error> {
        let made = IntGaugeVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// The one gauge of a series without further labels.
    pub fn gauge(&self, series: &Series) -> Result<IntGauge, Error> {
        self.gauges(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// A gauge of fractions for each set of labels.
    pub fn fractions(&self, series: &Series) -> Result<GaugeVec, Error> {
        let made = GaugeVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// The one gauge of fractions of a series without further labels.
    pub fn fraction(&self, series: &Series) -> Result<Gauge, Error> {
        self.fractions(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// A histogram for each set of labels.
    pub fn histograms(&self, series: &Series) -> Result<HistogramVec, Error> {
        let Kind::Histogram(buckets) = series.kind else {
            return Err(Error::Msg(format!("{} is no histogram", series.name)));
        };
        let opts = HistogramOpts::from(self.opts(series)).buckets(buckets.to_vec());
        let made = HistogramVec::new(opts, &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// The one histogram of a series without further labels.
    pub fn histogram(&self, series: &Series) -> Result<Histogram, Error> {
        self.histograms(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    fn opts(&self, series: &Series) -> Opts {
        let opts = Opts::new(series.name, series.help);
        match self.fixed {
            Some((name, value)) => opts.const_label(name, value),
            None => opts,
        }
    }

    /// The labels that are not fixed.
    fn open(&self, series: &Series) -> Vec<&'static str> {
        let fixed = self.fixed.map(|(name, _)| name);
        let labels = series.labels.iter().copied();
        labels.filter(|name| Some(*name) != fixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: Series = Series {
        name: "sends_total",
        kind: Kind::Counter,
        labels: &["channel", "result"],
        help: "Sends.",
        action: "",
    };

    #[test]
    fn a_fixed_label_lets_two_of_a_kind_stand_in_one_registry() {
        let registry = Registry::new();
        for channel in ["sms", "email"] {
            let made = Maker::fixed(&registry, "channel", channel).counters(&SERIES);
            made.unwrap().with_label_values(&["good"]).inc();
        }
        let families = registry.gather();
        assert_eq!((families.len(), families[0].get_metric().len()), (1, 2));
        let again = Maker::fixed(&registry, "channel", "sms").counters(&SERIES);
        assert!(again.is_err(), "the same one twice");
    }

    #[test]
    fn a_counter_is_no_histogram() {
        assert!(Maker::new(&Registry::new()).histograms(&SERIES).is_err());
    }
}

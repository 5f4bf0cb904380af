//! Declarations of series, and the collectors made from them.

use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// Histogram buckets for latencies in seconds: from 5 ms (a healthy pipeline) to 300 s (the
/// lifetime of a code), with a bound at the objective of 5 s.
pub const LATENCY: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
];

/// The type of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A histogram with these upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// The declaration of a series.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// The full Prometheus name: `watchword_…`, with the unit last.
    pub name: &'static str,
    /// The metric type, with buckets for a histogram.
    pub kind: Kind,
    /// Label names; the values come from closed sets.
    pub labels: &'static [&'static str],
    /// The help text: the meaning of the series, as a sentence.
    pub help: &'static str,
    /// Advice for operators when the value moves.
    pub action: &'static str,
}

/// Creates collectors from declarations and registers them.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    registry: &'a Registry,
    fixed: Option<(&'static str, &'a str)>,
}

impl<'a> Maker<'a> {
    /// Creates collectors for `registry`.
    pub const fn new(registry: &'a Registry) -> Self {
        let fixed = None;
        Self { registry, fixed }
    }

    /// Creates collectors whose label `name` always has `value`, so that a process can register a
    /// series several times with different values.
    pub const fn fixed(registry: &'a Registry, name: &'static str, value: &'a str) -> Self {
        let fixed = Some((name, value));
        Self { registry, fixed }
    }

    /// Registers a counter for each set of labels.
    pub fn counters(&self, series: &Series) -> Result<IntCounterVec, Error> {
        let made = IntCounterVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Registers the counter of a series that has no other labels.
    pub fn counter(&self, series: &Series) -> Result<IntCounter, Error> {
        self.counters(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// Registers an integer gauge for each set of labels.
    pub fn gauges(&self, series: &Series) -> Result<IntGaugeVec, Error> {
        let made = IntGaugeVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Registers the integer gauge of a series that has no other labels.
    pub fn gauge(&self, series: &Series) -> Result<IntGauge, Error> {
        self.gauges(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// Registers a floating-point gauge for each set of labels.
    pub fn fractions(&self, series: &Series) -> Result<GaugeVec, Error> {
        let made = GaugeVec::new(self.opts(series), &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Registers the floating-point gauge of a series that has no other labels.
    pub fn fraction(&self, series: &Series) -> Result<Gauge, Error> {
        self.fractions(series)?
            .get_metric_with_label_values::<&str>(&[])
    }

    /// Registers a histogram for each set of labels.
    pub fn histograms(&self, series: &Series) -> Result<HistogramVec, Error> {
        let Kind::Histogram(buckets) = series.kind else {
            return Err(Error::Msg(format!("{} is not a histogram", series.name)));
        };
        let opts = HistogramOpts::from(self.opts(series)).buckets(buckets.to_vec());
        let made = HistogramVec::new(opts, &self.open(series))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Registers the histogram of a series that has no other labels.
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

    /// Returns the label names that are not fixed.
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

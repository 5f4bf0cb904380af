//! Process metrics (CPU, memory, descriptors, threads, clock), read from `/proc` at each scrape. A
//! value that cannot be read keeps its last value.

use std::sync::Arc;

use procfs::WithCurrentSystemInfo;
use procfs::process::Process;
use watchword_core::Clock;
use watchword_metrics::prometheus::core::{Collector, Desc};
use watchword_metrics::prometheus::proto::MetricFamily;
use watchword_metrics::prometheus::{Counter, Error, Gauge};
use watchword_metrics::{Kind, Series};

const CLOCK: Series = Series {
    name: "watchword_clock_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "The process's clock at the scrape, in seconds since 1970.",
    action: "If it differs from the time of the scrape, fix the time service: deadlines and code lifetimes depend on this clock.",
};
const CPU: Series = Series {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    help: "CPU time in user and system mode, in seconds.",
    action: "A rate near one per core means that the host is saturated: add processes on further hosts.",
};
const MEMORY: Series = Series {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Resident memory, in bytes.",
    action: "Growth without end is a leak in Watchword: report it.",
};
const FDS: Series = Series {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Open file descriptors, including sockets.",
    action: "Near `process_max_fds`: raise the limit, or find the clients that keep connections open.",
};
const MAX_FDS: Series = Series {
    name: "process_max_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Limit of open file descriptors.",
    action: "None.",
};
const THREADS: Series = Series {
    name: "process_threads",
    kind: Kind::Gauge,
    labels: &[],
    help: "Threads of the process.",
    action: "None.",
};
const STARTED: Series = Series {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the process started, in seconds since 1970.",
    action: "A change means that the process was restarted; the end of the previous log says why.",
};

/// Declarations of the process metrics.
pub const SERIES: &[Series] = &[CLOCK, CPU, MEMORY, FDS, MAX_FDS, THREADS, STARTED];

/// Collector that reads the values when the registry is scraped.
pub(crate) struct ProcessMetrics {
    clock: Arc<dyn Clock>,
    cpu: Counter,
    gauges: Gauges,
}

struct Gauges {
    clock: Gauge,
    memory: Gauge,
    fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    started: Gauge,
}

impl ProcessMetrics {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let gauge = |series: &Series| Gauge::new(series.name, series.help);
        let gauges = Gauges {
            clock: gauge(&CLOCK)?,
            memory: gauge(&MEMORY)?,
            fds: gauge(&FDS)?,
            max_fds: gauge(&MAX_FDS)?,
            threads: gauge(&THREADS)?,
            started: gauge(&STARTED)?,
        };
        Ok(Self {
            clock,
            cpu: Counter::new(CPU.name, CPU.help)?,
            gauges,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn read(&self) -> procfs::ProcResult<()> {
        let process = Process::myself()?;
        let (stat, gauges) = (process.stat()?, &self.gauges);
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
        gauges.memory.set(stat.rss_bytes().get() as f64);
        gauges.threads.set(stat.num_threads as f64);
        let booted = procfs::boot_time_secs()? as f64;
        gauges.started.set(booted + stat.starttime as f64 / ticks);
        gauges.fds.set(process.fd_count()? as f64);
        let limit = process.limits()?.max_open_files.soft_limit;
        if let procfs::process::LimitValue::Value(limit) = limit {
            gauges.max_fds.set(limit as f64);
        }
        Ok(())
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        let Gauges {
            clock,
            memory,
            fds,
            max_fds,
            threads,
            started,
        } = &self.gauges;
        [&self.cpu, clock, memory, fds, max_fds, threads, started]
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let collectors = self.collectors().into_iter();
        collectors.flat_map(Collector::desc).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
    fn collect(&self) -> Vec<MetricFamily> {
        let millis = self.clock.now().as_millis() as f64;
        self.gauges.clock.set(millis / 1_000.0);
        if let Err(error) = self.read() {
            tracing::debug!(%error, "cannot read the process metrics from /proc");
        }
        let collectors = self.collectors().into_iter();
        collectors.flat_map(Collector::collect).collect()
    }
}

//! Arrivals on a schedule. A dedicated thread sleeps between arrivals, because tokio timers have a
//! resolution of 1 ms and a busy runtime would delay the load. The schedule does not wait for the
//! system: latency counts from the scheduled time.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Returns the scheduled times of `rate` arrivals per second for `time`, each sent when it is due.
/// The channel is unbounded, but holds at most the arrivals of the schedule.
pub fn arrivals(rate: f64, time: Duration) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        let begun = Instant::now();
        for number in 0_u32.. {
            let after = Duration::from_secs_f64(f64::from(number) / rate);
            let due = begun + after;
            if after >= time {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                break;
            }
        }
    });
    receiver
}

//! Arrivals on a schedule. A thread of its own sleeps from one to the next: the runtime's timers
//! are no finer than 1 ms, and a runtime that is busy would put off the load with everything else.
//! Refuses to wait for anyone: what is late is late in the figures.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The moments at which something arrives, `rate` a second for `time`, each told when it has come.
/// They are as many as the schedule has, which bounds what waits here.
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

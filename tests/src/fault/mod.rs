//! Fault injection: an installation, its faults, the rows of the fault table, and the soak.

mod accounts;
pub mod certificate;
mod disk;
mod injection;
mod row;
mod sentinel;
mod soak;
mod stand;
mod strangers;
mod table;

pub use injection::{Fault, RelayTrouble, Trouble};
pub use row::{Report, Row, run};
pub use soak::soak;
pub use stand::{Kind, LIFETIME, Stand, Wire};
pub use strangers::Destination;
pub use table::{NOT_SHOWN, Pace, print, rows};

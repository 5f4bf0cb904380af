#![doc = include_str!("../README.md")]

mod codec;
mod record;
mod redis;
mod settings;
mod sqlite;
pub mod state;
mod store;

pub use record::{Attempt, DeliveryRecord, Receipt};
pub use redis::RedisLedger;
pub use settings::LedgerSettings;
pub use sqlite::{MIGRATIONS, SqliteLedger};
pub use store::{
    Claim, ClaimRequest, Fence, Heard, LedgerError, LedgerStore, ReceiptNote, Settlement,
};

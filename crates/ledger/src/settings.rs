//! The ledger's settings.

/// Settings of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerSettings {
    /// Time to keep a record after its last change, in milliseconds; default 24 h. It must exceed
    /// the life of every copy of the message on the broker, or a redelivered copy would be sent
    /// again.
    pub retention_ms: u64,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            retention_ms: 86_400_000,
        }
    }
}

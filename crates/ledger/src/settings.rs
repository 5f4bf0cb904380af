//! What an operator may set about the ledger. Refuses to read configuration.

/// Settings of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerSettings {
    /// How long a record is kept after its last change, in milliseconds. It must outlive every
    /// copy of the event on the broker, or a replay would send again (R28); default 24 h.
    pub retention_ms: u64,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            retention_ms: 86_400_000,
        }
    }
}

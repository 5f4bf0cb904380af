//! The policy that a service sets for its verifications. [`Policy::validated`] checks it against
//! NIST SP 800-63B and the limits of the pipeline.

use crate::CodeLength;

/// Which code a resend carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResendCode {
    /// The same code, because people type the first message that arrives.
    #[default]
    Same,
    /// A new code; the earlier one is no longer valid.
    Rotate,
}

/// A policy as configured; [`Policy::validated`] checks its fields together.
///
/// A verification keeps the policy that it was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Number of digits of a code.
    pub code_length: CodeLength,
    /// Lifetime of a code in milliseconds: 30 s to 600 s (NIST SP 800-63B §3.1.3.2 allows 10
    /// minutes at most), default 300 s.
    pub lifetime_ms: u64,
    /// Codes that may be compared for one verification: 1 to 5, default 5.
    pub max_checks: u8,
    /// Messages for one verification, including the first: 1 to 10, default 5.
    pub max_sends: u8,
    /// Minimum time between two messages in milliseconds: up to the lifetime, default 30 s.
    pub cooldown_ms: u64,
    /// Whether a resend repeats the code or draws a new one.
    pub resend: ResendCode,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            code_length: CodeLength::default(),
            lifetime_ms: 300_000,
            max_checks: 5,
            max_sends: 5,
            cooldown_ms: 30_000,
            resend: ResendCode::Same,
        }
    }
}

/// Error that names the field of a policy outside its range, and the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct PolicyError {
    /// The field's name in the config.
    pub field: &'static str,
    /// The allowed range, as text.
    pub rule: &'static str,
}

impl Policy {
    /// Returns the policy if every field is in its range.
    pub fn validated(self) -> Result<Self, PolicyError> {
        let check = |fits: bool, field, rule| {
            if fits {
                Ok(())
            } else {
                Err(PolicyError { field, rule })
            }
        };
        check(
            (30_000..=600_000).contains(&self.lifetime_ms),
            "lifetime_seconds",
            "must be 30 to 600",
        )?;
        check(
            (1..=5).contains(&self.max_checks),
            "max_checks",
            "must be 1 to 5",
        )?;
        check(
            (1..=10).contains(&self.max_sends),
            "max_sends",
            "must be 1 to 10",
        )?;
        check(
            self.cooldown_ms <= self.lifetime_ms,
            "cooldown_seconds",
            "must not exceed lifetime_seconds",
        )?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_outside_their_ranges_name_the_field() {
        let refused = |policy: Policy| policy.validated().unwrap_err().field;
        let good = Policy::default();
        assert!(good.validated().is_ok());
        assert_eq!(
            refused(Policy {
                lifetime_ms: 600_001,
                ..good
            }),
            "lifetime_seconds"
        );
        assert_eq!(
            refused(Policy {
                lifetime_ms: 0,
                ..good
            }),
            "lifetime_seconds"
        );
        assert_eq!(
            refused(Policy {
                max_checks: 6,
                ..good
            }),
            "max_checks"
        );
        assert_eq!(
            refused(Policy {
                max_checks: 0,
                ..good
            }),
            "max_checks"
        );
        assert_eq!(
            refused(Policy {
                max_sends: 0,
                ..good
            }),
            "max_sends"
        );
        assert_eq!(
            refused(Policy {
                cooldown_ms: 300_001,
                ..good
            }),
            "cooldown_seconds"
        );
    }
}

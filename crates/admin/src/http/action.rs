//! The actions of the admin API: names, required roles, and which of them the audit trail keeps.

use watchword_chassis::config::AdminRole;

/// Declares the actions in one table.
macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $role:ident, $kept:literal;)*) => {
        /// An action that a route of the admin API takes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// All actions; their series start at zero.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name in logs, in the trail and in labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Returns the least privileged role that may take the action.
            pub const fn role(self) -> AdminRole {
                match self { $(Self::$variant => AdminRole::$role,)* }
            }

            /// Whether the trail keeps the action. It keeps changes, and reads of personal data
            /// or of the configuration.
            pub const fn is_kept(self) -> bool {
                match self { $(Self::$variant => $kept,)* }
            }
        }
    };
}

actions!(
    /// Find verifications.
    Find = "find", Viewer, true;
    /// Send a code again.
    Resend = "resend", Operator, true;
    /// Withdraw a verification.
    Cancel = "cancel", Operator, true;
    /// Reset the counts of a subject or recipient.
    Unlock = "unlock", Operator, true;
    /// List dead letters.
    ListDeadLetters = "dead_letters_list", Viewer, false;
    /// Show a dead letter.
    ShowDeadLetter = "dead_letters_show", Viewer, false;
    /// Put dead letters back.
    ReplayDeadLetters = "dead_letters_replay", Operator, true;
    /// Drop dead letters.
    DiscardDeadLetters = "dead_letters_discard", Operator, true;
    /// Compare accepted messages with outcomes.
    Audit = "audit", Viewer, true;
    /// Show providers.
    Providers = "providers", Viewer, false;
    /// Hold a circuit.
    Circuit = "circuit", Operator, true;
    /// Show the configuration.
    Configuration = "configuration", Viewer, true;
    /// Read the configuration again.
    Reload = "reload", Operator, true;
    /// Show the process.
    Status = "status", Viewer, false;
    /// Show the trail.
    Trail = "audit_trail", Viewer, false;
);

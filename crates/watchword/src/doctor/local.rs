//! What needs no peer: keys, services, texts, the embedded engine's file.

use watchword_chassis::Services;

use super::Findings;
use crate::config::{Config, EngineKind};
use crate::texts::check_sms;

/// The hash of the key in the example configuration.
const EXAMPLE_KEY: &str = "22a60ff8c666ee7f81ede927b1adfb38922412b0bbd7162b99525a22607f603b";

pub(super) fn look(config: &Config, findings: &mut Findings) {
    findings.fine(
        "keys",
        format!(
            "{} that seal, {} that digest; the first of each is used, the others are good for what was made with them",
            config.keys.sealing.len(),
            config.keys.digest.len()
        ),
    );
    for (name, service) in &config.services {
        let about = format!("service {name}");
        if service.api_keys.is_empty() && service.broker_users.is_empty() {
            findings.careful(
                &about,
                "nobody can ask for its codes: it has no API key and no broker user",
            );
        }
        let is_example = |key: &watchword_chassis::config::ApiKeyConfig| {
            key.sha256.eq_ignore_ascii_case(EXAMPLE_KEY)
        };
        if service.api_keys.iter().any(is_example) {
            findings.wrong(
                &about,
                "has the API key of the example, which everyone knows: replace it",
            );
        }
        if config.sms.is_some() && service.countries.is_empty() {
            findings.careful(&about, "sends no SMS: its countries are empty");
        }
    }
    if let Ok(services) = Services::from_config(&config.services)
        && config.sms.is_some()
    {
        match check_sms(config.templates.as_deref(), &services) {
            Ok(()) => findings.fine("texts", "fit into two SMS at most"),
            Err(error) => findings.wrong("texts", format!("{error:#}")),
        }
    }
    if let (EngineKind::Embedded, Some(embedded)) = (config.engine, &config.embedded) {
        let folder = embedded
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        match tempfile::tempfile_in(folder) {
            Ok(_) => findings.fine("embedded", "its folder can be written"),
            Err(error) => findings.wrong(
                "embedded",
                format!(
                    "its folder cannot be written ({}): mend its owner or mode",
                    error.kind()
                ),
            ),
        }
    }
}

//! What needs no peer: keys, services, texts, the embedded engine's file.

use watchword_chassis::Services;

use super::Findings;
use crate::config::{Config, EXAMPLE_KEY_WARNING, EngineKind};
use crate::needs::Needs;
use crate::texts::check_sms;

pub(super) fn look(config: &Config, needs: Needs, findings: &mut Findings) {
    let rings = [
        (config.keys.sealing.len(), "that seal", needs.keys.sealing),
        (config.keys.digest.len(), "that digest", needs.keys.digest),
    ];
    let rings: Vec<_> = rings
        .into_iter()
        .filter(|(_, _, is_needed)| *is_needed)
        .map(|(count, what, _)| format!("{count} {what}"))
        .collect();
    findings.fine(
        "keys",
        format!(
            "{}; the first of each is used, the others are good for what was made with them",
            rings.join(", ")
        ),
    );
    // Beyond loopback the configuration is refused.
    if let Ok(Some(key)) = config.example_key() {
        findings.careful("services", format!("{key}: {EXAMPLE_KEY_WARNING}"));
    }
    for (name, service) in &config.services {
        let about = format!("service {name}");
        if service.api_keys.is_empty() && service.broker_users.is_empty() {
            findings.careful(
                &about,
                "nobody can ask for its codes: it has no API key and no broker user",
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

//! Checks that need no peer: keys, services, texts, the embedded engine's file.

use watchword_admin::AdminKeys;
use watchword_core::Channel;

use super::Findings;
use crate::config::{Config, EngineKind};
use crate::needs::Needs;
use crate::output::counted;

pub(super) fn look(config: &Config, needs: Needs, findings: &mut Findings) {
    let rings = [
        (config.keys.sealing.len(), "for sealing", needs.keys.sealing),
        (config.keys.digest.len(), "for digests", needs.keys.digest),
    ];
    let rings: Vec<_> = rings
        .into_iter()
        .filter(|(_, _, is_needed)| *is_needed)
        .map(|(count, what, _)| format!("{count} {what}"))
        .collect();
    findings.fine(
        "keys",
        format!(
            "{}; new codes use the first of each, the others serve earlier codes",
            rings.join(", ")
        ),
    );
    if let Ok(keys) = AdminKeys::from_config(&config.admin) {
        match keys.refusal() {
            Some(why) => findings.careful("admin API", format!("off: {why}")),
            None if keys.is_on() => {
                findings.fine("admin API", counted(config.admin.keys.len(), "key"));
            }
            None => findings.fine("admin API", "off: no key under [admin.keys]"),
        }
    }
    for (name, service) in &config.services {
        let about = format!("service {name}");
        if service.api_keys.is_empty() && service.broker_users.is_empty() {
            findings.careful(
                &about,
                "no caller can request its codes: it has no API key and no broker user",
            );
        }
        if config.sms.is_some() && service.countries.is_empty() {
            findings.careful(&about, "sends no SMS: its countries are empty");
        }
    }
    if Channel::ALL.into_iter().any(|channel| needs.texts(channel)) {
        findings.fine(
            "texts",
            "show the code in every locale, and fit into two SMS",
        );
    }
    if let (EngineKind::Embedded, Some(embedded)) = (config.engine, &config.embedded) {
        let folder = embedded
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        match tempfile::tempfile_in(folder) {
            Ok(_) => findings.fine("embedded", "its folder is writable"),
            Err(error) => findings.wrong(
                "embedded",
                format!(
                    "its folder {} cannot be written ({}): create it, or fix its owner or mode",
                    folder.display(),
                    error.kind()
                ),
            ),
        }
    }
}

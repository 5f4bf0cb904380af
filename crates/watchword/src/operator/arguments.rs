//! Usage errors of `find` and `unlock`, with examples that use the configured services.

use std::path::Path;

use watchword_core::VerificationId;

use crate::cli::{AdminArguments, FindArguments, UnlockArguments};
use crate::config::{Config, environment};
use crate::failure::Failure;

/// Returns a usage error unless the arguments are an id, or a service with a subject or a
/// recipient.
pub(super) fn check_find(path: &Path, arguments: &FindArguments) -> Result<(), Failure> {
    let FindArguments {
        admin: _,
        id,
        service,
        subject,
        recipient,
    } = arguments;
    let has_who = subject.is_some() || recipient.is_some();
    let problem = match (id, service) {
        (Some(_), Some(_)) => "An id needs no --service.",
        (Some(_), None) if has_who => "An id needs no --subject and no --recipient.",
        (Some(id), None) if id.parse::<VerificationId>().is_ok() => return Ok(()),
        // The argument may be a recipient, so the error does not quote it.
        (Some(_), None) => {
            "The argument is not the id of a verification, which has 32 characters of a-z and 2-7."
        }
        (None, None) if has_who => "--service is missing.",
        (None, None) => "An id, or --service with --subject or --recipient, is missing.",
        (None, Some(_)) if !has_who => "--subject or --recipient is missing.",
        (None, Some(_)) if subject.is_some() && recipient.is_some() => {
            "--subject and --recipient cannot be combined."
        }
        (None, Some(_)) => return Ok(()),
    };
    let service = example(path, service.as_deref());
    Err(Failure::usage(format!(
        "{problem} Examples:\n  \
         watchword find ID\n  \
         watchword find --service {service} --subject jane\n  \
         watchword find --service {service} --recipient +4915112345678"
    )))
}

/// Returns a usage error unless the arguments are a service with a subject or a recipient.
pub(super) fn check_unlock(path: &Path, arguments: &UnlockArguments) -> Result<(), Failure> {
    let UnlockArguments {
        change: _,
        service,
        subject,
        recipient,
    } = arguments;
    let problem = match service {
        None => "The service is missing, and a subject or --recipient.",
        Some(_) if subject.is_none() && recipient.is_none() => {
            "A subject or --recipient is missing: the first argument is the service."
        }
        Some(_) => return Ok(()),
    };
    let service = example(path, None);
    Err(Failure::usage(format!(
        "{problem} Examples:\n  \
         watchword unlock {service} jane\n  \
         watchword unlock {service} --recipient +4915112345678"
    )))
}

/// Adds the names of the configured services to the error about an unknown service. A command with
/// --admin-url asks a process whose configuration may be another one.
pub(super) fn name_services(
    path: &Path,
    admin: &AdminArguments,
    error: anyhow::Error,
) -> anyhow::Error {
    if admin.admin_url.is_some() {
        return error;
    }
    let services = services(path);
    if services.is_empty() || error.to_string() != watchword_admin::operate::NO_SERVICE {
        return error;
    }
    let services = services.join(", ");
    let text = format!("The configuration has no service of that name. It has: {services}.");
    Failure::new(text).into()
}

/// Returns the service for an example: `named` if it is configured, else the first one.
fn example(path: &Path, named: Option<&str>) -> String {
    let services = services(path);
    let named = services.iter().find(|one| Some(one.as_str()) == named);
    let name = named.or(services.first());
    name.cloned().unwrap_or_else(|| "SERVICE".to_owned())
}

fn services(path: &Path) -> Vec<String> {
    let (config, _) = Config::draft(path, environment());
    let services = config.map(|config| config.services).unwrap_or_default();
    services.keys().map(ToString::to_string).collect()
}

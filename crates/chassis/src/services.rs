//! The configured services, found by API key, broker user or name. Only hashes of API keys are
//! kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{NumberPolicy, NumberPrefix, Service, ServiceName, is_country};

use crate::config::{ConfigError, ServiceConfig, ServicesConfig};
use crate::hashed_keys::HashedKeys;

/// The directory of all services.
#[derive(Debug)]
pub struct Services {
    by_name: BTreeMap<ServiceName, Arc<Service>>,
    keys: HashedKeys<Arc<Service>>,
    by_broker_user: BTreeMap<String, Arc<Service>>,
}

impl Services {
    /// Builds the directory. Returns the first error if there are several.
    pub fn from_config(config: &ServicesConfig) -> Result<Self, ConfigError> {
        let (services, errors) = Self::draft(config);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(services),
        }
    }

    /// Builds the directory of the services that are valid, and returns all errors.
    pub fn draft(config: &ServicesConfig) -> (Self, Vec<ConfigError>) {
        let mut services = Self {
            by_name: BTreeMap::new(),
            keys: HashedKeys::default(),
            by_broker_user: BTreeMap::new(),
        };
        let mut errors = Vec::new();
        for (name, section) in config {
            let found = services.add(name, section);
            let parent = format!("services.{name}");
            errors.extend(found.into_iter().map(|error| error.within(&parent)));
        }
        if config.is_empty() {
            let problem = "at least one service must be configured";
            errors.push(ConfigError::new("services", problem));
        }
        (services, errors)
    }

    /// Adds the service if its section is valid. Returns the errors of the section.
    fn add(&mut self, name: &ServiceName, section: &ServiceConfig) -> Vec<ConfigError> {
        let mut errors = Errors(Vec::new());
        errors.take(check_app(section));
        errors.take(check_host(section));
        let policy = errors.take(section.policy.policy());
        // The ranges of the limits do not depend on the policy.
        let limits = section.limits.limits(&policy.unwrap_or_default());
        let limits = errors.take(limits);
        let budget = errors.take(section.guesses.budget());
        let numbers = errors.take(number_policy(section));
        let (Some(policy), Some(limits), Some(budget), Some(numbers)) =
            (policy, limits, budget, numbers)
        else {
            return errors.0;
        };
        let service = Arc::new(Service {
            name: name.clone(),
            app: section.app.clone(),
            host: section.host.clone(),
            policy,
            limits,
            budget,
            numbers,
            links_in_variables: section.links_in_variables,
        });
        for (index, key) in section.api_keys.iter().enumerate() {
            let added = self.keys.add(&key.sha256, service.clone());
            let key = || format!("api_keys[{index}].sha256");
            errors.take(added.map_err(|problem| ConfigError::new(key(), problem)));
        }
        for user in &section.broker_users {
            let earlier = self.by_broker_user.insert(user.clone(), service.clone());
            if earlier.is_some() {
                let problem = "names a user that already belongs to another service";
                errors.0.push(ConfigError::new("broker_users", problem));
            }
        }
        if errors.0.is_empty() {
            self.by_name.insert(name.clone(), service);
        }
        errors.0
    }

    /// Returns the service with this API key.
    pub fn by_api_key(&self, key: &str) -> Option<&Arc<Service>> {
        self.keys.find(key)
    }

    /// Returns the service that this broker user belongs to.
    pub fn by_broker_user(&self, user: &str) -> Option<&Arc<Service>> {
        self.by_broker_user.get(user)
    }

    /// Returns the service with this name.
    pub fn by_name(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// Returns all services, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }
}

/// A collector of the errors of a section.
struct Errors(Vec<ConfigError>);

impl Errors {
    /// Returns the value of `result`, or keeps its error and returns `None`.
    fn take<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }
}

/// Checks the app name, which appears in messages and must not break their layout.
fn check_app(section: &ServiceConfig) -> Result<(), ConfigError> {
    let fits = (1..=40).contains(&section.app.chars().count())
        && !section.app.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    let problem = "must be 1 to 40 characters without control characters";
    Err(ConfigError::new("app", problem))
}

fn check_host(section: &ServiceConfig) -> Result<(), ConfigError> {
    let fits = section.host.as_ref().is_none_or(|host| {
        (1..=100).contains(&host.len())
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            })
    });
    if fits {
        return Ok(());
    }
    let problem = "must be a host name in lower case";
    Err(ConfigError::new("host", problem))
}

fn number_policy(section: &ServiceConfig) -> Result<NumberPolicy, ConfigError> {
    for country in &section.countries {
        if country != "*" && !is_country(country) {
            return Err(ConfigError::new(
                "countries",
                "must be ISO 3166 country codes of two capital letters (GB, not UK), or \"*\"",
            ));
        }
    }
    let prefixes = |key: &str, texts: &[String]| {
        let parsed: Result<Vec<NumberPrefix>, _> = texts.iter().map(|text| text.parse()).collect();
        parsed.map_err(|error| ConfigError::new(key, error.rule()))
    };
    Ok(NumberPolicy::new(
        section.countries.clone(),
        prefixes("unknown_prefixes", &section.unknown_prefixes)?,
        prefixes("fixed_line_prefixes", &section.fixed_line_prefixes)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_country_or_prefix_names_its_key() {
        for wrong in [
            r#"unknown_prefixes = ["+852"]"#,
            r#"unknown_prefixes = ["8524"]"#,
            r#"unknown_prefixes = ["+8821"]"#,
            r#"fixed_line_prefixes = ["+44 20"]"#,
            r#"countries = ["UK"]"#,
        ] {
            let section = toml::from_str(&format!("app = \"Jira\"\n{wrong}")).unwrap();
            let key = number_policy(&section).unwrap_err().key;
            assert!(wrong.starts_with(&key), "{wrong}: {key}");
        }
    }
}

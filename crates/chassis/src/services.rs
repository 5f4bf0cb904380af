//! Configured services: lookup by API key, broker user or name, with each service's policy and the
//! numbers it sends to. Only hashes of API keys are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{
    GuessBudget, NumberKind, NumberPrefix, PhoneNumber, Policy, SendLimits, ServiceName, is_country,
};

use crate::config::{ConfigError, ServiceConfig, ServicesConfig};
use crate::hashed_keys::HashedKeys;

/// A configured service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The name in the configuration, in metrics and in events.
    pub name: ServiceName,
    /// The application name that messages show, 1 to 40 characters.
    pub app: String,
    /// The host of the page on which people enter their codes.
    pub host: Option<String>,
    /// Length, lifetime and attempts of codes.
    pub policy: Policy,
    /// The send limits.
    pub limits: SendLimits,
    /// The limits on wrong codes of a subject.
    pub budget: GuessBudget,
    /// The numbers that may receive SMS.
    pub numbers: NumberPolicy,
    /// Whether template variables may contain links.
    pub links_in_variables: bool,
}

/// The telephone numbers that a service sends to: numbers in its countries on which a person can
/// read a message. Premium numbers are excluded, because their operator earns from each message
/// (SMS pumping).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberPolicy {
    countries: Vec<String>,
    unknown: Vec<NumberPrefix>,
    fixed_lines: Vec<NumberPrefix>,
}

/// The reason why a service does not send to a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberRefusal {
    /// The number is not one of its numbering plan.
    #[error("the phone number has too few or too many digits for its numbering plan")]
    WrongLength,
    /// A person cannot read a message there.
    #[error("SMS is not sent to a fixed line")]
    FixedLine,
    /// The operator of the number earns from each message.
    #[error("codes are not sent to premium, shared-cost, personal and service numbers")]
    Special,
    /// Messages to the network are expensive.
    #[error("codes are not sent to satellite and international networks")]
    Satellite,
    /// The range is not in the numbering plans.
    #[error(
        "the numbering plans do not list this range: it is unassigned, reserved or newer than their data"
    )]
    Unlisted,
    /// The country is not one of the service's.
    #[error("the number belongs to {0}, where the service sends no codes")]
    Country(String),
    /// The number's calling code is shared by several countries.
    #[error("the number belongs to no country that the service sends codes to")]
    NoCountry,
}

impl NumberPolicy {
    fn from_config(section: &ServiceConfig) -> Result<Self, ConfigError> {
        for country in &section.countries {
            if country != "*" && !is_country(country) {
                return Err(ConfigError::new(
                    "countries",
                    "must be ISO 3166 country codes of two capital letters (GB, not UK), or \"*\"",
                ));
            }
        }
        let prefixes = |key: &str, texts: &[String]| {
            let parsed: Result<Vec<NumberPrefix>, _> =
                texts.iter().map(|text| text.parse()).collect();
            parsed.map_err(|error| ConfigError::new(key, error.rule()))
        };
        Ok(Self {
            countries: section.countries.clone(),
            unknown: prefixes("unknown_prefixes", &section.unknown_prefixes)?,
            fixed_lines: prefixes("fixed_line_prefixes", &section.fixed_line_prefixes)?,
        })
    }

    /// Returns an error if the service does not send to `number`.
    pub fn admit(&self, number: &PhoneNumber) -> Result<(), NumberRefusal> {
        let is_in = |prefixes: &[NumberPrefix]| prefixes.iter().any(|one| one.covers(number));
        match number.kind() {
            NumberKind::Reachable => {}
            NumberKind::FixedLine if is_in(&self.fixed_lines) => {}
            NumberKind::Unknown | NumberKind::WrongLength if is_in(&self.unknown) => {
                // A range in a shared calling code (such as +1) has no country, so its listing in
                // `unknown_prefixes` suffices.
                if number.country().is_none() {
                    return Ok(());
                }
            }
            NumberKind::FixedLine => return Err(NumberRefusal::FixedLine),
            NumberKind::Special => return Err(NumberRefusal::Special),
            NumberKind::Satellite => return Err(NumberRefusal::Satellite),
            NumberKind::Unknown => return Err(NumberRefusal::Unlisted),
            NumberKind::WrongLength => return Err(NumberRefusal::WrongLength),
        }
        let is_listed = |code: &str| self.countries.iter().any(|one| one == code);
        match number.country() {
            _ if is_listed("*") => Ok(()),
            Some(country) if is_listed(country) => Ok(()),
            Some(country) => Err(NumberRefusal::Country(country.to_owned())),
            None => Err(NumberRefusal::NoCountry),
        }
    }
}

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
        let numbers = errors.take(NumberPolicy::from_config(section));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(keys: &str) -> Result<NumberPolicy, ConfigError> {
        let section = toml::from_str(&format!("app = \"Jira\"\n{keys}")).unwrap();
        NumberPolicy::from_config(&section)
    }

    fn refusal(keys: &str, number: &str) -> Option<NumberRefusal> {
        let number = number.parse().unwrap();
        policy(keys).unwrap().admit(&number).err()
    }

    #[test]
    fn numbers_are_refused_for_the_reason_that_holds() {
        use NumberRefusal::{FixedLine, Satellite, Special, Unlisted, WrongLength};
        let abroad = |country: &str| NumberRefusal::Country(country.to_owned());
        let british = r#"countries = ["GB"]"#;
        let all = r#"countries = ["*"]"#;
        for (keys, number, reason) in [
            (british, "+4915112345678", abroad("DE")),
            (british, "+447797712345", abroad("JE")),
            (british, "+447700900222", Unlisted),
            (all, "+447700900222", Unlisted),
            (all, "+85241234567", Unlisted),
            (all, "+442012345678", FixedLine),
            (all, "+390236618300", FixedLine),
            (all, "+447092123456", Special),
            (all, "+190023456780", Special),
            (all, "+338991234567", Special),
            (all, "+881612345678", Satellite),
            (all, "+49151123456780", WrongLength),
            (all, "+5215512345678", WrongLength),
            ("", "+4915112345678", abroad("DE")),
        ] {
            assert_eq!(refusal(keys, number), Some(reason), "{number}");
        }
        assert_eq!(refusal(british, "+447400123456"), None);
        assert_eq!(
            refusal(r#"countries = ["GB", "JE"]"#, "+447797712345"),
            None
        );
        assert_eq!(refusal(all, "+12025550123"), None);
    }

    #[test]
    fn prefixes_open_ranges_and_nothing_special() {
        let keys = r#"
            countries = ["GB", "HK"]
            unknown_prefixes = ["+447700900", "+8524", "+44909", "+861", "+15", "+4474001234567"]
            fixed_line_prefixes = ["+4420", "+4970"]
        "#;
        for number in [
            "+447700900222",
            "+85241234567",
            "+442012345678",
            "+15555550100",
            "+44740012345678",
        ] {
            assert_eq!(refusal(keys, number), None, "{number}");
        }
        for number in [
            // A premium number with an extra digit, an unknown range of another country, a personal
            // number.
            "+4490987900001",
            "+86100000000",
            "+4970012345678",
            "+15002345678",
            "+441212345678",
        ] {
            assert!(refusal(keys, number).is_some(), "{number}");
        }
        for wrong in [
            r#"unknown_prefixes = ["+852"]"#,
            r#"unknown_prefixes = ["8524"]"#,
            r#"unknown_prefixes = ["+8821"]"#,
            r#"fixed_line_prefixes = ["+44 20"]"#,
            r#"countries = ["UK"]"#,
        ] {
            let key = policy(wrong).unwrap_err().key;
            assert!(wrong.starts_with(&key), "{wrong}: {key}");
        }
    }
}

//! The services of the config, checked and ready to be asked: whose key is this, what is its
//! policy, where may it send. Refuses to keep an API key: it knows their hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use watchword_core::{
    GuessBudget, NumberKind, PhoneNumber, Policy, SendLimits, ServiceName, is_country,
};

use crate::config::{ConfigError, ServiceConfig, ServicesConfig};

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The name people know it by.
    pub app: String,
    /// The host whose page asks for codes.
    pub host: Option<String>,
    /// What its verifications are like.
    pub policy: Policy,
    /// How many messages go out.
    pub limits: SendLimits,
    /// How many wrong guesses a subject has.
    pub budget: GuessBudget,
    /// Which numbers get SMS.
    pub numbers: NumberPolicy,
}

/// Which telephone numbers a service sends to: those of its countries that a person reads and
/// that do not pay whoever runs them (R17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberPolicy {
    countries: Vec<String>,
}

impl NumberPolicy {
    /// Why `number` gets nothing, if so.
    pub fn refusal(&self, number: &PhoneNumber) -> Option<&'static str> {
        match number.kind() {
            NumberKind::FixedLine => return Some("a fixed line gets no SMS"),
            NumberKind::Special => {
                return Some("premium, shared-cost and service numbers get no codes");
            }
            NumberKind::Satellite => {
                return Some("satellite and international networks get no codes");
            }
            NumberKind::Reachable => {}
        }
        if self.countries.iter().any(|country| country == "*") {
            return None;
        }
        let allowed = number
            .country()
            .is_some_and(|country| self.countries.iter().any(|one| one == country));
        (!allowed).then_some("the service sends no codes to the number's country")
    }
}

/// All services.
#[derive(Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "each is a way to find a service by something"
)]
pub struct Services {
    by_name: BTreeMap<ServiceName, Arc<Service>>,
    by_key: Vec<([u8; 32], Arc<Service>)>,
    by_broker_user: BTreeMap<String, Arc<Service>>,
}

impl Services {
    /// Checks the section and builds the directory.
    pub fn from_config(config: &ServicesConfig) -> Result<Self, ConfigError> {
        let mut services = Self {
            by_name: BTreeMap::new(),
            by_key: Vec::new(),
            by_broker_user: BTreeMap::new(),
        };
        for (name, section) in config {
            services
                .add(name, section)
                .map_err(|error| error.within(&format!("services.{name}")))?;
        }
        if services.by_name.is_empty() {
            return Err(ConfigError::new(
                "services",
                "at least one service must be configured",
            ));
        }
        Ok(services)
    }

    fn add(&mut self, name: &ServiceName, section: &ServiceConfig) -> Result<(), ConfigError> {
        check_sender(section)?;
        for country in &section.countries {
            if country != "*" && !is_country(country) {
                return Err(ConfigError::new(
                    "countries",
                    "must be countries of ISO 3166, two capital letters each (GB, not UK), or \"*\"",
                ));
            }
        }
        let policy = section.policy.policy()?;
        let service = Arc::new(Service {
            name: name.clone(),
            app: section.app.clone(),
            host: section.host.clone(),
            policy,
            limits: section.limits.limits(&policy)?,
            budget: section.guesses.budget()?,
            numbers: NumberPolicy {
                countries: section.countries.clone(),
            },
        });
        for (index, key) in section.api_keys.iter().enumerate() {
            let hash = HEXLOWER_PERMISSIVE
                .decode(key.sha256.as_bytes())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| {
                    ConfigError::new(
                        format!("api_keys[{index}].sha256"),
                        "must be 64 hexadecimal digits",
                    )
                })?;
            if self.by_key.iter().any(|(other, _)| *other == hash) {
                return Err(ConfigError::new(
                    format!("api_keys[{index}].sha256"),
                    "is in use already",
                ));
            }
            self.by_key.push((hash, service.clone()));
        }
        for user in &section.broker_users {
            if self
                .by_broker_user
                .insert(user.clone(), service.clone())
                .is_some()
            {
                return Err(ConfigError::new(
                    "broker_users",
                    "a user speaks for one service only",
                ));
            }
        }
        self.by_name.insert(name.clone(), service);
        Ok(())
    }

    /// The service whose key this is. Every known hash is compared, each in constant time.
    pub fn by_api_key(&self, key: &str) -> Option<&Arc<Service>> {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.by_key.iter().fold(None, |found, (known, service)| {
            if bool::from(known.ct_eq(&hash)) {
                Some(service)
            } else {
                found
            }
        })
    }

    /// The service for which this broker user speaks.
    pub fn by_broker_user(&self, user: &str) -> Option<&Arc<Service>> {
        self.by_broker_user.get(user)
    }

    /// The service of that name.
    pub fn by_name(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// All services in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }
}

/// What stands in messages must not break their form.
fn check_sender(section: &ServiceConfig) -> Result<(), ConfigError> {
    let app_fits = (1..=40).contains(&section.app.chars().count())
        && !section.app.chars().any(char::is_control);
    if !app_fits {
        return Err(ConfigError::new(
            "app",
            "must be 1 to 40 characters without control characters",
        ));
    }
    let host_fits = section.host.as_ref().is_none_or(|host| {
        (1..=100).contains(&host.len())
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            })
    });
    if host_fits {
        Ok(())
    } else {
        Err(ConfigError::new(
            "host",
            "must be a host name in lower case",
        ))
    }
}

//! The parts that all histories share: services, keys, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_chassis::Services;
use watchword_chassis::config::{
    GuessesConfig, LimitsConfig, PolicyConfig, ResendMode, ServiceConfig,
};
use watchword_core::{Channel, Key, KeyRing, Live, Service};
use watchword_delivery::DeliveryMetrics;
use watchword_issuer::IssuerMetrics;
use watchword_metrics::prometheus::Registry;
use watchword_verifier::{Index, VerifierMetrics};

use crate::history::{Gateway, Tenant};

/// The parts that all histories of one run share.
pub struct Kit {
    pub services: Live<Services>,
    pub keys: KeyRing,
    pub index: Index,
    pub registry: Registry,
    pub verifier: VerifierMetrics,
    pub issuer: IssuerMetrics,
    pub sms: DeliveryMetrics,
    pub mail: DeliveryMetrics,
}

fn section(policy: PolicyConfig, per_hour: u32) -> ServiceConfig {
    ServiceConfig {
        app: "Example".to_owned(),
        host: None,
        api_keys: Vec::new(),
        broker_users: Vec::new(),
        countries: vec!["DE".to_owned()],
        unknown_prefixes: Vec::new(),
        fixed_line_prefixes: Vec::new(),
        links_in_variables: false,
        policy,
        limits: LimitsConfig {
            recipient_per_hour: 20,
            ..LimitsConfig::default()
        },
        guesses: GuessesConfig {
            per_hour,
            ..GuessesConfig::default()
        },
    }
}

impl Kit {
    pub fn new() -> Arc<Self> {
        let bank = PolicyConfig {
            lifetime_seconds: 30,
            max_checks: 3,
            cooldown_seconds: 5,
            resend: ResendMode::Rotate,
            ..PolicyConfig::default()
        };
        let services = BTreeMap::from([
            (
                Tenant::Shop.name().parse().unwrap(),
                section(PolicyConfig::default(), 10),
            ),
            (Tenant::Bank.name().parse().unwrap(), section(bank, 4)),
        ]);
        let key = |id: &str| Key::new(id.parse().unwrap(), [7; 32]);
        let registry = Registry::new();
        let (one, two, mail) = (
            Gateway::One.name(),
            Gateway::Two.name(),
            Gateway::Mail.name(),
        );
        Arc::new(Self {
            services: Live::new(Services::from_config(&services).unwrap()),
            keys: KeyRing::new(vec![key("k1")]).unwrap(),
            index: Index::new(key("i1")),
            verifier: VerifierMetrics::register(&registry).unwrap(),
            issuer: IssuerMetrics::register(&registry).unwrap(),
            sms: DeliveryMetrics::register(&registry, Channel::Sms, &[&one, &two]).unwrap(),
            mail: DeliveryMetrics::register(&registry, Channel::Email, &[&mail]).unwrap(),
            registry,
        })
    }

    pub fn service(&self, tenant: Tenant) -> Arc<Service> {
        let name = tenant.name().parse().unwrap();
        self.services.get().by_name(&name).unwrap().clone()
    }

    /// Returns the sum of a counter over its labels.
    pub fn counted(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let series = family.unwrap().get_metric().iter();
        series.map(|series| series.get_counter().get_value()).sum()
    }
}

//! Presets: SMS gateways described as TOML data. Each file includes recorded answers and receipts,
//! which the tests check its rules against.

use watchword_chassis::config::ConfigError;

use crate::http::Preset;

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Every preset, as its name and the content of its file.
        pub const PRESETS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../presets/", $name, ".toml")))),*];
    };
}

presets![
    "africas-talking",
    "aws-eum",
    "aws-sns",
    "infobip",
    "kannel",
    "messagebird",
    "msg91",
    "plivo",
    "simulator",
    "sinch",
    "telnyx",
    "twilio",
    "vonage-messages",
    "vonage-sms",
];

/// Returns the preset `name`.
pub fn preset(name: &str) -> Result<Preset, ConfigError> {
    let (_, text) = PRESETS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|(name, _)| *name).collect();
            ConfigError::new(
                "kind",
                format!("must be inbox, http, smpp, or one of: {}", names.join(", ")),
            )
        })?;
    toml::from_str(text)
        .map_err(|_| ConfigError::new("kind", "names a preset that cannot be parsed"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use data_encoding::BASE64;
    use http::{HeaderMap, Method};
    use ring::hmac;
    use watchword_core::{Clock, ManualClock, ProviderName, Timestamp};
    use watchword_delivery::Inbox;

    use super::*;
    use crate::config::{Secrets, SmsConfig, build};
    use crate::http::classify;
    use crate::receipt::{Call, ReceiptPlan};

    const DELIVERY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1";

    fn all() -> impl Iterator<Item = (&'static str, Preset)> {
        PRESETS.iter().map(|(name, text)| {
            let parsed = toml::from_str(text);
            (
                *name,
                parsed.unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        })
    }

    /// Checks each preset against its recorded answers.
    #[test]
    fn every_recorded_answer_has_its_class_and_id() {
        for (name, preset) in all() {
            let classes: BTreeSet<_> = preset
                .answers
                .iter()
                .map(|answer| answer.class.as_str())
                .collect();
            assert!(classes.len() >= 4, "{name} has too few answers");
            for answer in &preset.answers {
                let attempted = classify(&preset.response, answer.status, answer.body.as_bytes());
                let shown = format!("{name} {} {}", answer.status, answer.body);
                assert_eq!(attempted.class, answer.class, "{shown}");
                if answer.id.is_some() {
                    assert_eq!(attempted.provider_message_id, answer.id, "{shown}");
                }
            }
        }
    }

    #[test]
    fn every_recorded_receipt_is_read() {
        // 32 bytes in base64, which is a valid key for every scheme.
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let none = HeaderMap::new();
        let mut form = HeaderMap::new();
        form.insert(
            "content-type",
            "application/x-www-form-urlencoded".parse().unwrap(),
        );
        for (name, preset) in all() {
            let Some(receipt) = &preset.receipt else {
                assert!(name.starts_with("aws-"), "{name} takes no receipts");
                continue;
            };
            let names = preset.secrets.iter().chain(&preset.receipt_secrets);
            let secrets: Vec<_> = names.map(|name| (name.as_str(), secret)).collect();
            let provider: ProviderName = name.parse().unwrap();
            let plan = ReceiptPlan::compile(provider, receipt, &Secrets::of(&secrets))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(preset.receipts.len() >= 2, "{name} has too few receipts");
            for recorded in &preset.receipts {
                let shown = format!("{name} {} {}", recorded.query, recorded.body);
                let text = |text: &str| text.replace("DELIVERY", DELIVERY);
                let query: Vec<_> = url::form_urlencoded::parse(text(&recorded.query).as_bytes())
                    .into_owned()
                    .collect();
                let body = text(&recorded.body);
                let is_form = !body.starts_with('{') && !body.is_empty();
                let call = Call {
                    method: &Method::POST,
                    url: "https://otp.example.org/",
                    headers: if is_form { &form } else { &none },
                    query: &query,
                    body: body.as_bytes(),
                    now: Timestamp::from_millis(0),
                };
                let receipts = plan.parse(&call).unwrap_or_else(|| panic!("{shown}"));
                assert_eq!(
                    receipts.first().map(|receipt| receipt.state),
                    recorded.state,
                    "{shown}"
                );
                let Some(receipt) = receipts.first() else {
                    continue;
                };
                let id = recorded.id.as_deref().map(text);
                let named = receipt.delivery_id.as_ref().map(ToString::to_string);
                assert_eq!(named.or_else(|| receipt.message_id.clone()), id, "{shown}");
                let kept = format!("{receipt:?}");
                assert!(
                    !kept.contains("4915112345678") && !kept.contains("254711000000"),
                    "{kept}"
                );
            }
        }
    }

    /// Whether `plivo` with this setting accepts a receipt that is signed only with version 2.
    fn takes_second_version(require_v3: &str) -> Result<bool, ConfigError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config: SmsConfig = toml::from_str(&format!(
            "public_url = \"https://otp.example.org\"\n[providers.plivo]\nkind = \"plivo\"\n\
             settings = {{ auth_id = \"MA1\", require_v3 = \"{require_v3}\" }}\n\
             secrets = {{ auth_token = {{ env = \"CARGO_PKG_NAME\" }} }}\n"
        ))
        .unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        let channel = build(&config, None, &Inbox::default(), &clock)?;
        let url = "https://otp.example.org/v1/receipts/plivo";
        let key = hmac::Key::new(hmac::HMAC_SHA256, env!("CARGO_PKG_NAME").as_bytes());
        let signature = BASE64.encode(hmac::sign(&key, format!("{url}7").as_bytes()).as_ref());
        let mut headers = HeaderMap::new();
        headers.insert("x-plivo-signature-v2", signature.parse().unwrap());
        headers.insert("x-plivo-signature-v2-nonce", "7".parse().unwrap());
        let kind = "application/x-www-form-urlencoded";
        headers.insert("content-type", kind.parse().unwrap());
        let call = Call {
            method: &Method::POST,
            url,
            headers: &headers,
            query: &[("d".to_owned(), DELIVERY.to_owned())],
            body: b"MessageUUID=u-1&Status=delivered",
            now: Timestamp::from_millis(0),
        };
        let plan = &channel.receipts[&"plivo".parse().unwrap()];
        Ok(plan.read(&call).is_ok())
    }

    #[test]
    fn a_setting_of_plivo_requires_the_third_version() {
        assert_eq!(takes_second_version("false"), Ok(true));
        assert_eq!(takes_second_version("true"), Ok(false));
        let wrong = takes_second_version("maybe").unwrap_err();
        assert_eq!(wrong.key, "sms.providers.plivo.settings.require_v3");
    }
}

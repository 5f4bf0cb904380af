//! Receivers of receipts, built from a section `[sms]` as the SMS worker builds them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use data_encoding::BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tempfile::TempDir;
use toml::{Table, Value};
use watchword_chassis::SystemClock;
use watchword_core::Clock;
use watchword_delivery::Inbox;
use watchword_sms_worker::fuzzing::VerifyConfig;
use watchword_sms_worker::{PRESETS, ReceiptPlan, SmsConfig};

use crate::signer::{SECRET, SEED};

/// The public URL at which gateways reach the worker.
pub const URL: &str = "https://otp.example.org";

/// Schemes that no preset uses, or that presets use in one form only.
const SCHEMES: [(&str, &str); 5] = [
    (
        "plivo-3",
        r#"{ kind = "plivo", secret = "s", require_v3 = true }"#,
    ),
    (
        "basic",
        r#"{ kind = "basic", username = "u", secret = "s" }"#,
    ),
    (
        "hex",
        r#"{ kind = "hmac", secret = "s", header = "x-sig", algorithm = "sha512", prefix = "v1=", content = "{url}.{body}" }"#,
    ),
    (
        "vonage-512",
        r#"{ kind = "vonage_sig", secret = "s", algorithm = "sha512" }"#,
    ),
    (
        "token",
        r#"{ kind = "jwt", secret = "s", header = "x-token" }"#,
    ),
];

/// A receiver and the scheme that signs its calls.
pub struct Receiver {
    /// The provider's name.
    pub name: String,
    /// The scheme that signs the calls.
    pub scheme: VerifyConfig,
    /// The compiled rules that verify and read the calls.
    pub plan: Arc<ReceiptPlan>,
}

/// Returns a receiver for the receipts of every preset, and one for each further scheme.
pub fn receivers() -> Vec<Receiver> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let key = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
    let shared = secret(&folder, "shared", SECRET);
    let public = secret(&folder, "public", &BASE64.encode(key.public_key().as_ref()));
    let presets = PRESETS.iter().filter_map(|(name, text)| {
        let preset: Table = text.parse().expect("a preset");
        Some(((*name).to_owned(), preset.get("receipt")?.clone()))
    });
    let own = SCHEMES.iter().map(|(name, verify)| {
        // Vonage does not sign the query, so the reference must be in the body.
        let reference = if name.starts_with("vonage") { "/body/ref" } else { "/query/d" };
        let text = format!("verify = {verify}\nreference = \"{reference}\"\nid = \"/body/id\"\nstate = \"/body/status\"\nerror = \"/body/error\"\nstates = {{ ok = \"delivered\" }}");
        let receipt: Table = text.parse().expect("a receipt");
        ((*name).to_owned(), Value::Table(receipt))
    });
    let receipts: BTreeMap<_, _> = presets.chain(own).collect();
    let request: Table = "method = \"POST\"\nurl = \"https://gateway.example.org/\""
        .parse()
        .expect("a request");
    let provider = |receipt: &Value| {
        let names = ["secret", "public_key"].map(|key| {
            let name = receipt.get("verify")?.get(key)?.as_str()?;
            let value = if key == "secret" { &shared } else { &public };
            Some((name.to_owned(), value.clone()))
        });
        let secrets: Table = names.into_iter().flatten().collect();
        Value::Table(Table::from_iter([
            ("kind".to_owned(), "http".into()),
            ("request".to_owned(), Value::Table(request.clone())),
            ("receipt".to_owned(), receipt.clone()),
            ("secrets".to_owned(), Value::Table(secrets)),
        ]))
    };
    let providers: Table = receipts
        .iter()
        .map(|(name, receipt)| (name.clone(), provider(receipt)))
        .collect();
    let section = Table::from_iter([
        ("public_url".to_owned(), URL.into()),
        ("providers".to_owned(), Value::Table(providers)),
    ]);
    let config: SmsConfig = Value::Table(section).try_into().expect("a section");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let built = watchword_sms_worker::build(&config, None, &Inbox::default(), &clock);
    let built = built.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(built.receipts.len(), receipts.len());
    built
        .receipts
        .into_iter()
        .map(|(name, plan)| Receiver {
            name: name.to_string(),
            scheme: receipts[name.as_str()]["verify"]
                .clone()
                .try_into()
                .expect("a scheme"),
            plan,
        })
        .collect()
}

/// Writes a secret to a file and returns the reference to it.
fn secret(folder: &TempDir, name: &str, value: &str) -> Value {
    let path = folder.path().join(name);
    std::fs::write(&path, value).expect("a secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    Value::Table(Table::from_iter([(
        "file".to_owned(),
        path.display().to_string().into(),
    )]))
}

//! The contents of the files that `init` writes, and the commands that it prints.

use std::path::Path;

use watchword_sms_worker::Preset;

use crate::config::EngineKind;

/// The validated choices that determine the files.
pub(super) struct Plan {
    pub(super) engine: EngineKind,
    /// The path of the embedded engine's file.
    pub(super) database: String,
    pub(super) gateway: Gateway,
    pub(super) sender: String,
    pub(super) countries: Vec<String>,
}

/// The provider that sends SMS.
pub(super) enum Gateway {
    Inbox,
    Simulator,
    Preset(String, Box<Preset>),
}

impl PartialEq for Gateway {
    fn eq(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Inbox, Self::Inbox) | (Self::Simulator, Self::Simulator)
        )
    }
}

/// The name of the service in the written configuration.
pub(super) const SERVICE: &str = "example";

/// The script of the simulator, which `watchword simulate` reads.
pub(super) const SIMULATE: &str = include_str!("simulate.toml");

/// The ports of the processes on one machine: API, admin listener.
const API: (u16, u16) = (8080, 9090);
const SMS_WORKER: (u16, u16) = (8082, 9092);
/// The email worker has no public listener.
const EMAIL_WORKER_ADMIN: u16 = 9093;
/// The column of trailing comments.
const COMMENTS: usize = 41;

/// Returns the text of `watchword.toml`.
pub(super) fn config(plan: &Plan, api_key_hash: &str, admin_key_hash: &str) -> String {
    let common = format!(
        r#"
[http]                                    # the API
listen = "127.0.0.1:{api}"

[admin]                                   # health, metrics and the admin API; keep it off the internet
listen = "127.0.0.1:{admin}"

[admin.keys.admin]                        # the SHA-256 of the admin key; role = "viewer" only reads
hash = "{admin_key_hash}"
role = "operator"

[log]
format = "human"                          # "human" or "json"
level = "info"                            # error, warn, info, debug, trace; no level shows a code

[keys]                                    # each the base64 of 32 random bytes; back them up
sealing = [{{ id = "s1", file = "keys/sealing" }}]   # encrypts codes and recipients; the first seals, all open
digest = [{{ id = "d1", file = "keys/digest" }}]     # digests codes; the first digests, all verify
index = {{ file = "keys/index" }}                    # hashes subjects and recipients; is never rotated

{service}
{app}
{countries}
# host = "login.example.org"              # SMS then end with a line that phones fill in on that host only
api_keys = [{{ id = "k1", sha256 = "{api_key_hash}" }}]
"#,
        api = API.0,
        admin = API.1,
        service = commented(
            &format!("[services.{SERVICE}]"),
            "one section for each application that requests codes"
        ),
        app = commented(
            &format!("app = {}", quoted(app(plan))),
            "the name in every message"
        ),
        countries = commented(
            &format!("countries = {}", list(&plan.countries)),
            countries_comment(plan)
        ),
    );
    let users = match plan.engine {
        EngineKind::Embedded => "",
        EngineKind::Distributed => {
            "# broker_users = [\"portal\"]             # this RabbitMQ user may request codes by event: `watchword topology --permissions`\n"
        }
    };
    let start = [head(plan.engine), engine(plan), common];
    start.concat() + users + &sms(plan) + &email(plan)
}

/// Returns the sender as the application's name, or `Example` if the sender is a number.
fn app(plan: &Plan) -> &str {
    if plan.sender.chars().any(char::is_alphabetic) {
        &plan.sender
    } else {
        "Example"
    }
}

fn countries_comment(plan: &Plan) -> &'static str {
    if plan.countries.iter().any(|country| country == "*") {
        "\"*\" is every country: name yours before people send SMS at your cost"
    } else {
        "numbers of these countries get SMS"
    }
}

fn commented(line: &str, comment: &str) -> String {
    format!("{line:<COMMENTS$} # {comment}")
}

fn head(engine: EngineKind) -> String {
    let roles = match engine {
        EngineKind::Embedded => {
            "# `watchword run` runs all roles in one process; its state is in one SQLite file.\n"
                .to_owned()
        }
        EngineKind::Distributed => format!(
            "# Every role reads this file. On one machine each process needs its own listeners:\n\
             #   watchword run issuer verifier            the whole API at {}, admin {}\n\
             #   {}watchword run sms-worker\n\
             #   {}watchword run email-worker\n\
             # Issuer and verifier may be separate processes, too: WATCHWORD_HTTP__LISTEN=127.0.0.1:8081\n\
             # WATCHWORD_ADMIN__LISTEN=127.0.0.1:9091 watchword run verifier\n",
            API.0,
            API.1,
            variables(Some(SMS_WORKER.0), SMS_WORKER.1),
            variables(None, EMAIL_WORKER_ADMIN),
        ),
    };
    format!(
        "# Watchword's configuration, written by `watchword init`. `watchword config check` checks it, `watchword doctor`\n\
         # also everything it connects to. A relative path starts at the folder of this file. Secrets are not in this file:\n\
         # {{ file = \"…\" }} (mode 0600 or 0640) or {{ env = \"…\" }} names the place of a secret. The variable\n\
         # WATCHWORD_HTTP__LISTEN sets the key http.listen: two underscores stand for the dot.\n\
         # config/watchword.toml in the sources shows every key.\n\
         {roles}\n\
         engine = \"{}\"\n",
        engine.as_str()
    )
}

fn engine(plan: &Plan) -> String {
    match plan.engine {
        EngineKind::Embedded => format!(
            "\n[embedded]\n{}\n",
            commented(
                &format!("path = {}", quoted(&plan.database)),
                "SQLite; its folder must be writable"
            )
        ),
        EngineKind::Distributed => r#"
[rabbitmq]
url = "amqp://guest@127.0.0.1:5672/%2f"   # amqps:// for TLS; the password is never in this file
password = { file = "keys/rabbitmq-password" }   # "guest", which RabbitMQ accepts from loopback only

[redis]                                   # maxmemory-policy must be noeviction
url = "redis://127.0.0.1:6379/0"          # rediss:// for TLS
# password = { file = "keys/redis-password" }
"#
        .to_owned(),
    }
}

fn sms(plan: &Plan) -> String {
    let receipts = match plan.engine {
        EngineKind::Embedded => API.0,
        EngineKind::Distributed => SMS_WORKER.0,
    };
    match &plan.gateway {
        Gateway::Inbox => r#"
[sms.providers.inbox]                     # keeps messages in memory and shows them at /inbox of the admin listener:
kind = "inbox"                            # for trying out. `watchword init DIR --gateway PRESET` shows a real one
"#
        .to_owned(),
        Gateway::Simulator => format!(
            r#"
[sms]
public_url = "http://127.0.0.1:{receipts}"      # where the gateway sends receipts: the http.listen of the SMS worker

[sms.providers.simulator]                 # `watchword simulate` with the file simulate.toml
kind = "simulator"
sender = {sender}
secrets = {{ token = {{ file = "keys/simulator-token" }}, webhook = {{ file = "keys/simulator-webhook" }} }}

[sms.providers.inbox]                     # the second choice: shows messages at /inbox of the admin listener
kind = "inbox"

[[sms.routes]]                            # the first healthy provider; the next one if it does not accept
providers = ["simulator", "inbox"]
"#,
            sender = quoted(&plan.sender)
        ),
        Gateway::Preset(name, preset) => provider(plan, name, preset),
    }
}

fn provider(plan: &Plan, name: &str, preset: &Preset) -> String {
    let listener = match plan.engine {
        EngineKind::Embedded => "http.listen",
        EngineKind::Distributed => "the http.listen of the SMS worker",
    };
    let settings = preset.settings.iter();
    let settings: Vec<_> = settings
        .map(|(key, value)| format!("{key} = {}", quoted(value)))
        .collect();
    let settings = match settings.as_slice() {
        [] => String::new(),
        settings => format!(
            "settings = {{ {} }}   # fill in the empty values\n",
            settings.join(", ")
        ),
    };
    let files = |secrets: &[String]| {
        let file = |secret: &String| {
            let file = secret.replace('_', "-");
            format!("{secret} = {{ file = \"keys/{name}-{file}\" }}")
        };
        secrets.iter().map(file).collect::<Vec<_>>().join(", ")
    };
    let for_receipts = match preset.receipt_secrets.as_slice() {
        [] => String::new(),
        secrets => format!("# For receipts add to the secrets: {}\n", files(secrets)),
    };
    format!(
        "\n[sms]\n\
         # public_url = \"https://otp.example.org\" # where the gateway reaches {listener}; without it no receipts\n\n\
         {header}\n\
         kind = \"{name}\"\n\
         sender = {sender}\n\
         {settings}\
         # Put each secret into its file: (umask 077; cat > keys/FILE), then Ctrl-D.\n\
         secrets = {{ {secrets} }}\n\
         {for_receipts}",
        header = commented(
            &format!("[sms.providers.{name}]"),
            &format!("`watchword provider test {name} [--to NUMBER]` tries it")
        ),
        sender = quoted(&plan.sender),
        secrets = files(&preset.secrets),
    )
}

fn email(plan: &Plan) -> String {
    const RELAY: &str = r#"
# A relay of your own:
# [email.providers.relay]
# kind = "smtp"
# host = "smtp.example.org"
# port = 587
# tls = "starttls"                        # "starttls", "implicit" (465), or "none" on loopback only
# username = "watchword"
# password = { file = "keys/relay-password" }
# from = "Example <no-reply@example.org>"
"#;
    let providers = if plan.gateway == Gateway::Simulator {
        r#"
[email.providers.simulator]               # the relay of `watchword simulate`
kind = "smtp"
host = "127.0.0.1"
port = 2525
tls = "none"
from = "Example <no-reply@example.org>"

[email.providers.inbox]
kind = "inbox"

[[email.routes]]
providers = ["simulator", "inbox"]
"#
    } else {
        r#"
[email.providers.inbox]                   # keeps mails in memory; replace it by a relay
kind = "inbox"
"#
    };
    format!("{providers}{RELAY}")
}

/// Returns the commands to run after `init`.
pub(super) fn next_commands(plan: &Plan, folder: &Path, api_key: &str) -> String {
    let file = |name: &str| shell_quoted(&folder.join(name).display().to_string());
    let config = file("watchword.toml");
    let mut lines = Vec::new();
    if let Gateway::Preset(name, _) = &plan.gateway {
        lines.push("Next, fill in the settings and secrets of the gateway, then:".to_owned());
        lines.push(format!("  watchword --config {config} config check"));
        lines.push(format!(
            "  watchword --config {config} provider test {name} --to NUMBER"
        ));
    } else {
        lines.push("Next, each in a terminal of its own:".to_owned());
    }
    if plan.gateway == Gateway::Simulator {
        lines.push(format!("  watchword simulate {}", file("simulate.toml")));
    }
    match plan.engine {
        EngineKind::Embedded => lines.push(format!("  watchword --config {config} run")),
        EngineKind::Distributed => {
            lines.push(format!("  watchword --config {config} run issuer verifier"));
            for (http, admin, role) in [
                (Some(SMS_WORKER.0), SMS_WORKER.1, "sms-worker"),
                (None, EMAIL_WORKER_ADMIN, "email-worker"),
            ] {
                lines.push(format!(
                    "  {}watchword --config {config} run {role}",
                    variables(http, admin)
                ));
            }
        }
    }
    lines.push("\nThen ask for a code:".to_owned());
    lines.push(format!(
        "  WATCHWORD_KEY={api_key} watchword send sms +4915112345678"
    ));
    let admin = match plan.engine {
        EngineKind::Embedded => API.1,
        EngineKind::Distributed => SMS_WORKER.1,
    };
    match plan.gateway {
        Gateway::Inbox => lines.push(format!("and read it at http://127.0.0.1:{admin}/inbox")),
        Gateway::Simulator => lines.push(
            "and read it:\n  curl -s -H 'Authorization: Bearer simulator' http://127.0.0.1:9925/control/messages".to_owned(),
        ),
        Gateway::Preset(..) => {}
    }
    lines.join("\n")
}

fn variables(http: Option<u16>, admin: u16) -> String {
    let http = http.map(|port| format!("WATCHWORD_HTTP__LISTEN=127.0.0.1:{port} "));
    format!(
        "{}WATCHWORD_ADMIN__LISTEN=127.0.0.1:{admin} ",
        http.unwrap_or_default()
    )
}

/// Returns `text` as a TOML string. JSON strings have the same syntax.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

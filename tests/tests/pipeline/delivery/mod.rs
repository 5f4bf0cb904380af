//! Delivery under provider faults: dead, hanging and misbehaving providers, receipts of every kind,
//! the timed fallback, and dead-lettered orders. The simulator plays the providers, configured as a
//! generic HTTP gateway.

mod commands;
mod failover;
mod fallback;
mod outcomes;
mod receipts;

use serde_json::Value;
use watchword_simulator::{
    ReceiptBehaviour, Simulator, SimulatorConfig, SmsBehaviour, SmtpBehaviour,
};
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, until};

const RECEIPTS_AT_ONCE: ReceiptBehaviour = ReceiptBehaviour {
    delay_ms: 10,
    lost: 0.0,
    failed: 0.0,
    late: 0.0,
    late_ms: 0,
    duplicate: 0.0,
    reordered: 0.0,
    forged: 0.0,
};

fn sms(change: impl FnOnce(&mut SmsBehaviour)) -> SmsBehaviour {
    let mut behaviour = SmsBehaviour {
        receipts: ReceiptBehaviour {
            lost: 1.0,
            ..RECEIPTS_AT_ONCE
        },
        ..SmsBehaviour::default()
    };
    change(&mut behaviour);
    behaviour
}

async fn simulator() -> Simulator {
    watchword_tests::tls();
    let config = SimulatorConfig {
        seed: 1,
        sms: Some(sms(|_| {})),
        smtp: Some(SmtpBehaviour::default()),
    };
    Simulator::start(config).await.unwrap()
}

/// Returns the configuration of a simulator at `port` as a generic HTTP gateway.
fn gateway(name: &str, port: u16, timeout_seconds: u64) -> String {
    format!(
        r#"
[sms.providers.{name}]
kind = "http"
sender = "Test"
timeout_seconds = {timeout_seconds}
settings = {{ path = "messages" }}
secrets = {{ token = {{ env = "SIMULATOR_TOKEN" }}, webhook = {{ env = "SIMULATOR_SECRET" }} }}
[sms.providers.{name}.request]
method = "POST"
url = "http://127.0.0.1:{port}/{{setting:path}}"
auth = {{ kind = "bearer", secret = "token" }}
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}", callback = "{{callback}}", ttl = "{{ttl_seconds}}|number" }}
[sms.providers.{name}.response]
id = {{ json = "/id" }}
rules = [
  {{ status = ["202"], class = "accepted" }},
  {{ json = {{ "/error" = ["unknown_number"] }}, class = "recipient_invalid" }},
  {{ json = {{ "/error" = ["opted_out"] }}, class = "recipient_blocked" }},
  {{ json = {{ "/error" = ["content_refused"] }}, class = "message_rejected" }},
  {{ json = {{ "/error" = ["not_routable"] }}, class = "destination_refused" }},
  {{ json = {{ "/error" = ["account_suspended", "unauthorized"] }}, class = "config_fault" }},
]
[sms.providers.{name}.receipt]
verify = {{ kind = "hmac", secret = "webhook", header = "x-simulator-signature", algorithm = "sha256", content = "{{timestamp}}.{{body}}", timestamp_header = "x-simulator-timestamp" }}
reference = "/body/reference"
id = "/body/id"
state = "/body/status"
error = "/body/error"
states = {{ sent = "in_flight", delivered = "delivered", failed = "failed", expired = "expired" }}
"#
    )
}

fn relay(name: &str, port: u16) -> String {
    format!(
        "[email.providers.{name}]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         timeout_seconds = 3\nfrom = \"Test <no-reply@mail.example.org>\"\n"
    )
}

fn port(address: Option<std::net::SocketAddr>) -> u16 {
    address.unwrap().port()
}

/// Adds the providers `first` and `second`, in this order, on both channels.
fn settings_of(mut settings: Settings, first: (u16, u16), second: (u16, u16)) -> Settings {
    settings.providers = [
        gateway("first", first.0, 2),
        gateway("second", second.0, 2),
        "[[sms.routes]]\nproviders = [\"first\", \"second\"]\n".to_owned(),
        relay("alpha", first.1),
        relay("beta", second.1),
        "[[email.routes]]\nproviders = [\"alpha\", \"beta\"]\n".to_owned(),
    ]
    .concat();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    settings
}

fn with_secrets(mut pipeline: Pipeline) -> Pipeline {
    for (name, value) in [
        ("SIMULATOR_TOKEN", "simulator"),
        ("SIMULATOR_SECRET", "simulator-secret"),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    pipeline
}

fn ports(simulator: &Simulator) -> (u16, u16) {
    (
        port(simulator.sms_address()),
        port(simulator.smtp_address()),
    )
}

/// Starts a pipeline on the embedded engine with two simulators.
async fn two_providers() -> (Pipeline, Simulator, Simulator) {
    let (first, second) = (simulator().await, simulator().await);
    let settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    (pipeline, first, second)
}

fn number(n: usize) -> String {
    format!("+4915112{n:06}")
}

/// Waits until delivery `send` of `id` has this outcome and returns the status.
async fn outcome_is(
    pipeline: &Pipeline,
    name: &str,
    id: &str,
    send: usize,
    outcome: &str,
) -> Value {
    until(
        40,
        &format!("delivery {send} of {id} is {outcome}"),
        || async {
            let status = pipeline.status(name, id).await.body;
            let found = status["deliveries"][send - 1]["outcome"] == outcome;
            found.then_some(status)
        },
    )
    .await
}

struct Distributed {
    pipeline: Pipeline,
    rabbitmq: RabbitMq,
    _redis: RedisServer,
    first: Simulator,
    second: Simulator,
}

const ROLES: [(&str, &str); 4] = [
    ("issuer", "issuer"),
    ("verifier", "verifier"),
    ("sms", "sms-worker"),
    ("email", "email-worker"),
];

async fn distributed() -> Distributed {
    let (rabbitmq, redis, first, second) = tokio::join!(
        RabbitMq::shared(),
        RedisServer::start(),
        simulator(),
        simulator()
    );
    let settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    let settings = settings_of(settings, ports(&first), ports(&second));
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    for (name, role) in ROLES {
        pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        pipeline.ready(name).await;
    }
    Distributed {
        pipeline,
        rabbitmq,
        _redis: redis,
        first,
        second,
    }
}

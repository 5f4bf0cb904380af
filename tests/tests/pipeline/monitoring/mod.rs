//! The dashboards and rules on a real Prometheus that scrapes real processes under a varied load:
//! every query of every panel has data, every rule evaluates, every exported metric is declared and
//! vice versa, and no label identifies a person.

mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use draw::Line;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use watchword_simulator::{
    Outcome, ReceiptBehaviour, Simulator, SimulatorConfig, SmsBehaviour, SmtpBehaviour,
};
use watchword_tests::fault::certificate::{Authority, Flaw};
use watchword_tests::monitoring::{self, DASHBOARDS, Prometheus, dashboard, declared, filled};
use watchword_tests::pipeline::code_in;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, Sink, TcpProxy, until};

const ROLES: [(&str, &str); 4] = [
    ("issuer", "issuer"),
    ("verifier", "verifier"),
    ("sms", "sms-worker"),
    ("email", "email-worker"),
];
/// Number of codes requested, and the time between two requests.
const CODES: usize = 300;
const APART: Duration = Duration::from_millis(80);

struct World {
    _store: TcpProxy,
    _gateway: TcpProxy,
    pipeline: Pipeline,
    rabbitmq: RabbitMq,
    _redis: RedisServer,
    providers: Simulator,
}

/// Starts a gateway whose calls fail at a rate, a gateway that always works, and a relay.
async fn world() -> World {
    watchword_tests::tls();
    let sms = SmsBehaviour {
        outcomes: BTreeMap::from([(Outcome::Transient, 0.1), (Outcome::RecipientInvalid, 0.05)]),
        receipts: ReceiptBehaviour {
            delay_ms: 50,
            lost: 0.0,
            failed: 0.1,
            late: 0.0,
            late_ms: 0,
            duplicate: 0.1,
            reordered: 0.0,
            forged: 0.0,
        },
        ..SmsBehaviour::default()
    };
    let config = SimulatorConfig {
        seed: 1,
        sms: Some(sms),
        smtp: Some(SmtpBehaviour::default()),
    };
    let (rabbitmq, redis, providers) = tokio::join!(
        RabbitMq::start(),
        RedisServer::start(),
        Simulator::start(config)
    );
    let providers = providers.unwrap();
    let gateway = providers.sms_address().unwrap().port();
    let relay = providers.smtp_address().unwrap().port();
    // Three peers with certificates: the store, a gateway, and a relay that gets no mail.
    let authority = Authority::new();
    let store = TcpProxy::start_tls(redis.port(), authority.server(Flaw::None)).await;
    let secure = TcpProxy::start_tls(gateway, authority.server(Flaw::None)).await;
    let spare = Sink::start().await;
    spare.offer_starttls(authority.server(Flaw::Expired));
    let store_url = format!("rediss://127.0.0.1:{}/0", store.port());
    let mut settings = Settings::distributed(&rabbitmq.url(), &store_url);
    settings.providers = format!(
        "[traces]\nurl = \"http://127.0.0.1:1/v1/traces\"\nshare = 0.0\n{}{}[[sms.routes]]\nproviders = [\"first\", \"second\"]\n\
         [email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {relay}\ntls = \"none\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n\
         [email.providers.spare]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"starttls\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n[[email.routes]]\nproviders = [\"relay\", \"spare\"]\n",
        gateway_config("first", &format!("http://127.0.0.1:{gateway}")),
        gateway_config("second", &format!("https://127.0.0.1:{}", secure.port())),
        spare.port()
    );
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    let mut pipeline = Pipeline::configure(&settings);
    for (name, value) in [
        ("SIMULATOR_TOKEN", "simulator"),
        ("SIMULATOR_SECRET", "simulator-secret"),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    let path = pipeline.folder().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let path = path.display().to_string();
    pipeline.variables.push(("SSL_CERT_FILE".into(), path));
    for (name, role) in ROLES {
        pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        pipeline.ready(name).await;
    }
    World {
        _store: store,
        _gateway: secure,
        pipeline,
        rabbitmq,
        _redis: redis,
        providers,
    }
}

fn gateway_config(name: &str, url: &str) -> String {
    format!(
        r#"
[sms.providers.{name}]
kind = "http"
sender = "Test"
secrets = {{ token = {{ env = "SIMULATOR_TOKEN" }}, webhook = {{ env = "SIMULATOR_SECRET" }} }}
[sms.providers.{name}.request]
method = "POST"
url = "{url}/messages"
auth = {{ kind = "bearer", secret = "token" }}
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}", callback = "{{callback}}", ttl = "{{ttl_seconds}}|number" }}
[sms.providers.{name}.response]
id = {{ json = "/id" }}
rules = [
  {{ status = ["202"], class = "accepted" }},
  {{ json = {{ "/error" = ["unknown_number"] }}, class = "recipient_invalid" }},
]
[sms.providers.{name}.receipt]
verify = {{ kind = "hmac", secret = "webhook", header = "x-simulator-signature", algorithm = "sha256", content = "{{timestamp}}.{{body}}", timestamp_header = "x-simulator-timestamp" }}
reference = "/body/reference"
id = "/body/id"
state = "/body/status"
states = {{ sent = "in_flight", delivered = "delivered", failed = "failed", expired = "expired" }}
"#
    )
}

impl World {
    /// Requests a code and checks it, sometimes after a wrong one.
    async fn live(&self, n: usize) -> (String, String) {
        tokio::time::sleep(APART * u32::try_from(n).unwrap()).await;
        let (channel, to) = match n % 4 {
            0 => ("email", format!("person{n}@example.org")),
            1 => ("sms", format!("+4915112{n:06}")),
            2 => ("sms", format!("+44740012{n:04}")),
            _ => ("sms", format!("+3361234{n:04}")),
        };
        let answer = self.pipeline.ask("issuer", channel, &to).await;
        let id = answer.text("id").to_owned();
        assert!(!id.is_empty(), "{to}: {:?}", answer.body);
        let arrived = async {
            loop {
                let messages = self.providers.messages();
                if let Some(message) = messages.iter().find(|message| message.to == to) {
                    return code_in(text_of(&message.text));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // Some people get no message, because the gateway rejects their number.
        let arrived = tokio::time::timeout(Duration::from_secs(4), arrived).await;
        if let Ok(code) = arrived {
            if n.is_multiple_of(5) {
                let wrong = if code == "000000" { "111111" } else { "000000" };
                self.pipeline.check("verifier", &id, wrong).await;
            }
            if !n.is_multiple_of(10) {
                self.pipeline.check("verifier", &id, &code).await;
            }
        }
        if n.is_multiple_of(20) {
            self.pipeline.ask("issuer", "sms", "+49").await;
            let unknown = "a".repeat(32);
            self.pipeline.check("verifier", &unknown, "123456").await;
        }
        (to, id)
    }

    /// Publishes an unreadable message into the SMS queue.
    async fn spoil(&self) {
        let body = json!({ "routing_key": "sms", "properties": {}, "payload": "{", "payload_encoding": "string" });
        let path = "exchanges/%2f/watchword.send/publish";
        let published = self.rabbitmq.call(Method::POST, path, Some(body)).await;
        assert_eq!(published.unwrap()["routed"], true);
    }
}

/// Skips the headers of a mail, which contain digits too.
fn text_of(message: &str) -> &str {
    let body = message.split_once("text/plain");
    body.map_or(message, |(_, text)| text)
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_and_every_rule_evaluates() {
    let mut world = world().await;
    what_waits_is_seen_by_others(&mut world.pipeline).await;
    let scraped = world.pipeline.processes.iter();
    let scraped: Vec<_> = scraped
        .map(|(name, role)| (name.clone(), role.admin))
        .collect();
    let prometheus = Prometheus::start(&scraped).await;
    world.spoil().await;
    let people = join_all((0..CODES).map(|n| world.live(n))).await;
    until(60, "the wait and dead-letter queues were read", || async {
        let parked = "max(watchword_queue_messages{lane=\"sms\",state=\"parked\"})";
        let parked = prometheus.query(parked).await.ok()?;
        (parked.first()?["value"][1] == "1").then_some(())
    })
    .await;

    every_query_has_data(&prometheus).await;
    the_variables_have_values(&prometheus).await;
    every_rule_is_healthy(&prometheus).await;
    certificates_are_seen(&prometheus).await;
    what_is_exported_is_declared(&prometheus).await;
    no_label_names_anyone(&prometheus, &people).await;
}

/// While no worker reads a queue, the issuer exports the number of its messages, their age and that
/// it has no consumer.
async fn what_waits_is_seen_by_others(pipeline: &mut Pipeline) {
    let worker = &mut pipeline.processes.get_mut("email").unwrap().process;
    worker.signal("TERM");
    worker.wait(30);
    for n in 0..3 {
        let to = format!("early{n}@example.org");
        pipeline.ask("issuer", "email", &to).await;
    }
    let seen = async |pipeline: &Pipeline| {
        let metrics = pipeline.metrics("issuer").await;
        let of = |name: &str| metrics[&format!("watchword_queue_{name}")];
        let ready = of("messages{lane=\"email\",state=\"ready\"}");
        let consumers = of("consumers{lane=\"email\"}");
        (ready, consumers, of("oldest_seconds{lane=\"email\"}"))
    };
    until(
        30,
        "three messages have waited for 8 s without a consumer",
        || async {
            let (ready, consumers, oldest) = seen(pipeline).await;
            ((ready, consumers) == (3.0, 0.0) && oldest >= 8.0).then_some(())
        },
    )
    .await;
    pipeline.start("email", &["email-worker"]).await;
    until(30, "no message waits any more", || async {
        (seen(pipeline).await == (0.0, 1.0, 0.0)).then_some(())
    })
    .await;
}

/// Also draws the results if `WATCHWORD_DRAW` is set.
async fn every_query_has_data(prometheus: &Prometheus) {
    let mut missing = Vec::new();
    for name in DASHBOARDS {
        let mut drawn = Vec::new();
        for panel in dashboard(name)["panels"].as_array().unwrap() {
            let mut lines = Vec::new();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = filled(target["expr"].as_str().unwrap());
                let series = prometheus.range(&expression, 30).await;
                let legend = target["legendFormat"].as_str().unwrap();
                let answered = series.iter().flatten();
                let answered = answered.map(|series| Line::new(legend, series));
                let begun = lines.len();
                lines.extend(answered.filter(|line| !line.points.is_empty()));
                if lines.len() == begun {
                    let told = series.err().unwrap_or_else(|| "no data".to_owned());
                    let title = &panel["title"];
                    missing.push(format!("{name}, {title}: {told}\n  {expression}"));
                }
            }
            drawn.push((panel.clone(), lines));
        }
        if std::env::var_os("WATCHWORD_DRAW").is_some() {
            let folder = monitoring::root().join("docs/dashboards");
            std::fs::create_dir_all(&folder).unwrap();
            draw::dashboard(&folder.join(format!("{name}.svg")), &drawn);
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

async fn the_variables_have_values(prometheus: &Prometheus) {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(definition) = variable["definition"].as_str() else {
                assert_eq!(variable["type"], "datasource", "{name}");
                continue;
            };
            let inner = definition.strip_prefix("label_values(").unwrap();
            let (series, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let path = format!("label/{label}/values");
            let values = prometheus
                .call(&path, &[("match[]", &filled(series))])
                .await;
            assert!(
                !values.unwrap().as_array().unwrap().is_empty(),
                "{name}: {definition}"
            );
        }
    }
}

async fn every_rule_is_healthy(prometheus: &Prometheus) {
    let groups = prometheus.call("rules", &[]).await.unwrap();
    let mut count = 0;
    for group in groups["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(
                rule["health"], "ok",
                "{}: {}",
                rule["name"], rule["lastError"]
            );
            count += 1;
        }
    }
    assert!(count > 20, "only {count} rules");
}

/// The expiry is exported for peers with TLS only, and the alert fires for the expired one.
async fn certificates_are_seen(prometheus: &Prometheus) {
    let left = "min by (peer) (watchword_certificate_expiry_timestamp_seconds) - time()";
    let mut seen = BTreeMap::new();
    for one in prometheus.query(left).await.unwrap() {
        let left: f64 = one["value"][1].as_str().unwrap().parse().unwrap();
        seen.insert(
            one["metric"]["peer"].as_str().unwrap().to_owned(),
            left > 0.0,
        );
    }
    let told = [("redis", true), ("second", true), ("spare", false)];
    assert_eq!(
        seen,
        told.map(|(peer, good)| (peer.to_owned(), good)).into()
    );
    let firing = "ALERTS{alertname=\"WatchwordCertificateExpires\",alertstate=\"firing\"}";
    let firing = prometheus.query(firing).await.unwrap();
    assert_eq!(
        (firing.len(), &firing[0]["metric"]["peer"]),
        (1, &json!("spare"))
    );
}

/// The exported names and types equal the declared ones.
async fn what_is_exported_is_declared(prometheus: &Prometheus) {
    let exported = prometheus.call("metadata", &[]).await.unwrap();
    let exported: BTreeMap<String, String> = exported
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, told)| (name.clone(), told[0]["type"].as_str().unwrap().to_owned()))
        .collect();
    let declared = declared();
    let kinds = declared.iter();
    let kinds = kinds.map(|(name, series)| (name.clone(), series.kind.clone()));
    assert_eq!(exported, kinds.collect());

    // Prometheus adds these labels itself.
    let scraped = ["__name__", "instance", "job", "le"];
    let query = [("match[]", "{job=~\"watchword.*\"}")];
    for one in prometheus
        .call("series", &query)
        .await
        .unwrap()
        .as_array()
        .unwrap()
    {
        let name = one["__name__"].as_str().unwrap();
        let plain = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let Some(series) = declared.get(plain.unwrap_or(name)) else {
            let is_of_the_scrape = name == "up" || name.starts_with("scrape_");
            assert!(is_of_the_scrape || name.starts_with("ALERTS"), "{name}");
            continue;
        };
        let labels = one.as_object().unwrap().keys().map(String::as_str);
        let labels: BTreeSet<_> = labels.filter(|label| !scraped.contains(label)).collect();
        let told = series.labels.iter().map(String::as_str).collect();
        assert_eq!(labels, told, "{name}");
    }
}

/// No label value is or contains a recipient, a verification id or a run of digits as long as a
/// code.
async fn no_label_names_anyone(prometheus: &Prometheus, people: &[(String, String)]) {
    let series = [("match[]", "{job=~\"watchword.*\"}")];
    let series = prometheus.call("series", &series).await.unwrap();
    let mut values = BTreeSet::new();
    for one in series.as_array().unwrap() {
        for (label, value) in one.as_object().unwrap() {
            if !["__name__", "instance", "job", "le"].contains(&label.as_str()) {
                values.insert(value.as_str().unwrap().to_owned());
            }
        }
    }
    assert!(values.len() > 50, "only {} values", values.len());
    for value in &values {
        let digits = value.bytes().filter(u8::is_ascii_digit).count();
        let named = people
            .iter()
            .any(|(to, id)| value.contains(to) || value.contains(id));
        assert!(digits < 6 && !named && !value.contains('@'), "{value}");
    }
}

/// Every panel has a description, a unit, thresholds and legends, and no two panels overlap.
#[test]
fn every_panel_says_what_it_shows() {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_u64() >= Some(39));
        assert!(uids.insert(dashboard["uid"].to_string()), "{name}");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                assert!(x < 24, "{name}: {title} is too wide");
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{name}: {title} lies on another");
                }
            }
        }
        for panel in panels(&dashboard) {
            let title = &panel["title"];
            let description = panel["description"].as_str().unwrap();
            assert!(
                description.len() > 20 && description.ends_with('.'),
                "{name}: {title}"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].is_string(), "{name}: {title} has no unit");
            let steps = defaults["thresholds"]["steps"].as_array().unwrap();
            assert!(!steps.is_empty(), "{name}: {title} has no thresholds");
            for place in [panel, &panel["targets"][0]] {
                assert_eq!(
                    place["datasource"]["uid"], "${datasource}",
                    "{name}: {title}"
                );
            }
            for target in panel["targets"].as_array().unwrap() {
                let is_named = target["legendFormat"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty());
                assert!(is_named, "{name}: {title}");
            }
        }
    }
}

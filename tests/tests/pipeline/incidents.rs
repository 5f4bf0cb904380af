//! Single faults in a running installation, as an operator sees them: the overview shows the fault
//! within a minute, the alert of that cause fires and no unrelated one does, and the first command
//! of its runbook entry names the fault.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use watchword_simulator::{Simulator, SimulatorConfig, SmsBehaviour};
use watchword_tests::monitoring::{Prometheus, dashboard, filled, root};
use watchword_tests::pipeline::{KEY, secret};
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, until};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const ROLES: [(&str, &str); 4] = [
    ("issuer", "issuer"),
    ("verifier", "verifier"),
    ("sms-1", "sms-worker"),
    ("sms-2", "sms-worker"),
];
/// Longest time until the overview shows the fault.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(150);

/// How an operator sees a fault.
struct Incident {
    /// The overview's panel, the labels of its series, and the value that shows the fault.
    panel: (&'static str, &'static [(&'static str, &'static str)]),
    tells: fn(f64) -> bool,
    /// The alert of the cause, with its labels.
    alert: (&'static str, &'static [(&'static str, &'static str)]),
    /// Alerts that may fire as effects of the cause.
    effects: &'static [&'static str],
    /// Words in the output of the runbook's first command.
    says: &'static [&'static str],
}

struct World {
    pipeline: Pipeline,
    rabbitmq: RabbitMq,
    _redis: RedisServer,
    _gateway: Simulator,
    prometheus: Prometheus,
    load: JoinHandle<()>,
}

impl World {
    async fn start() -> Self {
        let config = SimulatorConfig {
            seed: 1,
            sms: Some(SmsBehaviour::default()),
            smtp: None,
        };
        let (rabbitmq, redis, gateway) = tokio::join!(
            RabbitMq::start(),
            RedisServer::start(),
            Simulator::start(config)
        );
        let gateway = gateway.unwrap();
        let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
        settings.providers = format!(
            r#"
[sms.providers.gateway]
kind = "http"
sender = "Test"
secrets = {{ token = {{ file = "FOLDER/token" }} }}
[sms.providers.gateway.request]
method = "POST"
url = "http://{}/messages"
auth = {{ kind = "bearer", secret = "token" }}
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}" }}
[sms.providers.gateway.response]
id = {{ json = "/id" }}
rules = [{{ status = ["202"], class = "accepted" }}]
"#,
            gateway.sms_address().unwrap()
        );
        settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
        let mut pipeline = Pipeline::configure(&settings);
        secret(pipeline.folder(), "token", "simulator");
        for (name, role) in ROLES {
            pipeline.launch(name, &[role]);
        }
        for (name, _) in ROLES {
            pipeline.ready(name).await;
        }
        let scraped = pipeline.processes.iter();
        let scraped: Vec<_> = scraped
            .map(|(name, role)| (name.clone(), role.admin))
            .collect();
        let prometheus = Prometheus::with(&scraped, impatient).await;
        let load = tokio::spawn(load(pipeline.processes["issuer"].http));
        Self {
            pipeline,
            rabbitmq,
            _redis: redis,
            _gateway: gateway,
            prometheus,
            load,
        }
    }

    async fn restart(&mut self, name: &str) {
        let process = &mut self.pipeline.processes.get_mut(name).unwrap().process;
        process.signal("KILL");
        process.wait(10);
        self.pipeline.start(name, &["sms-worker"]).await;
    }

    /// Looks at a fault that has just been injected, as an operator would.
    async fn looked_at(&self, incident: &Incident, variables: &[(&str, &str)]) {
        let begun = Instant::now();
        let (title, series) = incident.panel;
        let overview = dashboard("overview");
        let panel = overview["panels"].as_array().unwrap().iter();
        let panel = panel.into_iter().find(|panel| panel["title"] == title);
        let expression = panel.unwrap()["targets"][0]["expr"].as_str().unwrap();
        let expression = filled(expression);
        until(
            60,
            &format!("{title} of the overview shows the fault"),
            || async {
                let found = self.prometheus.query(&expression).await.unwrap();
                let found = found.iter().find(|one| has(one, series))?;
                (incident.tells)(value(found)).then_some(())
            },
        )
        .await;
        let (alert, labels) = incident.alert;
        until(60, &format!("{alert} fires"), || async {
            let firing = self.firing().await;
            let is_right = |one: &Value| one["metric"]["alertname"] == alert && has(one, labels);
            firing.iter().any(is_right).then_some(())
        })
        .await;
        assert!(begun.elapsed() < SEEN_WITHIN, "{:?}", begun.elapsed());
        for one in self.firing().await {
            let name = one["metric"]["alertname"].as_str().unwrap();
            assert!(
                name == alert || incident.effects.contains(&name),
                "{alert}: {one}"
            );
        }
        let said = self.first_command(alert, variables).await;
        for word in incident.says {
            assert!(said.contains(word), "{alert}: {word} in\n{said}");
        }
    }

    /// Returns the firing alerts, without the surge alert that the test's own load causes: the day
    /// before had no requests.
    async fn firing(&self) -> Vec<Value> {
        let firing = "ALERTS{alertname!=\"WatchwordCountrySurge\",alertstate=\"firing\"}";
        self.prometheus.query(firing).await.unwrap()
    }

    async fn calm(&self) {
        let begun = Instant::now();
        loop {
            let firing = self.firing().await;
            if firing.is_empty() {
                return;
            }
            assert!(begun.elapsed().as_secs() < 60, "{firing:?}");
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Runs the first command of the alert's runbook entry and returns its output.
    async fn first_command(&self, alert: &str, variables: &[(&str, &str)]) -> String {
        let runbook = fs::read_to_string(root().join("docs/runbook.md")).unwrap();
        let entry = runbook.split("\n## ").find(|entry| {
            let mut lines = entry.lines();
            lines.next() == Some(alert)
        });
        let line = entry
            .unwrap()
            .lines()
            .find(|line| line.starts_with("**First.**"));
        let command = line.unwrap().split('`').nth(1).unwrap();
        let command = command
            .replace("NAME", "gateway")
            .replace("ADDRESS", "+4915112000000");
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("watchword"), "{alert}");
        let mut program = self.pipeline.command();
        program.args(words).envs(variables.iter().copied());
        let output: Output = tokio::task::spawn_blocking(move || program.output())
            .await
            .unwrap()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        format!("{told}{}", String::from_utf8_lossy(&output.stderr))
    }
}

/// Shortens the rules' `for` to 3 s; the expressions stay the same.
fn impatient(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 3s"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn has(series: &Value, labels: &[(&str, &str)]) -> bool {
    let mut labels = labels.iter();
    labels.all(|(label, value)| series["metric"][label] == *value)
}

fn value(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

/// Requests codes in a loop and ignores the answers.
async fn load(port: u16) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}/v1/verifications");
    for n in 0_u32.. {
        let body = serde_json::json!({ "channel": "sms", "to": format!("+4915112{n:06}") });
        let asked = http.post(&url).bearer_auth(KEY).json(&body).send();
        let _ = tokio::time::timeout(Duration::from_secs(5), asked).await;
        sleep(EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_is_seen_named_and_explained() {
    let mut world = World::start().await;
    until(30, "codes are handed over by both workers", || async {
        let rate = "rate(watchword_attempts_total{class=\"accepted\"}[10s]) > 0";
        let workers = world.prometheus.query(rate).await.ok()?;
        (workers.len() == 2).then_some(())
    })
    .await;
    world.calm().await;

    let process = &mut world.pipeline.processes.get_mut("sms-2").unwrap().process;
    process.signal("KILL");
    process.wait(10);
    let one_of_two_died = Incident {
        panel: ("Roles", &[("role", "sms-worker")]),
        tells: |running| running < 1.5,
        alert: ("WatchwordProcessDown", &[("job", "watchword-sms-2")]),
        effects: &[],
        says: &["ok", "watchword.sms", "1 consumers"],
    };
    world.looked_at(&one_of_two_died, &[]).await;
    world.restart("sms-2").await;
    world.calm().await;

    let ahead = [("LD_PRELOAD", FAKETIME), ("FAKETIME", "+120s")];
    let variables = ahead.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let own = &mut world.pipeline.own_variables;
    own.insert("sms-2".to_owned(), variables.into());
    world.restart("sms-2").await;
    let clock_is_off = Incident {
        panel: ("Clocks", &[("job", "watchword-sms-2")]),
        tells: |seconds| (115.0..125.0).contains(&seconds),
        alert: ("WatchwordClockOff", &[("job", "watchword-sms-2")]),
        // By that clock, messages are two minutes old when they are handed over.
        effects: &[
            "WatchwordCodesMissObjectiveFast",
            "WatchwordCodesMissObjectiveSlow",
        ],
        says: &["FAIL", "clock", "120", "time server"],
    };
    world.looked_at(&clock_is_off, &ahead).await;
    world.pipeline.own_variables.clear();
    world.restart("sms-2").await;

    world.rabbitmq.disk_alarm(true);
    let broker_refuses = Incident {
        panel: ("Dependencies", &[("dependency", "rabbitmq")]),
        tells: |up| up < 0.5,
        alert: ("WatchwordBrokerBlocked", &[]),
        effects: &[
            "WatchwordCodesMissObjectiveFast",
            "WatchwordCodesMissObjectiveSlow",
        ],
        says: &["FAIL", "rabbitmq", "alarm", "disk"],
    };
    world.looked_at(&broker_refuses, &[]).await;
    world.rabbitmq.disk_alarm(false);
    until(30, "requests are accepted again", || async {
        let answer = world.pipeline.ask("issuer", "sms", "+4915113000000").await;
        answer.status.is_success().then_some(())
    })
    .await;

    secret(world.pipeline.folder(), "token", "of-another-account");
    let provider_refuses = Incident {
        panel: ("Failed attempts", &[("channel", "sms")]),
        tells: |share| share > 0.5,
        alert: ("WatchwordProviderRefusesUs", &[("provider", "gateway")]),
        effects: &[
            "WatchwordCodesMissObjectiveFast",
            "WatchwordCodesMissObjectiveSlow",
            "WatchwordProviderDown",
            "WatchwordChannelDown",
            "WatchwordBrokerBlocked",
        ],
        says: &["config_fault", "did not accept"],
    };
    world.looked_at(&provider_refuses, &[]).await;
    world.load.abort();
}

//! The first hour with the commands of the README: `init --with-simulator`, `simulate`, `run`,
//! `send`, the message, `check`; then failover, receipts and email, on both engines. Only the ports
//! differ from the README.

use std::path::PathBuf;
use std::process::Command;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use watchword_tests::pipeline::{binary, code_in};
use watchword_tests::{Process, RabbitMq, RedisServer, free_port, until};

/// An installation written by `init`, on ports of its own.
struct Installation {
    folder: tempfile::TempDir,
    written: Value,
    variables: Vec<(String, String)>,
    gateway: u16,
    processes: Vec<Process>,
    http: Client,
}

impl Installation {
    fn init(engine: &str) -> Self {
        watchword_tests::tls();
        let folder = tempfile::tempdir().unwrap();
        let options = [
            "init",
            "otp",
            "--with-simulator",
            "--json",
            "--engine",
            engine,
        ];
        let output = Command::new(binary())
            .args(options)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}");
        let (gateway, relay) = (free_port(), free_port());
        let simulate = folder.path().join("otp/simulate.toml");
        let text = std::fs::read_to_string(&simulate).unwrap();
        assert!(
            text.contains(":9925\"") && text.contains(":2525\""),
            "{text}"
        );
        let text = text
            .replace(":9925\"", &format!(":{gateway}\""))
            .replace(":2525\"", &format!(":{relay}\""));
        std::fs::write(&simulate, text).unwrap();
        let base_url = format!("http://127.0.0.1:{gateway}");
        Self {
            written: serde_json::from_slice(&output.stdout).unwrap(),
            variables: vec![
                (
                    "WATCHWORD_SMS__PROVIDERS__SIMULATOR__SETTINGS__BASE_URL".into(),
                    base_url,
                ),
                (
                    "WATCHWORD_EMAIL__PROVIDERS__SIMULATOR__PORT".into(),
                    relay.to_string(),
                ),
            ],
            folder,
            gateway,
            processes: Vec::new(),
            http: Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("WATCHWORD_CONFIG", "otp/watchword.toml")
            .envs(self.variables.iter().cloned());
        command
    }

    async fn start(&mut self, arguments: &[&str], http: u16, admin: u16) {
        let mut command = self.command(arguments);
        command
            .env("WATCHWORD_HTTP__LISTEN", format!("127.0.0.1:{http}"))
            .env("WATCHWORD_ADMIN__LISTEN", format!("127.0.0.1:{admin}"));
        let log = self.log(self.processes.len());
        self.processes.push(Process::start(command, &log));
        if arguments[0] == "run" {
            until(30, "the process is ready", async || {
                let url = format!("http://127.0.0.1:{admin}/readyz");
                let response = self.http.get(url).send().await.ok()?;
                response.status().is_success().then_some(())
            })
            .await;
        }
    }

    fn log(&self, process: usize) -> PathBuf {
        self.folder.path().join(format!("{process}.log"))
    }

    fn logs(&self) -> String {
        let logs = (0..self.processes.len()).map(|one| std::fs::read_to_string(self.log(one)));
        logs.map(Result::unwrap_or_default).collect()
    }

    /// Runs a client command against the process at `http`.
    async fn ask(&self, http: u16, arguments: &[&str]) -> (bool, Value) {
        let mut command = self.command(arguments);
        command
            .env("WATCHWORD_KEY", self.written["api_key"].as_str().unwrap())
            .env("WATCHWORD_URL", format!("http://127.0.0.1:{http}"));
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match answer {
            Value::Null => (output.status.success(), json!(error)),
            answer => (output.status.success(), answer),
        }
    }

    /// Returns the newest message to `to` that the simulator accepted.
    async fn simulated(&self, to: &str) -> String {
        until(10, "a message at the simulator", async || {
            let url = format!("http://127.0.0.1:{}/control/messages", self.gateway);
            let request = self.http.get(url).bearer_auth("simulator");
            let messages: Vec<Value> = request.send().await.ok()?.json().await.ok()?;
            let message = messages.into_iter().rfind(|message| message["to"] == to)?;
            Some(message["text"].as_str()?.to_owned())
        })
        .await
    }

    /// Sends a code each way: by the gateway, by the relay and by the second provider of the route.
    async fn walk(&self, http: u16, sms_admin: u16) {
        let number = "+4915112345678";
        let (is_sent, opened) = self.ask(http, &["send", "sms", number]).await;
        assert!(is_sent, "{opened}\n{}", self.logs());
        let id = opened["id"].as_str().unwrap();
        let code = code_in(&self.simulated(number).await);
        let (is_right, refused) = self.ask(http, &["check", id, "000000"]).await;
        assert!(!is_right && refused["valid"] == false, "{refused}");
        let (is_right, approved) = self.ask(http, &["check", id, &code]).await;
        assert!(is_right && approved["valid"] == true, "{approved}");
        until(10, "the receipt", async || {
            let url = format!("http://127.0.0.1:{http}/v1/verifications/{id}");
            let key = self.written["api_key"].as_str().unwrap();
            let status: Value = self
                .http
                .get(url)
                .bearer_auth(key)
                .send()
                .await
                .ok()?
                .json()
                .await
                .ok()?;
            let delivery = &status["deliveries"][0];
            (delivery.to_string().contains("delivered")).then_some(())
        })
        .await;

        let (is_sent, opened) = self.ask(http, &["send", "email", "jane@example.org"]).await;
        assert!(is_sent, "{opened}");
        let mail = self.simulated("jane@example.org").await;
        assert!(mail.contains("Subject:"), "{mail}");

        // The simulator answers numbers like this one with a transient error, so the second
        // provider takes over.
        let number = "+4915112340003";
        let (is_sent, opened) = self.ask(http, &["send", "sms", number]).await;
        assert!(is_sent, "{opened}");
        let inbox = format!("http://127.0.0.1:{sms_admin}/inbox");
        let message = until(20, "the message in the inbox", async || {
            let response = self
                .http
                .get(format!("{inbox}/messages"))
                .send()
                .await
                .ok()?;
            let messages: Vec<Value> = response.json().await.ok()?;
            messages.into_iter().find(|message| message["to"] == number)
        })
        .await;
        let code = code_in(message["body"].as_str().unwrap());
        let id = opened["id"].as_str().unwrap();
        let (is_right, approved) = self.ask(http, &["check", id, &code]).await;
        assert!(is_right, "{approved}");
        let page = self
            .http
            .get(&inbox)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(page.contains("<title>Watchword inbox</title>"), "{page}");
        // A request with a foreign host name is refused, which stops DNS rebinding.
        let foreign = self
            .http
            .get(&inbox)
            .header("host", "evil.example.org:9090");
        let foreign = foreign.send().await.unwrap();
        assert_eq!(foreign.status(), StatusCode::MISDIRECTED_REQUEST);

        // The logs say where to read messages, and contain neither code nor number.
        let logs = self.logs();
        for told in [
            "/control/messages",
            &format!(":{sms_admin}/inbox"),
            "+49*********78",
        ] {
            assert!(logs.contains(told), "{told} in\n{logs}");
        }
        assert!(
            !logs.contains("15112345678") && !logs.contains(&code),
            "{logs}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_delivers_with_the_commands_of_the_readme() {
    let mut installation = Installation::init("embedded");
    let (http, admin) = (free_port(), free_port());
    let public_url = format!("http://127.0.0.1:{http}");
    let variables = &mut installation.variables;
    variables.push(("WATCHWORD_SMS__PUBLIC_URL".into(), public_url));
    installation
        .start(&["simulate", "otp/simulate.toml"], 0, 0)
        .await;
    installation.start(&["run"], http, admin).await;
    installation.walk(http, admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_distributed_engine_delivers_with_the_commands_of_the_readme() {
    let rabbitmq = RabbitMq::shared().await;
    let redis = RedisServer::start().await;
    let mut installation = Installation::init("distributed");
    let [api, admin, receipts, sms_admin, email, email_admin] =
        std::array::from_fn(|_| free_port());
    for (name, value) in [
        ("WATCHWORD_RABBITMQ__URL", rabbitmq.url()),
        ("WATCHWORD_REDIS__URL", redis.url()),
        (
            "WATCHWORD_SMS__PUBLIC_URL",
            format!("http://127.0.0.1:{receipts}"),
        ),
    ] {
        installation.variables.push((name.into(), value));
    }
    // The URL of the harness's broker contains its password.
    let no_password = (
        "WATCHWORD_RABBITMQ__PASSWORD".into(),
        "{ env = \"BROKER\" }".into(),
    );
    let password = rabbitmq.url();
    let password = password
        .split('@')
        .next()
        .and_then(|user| user.rsplit_once(':'));
    let password = password.map(|(_, password)| password.to_owned()).unwrap();
    installation
        .variables
        .extend([no_password, ("BROKER".into(), password)]);
    installation
        .start(&["simulate", "otp/simulate.toml"], 0, 0)
        .await;
    installation
        .start(&["run", "issuer", "verifier"], api, admin)
        .await;
    installation
        .start(&["run", "sms-worker"], receipts, sms_admin)
        .await;
    installation
        .start(&["run", "email-worker"], email, email_admin)
        .await;
    installation.walk(api, sms_admin).await;

    // A 404 for a path of another role names that role.
    for (port, path, role) in [
        (receipts, "/v1/verifications", "issuer"),
        (receipts, "/v1/verifications/abc/resend", "issuer"),
        (receipts, "/v1/verifications/abc/check", "verifier"),
        (receipts, "/v1/verifications/abc", "verifier"),
        (api, "/v1/receipts/simulator", "sms-worker"),
    ] {
        let url = format!("http://127.0.0.1:{port}{path}");
        let response = installation.http.post(url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "not_found");
        let detail = format!("this path is served by the {role} role");
        assert_eq!(problem["detail"], detail, "{path}");
    }
    let (is_right, refused) = installation
        .ask(receipts, &["check", &"a".repeat(32), "123456"])
        .await;
    assert!(
        !is_right
            && refused
                .as_str()
                .unwrap()
                .contains("served by the verifier role"),
        "{refused}"
    );

    // The AMQP client calls the end of a command's connection an error.
    for arguments in [&["topology", "--apply"][..], &["dead-letters", "list"]] {
        let mut command = installation.command(arguments);
        command.env("WATCHWORD_ADMIN__LISTEN", "127.0.0.1:0");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{arguments:?}: {errors}"
        );
    }
}

/// The doctor finds a gateway that accepts messages and never sends a receipt: callers with a
/// fallback would send a second message for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_misses_the_receipts_of_a_gateway() {
    let mut installation = Installation::init("embedded");
    let simulate = installation.folder.path().join("otp/simulate.toml");
    let text = std::fs::read_to_string(&simulate).unwrap();
    let text = text.replace("[sms.receipts]\n", "[sms.receipts]\nlost = 1.0\n");
    std::fs::write(&simulate, text).unwrap();
    let (http, admin) = (free_port(), free_port());
    for (name, value) in [
        (
            "WATCHWORD_SMS__PUBLIC_URL",
            format!("http://127.0.0.1:{http}"),
        ),
        ("WATCHWORD_ADMIN__LISTEN", format!("127.0.0.1:{admin}")),
    ] {
        installation.variables.push((name.into(), value));
    }
    installation
        .start(&["simulate", "otp/simulate.toml"], 0, 0)
        .await;
    installation.start(&["run"], http, admin).await;
    let doctor = async || {
        let mut command = installation.command(&["doctor"]);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let missed = "warn sms simulator        accepted 5 messages and sent no receipt";
    for n in 1..=5 {
        let found = doctor().await;
        assert!(!found.contains("sent no receipt"), "{found}");
        let number = format!("+491511234567{n}");
        let (is_sent, opened) = installation.ask(http, &["send", "sms", &number]).await;
        assert!(is_sent, "{opened}");
        installation.simulated(&number).await;
    }
    until(10, "the doctor misses the receipts", async || {
        doctor().await.contains(missed).then_some(())
    })
    .await;
}

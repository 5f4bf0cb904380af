//! The trace of a code as a collector sees it: one tree from the caller's span over broker and
//! retries to the provider, without code or recipient. An unreachable collector holds nothing up.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use watchword_tests::load::{Mailbox, SmsGateway, Temper};
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, until};

const NUMBER: &str = "+4915112345698";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Bytes>>>);

impl Collector {
    async fn start() -> (Self, u16) {
        let collector = Self::default();
        let take = async |State(Self(bodies)): State<Self>, body: Bytes| {
            bodies.lock().unwrap().push(body);
        };
        let routes = Router::new().route("/v1/traces", post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = routes.with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, service).await });
        (collector, port)
    }

    fn bytes(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self
            .bytes()
            .into_iter()
            .map(ExportTraceServiceRequest::decode);
        let resources = requests.flat_map(|request| request.unwrap().resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn said(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == key);
    found
        .map(|one| format!("{:?}", one.value))
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_a_code_is_one_tree_without_secrets() {
    let (rabbitmq, redis) = (RabbitMq::shared().await, RedisServer::start().await);
    let (collector, port) = Collector::start().await;
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = format!(
        "[traces]\nurl = \"http://127.0.0.1:{port}/v1/traces\"\n{}",
        SmsGateway::config(gateway.port())
    );
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("issuer", &["issuer"]).await;
    pipeline.start("verifier", &["verifier"]).await;
    pipeline.start("sms", &["sms-worker"]).await;

    gateway.set(Temper::Fails(503));
    let (http, url) = pipeline.raw("issuer");
    let asked = http
        .post(format!("{url}/v1/verifications"))
        .bearer_auth(KEY)
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .json(&json!({ "channel": "sms", "to": NUMBER }));
    let answer = asked
        .send()
        .await
        .unwrap()
        .json::<serde_json::Value>()
        .await
        .unwrap();
    let id = answer["id"].as_str().unwrap().to_owned();
    until(10, "the first attempt failed", || async {
        let failed = pipeline
            .total("watchword_attempts_total", &["class=\"transient\""])
            .await;
        (failed > 0).then_some(())
    })
    .await;
    gateway.set(Temper::Sound);
    let arrived = tokio::time::timeout(std::time::Duration::from_secs(20), mailbox.first(NUMBER));
    let code = arrived.await.unwrap().code;
    pipeline.check("verifier", &id, &code).await;

    let count = |spans: &[Span], name: &str| spans.iter().filter(|one| one.name == name).count();
    until(10, "all steps are there", || async {
        let spans = collector.spans();
        let whole = count(&spans, "attempt") == 2
            && count(&spans, "process watchword.sms") == 2
            && count(&spans, "POST /v1/verifications/{id}/check") == 1;
        whole.then_some(())
    })
    .await;
    let spans = collector.spans();
    let one = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let request = one("POST /v1/verifications");
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (TRACE.into(), CALLER.into())
    );
    assert!(said(request, "watchword.verification.id").contains(&id));
    let send = one("send watchword.send");
    assert_eq!(send.parent_span_id, request.span_id);
    let mut settled = Vec::new();
    for process in spans
        .iter()
        .filter(|span| span.name == "process watchword.sms")
    {
        assert_eq!(
            (&process.trace_id, &process.parent_span_id),
            (&send.trace_id, &send.span_id)
        );
        let below = |span: &&Span| span.parent_span_id == process.span_id;
        let attempt = spans.iter().find(below).unwrap();
        assert_eq!(attempt.name, "attempt");
        assert!(attempt.start_time_unix_nano >= process.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= process.end_time_unix_nano);
        settled.push((
            said(process, "watchword.delivery.settled"),
            attempt.status.clone().unwrap().code,
        ));
    }
    settled.sort();
    assert!(
        settled[0].0.contains("ack") && settled[0].1 == 0,
        "{settled:?}"
    );
    assert!(
        settled[1].0.contains("retry") && settled[1].1 == 2,
        "{settled:?}"
    );
    let check = one("POST /v1/verifications/{id}/check");
    assert!(
        said(check, "watchword.check.verdict").contains("approved"),
        "{check:?}"
    );
    assert_eq!(check.trace_id.len(), 16);

    for body in collector.bytes() {
        let text = String::from_utf8_lossy(&body).into_owned();
        for secret in [&code, NUMBER, NUMBER.trim_start_matches('+')] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_up() {
    let mut settings = Settings::embedded();
    settings
        .providers
        .insert_str(0, "[traces]\nurl = \"http://127.0.0.1:1/v1/traces\"\n");
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    for number in 0..5 {
        let to = format!("+491511234560{number}");
        assert_eq!(
            pipeline.ask("all", "sms", &to).await.status,
            reqwest::StatusCode::ACCEPTED
        );
    }
    until(10, "lost messages are counted", || async {
        (pipeline.total("watchword_spans_dropped_total", &[]).await >= 5).then_some(())
    })
    .await;
    assert!(
        pipeline
            .logs()
            .contains("the collector of traces does not take them")
    );

    // After a reload, spans go to another collector.
    let (collector, port) = Collector::start().await;
    let path = pipeline.folder().join("watchword.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let moved = text.replace("127.0.0.1:1/v1", &format!("127.0.0.1:{port}/v1"));
    std::fs::write(&path, moved).unwrap();
    pipeline.processes["all"].process.signal("HUP");
    let reloads = "watchword_config_reloads_total";
    until(10, "the reload", async || {
        (pipeline.total(reloads, &["result=\"ok\""]).await > 0).then_some(())
    })
    .await;
    pipeline.ask("all", "sms", "+4915112345670").await;
    until(10, "the steps arrive", async || {
        (!collector.spans().is_empty()).then_some(())
    })
    .await;
}

//! Exports spans to a collector by OTLP over HTTP, as protobuf: every second, and at most 512 in a
//! request. The export does not delay other tasks: spans that the collector does not accept are
//! dropped and counted.

use std::time::Duration;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use watchword_chassis::config::ConfigError;
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::spans::{Finished, Kind, Spans};
use watchword_core::Live;
use watchword_metrics::prometheus::Registry;

use crate::config::TracesConfig;

/// The most spans in a request.
const BATCH: usize = 512;
/// How long spans are collected for a request.
const GATHER: Duration = Duration::from_secs(1);
/// The deadline of a request to the collector.
const DEADLINE: Duration = Duration::from_secs(5);

/// The connection to a collector: client, URL and headers.
pub struct Exporter {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

/// The traces of a process.
pub struct Traces {
    /// The recorder of spans.
    pub spans: Spans,
    /// The exporter, which a reload may replace; `None` if traces are off.
    pub exporter: Option<Live<Exporter>>,
}

impl Traces {
    /// Returns traces that record and export nothing.
    pub fn off() -> Self {
        Self {
            spans: Spans::off(),
            exporter: None,
        }
    }
}

/// Validates the section `[traces]`.
pub fn check(config: &TracesConfig) -> Result<(), ConfigError> {
    Exporter::new(config).map(|_| ())
}

/// Starts the export, if one is configured.
pub fn start(
    config: Option<&TracesConfig>,
    registry: &Registry,
    lifecycle: &mut Lifecycle,
) -> anyhow::Result<Traces> {
    let Some(config) = config else {
        return Ok(Traces::off());
    };
    let exporter = Live::new(Exporter::new(config)?);
    let (spans, finished) = Spans::on(config.share, registry).context("traces")?;
    let work = run(exporter.clone(), finished, spans.clone(), lifecycle.stop());
    lifecycle.spawn("traces", work);
    Ok(Traces {
        spans,
        exporter: Some(exporter),
    })
}

impl Exporter {
    /// Creates an exporter to the collector of `config`, and reads the secrets of its headers.
    pub fn new(config: &TracesConfig) -> Result<Self, ConfigError> {
        let error = |key: &str, problem: &str| ConfigError::new(format!("traces.{key}"), problem);
        let url = Url::parse(&config.url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            error(
                "url",
                "must be an http or https URL: http://127.0.0.1:4318/v1/traces",
            )
        })?;
        if !(0.0..=1.0).contains(&config.share) {
            return Err(error("share", "must be 0 to 1"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        for (name, secret) in &config.headers {
            let key = format!("headers.{name}");
            let secret = secret
                .resolve()
                .map_err(|problem| problem.within(&format!("traces.{key}")))?;
            let value = HeaderValue::from_str(secret.expose());
            let mut value =
                value.map_err(|_| error(&key, "has a character that no header value may have"))?;
            value.set_sensitive(true);
            let name: HeaderName = name
                .parse()
                .map_err(|_| error(&key, "is not a valid header name"))?;
            headers.insert(name, value);
        }
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(DEADLINE)
            .no_proxy()
            .build();
        Ok(Self {
            client: client.map_err(|_| error("url", "TLS cannot be set up"))?,
            url,
            headers,
        })
    }

    async fn send(&self, batch: Vec<Finished>) -> bool {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .body(request(batch).encode_to_vec());
        let answer = request.send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// Exports spans until `stop`, then the remaining ones.
async fn run(
    exporter: Live<Exporter>,
    mut finished: mpsc::Receiver<Finished>,
    spans: Spans,
    stop: CancellationToken,
) {
    let mut is_well = true;
    loop {
        let mut batch = Vec::new();
        let more = tokio::select! {
            () = stop.cancelled() => false,
            count = finished.recv_many(&mut batch, BATCH) => count > 0,
        };
        if more && batch.len() < BATCH {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(GATHER) => {}
            }
        }
        while batch.len() < BATCH
            && let Ok(one) = finished.try_recv()
        {
            batch.push(one);
        }
        let (count, was_well) = (batch.len(), is_well);
        if count > 0 {
            is_well = exporter.get().send(batch).await;
            if !is_well {
                spans.lost(count);
            }
        }
        if was_well && !is_well {
            tracing::warn!("the collector of traces does not take them; they are dropped");
        }
        if !more && (count < BATCH || !is_well) {
            // A collector that cannot be reached must not delay the exit of the process.
            let mut left = 0;
            while finished.try_recv().is_ok() {
                left += 1;
            }
            return spans.lost(left);
        }
    }
}

fn request(batch: Vec<Finished>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "watchword".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: batch.into_iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource = Resource {
        attributes: vec![attribute("service.name", "watchword".to_owned())],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

fn span(finished: Finished) -> Span {
    let kind = match finished.kind {
        Kind::Server => SpanKind::Server,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
        Kind::Client => SpanKind::Client,
    };
    let code = if finished.is_failed {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    let said = finished.attributes.into_iter();
    Span {
        trace_id: finished.trace.as_bytes().to_vec(),
        span_id: finished.id.as_bytes().to_vec(),
        parent_span_id: finished
            .parent
            .map(|parent| parent.as_bytes().to_vec())
            .unwrap_or_default(),
        name: finished.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: finished.begun_ns,
        end_time_unix_nano: finished.ended_ns,
        attributes: said
            .map(|(key, value)| attribute(key.as_str(), value))
            .collect(),
        status: Some(Status {
            code: code.into(),
            ..Status::default()
        }),
        ..Span::default()
    }
}

fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }),
        ..KeyValue::default()
    }
}

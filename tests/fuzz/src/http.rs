//! Requests to the public routes of every role, wired as in the binary, on the embedded engine: no
//! panic, hang or 5xx, every error is a problem document, and no input is quoted.
//!
//! An input is a `Letter`: method and path, headers, then the body. `{id}` in the path is a live
//! verification, `{token}` the secret of the receiver `hook`. API key and content type are added
//! unless the headers name them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use data_encoding::HEXLOWER;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower_service::Service as _;
use watchword::cli::Role;
use watchword::needs::Needs;
use watchword::roles::Shared;
use watchword_chassis::lifecycle::Lifecycle;

use crate::canary::{assert_absent, pick, plant};
use crate::letter::Letter;
use crate::varied::varied;

const KEY: &str = "fuzz-key-of-thirty-two-characters";
const TOKEN: &str = "Jm4nC8wXr2TzKq6VbY9sHd3LfPg7Ue5A";
/// Inputs that share a live verification.
const SHARING: usize = 32;

static WORLD: LazyLock<World> = LazyLock::new(World::start);

struct World {
    runtime: Runtime,
    routes: Router,
    asked: AtomicUsize,
    id: std::sync::Mutex<String>,
    _shared: Shared,
    _lifecycle: Lifecycle,
    _folder: TempDir,
}

/// Sends the request as it is, with a planted value in the body, and with a varied body.
pub fn run(input: &[u8]) {
    let Some(letter) = Letter::open(input) else {
        return;
    };
    let (method, path) = letter.line(0).split_once(' ').unwrap_or(("GET", "/"));
    let path = path
        .replace("{id}", &WORLD.live())
        .replace("{token}", TOKEN);
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), path.parse::<Uri>()) else {
        return;
    };
    let mut headers = letter.headers(1);
    let key = format!("Bearer {KEY}");
    for (name, value) in [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ] {
        if !headers.contains_key(name) {
            headers.insert(name, value.parse().expect("a header"));
        }
    }
    let ask = |body: &[u8]| {
        let answer = WORLD.ask(&method, &uri, &headers, body);
        check(&method, &answer, body);
    };
    ask(letter.body);
    if let Ok(mut body) = serde_json::from_slice::<Value>(letter.body) {
        plant(&mut body, pick(input));
        ask(body.to_string().as_bytes());
    }
    if let Some(body) = varied(letter.body, pick(input)) {
        ask(&body);
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn check(method: &Method, answer: &Answer, body: &[u8]) {
    let Answer {
        status,
        headers,
        body: shown,
    } = answer;
    assert!(
        !status.is_server_error() || *status == StatusCode::SERVICE_UNAVAILABLE,
        "{status}: {shown}"
    );
    if status.is_success() {
        let asked: Option<Value> = serde_json::from_slice(body).ok();
        let to = asked.as_ref().and_then(|asked| asked["to"].as_str());
        // An accepted recipient has at least seven characters; shorter texts match by chance.
        let is_shown = to.is_some_and(|to| to.len() > 6 && shown.contains(to));
        assert!(!is_shown, "a recipient is shown: {shown}");
        return;
    }
    assert_absent(shown, "an error");
    assert_absent(&format!("{headers:?}"), "a header");
    if *method == Method::HEAD {
        return;
    }
    assert_eq!(
        headers["content-type"], "application/problem+json",
        "{status}: {shown}"
    );
    let problem: Value = serde_json::from_str(shown).expect("a document");
    assert_eq!(problem["status"], status.as_u16());
    for member in ["type", "title", "code", "detail"] {
        assert!(problem[member].is_string(), "{member}: {shown}");
    }
}

impl World {
    fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watchword.toml");
        std::fs::write(&path, config(folder.path())).expect("a file");
        let (shared, lifecycle, routes) = runtime.block_on(async {
            let shared = watchword::run::operator(&path, Needs::ALL)
                .await
                .expect("an engine");
            let mut lifecycle = Lifecycle::default();
            let routes = shared
                .start(&Role::ALL, &mut lifecycle)
                .await
                .expect("roles");
            (shared, lifecycle, routes)
        });
        Self {
            runtime,
            routes: watchword_chassis::http::public(routes),
            asked: AtomicUsize::new(0),
            id: std::sync::Mutex::default(),
            _shared: shared,
            _lifecycle: lifecycle,
            _folder: folder,
        }
    }

    /// Returns the id of a verification that only a few inputs share, because each of them may end
    /// it.
    fn live(&self) -> String {
        let count = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut id = self
            .id
            .lock()
            .expect("not poisoned: a panic ends the process");
        if count.is_multiple_of(SHARING) {
            let to = format!("+4915{:09}", count / SHARING);
            let headers = HeaderMap::from_iter([
                (
                    http::header::AUTHORIZATION,
                    format!("Bearer {KEY}").parse().expect("a header"),
                ),
                (
                    http::header::CONTENT_TYPE,
                    "application/json".parse().expect("a header"),
                ),
            ]);
            let body = json!({ "channel": "sms", "to": to }).to_string();
            let uri = Uri::from_static("/v1/verifications");
            let answer = self.ask(&Method::POST, &uri, &headers, body.as_bytes());
            let view: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            if let Some(text) = view["id"].as_str() {
                text.clone_into(&mut id);
            }
        }
        id.clone()
    }

    fn ask(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let answered = async {
            let response = self.routes.clone().call(request).await.expect("infallible");
            let (parts, body) = response.into_parts();
            let body = to_bytes(body, 1 << 20).await.expect("a body");
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).expect("text"),
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), answered).await })
            .expect("an answer in time")
    }
}

fn config(folder: &std::path::Path) -> String {
    for (name, value) in [
        ("key", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U="),
        ("token", TOKEN),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, value).expect("a secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    let hash = HEXLOWER.encode(&Sha256::digest(KEY.as_bytes()));
    let folder = folder.display();
    format!(
        r#"
engine = "embedded"
[embedded]
path = "{folder}/watchword.db"
[keys]
sealing = [{{ id = "s1", file = "{folder}/key" }}]
digest = [{{ id = "d1", file = "{folder}/key" }}]
index = {{ file = "{folder}/key" }}
[services.fuzz]
app = "Fuzz"
countries = ["*"]
api_keys = [{{ id = "k1", sha256 = "{hash}" }}]
[services.fuzz.limits]
service_per_minute = 60000
number_block_per_hour = 10000000
country_per_day = 0
service_per_day = 0
[sms]
public_url = "https://otp.example.org"
routes = [{{ providers = ["inbox", "hook"] }}]
[sms.providers.inbox]
kind = "inbox"
[sms.providers.hook]
kind = "http"
secrets = {{ token = {{ file = "{folder}/token" }} }}
request = {{ method = "POST", url = "http://127.0.0.1:9/" }}
receipt = {{ verify = {{ kind = "secret_url", secret = "token" }}, reference = "/query/d", id = "/body/id", state = "/body/status", states = {{ ok = "delivered", no = "failed" }} }}
[email.providers.inbox]
kind = "inbox"
"#
    )
}

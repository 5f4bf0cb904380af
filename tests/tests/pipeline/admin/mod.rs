//! The admin API on the embedded engine, through the binary: authorization, the operations that
//! work on a running process, the commands that use them, and the content of the audit trail and
//! the logs.

mod access;
mod circuits;
mod commands;
mod privacy;
mod verifications;

use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, Answer};
use watchword_tests::{Pipeline, Settings};

const NUMBER: &str = "+4915112345678";
const SUBJECT: &str = "canary-subject-77";

/// Every route: method, path, a valid body, and whether it changes something.
fn routes() -> Vec<(Method, &'static str, Option<Value>, bool)> {
    let id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let resend = "/verifications/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/resend";
    let cancel = "/verifications/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/cancel";
    let why = json!({ "reason": "a test" });
    let unlock = json!({ "service": "test", "subject": "jane", "reason": "a test" });
    let change = json!({ "filter": {}, "all": true, "reason": "a test" });
    let hold = json!({ "channel": "sms", "state": "automatic", "reason": "a test" });
    let (get, post) = (Method::GET, Method::POST);
    vec![
        (
            post.clone(),
            "/verifications/find",
            Some(json!({ "id": id })),
            false,
        ),
        (post.clone(), resend, Some(why.clone()), true),
        (post.clone(), cancel, Some(why.clone()), true),
        (post.clone(), "/unlock", Some(unlock), true),
        (post.clone(), "/dead-letters/list", Some(json!({})), false),
        (
            post.clone(),
            "/dead-letters/show",
            Some(json!({ "id": id })),
            false,
        ),
        (
            post.clone(),
            "/dead-letters/replay",
            Some(change.clone()),
            true,
        ),
        (post.clone(), "/dead-letters/discard", Some(change), true),
        (post.clone(), "/audit", None, false),
        (get.clone(), "/providers", None, false),
        (post.clone(), "/providers/inbox/circuit", Some(hold), true),
        (get.clone(), "/configuration", None, false),
        (post, "/reload", Some(why), true),
        (get.clone(), "/status", None, false),
        (get, "/audit-trail", None, false),
    ]
}

async fn with_keys(service: &str) -> Pipeline {
    let mut settings = Settings::embedded().with_admin_keys();
    settings.service = service.into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    pipeline
}

async fn post(pipeline: &Pipeline, path: &str, body: Value) -> Answer {
    let call = pipeline.admin("all", ADMIN_KEY, Method::POST, path, Some(body));
    call.await
}

async fn get(pipeline: &Pipeline, path: &str) -> Answer {
    pipeline
        .admin("all", ADMIN_KEY, Method::GET, path, None)
        .await
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status.as_u16(), answer.text("code"));
    assert_eq!(found, (status, code), "{:?}", answer.body);
}

/// Runs a command with an operator's key against the process `all`.
fn command(pipeline: &Pipeline, key: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = pipeline.command();
    let listen = format!("127.0.0.1:{}", pipeline.processes["all"].admin);
    command
        .env("WATCHWORD_ADMIN__LISTEN", listen)
        .args(arguments);
    if !key.is_empty() {
        command.env("WATCHWORD_ADMIN_KEY", key);
    }
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text + &errors)
}

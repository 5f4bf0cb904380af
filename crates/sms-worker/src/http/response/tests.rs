//! Gateway answers of every kind and their outcomes.

use super::*;
use AttemptClass as Class;

#[test]
fn an_answer_of_200_can_be_an_error_and_has_an_id() {
    let config: ResponseConfig = toml::from_str(
        r#"
        id = { json = "/messages/0/message-id" }
        rules = [
          { status = ["200"], json = { "/messages/0/status" = ["0"] }, class = "accepted" },
          { json = { "/messages/0/status" = ["1", "5"] }, class = "transient", retry_after_seconds = 7 },
          { status = ["2xx"], class = "config_fault" },
        ]"#,
    )
    .unwrap();
    let plan = ResponsePlan::compile(&config).unwrap();
    let classify = |body: &str| plan.classify(200, &HeaderMap::new(), body.as_bytes());
    let accepted = classify(r#"{"messages":[{"status":"0","message-id":"0A1"}]}"#);
    assert_eq!(
        (accepted.class, accepted.provider_message_id.as_deref()),
        (Class::Accepted, Some("0A1"))
    );
    let throttled = classify(r#"{"messages":[{"status":1}]}"#);
    assert_eq!(
        (throttled.class, throttled.retry_after),
        (Class::Transient, Some(Duration::from_secs(7)))
    );
    assert_eq!(classify("<html>").class, Class::ConfigFault);
}

#[test]
fn a_fault_by_rule_is_of_the_account_and_refused_credentials_of_the_provider() {
    let config: ResponseConfig = toml::from_str(
        r#"rules = [
          { status = ["401"], class = "config_fault" },
          { status = ["400"], json = { "/code" = ["7"] }, class = "config_fault" },
          { status = ["202"], class = "accepted" },
        ]"#,
    )
    .unwrap();
    let plan = ResponsePlan::compile(&config).unwrap();
    for (status, body, class, scope) in [
        (401, "", Class::ConfigFault, Scope::Provider),
        (400, "{\"code\":7}", Class::ConfigFault, Scope::Account),
        (415, "", Class::ConfigFault, Scope::Destination),
        (403, "", Class::DestinationRefused, Scope::Destination),
        (202, "", Class::Accepted, Scope::Destination),
    ] {
        let read = plan.classify(status, &HeaderMap::new(), body.as_bytes());
        assert_eq!((read.class, read.scope), (class, scope), "{status}");
    }
}

#[test]
fn a_byte_a_mark_or_a_line_feed_does_not_hide_an_answer() {
    let config: ResponseConfig = toml::from_str(
        r#"
        id = { json = "/id" }
        rules = [
          { status = ["202"], json = { "/status" = ["queued"] }, class = "accepted" },
          { status = ["200"], body_contains = ["für später"], class = "accepted" },
          { status = ["200"], body_regex = "^OK", class = "accepted" },
          { status = ["200"], header = { x-state = ["envoyé"] }, class = "accepted" },
        ]"#,
    )
    .unwrap();
    let plan = ResponsePlan::compile(&config).unwrap();
    let mut headers = HeaderMap::new();
    for (body, id) in [
        (
            &b"\xef\xbb\xbf{\"status\":\"queued\",\"id\":\"g1\"}"[..],
            Some("g1"),
        ),
        (
            b"{\"status\":\"queued\",\"id\":\"g1\",\"text\":\"envoy\xe9\"}",
            Some("g1"),
        ),
        (
            b"{\"status\":\"queued\",\"id\":\"g1\",\"text\":\"a\nb\"}",
            Some("g1"),
        ),
        (b"{\"status\":\"queued\",\"id\":\"g\xe9\"}", None),
        (
            b"{\"status\":\"queued\",\"id\":18446744073709551617}",
            Some("18446744073709551617"),
        ),
    ] {
        let read = plan.classify(202, &headers, body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(read.class, Class::Accepted, "{shown}");
        assert_eq!(read.provider_message_id.as_deref(), id, "{shown}");
    }
    assert_eq!(
        plan.classify(200, &headers, b"\xef\xbb\xbfOK \xe9").class,
        Class::Accepted
    );
    let value = HeaderValue::from_bytes("envoyé".as_bytes()).unwrap();
    headers.insert("x-state", value);
    assert_eq!(plan.classify(200, &headers, b"").class, Class::Accepted);
    let kind = HeaderValue::from_static("text/plain; charset=iso-8859-1");
    headers = HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, kind)]);
    let latin = plan.classify(200, &headers, b"f\xfcr sp\xe4ter");
    assert_eq!(latin.class, Class::Accepted);
}

#[test]
fn without_a_readable_body_rules_decide_up_to_the_first_that_needs_it() {
    let plan = |rules: &str| {
        let config: ResponseConfig = toml::from_str(&format!("rules = [{rules}]")).unwrap();
        ResponsePlan::compile(&config).unwrap()
    };
    let taken = "{ status = [\"202\"], class = \"accepted\" }";
    let refused =
        "{ status = [\"2xx\"], json = { \"/code\" = [\"7\"] }, class = \"config_fault\" }";
    let elsewhere = "{ status = [\"400\"], body_regex = \"x\", class = \"config_fault\" }";
    let headers = HeaderMap::new();
    for (rules, status, class, reason) in [
        (taken.to_owned(), 202, Class::Accepted, "http_202"),
        (
            format!("{elsewhere}, {taken}"),
            202,
            Class::Accepted,
            "http_202",
        ),
        (
            format!("{refused}, {taken}"),
            202,
            Class::UnknownOutcome,
            "http_202_unreadable",
        ),
        (refused.to_owned(), 503, Class::Transient, "http_503"),
        (
            elsewhere.to_owned(),
            400,
            Class::UnknownOutcome,
            "http_400_unreadable",
        ),
    ] {
        let (read, _) = plan(&rules).explain(status, &headers, None);
        assert_eq!((read.class, &*read.reason), (class, reason), "{rules}");
    }
    // Too deep to be read as JSON.
    let deep = [vec![b'['; 200], vec![b']'; 200]].concat();
    let read = plan(&format!("{refused}, {taken}")).classify(202, &headers, &deep);
    assert_eq!(read.class, Class::Accepted);
}

#[test]
fn a_status_without_a_rule_has_its_class() {
    for (statuses, class) in [
        (
            &[200, 202, 204, 504, 520, 524, 600][..],
            Class::UnknownOutcome,
        ),
        (
            &[408, 409, 423, 425, 429, 500, 502, 503, 522, 599],
            Class::Transient,
        ),
        (
            &[301, 302, 401, 405, 406, 407, 415, 421, 426, 431],
            Class::ConfigFault,
        ),
        (&[402, 403, 404, 410, 451], Class::DestinationRefused),
        (&[400, 411, 413, 414, 422], Class::MessageRejected),
    ] {
        for status in statuses {
            assert_eq!(by_status(*status), class, "{status}");
        }
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let headers = |retry: &'static str| {
        HeaderMap::from_iter([
            (RETRY_AFTER, retry.parse().unwrap()),
            (DATE, "Tue, 24 Nov 2026 10:00:00 GMT".parse().unwrap()),
        ])
    };
    assert_eq!(retry_after(&headers("12")), Some(Duration::from_secs(12)));
    assert_eq!(
        retry_after(&headers("Tue, 24 Nov 2026 10:00:30 GMT")),
        Some(Duration::from_secs(30))
    );
    assert_eq!(retry_after(&headers("soon")), None);
}

#[test]
fn wrong_rules_are_told_by_key() {
    for (text, key) in [
        (
            "rules = [{ status = [\"6xx\"], class = \"accepted\" }]",
            "rules[0].status",
        ),
        (
            "rules = [{ json = { \"x\" = [\"1\"] }, class = \"accepted\" }]",
            "rules[0].json",
        ),
        (
            "rules = [{ body_contains = [\"\"], class = \"accepted\" }]",
            "rules[0].body_contains",
        ),
        ("id = {}", "id"),
    ] {
        let config: ResponseConfig = toml::from_str(text).unwrap();
        assert_eq!(ResponsePlan::compile(&config).err().unwrap().key, key);
    }
}

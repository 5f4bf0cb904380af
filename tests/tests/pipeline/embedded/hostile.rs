//! Hostile input, field by field.

use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::pipeline::{KEY, OTHER_KEY};

use super::running;

#[tokio::test]
async fn hostile_input_is_refused_by_field_and_never_echoed() {
    let pipeline = running().await;
    let long = "1".repeat(8_000);
    let phones = [
        "",
        "+",
        "+123456",
        "+1234567890123456",
        "004915112345678",
        " +4915112345678",
        "+4915112345678 ",
        "+49\u{200b}15112345678",
        "+4915112345678\r\n",
        "+４９15112345678",
        "+3367a829916",
        "tel:+4915112345678",
        "+4915112345678;ext=12",
        "+78401234567",
        "+99912345678",
        // Extra digits behind a handset's number, and the format that Mexico used before 2019.
        "+49151123456780",
        "+5215512345678",
        &long,
    ];
    for phone in phones {
        let answer = pipeline.ask("all", "sms", phone).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, "invalid_phone"),
            "{phone:.30}"
        );
        assert_eq!(answer.text("field"), "to");
        assert!(phone.len() < 5 || !answer.body.to_string().contains(phone));
    }
    for phone in [
        "+19002345678",
        "+449098790000",
        "+979123456789",
        "+881612345678",
        "+448431234567",
        "+493012345678",
        "+390236618300",
        "+447092123456",
        "+190023456780",
        "+447700900222",
    ] {
        let answer = pipeline.ask("all", "sms", phone).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (403, "destination_blocked"),
            "{phone}"
        );
    }
    // The service `other` sends to Germany only. Jamaica and the Bahamas share +1 with the United
    // States but are other countries.
    for (phone, status) in [
        ("+4915112345699", 202),
        ("+12025550123", 403),
        ("+18762101234", 403),
        ("+12423591234", 403),
    ] {
        let body = json!({ "channel": "sms", "to": phone });
        let answer = pipeline
            .call(
                "all",
                OTHER_KEY,
                Method::POST,
                "/v1/verifications",
                Some(body),
            )
            .await;
        assert_eq!(answer.status.as_u16(), status, "{phone}");
    }
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long_domain = format!("a@{}.org", "a.".repeat(127));
    let emails = [
        "",
        "a@b@c.org",
        "a@b.org\r\nBcc: eve@example.org",
        "a\0@b.org",
        "a\t@b.org",
        "\"a b\"@b.org",
        "a(c)@b.org",
        "a@[127.0.0.1]",
        "a@b.org.",
        "Jane <a@b.org>",
        "a@b.org,c@d.org",
        "jané@b.org",
        "а@b.org",
        &long_local,
        &long_domain,
    ];
    for email in emails {
        let answer = pipeline.ask("all", "email", email).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, "invalid_email"),
            "{email:.40}"
        );
    }
    let to = "+4915112345678";
    let bodies = [
        (json!({}), "invalid_request"),
        (json!({ "channel": "sms" }), "invalid_request"),
        (json!({ "channel": "fax", "to": to }), "invalid_request"),
        (
            json!({ "channel": "sms", "to": 4915112345678_i64 }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "ttl": 9 }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "purpose": "a b" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "subject": "a\nb" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "subject": "" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "x": "https://evil.example/a" } }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "x": "a\n@evil.example #000000" } }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "code": "000000" } }),
            "invalid_request",
        ),
        (json!([1, 2]), "invalid_request"),
    ];
    for (body, code) in bodies {
        let answer = pipeline
            .post("all", "/v1/verifications", body.clone())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, code),
            "{body}"
        );
    }
    let id = pipeline.ask("all", "sms", to).await.text("id").to_owned();
    let check = format!("/v1/verifications/{id}/check");
    let codes = [
        (json!(""), "invalid_code"),
        (json!("123"), "invalid_code"),
        (json!("12345678901"), "invalid_code"),
        (json!("１２３"), "invalid_code"),
        (json!("12345a"), "invalid_code"),
        (json!("1".repeat(9_000)), "invalid_code"),
        (json!(12345), "invalid_request"),
        (json!(["123456"]), "invalid_request"),
        (Value::Null, "invalid_request"),
    ];
    for (code, problem) in codes {
        let answer = pipeline.post("all", &check, json!({ "code": code })).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, problem),
            "{code:.30}"
        );
    }
    // None of these requests counted as a check: five wrong codes are still compared.
    for _ in 0..4 {
        assert_eq!(
            pipeline.check("all", &id, "00000").await.text("status"),
            "pending"
        );
    }
    for hostile in [
        "..%2F..%2Fadmin",
        "%7Bx%7D",
        "*",
        "a",
        &"a".repeat(10_000),
        "%00",
        "'%3B--",
    ] {
        let answer = pipeline
            .call(
                "all",
                KEY,
                Method::GET,
                &format!("/v1/verifications/{hostile}"),
                None,
            )
            .await;
        assert!(
            matches!(answer.status.as_u16(), 404 | 414 | 431 | 400),
            "{hostile:.20} {}",
            answer.status
        );
        let answer = pipeline
            .post(
                "all",
                &format!("/v1/verifications/{hostile}/check"),
                json!({ "code": "123456" }),
            )
            .await;
        assert_ne!(answer.body["valid"], true);
        assert!(!answer.status.is_server_error());
    }
}

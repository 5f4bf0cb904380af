//! The send limits as callers see them: which limit refuses, the text of the answer, and how an
//! operator unlocks. `engines/counters` tests on both engines how messages are counted.

use serde_json::{Value, json};
use watchword_tests::pipeline::Answer;
use watchword_tests::{Pipeline, Settings, until};

/// Starts a pipeline on the embedded engine with these lines in `[services.test.limits]`.
async fn limited(limits: &str) -> Pipeline {
    let mut settings = Settings::embedded();
    settings.service = format!("[services.test.limits]\n{limits}\n");
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    pipeline
}

async fn ask(pipeline: &Pipeline, body: Value) -> Answer {
    pipeline.post("all", "/v1/verifications", body).await
}

/// Asserts that the answer is a 429 with this code and a detail that names the limit.
fn refused(answer: &Answer, code: &str, detail: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.text("code")),
        (429, code),
        "{:?}",
        answer.body
    );
    let said = answer.text("detail");
    assert!(said.contains(detail), "{said}");
    assert!(answer.headers.contains_key("retry-after"));
}

async fn refusals(pipeline: &Pipeline, limit: &str) -> u64 {
    let series = "watchword_limit_refusals_total";
    pipeline.total(series, &[&format!("\"{limit}\"")]).await
}

#[tokio::test]
async fn each_limit_refuses_and_says_which_it_is() {
    let pipeline = limited(
        "subject_per_hour = 2\nnumber_block_per_hour = 3\nclient_per_hour = 2\nservice_per_day = 9",
    )
    .await;
    let sms = |subject: &str, to: &str| json!({"channel": "sms", "to": to, "subject": subject});
    for to in ["+4915112340001", "+4915112350001"] {
        assert_eq!(ask(&pipeline, sms("mallory", to)).await.status, 202);
    }
    let third = ask(&pipeline, sms("mallory", "+4915112360001")).await;
    refused(&third, "rate_limited", "limits.subject_per_hour");

    for to in ["+4915112350002", "+4915112350003"] {
        assert_eq!(ask(&pipeline, sms(to, to)).await.status, 202);
    }
    let fourth = ask(&pipeline, sms("ann", "+4915112350004")).await;
    refused(&fourth, "rate_limited", "limits.number_block_per_hour");

    let mail = |name: &str, ip: &str| {
        let client = json!({"ip": ip, "user_agent": "Browser/1.0"});
        json!({"channel": "email", "to": format!("{name}@example.org"), "client": client})
    };
    for (name, ip) in [("a", "2001:db8::1"), ("b", "2001:db8::2")] {
        assert_eq!(ask(&pipeline, mail(name, ip)).await.status, 202);
    }
    let third = ask(&pipeline, mail("c", "2001:db8:0:0:ffff::3")).await;
    refused(&third, "rate_limited", "limits.client_per_hour");
    assert_eq!(ask(&pipeline, mail("c", "192.0.2.1")).await.status, 202);
    for ip in ["unknown", "192.0.2.1:80", "fe80::1%eth0"] {
        let wrong = ask(&pipeline, mail("d", ip)).await;
        assert_eq!(
            (wrong.status.as_u16(), wrong.text("field")),
            (422, "client")
        );
        assert!(!wrong.body.to_string().contains(ip), "{:?}", wrong.body);
    }
    // A missing client, in each form, is not counted.
    for client in [json!(null), json!({}), json!({ "ip": null })] {
        let to = format!("e{}@example.org", client.to_string().len());
        let body = json!({"channel": "email", "to": to, "client": client});
        let answer = ask(&pipeline, body).await;
        // Seven messages were sent before, and the service's day allows nine.
        let code = if client == json!({ "ip": null }) {
            429
        } else {
            202
        };
        assert_eq!(answer.status, code, "{:?}", answer.body);
    }
    for limit in [
        "subject_per_hour",
        "number_block_per_hour",
        "client_per_hour",
        "service_per_day",
    ] {
        assert_eq!(refusals(&pipeline, limit).await, 1, "{limit}");
    }
}

#[tokio::test]
async fn one_mailbox_has_one_limit_and_an_operator_unlocks_it() {
    let mut pipeline = limited("recipient_per_hour = 4").await;
    let ask_by = async |pipeline: &Pipeline, to: &str, subject: Option<&str>| {
        let body = json!({"channel": "email", "to": to, "subject": subject});
        ask(pipeline, body).await
    };
    let first = ask_by(&pipeline, "victim+1@example.org", None).await;
    assert_eq!(first.status, 202);
    let bombed = ask_by(&pipeline, "victim+2@example.org", None).await;
    refused(
        &bombed,
        "cooldown",
        "a message was sent to this recipient less than 30 s ago",
    );
    let wait: u64 = bombed.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    let mut role = pipeline.processes.remove("all").unwrap();
    role.process.signal("TERM");
    assert!(role.process.wait(30).success());

    let unlock = |arguments: &[&str]| {
        let mut command = pipeline.command();
        command.args(["unlock", "test"]).args(arguments);
        command.output().unwrap()
    };
    assert!(!unlock(&[]).status.success());
    let unlocked = unlock(&["--recipient", "Victim+9@example.org"]);
    assert!(unlocked.status.success(), "{unlocked:?}");
    pipeline.start("all", &[]).await;
    let after = ask_by(&pipeline, "victim+2@example.org", None).await;
    assert_eq!(after.status, 202, "{:?}", after.body);
}

/// `unlock --recipient` also clears the block of numbers that the recipient belongs to, and no
/// other.
#[tokio::test]
async fn an_operator_unlocks_a_block_of_numbers() {
    let mut pipeline = limited("number_block_per_hour = 3").await;
    let sms = |last: u8| {
        let to = format!("+491511235000{last}");
        json!({"channel": "sms", "to": to, "subject": to})
    };
    for last in 1..=3 {
        assert_eq!(ask(&pipeline, sms(last)).await.status, 202);
    }
    let fourth = ask(&pipeline, sms(4)).await;
    refused(&fourth, "rate_limited", "limits.number_block_per_hour");
    for (unlocked, next, is_cleared) in [
        ("+4915112990001", [5, 6], false),
        ("+4915112350009", [7, 8], true),
    ] {
        let mut role = pipeline.processes.remove("all").unwrap();
        role.process.signal("TERM");
        assert!(role.process.wait(30).success());
        let mut command = pipeline.command();
        command.args(["unlock", "test", "--recipient", unlocked]);
        assert!(command.output().unwrap().status.success());
        pipeline.start("all", &[]).await;
        // A process asks the store for its count with the second message of a block.
        ask(&pipeline, sms(next[0])).await;
        let next = ask(&pipeline, sms(next[1])).await;
        if is_cleared {
            assert_eq!(next.status, 202, "{:?}", next.body);
        } else {
            refused(&next, "rate_limited", "limits.number_block_per_hour");
        }
    }
}

/// A request within the cooldown after the last wrong code is refused with the cooldown, not with a
/// message limit.
#[tokio::test]
async fn asking_again_after_the_last_wrong_code_is_a_cooldown() {
    let pipeline = limited("").await;
    let body = json!({"channel": "sms", "to": "+4915112345678", "subject": "ann"});
    let first = ask(&pipeline, body.clone()).await;
    assert_eq!(first.status, 202);
    let mut last = String::new();
    for _ in 0..5 {
        // Ten digits instead of six can never be right.
        let checked = pipeline.check("all", first.text("id"), "0000000000").await;
        checked.text("status").clone_into(&mut last);
    }
    assert_eq!(last, "max_attempts_reached");
    let again = ask(&pipeline, body).await;
    refused(&again, "cooldown", "less than 30 s ago");
}

/// Requests without a subject leave a quarter of a recipient's hourly limit to requests with a
/// subject.
#[tokio::test]
async fn a_page_without_a_login_cannot_use_up_a_persons_hour() {
    let pipeline =
        limited("recipient_per_hour = 4\n[services.test.policy]\ncooldown_seconds = 0").await;
    let by = |purpose: usize, subject: Option<&str>| {
        let purpose = format!("p{purpose}");
        json!({"channel": "sms", "to": "+4915112345678", "purpose": purpose, "subject": subject})
    };
    for purpose in 0..3 {
        assert_eq!(ask(&pipeline, by(purpose, None)).await.status, 202);
    }
    let fourth = ask(&pipeline, by(3, None)).await;
    refused(&fourth, "rate_limited", "kept for requests with a subject");
    assert_eq!(ask(&pipeline, by(4, Some("ann"))).await.status, 202);
    let fifth = ask(&pipeline, by(5, Some("ann"))).await;
    refused(&fifth, "rate_limited", "limits.recipient_per_hour)");
}

/// A message that its recipient's limit refuses counts against no other limit.
#[tokio::test]
async fn a_refused_message_counts_against_no_limit() {
    let pipeline = limited("subject_per_hour = 2").await;
    let to = |to: &str, purpose: &str| json!({"channel": "sms", "to": to, "purpose": purpose, "subject": "jane"});
    let first = ask(&pipeline, to("+4915112345678", "login")).await;
    assert_eq!(first.status, 202);
    for purpose in ["pay", "enrol", "unlock"] {
        let cooling = ask(&pipeline, to("+4915112345678", purpose)).await;
        refused(&cooling, "cooldown", "less than 30 s ago");
    }
    let second = ask(&pipeline, to("+4915112340001", "login")).await;
    assert_eq!(second.status, 202, "{:?}", second.body);
    let third = ask(&pipeline, to("+4915112350001", "login")).await;
    refused(&third, "rate_limited", "limits.subject_per_hour");
}

/// The message of a fallback step is counted like any other.
#[tokio::test]
async fn a_fallback_step_is_counted() {
    let pipeline = limited("subject_per_hour = 1").await;
    let step = json!({"channel": "email", "to": "jane@example.org", "after_seconds": 5});
    let body = json!({
        "channel": "sms", "to": "+4915112345678", "subject": "jane", "fallback": [step],
    });
    assert_eq!(ask(&pipeline, body).await.status, 202);
    until(20, "the step is refused", || async {
        let steps = pipeline.total("watchword_fallback_steps_total", &["refused"]);
        (steps.await == 1).then_some(())
    })
    .await;
    assert_eq!(refusals(&pipeline, "subject_per_hour").await, 1);
}

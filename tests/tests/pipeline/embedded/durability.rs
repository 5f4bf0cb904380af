//! A crash, a restored backup, and a clock that is set back.

use std::sync::Arc;

use reqwest::StatusCode;
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::{Pipeline, Settings, SteppedClock, until};

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let mut pipeline = Pipeline::configure(&Settings::embedded());
    pipeline.start("first", &[]).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let answer = pipeline
            .ask("first", "sms", &format!("+4915110{number:06}"))
            .await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        ids.push(answer.text("id").to_owned());
        if number == 39 {
            pipeline.processes["first"].process.signal("KILL");
        }
    }
    pipeline
        .processes
        .get_mut("first")
        .unwrap()
        .process
        .wait(10);
    pipeline.processes.remove("first");
    pipeline.start("second", &[]).await;
    until(40, "every accepted message was handed over", || async {
        for id in &ids {
            let status = pipeline.status("second", id).await;
            if status.body["deliveries"][0]["outcome"] != "accepted" {
                return None;
            }
        }
        Some(())
    })
    .await;
    let role = pipeline.processes.get_mut("second").unwrap();
    role.process.signal("TERM");
    assert!(role.process.wait(30).success());
}

/// Runs a command and returns its output. Panics unless it ends as `succeeds` says.
fn said(pipeline: &Pipeline, arguments: &[&str], succeeds: bool) -> String {
    let output = pipeline.command().args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.success(), succeeds, "{arguments:?}: {text}");
    text
}

/// A backup is made while the process runs. After it is restored, no earlier code is right, and the
/// guesses recorded in it still count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_file_makes_no_used_code_right_again() {
    const USED: &str = "+4915112345678";
    const GUESSED: &str = "+4915112345679";
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    settings.service =
        "[services.test.policy]\ncooldown_seconds = 0\n[services.test.guesses]\nper_hour = 4"
            .into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("before", &[]).await;
    let ask = async |pipeline: &Pipeline, name: &str, to: &str| {
        let answer = pipeline.ask(name, "sms", to).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        let arrivals = until(10, "the message", || async {
            let arrivals = mailbox.of(to);
            (!arrivals.is_empty()).then_some(arrivals)
        });
        let code = arrivals.await[0].code.clone();
        (answer.text("id").to_owned(), code)
    };
    let (used, used_code) = ask(&pipeline, "before", USED).await;
    let (guessed, guessed_code) = ask(&pipeline, "before", GUESSED).await;
    for _ in 0..3 {
        pipeline.check("before", &guessed, "00000").await;
    }

    let backup = pipeline.folder().join("backup.db");
    let name = backup.display().to_string();
    said(&pipeline, &["backup", &name], true);
    let mode = std::fs::metadata(&backup).unwrap().permissions();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o600);
    let again = said(&pipeline, &["backup", &name], false);
    assert!(again.contains("exists and is not overwritten"), "{again}");
    let approved = pipeline.check("before", &used, &used_code).await;
    assert_eq!(approved.body["valid"], true);

    let running = said(&pipeline, &["restore", &name], false);
    assert!(
        running.contains("another process uses this file"),
        "{running}"
    );
    let process = &mut pipeline.processes.get_mut("before").unwrap().process;
    process.signal("TERM");
    assert!(process.wait(30).success());
    let taken = said(&pipeline, &["restore", &name], false);
    assert!(taken.contains("exists and is not overwritten"), "{taken}");
    for ending in ["", "-wal", "-shm"] {
        let name = format!("watchword.db{ending}");
        let to = pipeline.folder().join(format!("replaced.db{ending}"));
        let moved = std::fs::rename(pipeline.folder().join(name), to);
        assert!(moved.is_ok() || !ending.is_empty(), "{moved:?}");
    }
    let restored = said(&pipeline, &["restore", &name], true);
    assert!(restored.contains("have ended"), "{restored}");

    pipeline.start("after", &[]).await;
    for (id, code) in [(&used, &used_code), (&guessed, &guessed_code)] {
        let answer = pipeline.check("after", id, code).await;
        assert_eq!(answer.body["valid"], false, "{:?}", answer.body);
        assert_eq!(pipeline.status("after", id).await.text("status"), "expired");
    }
    // The fourth wrong code locks the subject.
    let (new, _) = ask(&pipeline, "after", GUESSED).await;
    pipeline.check("after", &new, "00000").await;
    let locked = pipeline.ask("after", "sms", GUESSED).await;
    assert_eq!(locked.text("code"), "subject_locked", "{:?}", locked.body);
    // Another subject is not locked.
    let (other, _) = ask(&pipeline, "after", USED).await;
    let code = until(10, "the second message", || async {
        mailbox.of(USED).get(1).map(|arrival| arrival.code.clone())
    });
    let valid = pipeline.check("after", &other, &code.await).await;
    assert_eq!(valid.body["valid"], true, "{:?}", valid.body);
}

/// A wall clock set back slightly extends no code. Set back further, it ends all codes sent before,
/// in the running process and after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_ends_the_codes_sent_before() {
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    let mut pipeline = Pipeline::configure(&settings);
    let clock = SteppedClock::of(pipeline.folder(), "all");
    pipeline.variables = clock.variables();
    pipeline.start("all", &[]).await;
    let ask = async |pipeline: &Pipeline, number: u64| {
        let to = format!("+4915112{number:06}");
        let answer = pipeline.ask("all", "sms", &to).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        let code = until(10, "the message", || async {
            mailbox.of(&to).first().map(|arrival| arrival.code.clone())
        });
        (answer.text("id").to_owned(), code.await)
    };
    let begun = pipeline.metrics("all").await["watchword_clock_seconds"];
    let is_behind = async |pipeline: &Pipeline, seconds: f64| {
        until(10, "the process notices its clock", || async {
            let clock = pipeline.metrics("all").await["watchword_clock_seconds"];
            // The test takes less time than the smaller step, so the two cannot be confused.
            (begun - clock > seconds - 20.0 && begun - clock <= seconds).then_some(())
        })
        .await;
    };
    let valid = async |pipeline: &Pipeline, (id, code): &(String, String)| {
        pipeline.check("all", id, code).await.body["valid"].clone()
    };

    let (small, large, restarted) = (
        ask(&pipeline, 1).await,
        ask(&pipeline, 2).await,
        ask(&pipeline, 3).await,
    );
    clock.step(-20);
    is_behind(&pipeline, 20.0).await;
    assert_eq!(valid(&pipeline, &small).await, true);
    clock.step(-1_200);
    is_behind(&pipeline, 1_200.0).await;
    assert_eq!(valid(&pipeline, &large).await, false);
    assert!(pipeline.logs().contains("was set back by more than 30 s"));
    let next = ask(&pipeline, 4).await;
    assert_eq!(valid(&pipeline, &next).await, true);

    let live = ask(&pipeline, 5).await;
    let process = &mut pipeline.processes.get_mut("all").unwrap().process;
    process.signal("TERM");
    assert!(process.wait(30).success());
    clock.step(-1_260);
    pipeline.start("all", &[]).await;
    for ended in [&restarted, &live] {
        assert_eq!(valid(&pipeline, ended).await, false);
        let status = pipeline.status("all", &ended.0).await;
        assert_eq!(status.text("status"), "expired", "{:?}", status.body);
    }
    let next = ask(&pipeline, 6).await;
    assert_eq!(valid(&pipeline, &next).await, true);
}

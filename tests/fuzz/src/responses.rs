//! Answers of gateways under the rules of a preset, or under rules of the input: no answer breaks
//! the classification, none is quoted, and success is only what a rule calls so.
//!
//! An input is a letter: preset or `rules`, the status, headers; then the body. With `rules` the
//! body begins with the rules as TOML, up to a line `---`.

use std::sync::LazyLock;

use watchword_core::AttemptClass;
use watchword_sms_worker::fuzzing::{ResponseConfig, classify, read_smpp_receipt};
use watchword_sms_worker::{PRESETS, preset};

use crate::letter::Letter;

static RULES: LazyLock<Vec<(&str, ResponseConfig)>> = LazyLock::new(|| {
    PRESETS
        .iter()
        .map(|(name, _)| (*name, preset(name).expect("a preset").response))
        .collect()
});

/// One answer, and the same bytes as the text of an SMPP receipt.
pub fn run(input: &[u8]) {
    smpp(input);
    let Some(letter) = Letter::open(input) else {
        return;
    };
    let headers = letter.headers(2);
    let status: u16 = letter.line(1).parse().unwrap_or(200);
    if letter.line(0) != "rules" {
        let (_, config) = RULES
            .iter()
            .find(|(name, _)| *name == letter.line(0))
            .unwrap_or(&RULES[input.len() % RULES.len()]);
        check(config, status, &headers, letter.body);
        return;
    }
    let Ok(text) = std::str::from_utf8(letter.body) else {
        return;
    };
    let (rules, body) = text.split_once("\n---\n").unwrap_or((text, ""));
    if let Ok(config) = toml::from_str::<ResponseConfig>(rules) {
        check(&config, status, &headers, body.as_bytes());
    }
}

fn check(config: &ResponseConfig, status: u16, headers: &http::HeaderMap, body: &[u8]) {
    let attempted = match classify(config, status, headers, body) {
        Ok(attempted) => attempted,
        Err(error) => {
            assert!(!error.key.is_empty() && !error.problem.is_empty());
            return;
        }
    };
    assert_eq!(attempted.reason, format!("http_{status}"));
    if let Some(id) = &attempted.provider_message_id {
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if attempted.class == AttemptClass::Accepted {
        let told = config
            .rules
            .iter()
            .any(|rule| rule.class == AttemptClass::Accepted);
        assert!(told, "success by no rule: {status}");
    }
}

fn smpp(input: &[u8]) {
    let Some(told) = read_smpp_receipt(input) else {
        return;
    };
    let id = &told.message_id;
    assert!((1..=65).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(told.error.is_none_or(|error| is_error_code(&error)));
}

/// What may be kept of a receipt's error: nothing long, nothing that could be a number or address.
pub fn is_error_code(text: &str) -> bool {
    let digits = text.as_bytes().windows(7);
    text.len() <= 32
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
        && !digits
            .into_iter()
            .any(|run| run.iter().all(u8::is_ascii_digit))
}

//! Responses of gateways under the rules of a preset or of the input: no response makes the
//! classification panic, none is quoted, and only a rule decides on success.
//!
//! An input is a `Letter`: a preset or `rules`, the status, headers, then the body. With `rules`
//! the body begins with the rules as TOML, up to a line `---`.

use std::sync::LazyLock;

use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_sms_worker::fuzzing::{MessageIds, ResponseConfig, ResponsePlan, read_smpp_receipt};
use watchword_sms_worker::{PRESETS, preset};

use crate::canary::pick;
use crate::letter::Letter;
use crate::varied::varied;

static PLANS: LazyLock<Vec<(&str, Rules)>> = LazyLock::new(|| {
    let rules = |name| Rules::of(&preset(name).expect("a preset").response);
    PRESETS
        .iter()
        .map(|(name, _)| (*name, rules(name).expect("its rules")))
        .collect()
});

/// Response rules, and whether one of them means success.
struct Rules {
    plan: ResponsePlan,
    can_accept: bool,
}

impl Rules {
    fn of(config: &ResponseConfig) -> Result<Self, ConfigError> {
        let mut classes = config.rules.iter().map(|rule| rule.class);
        Ok(Self {
            plan: ResponsePlan::compile(config)?,
            can_accept: classes.any(|class| class == AttemptClass::Accepted),
        })
    }
}

/// Classifies the response as it came and varied, and parses the same bytes as an SMPP receipt: as
/// its body, as its text and as its TLVs.
pub fn run(input: &[u8]) {
    smpp(input);
    let Some(letter) = Letter::open(input) else {
        return;
    };
    let headers = letter.headers(2);
    let status: u16 = letter.line(1).parse().unwrap_or(200);
    let check = |rules: &Rules, body: &[u8]| {
        check(rules, status, &headers, body);
        if let Some(body) = varied(body, pick(input)) {
            check(rules, status, &headers, &body);
        }
    };
    if letter.line(0) != "rules" {
        let (_, rules) = PLANS
            .iter()
            .find(|(name, _)| *name == letter.line(0))
            .unwrap_or(&PLANS[input.len() % PLANS.len()]);
        check(rules, letter.body);
        return;
    }
    let Ok(text) = std::str::from_utf8(letter.body) else {
        return;
    };
    let (rules, body) = text.split_once("\n---\n").unwrap_or((text, ""));
    match toml::from_str::<ResponseConfig>(rules).map(|config| Rules::of(&config)) {
        Ok(Ok(rules)) => check(&rules, body.as_bytes()),
        Ok(Err(error)) => assert!(!error.key.is_empty() && !error.problem.is_empty()),
        Err(_) => {}
    }
}

fn check(rules: &Rules, status: u16, headers: &http::HeaderMap, body: &[u8]) {
    let attempted = rules.plan.classify(status, headers, body);
    assert_eq!(attempted.reason, format!("http_{status}"));
    if let Some(id) = &attempted.provider_message_id {
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let is_told = attempted.class != AttemptClass::Accepted || rules.can_accept;
    assert!(is_told, "success by no rule: {status}");
}

fn smpp(input: &[u8]) {
    let text = &input[..input.len().min(255)];
    let head = |length: usize| {
        let mut body = b"\0\x01\x01\0\x01\x01\0\x04\0\0\0\0\0\0\0\0".to_vec();
        body.push(u8::try_from(length).expect("at most 255"));
        body
    };
    let with_text = [head(text.len()), text.to_vec()].concat();
    let with_tlvs = [head(0), input.to_vec()].concat();
    let ids = [
        MessageIds::Same,
        MessageIds::HexThenDecimal,
        MessageIds::DecimalThenHex,
    ];
    for body in [input, &with_text, &with_tlvs] {
        for ids in ids {
            let Some(Ok(told)) = read_smpp_receipt(body, ids) else {
                continue;
            };
            let id = &told.message_id;
            assert!((1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
            assert!(told.error.is_none_or(|error| is_error_code(&error)));
        }
    }
}

/// Whether a text may be kept as a receipt's error code: short, and without a number or an address.
pub fn is_error_code(text: &str) -> bool {
    let digits = text.as_bytes().windows(7);
    text.len() <= 32
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
        && !digits
            .into_iter()
            .any(|run| run.iter().all(u8::is_ascii_digit))
}

//! Compares docs/api.md with the source: routes, fields, statuses and error codes, in both
//! directions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use watchword_chassis::ProblemCode;
use watchword_core::{AttemptClass, DeliveryOutcome, ReceiptState, VerificationStatus};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the text of the section with this heading, up to the next heading.
fn section(heading: &str) -> String {
    let document = read("docs/api.md");
    let start = format!("\n{heading}\n");
    let begin = document.find(&start);
    let begin = begin.unwrap_or_else(|| panic!("docs/api.md has no {heading}")) + start.len();
    let rest = &document[begin..];
    let end = rest.find("\n#").unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// Returns the cells of the section's first table, without its two header lines.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = section(heading);
    let lines = text.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}

/// Returns the word in backticks that each row of the table begins with.
fn words(heading: &str) -> Vec<String> {
    let word = |row: &Vec<String>| row[0].trim_matches('`').to_owned();
    rows(heading).iter().map(word).collect()
}

/// Returns the names of the fields of a struct, read from its source.
fn fields(file: &str, name: &str) -> Vec<String> {
    let text = read(file);
    let begin = text.find(&format!("struct {name} {{"));
    let begin = begin.unwrap_or_else(|| panic!("{file} has no struct {name}"));
    let body = text[begin..].split("\n}").next().unwrap();
    let field = |line: &str| {
        let line = line.trim_start();
        let (name, _) = line.strip_prefix("pub ").unwrap_or(line).split_once(": ")?;
        let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        is_name.then(|| name.to_owned())
    };
    let found: Vec<_> = body.lines().skip(1).filter_map(field).collect();
    assert!(!found.is_empty(), "{file}: {name}");
    found
}

fn sorted(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words: Vec<_> = words.into_iter().collect();
    words.sort();
    words
}

#[test]
fn every_error_code_is_described_with_its_status() {
    let described = rows("## Error codes").into_iter().map(|row| {
        assert!(
            row.len() == 4 && row.iter().all(|cell| !cell.is_empty()),
            "{row:?}"
        );
        format!("{} {}", row[0].trim_matches('`'), row[1])
    });
    let declared = ProblemCode::ALL.iter();
    let declared = declared.map(|code| format!("{} {}", code.as_str(), code.status().as_u16()));
    assert_eq!(sorted(described), sorted(declared));
}

#[test]
fn every_status_is_described() {
    fn names<T: ToString>(all: &[T]) -> Vec<String> {
        sorted(all.iter().map(ToString::to_string))
    }
    for (heading, declared) in [
        ("### Verifications", names(VerificationStatus::ALL)),
        ("### Deliveries", names(DeliveryOutcome::ALL)),
        ("### Attempts", names(AttemptClass::ALL)),
        ("### Receipts", names(ReceiptState::ALL)),
    ] {
        assert_eq!(sorted(words(heading)), declared, "{heading}");
    }
}

#[test]
fn every_route_has_its_section() {
    let mut declared = BTreeSet::new();
    for file in [
        "crates/issuer/src/http/mod.rs",
        "crates/verifier/src/http/mod.rs",
        "crates/sms-worker/src/receipt/route.rs",
        "crates/chassis/src/http.rs",
        "crates/chassis/src/admin.rs",
    ] {
        let text = read(file);
        for call in text.split(".route(").skip(1) {
            declared.insert(call.split('"').nth(1).unwrap().to_owned());
        }
    }
    assert!(declared.len() >= 8, "{declared:?}");
    let document = read("docs/api.md");
    let headings = document.lines().filter_map(|line| {
        let (method, path) = line.strip_prefix("### ")?.split_once(' ')?;
        let is_method = method.bytes().all(|b| b.is_ascii_uppercase());
        is_method.then(|| path.to_owned())
    });
    assert_eq!(headings.collect::<BTreeSet<_>>(), declared);
    let table: String = rows("## Addresses and authentication").concat().concat();
    for path in &declared {
        assert!(
            table.contains(&format!(" {path}`")),
            "the table of roles has no {path}"
        );
    }
}

#[test]
fn every_field_of_a_request_is_described() {
    let requested = "crates/events/src/otp_requested.rs";
    let nested = |parent: &'static str, name: &str| {
        let inner = fields(requested, name).into_iter();
        inner.map(move |field| format!("{parent}.{field}"))
    };
    let create = fields(requested, "OtpRequested").into_iter();
    let create = create.chain(nested("fallback[]", "FallbackRequested"));
    let create = create.chain(nested("client", "ClientRequested"));
    let resend = fields("crates/issuer/src/http/resend.rs", "ResendBody");
    let check = fields("crates/verifier/src/http/check.rs", "CheckBody");
    for (heading, declared) in [
        ("### POST /v1/verifications", sorted(create)),
        ("### POST /v1/verifications/{id}/resend", sorted(resend)),
        ("### POST /v1/verifications/{id}/check", sorted(check)),
    ] {
        assert_eq!(sorted(words(heading)), declared, "{heading}");
    }
}

#[test]
fn every_field_of_an_answer_is_named() {
    let status = "crates/verifier/src/http/status.rs";
    for (heading, file, name) in [
        (
            "### POST /v1/verifications",
            "crates/verifier/src/http/view.rs",
            "VerificationView",
        ),
        (
            "### POST /v1/verifications/{id}/check",
            "crates/verifier/src/http/check.rs",
            "CheckAnswer",
        ),
        ("### GET /v1/verifications/{id}", status, "StatusView"),
        ("### GET /v1/verifications/{id}", status, "DeliveryView"),
        ("### GET /v1/verifications/{id}", status, "ReceiptView"),
        ("### GET /v1/verifications/{id}", status, "AttemptView"),
        (
            "### watchword.verification.updated.v1",
            "crates/events/src/verification_updated.rs",
            "VerificationUpdated",
        ),
        (
            "### watchword.verification.updated.v1",
            "crates/events/src/verification_updated.rs",
            "Refusal",
        ),
        (
            "### watchword.delivery.updated.v1",
            "crates/events/src/delivery_updated.rs",
            "DeliveryUpdated",
        ),
    ] {
        let text = section(heading);
        for field in fields(file, name) {
            // A field is named in a sentence or table, or in an example.
            let is_named =
                text.contains(&format!("`{field}`")) || text.contains(&format!("\"{field}\""));
            assert!(is_named, "{heading} does not name {field}");
        }
    }
}

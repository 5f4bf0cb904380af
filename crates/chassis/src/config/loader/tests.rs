//! Tests of variables that override the file, and of error messages.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use super::*;
use crate::config::{load, load_draft};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(default)]
    engine: String,
    http: Http,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Http {
    listen: String,
    #[serde(default)]
    limit: u8,
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Sample, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(file.path(), environment)
}

#[test]
fn the_environment_lies_over_the_file() {
    let environment = [
        ("WATCHWORD_HTTP__LISTEN", "127.0.0.1:0"),
        ("WATCHWORD_HTTP__LIMIT", "7"),
        ("WATCHWORD_ENGINE", "embedded"),
        ("WATCHWORD_REDIS_PASSWORD", "left alone"),
        ("OTHER__THING", "1"),
    ];
    let sample = load_text("[http]\nlisten = \"x\"", &environment).unwrap();
    let http = Http {
        listen: "127.0.0.1:0".into(),
        limit: 7,
    };
    assert_eq!(
        sample,
        Sample {
            engine: "embedded".into(),
            http
        }
    );
}

#[test]
fn the_files_it_names_are_known_wherever_they_stand() {
    let text = "[keys]\nsealing = [{ id = \"s1\", file = \"a\" }]\n[email.providers.relay]\n\
                ca_file = \"b\"\nhost = \"file\"\n[a.b.secrets]\ntoken = { file = \"c\" }";
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = [(
        "WATCHWORD_REDIS__PASSWORD".to_owned(),
        "{ file = \"d\" }".to_owned(),
    )];
    // A path in a variable is relative to the working directory, one in the file to its folder.
    let folder = file.path().parent().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.join(name));
    let d = PathBuf::from("d");
    let files = files_of(file.path(), environment.clone().into_iter(), &[]);
    assert_eq!(files, [a, b, c.clone(), d.clone()].into());
    let left_out = ["keys.sealing", "email", "no.such"];
    let files = files_of(file.path(), environment.into_iter(), &left_out);
    assert_eq!(files, [c, d].into());
}

#[test]
fn all_unreadable_secrets_are_found_with_their_path_or_variable() {
    let text = "[keys]\nindex = { file = \"nosuch\" }\nsealing = [{ id = \"s1\", env = \"WATCHWORD_NOSUCH_KEY\" }]\n\
                [sms.providers.a.secrets]\ntoken = { env = \"hunter2\" }\n[email]\npassword = { file = \"left out\" }";
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let errors = unreadable_secrets(file.path(), std::iter::empty(), &["email"]);
    let mut shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    shown.sort();
    let path = file.path().parent().unwrap().join("nosuch");
    assert_eq!(
        shown,
        [
            format!("config key `keys.index.file`: the file {} does not exist", path.display()),
            "config key `keys.sealing[0].env`: the environment variable WATCHWORD_NOSUCH_KEY is not set"
                .to_owned(),
            "config key `sms.providers.a.secrets.token.env`: the environment variable it names is not set"
                .to_owned(),
        ]
    );
}

#[test]
fn errors_name_the_key_and_never_the_value() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        (
            "[http]\nlisten = \"x\"",
            &[("WATCHWORD___LIMIT", "hunter2")],
            "WATCHWORD___LIMIT",
        ),
        ("\"\" = 1\n[http]\nlisten = \"x\"", &[], "(top level)"),
        (
            "[http]\nlisten = \"x\"\nlimit = \"hunter2\"",
            &[],
            "http.limit",
        ),
        ("[http]\nlisten = \"x\"\nlimit = 70000", &[], "http.limit"),
        ("[http]\nlisten = \"x\"\nlimt = 1", &[], "http"),
        (
            "[http]\nlisten = \"amqp://a:hunter2@h/\"",
            &[],
            "http.listen",
        ),
        (
            "[http]\nlisten = \"x\"",
            &[("WATCHWORD_HTTP__NONSENSE", "hunter2")],
            "http",
        ),
        ("[http]\nlisten = hunter2", &[], "line 2"),
    ];
    for (text, environment, key) in cases {
        let shown = load_text(text, environment).unwrap_err().to_string();
        assert!(shown.contains(key), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("70000"),
            "{shown}"
        );
    }
}

/// Each error is reported once, regardless of other errors, and none only follows from another.
#[test]
fn all_independent_errors_are_found_at_once() {
    let errors = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let draft = load_draft::<Texts>(file.path(), std::iter::empty());
        let shown = draft
            .errors
            .iter()
            .map(|one| format!("{}: {}", one.key, one.problem));
        (draft.config.is_some(), shown.collect::<Vec<_>>())
    };
    let level = "log.level: must be `info` or `warn`";
    for (text, found) in [
        ("", &[][..]),
        ("[log]\nlevel = \"chatty\"", &[level]),
        (
            "[log]\nlevel = \"chatty\"\n[services.x]\nsends = \"many\"\ncountries = [1, 2]\n[services.y]\nsends = -1",
            &[
                level,
                "services.x.countries[0]: must be a text in quotes",
                "services.x.sends: must be a whole number from 0 to 255",
                "services.y.sends: must be a whole number from 0 to 255",
            ],
        ),
        (
            "[lgo]\nlevel = 1\n[services.x]\nsend = 3",
            &[
                "lgo: unknown field `lgo`, expected `log` or `services`",
                "services.x.send: unknown field `send`, expected one of `app`, `countries`, `sends`",
            ],
        ),
        ("services = 1", &["services: must be a section of keys"]),
        (
            "[log]\na = \"amqp://u:p@h\"\nb = \"amqp://u:p@h\"",
            &[
                "log.a: a password must not stand in the file; give it by file or env",
                "log.b: a password must not stand in the file; give it by file or env",
                "log.a: unknown field `a`, expected `level`",
                "log.b: unknown field `b`, expected `level`",
            ],
        ),
    ] {
        assert_eq!(
            errors(text),
            (true, found.iter().map(|&one| one.to_owned()).collect()),
            "{text}"
        );
    }
}

/// A key that is left out because of an error is not reported as missing too.
#[test]
fn a_required_key_with_an_error_is_not_reported_as_missing() {
    let errors = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let draft = load_draft::<Sample>(file.path(), std::iter::empty());
        let shown = draft
            .errors
            .iter()
            .map(|one| format!("{}: {}", one.key, one.problem));
        (draft.config.is_some(), shown.collect::<Vec<_>>())
    };
    for (text, found) in [
        (
            "[http]\nlisten = 1",
            &["http.listen: must be a text in quotes"][..],
        ),
        (
            "engine = 1\n[http]\nlisten = 1\nlimit = 300",
            &[
                "engine: must be a text in quotes",
                "http.limit: must be a whole number from 0 to 255",
                "http.listen: must be a text in quotes",
            ],
        ),
        ("[http]\nlimit = 3", &["http.listen: is missing"]),
        ("", &["http: is missing"]),
    ] {
        let found = found.iter().map(|&one| one.to_owned()).collect();
        assert_eq!(errors(text), (false, found), "{text}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Texts {
    #[serde(default)]
    log: Log,
    #[serde(default)]
    services: BTreeMap<String, Named>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Log {
    level: Level,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Level {
    #[default]
    Info,
    Warn,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Named {
    app: String,
    countries: Vec<String>,
    sends: u8,
}

const TEXTS: &str =
    "[log]\nlevel = \"info\"\n[services.x]\napp = \"X\"\ncountries = [\"SE\"]\nsends = 1\n";

fn texts(variables: &[(&str, &str)]) -> Result<Texts, (ConfigError, Option<String>)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(TEXTS.as_bytes()).unwrap();
    let environment = || {
        let variables = variables.iter();
        variables.map(|(name, value)| (format!("WATCHWORD_{name}"), (*value).to_owned()))
    };
    load(file.path(), environment()).map_err(|error: ConfigError| {
        let variable = variable_of(&error, environment());
        (error, variable)
    })
}

#[test]
fn a_variable_is_read_as_its_key_wants_it() {
    let x = |app: &str, countries: &[&str], sends| Named {
        app: app.to_owned(),
        countries: countries.iter().map(|&one| one.to_owned()).collect(),
        sends,
    };
    for (variables, expected) in [
        (&[][..], x("X", &["SE"], 1)),
        (&[("SERVICES__X__APP", "1234")], x("1234", &["SE"], 1)),
        (&[("SERVICES__X__APP", "true")], x("true", &["SE"], 1)),
        (&[("SERVICES__X__APP", "1.10")], x("1.10", &["SE"], 1)),
        (
            &[("SERVICES__X__APP", "2026-11-28")],
            x("2026-11-28", &["SE"], 1),
        ),
        (&[("SERVICES__X__APP", "[a]")], x("[a]", &["SE"], 1)),
        (&[("SERVICES__X__APP", "[1]")], x("[1]", &["SE"], 1)),
        (&[("SERVICES__X__APP", "\"1234\"")], x("1234", &["SE"], 1)),
        (
            &[("SERVICES__X__COUNTRIES", "DE,AT")],
            x("X", &["DE", "AT"], 1),
        ),
        (
            &[("SERVICES__X__COUNTRIES", "DE , AT")],
            x("X", &["DE", "AT"], 1),
        ),
        (&[("SERVICES__X__COUNTRIES", "DE")], x("X", &["DE"], 1)),
        (
            &[("SERVICES__X__COUNTRIES", "[\"DE\"]")],
            x("X", &["DE"], 1),
        ),
        (&[("SERVICES__X__COUNTRIES", "[]")], x("X", &[], 1)),
        // An empty variable is ignored; an empty string must be quoted.
        (
            &[
                ("SERVICES__X__COUNTRIES", ""),
                ("LOG__LEVEL", ""),
                ("SERVICES__X__SENDS", ""),
            ],
            x("X", &["SE"], 1),
        ),
        (&[("SERVICES__X__APP", "\"\"")], x("", &["SE"], 1)),
        // Several variables: a table is set before the keys in it.
        (
            &[
                ("SERVICES__X__APP", "7"),
                ("SERVICES__X__COUNTRIES", "DE"),
                ("SERVICES__X", "{ sends = 3 }"),
            ],
            x("7", &["DE"], 3),
        ),
    ] {
        let read = texts(variables).map(|texts| texts.services["x"].app.clone());
        assert_eq!(read, Ok(expected.app.clone()), "{variables:?}");
        assert_eq!(
            texts(variables).unwrap().services["x"],
            expected,
            "{variables:?}"
        );
    }
}

#[test]
fn an_error_of_a_variable_names_it() {
    for (variables, key, variable) in [
        (
            &[("LOG__LEVEL", "INFO")][..],
            "log.level",
            Some("LOG__LEVEL"),
        ),
        (&[("LOG__LEVEL", "3")], "log.level", Some("LOG__LEVEL")),
        (&[("LOG__LEVLE", "info")], "log.levle", Some("LOG__LEVLE")),
        (&[("LGO__LEVEL", "info")], "lgo", Some("LGO__LEVEL")),
        (
            &[("SERVICES__X__SENDS", "-1")],
            "services.x.sends",
            Some("SERVICES__X__SENDS"),
        ),
        (
            &[("SERVICES__X__SENDS", "300")],
            "services.x.sends",
            Some("SERVICES__X__SENDS"),
        ),
        (
            &[("SERVICES__X__SENDS", "many")],
            "services.x.sends",
            Some("SERVICES__X__SENDS"),
        ),
        (
            &[("SERVICES__X__COUNTRIES", "[1]")],
            "services.x.countries[0]",
            Some("SERVICES__X__COUNTRIES"),
        ),
        (
            &[("SERVICES__X", "{ sends = 300 }")],
            "services.x.sends",
            Some("SERVICES__X"),
        ),
        (
            &[("SERVICES__X__APP__Y", "a")],
            "services.x.app.y",
            Some("SERVICES__X__APP__Y"),
        ),
        (
            &[("SERVICES__X__APP", "a"), ("LOG__LEVEL", "INFO")],
            "log.level",
            Some("LOG__LEVEL"),
        ),
    ] {
        let (error, found) = texts(variables).unwrap_err();
        assert_eq!(error.key, key, "{variables:?}: {error}");
        let variable = variable.map(|name| format!("WATCHWORD_{name}"));
        assert_eq!(found, variable, "{variables:?}: {error}");
        assert!(
            !error.problem.is_empty() && !error.problem.contains("300"),
            "{error}"
        );
    }
    // An error about another key, or about the parent of the key that a variable sets, is in the
    // file.
    let other = |key: &str| {
        variable_of(
            &ConfigError::new(key, "is wrong"),
            [("WATCHWORD_LOG__LEVEL".to_owned(), "info".to_owned())].into_iter(),
        )
    };
    assert_eq!(other("log.levels"), None);
    assert_eq!(other("log"), None);
    assert_eq!(
        other("log.level.x"),
        Some("WATCHWORD_LOG__LEVEL".to_owned())
    );
}

use super::*;

const TEXT: &str = "mail.txt";
const SUBJECT: &str = "mail.subject.txt";
const EMBEDDED: [Embedded; 4] = [
    ("en/mail.txt", "code {{ code }}"),
    ("en/mail.subject.txt", "your code"),
    ("sv/mail.txt", "kod {{ code }}"),
    ("sv/mail.subject.txt", "din kod"),
];

fn load(files: &[(&str, &str)]) -> Result<Templates, TemplateError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Templates::load(&EMBEDDED, &[TEXT, SUBJECT], Some(folder.path()))
}

fn dispatch(locale: &str, remaining: u64, variables: &[(&str, &str)]) -> Dispatch {
    let sender = Sender {
        app: "App".to_owned(),
        host: None,
    };
    let pairs = variables.iter();
    let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Dispatch {
        locale: locale.parse().ok(),
        variables: Variables::new(pairs.collect()).unwrap(),
        ..Dispatch::sample(&sender, 6, Duration::from_secs(remaining)).unwrap()
    }
}

fn text(templates: &Templates, file: &'static str, locale: &str, remaining: u64) -> String {
    templates
        .render(file, &dispatch(locale, remaining, &[]))
        .unwrap()
}

fn refusal(files: &[(&str, &str)]) -> String {
    load(files).err().unwrap().to_string()
}

#[test]
fn a_text_without_the_code_and_a_subject_with_it_are_refused_by_name() {
    for (files, message) in [
        (&[("en/mail.txt", "hello")][..], "en/mail.txt does not show"),
        (
            &[("sv/mail.txt", "{% if seconds > 60 %}{{ code }}{% endif %}")],
            "sv/mail.txt does",
        ),
        (
            &[("en/mail.subject.txt", "{{ code }}")],
            "en/mail.subject.txt shows",
        ),
        (
            &[("no/mail.txt", "{{ code }}"), ("nb/mail.txt", "{{ code }}")],
            "locale nb",
        ),
    ] {
        let error = refusal(files);
        assert!(error.contains(message), "{error}");
    }
    let grouped = load(&[("en/mail.txt", "{{ code[:3] }} {{ code[3:] }}")]).unwrap();
    assert_eq!(text(&grouped, TEXT, "en", 300), "012 345");
}

#[test]
fn an_undefined_name_is_refused_with_its_line() {
    for (source, message) in [
        ("{{ cod }}", "en/mail.txt, line 1: `cod` is not defined"),
        (
            "minuts {{ code }}\n{{ minutes }} {{\n minuts }}",
            "en/mail.txt, line 3: `minuts` is not defined",
        ),
        (
            "{{ code }}\n{% if vip %}!{% endif %}",
            "line 2: `vip` is not defined",
        ),
        (
            "{# variables: amount #}{{ code }}\n{{ amout }}",
            "line 2: `amout` is not defined",
        ),
        (
            "{# variables: code #}{{ code }}",
            "line 1: `code` is not a valid variable name",
        ),
        ("{{ code }}\n{{ code", "line 2: syntax error"),
        ("{{ code }}\n{{ code.first }}", "line 2: undefined value"),
    ] {
        let error = refusal(&[("en/mail.txt", source)]);
        assert!(error.contains(message), "{error}");
    }
    let error = refusal(&[("en/mail.txt", "{{ code }} {{ amount }}")]);
    assert!(error.contains("{# variables: amount #}"), "{error}");
    let many: Vec<_> = (0..9).map(|n| format!("v{n}")).collect();
    let (names, uses) = (many.join(","), many.join(" }}{{ "));
    let many = format!("{{# variables: {names} #}}{{{{ code }}}}{{{{ {uses} }}}}");
    let error = refusal(&[("en/mail.txt", &many)]);
    assert!(error.contains("uses 9 variables"), "{error}");
}

#[test]
fn a_declaration_leaves_nothing_in_the_text() {
    let source = "{# variables: amount, #}\n{# a note #}{% set n = range(2) %}{{ code }} {{ amount }}\n\
                  {#- variables: payee -#}\n {{ payee }}";
    let templates = load(&[("en/mail.txt", source)]).unwrap();
    let dispatch = dispatch("en", 300, &[("amount", "1 EUR"), ("payee", "Ann")]);
    let text = templates.render(TEXT, &dispatch).unwrap();
    assert_eq!(text, "012345 1 EURAnn");
}

/// A template may show the code under a condition that samples meet and a request does not.
#[test]
fn a_rendering_without_the_code_is_an_error() {
    let source = "{# variables: vip #}{% if vip == \"1\" %}{{ code }}{% endif %} hello";
    let templates = load(&[("en/mail.txt", source)]).unwrap();
    let shown = dispatch("en", 300, &[("vip", "1")]);
    assert!(templates.render(TEXT, &shown).is_ok() && templates.check(&shown).is_ok());
    let hidden = dispatch("en", 300, &[("vip", "no")]);
    for error in [
        templates.render(TEXT, &hidden).unwrap_err(),
        templates.check(&hidden).unwrap_err(),
    ] {
        let is_named = matches!(&error, TemplateError::NoCode { name } if name == "en/mail.txt");
        assert!(is_named, "{error}");
    }
    let subject = "{# variables: vip #}{% if vip == \"no\" %}{{ code }}{% endif %}";
    let templates = load(&[("en/mail.subject.txt", subject)]).unwrap();
    assert!(templates.check(&shown).is_ok());
    let error = templates.check(&hidden).unwrap_err();
    assert!(
        matches!(&error, TemplateError::CodeInSubject { name } if name == "en/mail.subject.txt"),
        "{error}"
    );
}

/// Samples use a code that no variable's value contains, so that digits of a value do not pass as
/// the code.
#[test]
fn a_sample_code_is_in_no_value() {
    let subject = "{# variables: order #}{{ order }}";
    let templates = load(&[("en/mail.subject.txt", subject)]).unwrap();
    let bare = dispatch("en", 300, &[]);
    for value in ["order 0123456", "01-23 45", "012345 123456 234567"] {
        let order = dispatch("en", 300, &[("order", value)]).variables;
        templates.check(&bare.clone().bringing(order)).unwrap();
    }
}

#[test]
fn a_message_is_of_one_language() {
    let templates = load(&[
        ("da/mail.txt", "kode {{ code }}"),
        ("sv-FI/mail.txt", "finlandssvensk {{ code }}"),
        ("zh-TW/mail.txt", "{{ code }}"),
        ("zh-TW/mail.subject.txt", "TW"),
    ])
    .unwrap();
    assert_eq!(templates.locales(), ["en", "sv", "zh-hant-tw"]);
    assert_eq!(templates.missing_files("da"), [SUBJECT]);
    for (locale, body, subject) in [
        ("da", "code 012345", "your code"),
        ("sv-FI", "kod 012345", "din kod"),
        ("zh-Hant-TW", "012345", "TW"),
        ("zh-CN", "code 012345", "your code"),
    ] {
        assert_eq!(text(&templates, TEXT, locale, 300), body, "{locale}");
        assert_eq!(text(&templates, SUBJECT, locale, 300), subject, "{locale}");
    }
}

#[test]
fn times_are_rounded_down_and_a_byte_order_mark_is_cut() {
    let source = "\u{feff}{{ code }} {{ minutes }} {{ seconds }}";
    let templates = load(&[("en/mail.txt", source)]).unwrap();
    for (remaining, expected) in [
        (600, "012345 10 600"),
        (299, "012345 5 299"),
        (290, "012345 5 290"),
        (289, "012345 4 289"),
        (119, "012345 2 119"),
        (109, "012345 1 109"),
        (49, "012345 0 49"),
    ] {
        assert_eq!(text(&templates, TEXT, "en", remaining), expected);
    }
}

#[test]
fn a_missing_variable_is_named() {
    let source = "{# variables: amount, payee #}{{ code }} {{ amount }} till {{ payee }}";
    let templates = load(&[("sv/mail.txt", source)]).unwrap();
    assert!(templates.uses_variables("sv".parse().ok().as_ref()));
    assert!(!templates.uses_variables(None));
    let dispatch = dispatch("sv", 300, &[("amount", "1 EUR")]);
    let error = templates.render(TEXT, &dispatch).unwrap_err();
    let is_named =
        matches!(error, TemplateError::MissingVariable { variable, .. } if variable == "payee");
    assert!(is_named);
}

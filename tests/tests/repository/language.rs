//! The language of comments and documents: the rules of CONVENTIONS.md that a count can hold.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Words that take the place of a concrete subject, and how often each 1,000 words may have them.
/// Measured code bases of the field have 0.2 to 0.7 "what", and the others next to never.
const RARE: [(&str, f64); 4] = [
    ("what", 2.0),
    ("whoever", 0.2),
    ("nobody", 0.2),
    ("anew", 0.2),
];

/// A sentence that begins so has no concrete subject.
const OPENERS: [&str; 4] = ["What", "Whoever", "Of", "One"];

/// Phrases of our own, and the field's.
const HOUSE: [(&str, &str); 13] = [
    ("as told", "as configured, as requested"),
    ("closed off", "open (a circuit)"),
    ("errand", "job"),
    ("from before", "earlier"),
    ("mended", "fixed"),
    ("no more than that", "only that"),
    ("of before", "earlier"),
    ("of none", "without"),
    ("of ours", "our"),
    ("put aside", "dead-lettered"),
    ("read anew", "reloaded"),
    ("rung", "retry delay"),
    ("thereof", "of it"),
];

/// The text of a file that people read: a paragraph each, with its first line.
struct Prose {
    file: PathBuf,
    paragraphs: Vec<(usize, String)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of the repository, without those that git ignores.
fn files() -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = command.current_dir(root()).output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(PathBuf::from).collect()
}

/// Splits lines into paragraphs. `text` returns the part of a line that people read.
fn paragraphs<'a>(
    lines: impl Iterator<Item = &'a str>,
    mut text: impl FnMut(&'a str) -> Option<&'a str>,
) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::<(usize, String)>::new(), false);
    for (index, line) in lines.enumerate() {
        let part = text(line).map(str::trim).filter(|part| !part.is_empty());
        let begins = |part: &str| part.starts_with(['-', '*', '#', '|', '>']);
        match (part, found.last_mut()) {
            (Some(part), Some((_, paragraph))) if open && !begins(part) => {
                paragraph.push(' ');
                paragraph.push_str(part);
            }
            (Some(part), _) => found.push((index + 1, part.to_owned())),
            (None, _) => {}
        }
        open = part.is_some();
    }
    found
}

/// The comments of Rust code.
fn comments(code: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    paragraphs(code.lines(), |line| {
        let comment = line.trim_start().strip_prefix("//")?;
        let comment = comment.trim_start_matches(['/', '!']);
        if comment.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some(comment)
    })
}

/// The prose of a Markdown document, without code and quotations of output.
fn markdown(document: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    paragraphs(document.lines(), |line| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced && !line.starts_with("    ")).then_some(line)
    })
}

/// `text` without what stands in backticks: names and code.
fn without_code(text: &str) -> String {
    let parts = text.split('`').step_by(2);
    parts.collect::<Vec<_>>().join("_")
}

fn prose(extension: &str) -> Vec<Prose> {
    let wanted = files().into_iter();
    wanted
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .filter(|file| !file.ends_with("tests/tests/repository/language.rs"))
        .filter_map(|file| {
            let text = std::fs::read_to_string(root().join(&file)).ok()?;
            let read = if extension == "rs" {
                comments
            } else {
                markdown
            };
            let paragraphs = read(&text).into_iter();
            let paragraphs = paragraphs.map(|(line, text)| (line, without_code(&text)));
            let paragraphs = paragraphs.collect();
            Some(Prose { file, paragraphs })
        })
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphabetic() && c != '\'');
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The sentences of a paragraph, without the marks of a list, a heading or a table.
fn sentences(paragraph: &str) -> impl Iterator<Item = &str> {
    let cells = paragraph.split(" | ");
    let sentences = cells.flat_map(|cell| cell.split(". "));
    sentences.map(|sentence| sentence.trim_start_matches(['-', '*', '#', '|', '>', ' ', '(']))
}

#[test]
fn words_without_a_subject_are_rare() {
    for extension in ["rs", "md"] {
        let prose = prose(extension);
        let paragraphs = || prose.iter().flat_map(|prose| &prose.paragraphs);
        let all: Vec<_> = paragraphs().flat_map(|(_, text)| words(text)).collect();
        assert!(
            all.len() > 10_000,
            "only {} words in *.{extension}",
            all.len()
        );
        for (rare, most) in RARE {
            let found = all.iter().filter(|word| *word == rare).count();
            #[expect(clippy::cast_precision_loss, reason = "counts of words")]
            let rate = found as f64 * 1_000.0 / all.len() as f64;
            assert!(
                rate <= most,
                "*.{extension}: {rate:.2} {rare:?} in 1,000 words, at most {most}: {}",
                places(&prose, rare)
            );
        }
    }
}

/// The files with the most of `word`.
fn places(prose: &[Prose], word: &str) -> String {
    let mut counts: Vec<_> = prose
        .iter()
        .map(|prose| {
            let all = prose.paragraphs.iter().flat_map(|(_, text)| words(text));
            (all.filter(|found| found == word).count(), &prose.file)
        })
        .collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let most = counts.iter().take(20);
    let most = most.map(|(count, file)| format!("{} {count}", file.display()));
    most.collect::<Vec<_>>().join(", ")
}

#[test]
fn sentences_begin_with_their_subject() {
    let mut found = Vec::new();
    for Prose { file, paragraphs } in [prose("rs"), prose("md")].iter().flatten() {
        for (line, text) in paragraphs {
            let opens = |sentence: &&str| {
                let first = sentence.split([' ', ',']).next();
                first.is_some_and(|word| OPENERS.contains(&word)) && !is_question(sentence)
            };
            let headless = sentences(text).filter(opens);
            found.extend(headless.map(|text| format!("{}:{line}: {text}", file.display())));
        }
    }
    assert!(
        found.is_empty(),
        "{} sentences:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// A question may begin with its question word.
fn is_question(sentence: &str) -> bool {
    sentence.contains('?')
}

#[test]
fn the_words_of_the_field_are_used() {
    let mut found = Vec::new();
    for Prose { file, paragraphs } in [prose("rs"), prose("md")].iter().flatten() {
        for (line, text) in paragraphs {
            let text = format!(" {} ", words(text).collect::<Vec<_>>().join(" "));
            for (house, field) in HOUSE {
                if text.contains(&format!(" {house} ")) {
                    let file = file.display();
                    found.push(format!("{file}:{line}: {house:?}: write {field}"));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "{} places:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn comments_and_sentences_are_found() {
    let code = "//! One. What\n//! else\nlet a = 1; // no\n    /// Of `One. What` it.\n///\n/// ```\n/// What\n/// ```\n";
    let read = comments(code);
    assert_eq!(read[0], (1, "One. What else".to_owned()));
    assert_eq!(without_code(&read[1].1), "Of _ it.");
    assert_eq!(read.len(), 2);
    let page = markdown("# One\n\n- What is\n  it\n- two\n\n```\nWhat\n```\n");
    let texts: Vec<_> = page.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["# One", "- What is it", "- two"]);
    let found: Vec<_> = sentences("- What is. One | Of it").collect();
    assert_eq!(found, ["What is", "One", "Of it"]);
}

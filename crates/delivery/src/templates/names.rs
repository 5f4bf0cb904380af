//! The names that a template uses. Variables of requests are declared in the template, `{#
//! variables: amount, payee #}`, so that a misspelled name is found when the template is loaded.

use std::collections::BTreeSet;

use minijinja::Environment;
use watchword_core::Variables;

use super::{OWN, TemplateError};

/// The prefix of a declaration inside a comment.
const DECLARATION: &str = "variables:";

/// Returns the names that a template declares, and the template with its declarations closed by
/// `-#}`, which removes the line break after each.
pub(super) fn declared(
    name: &str,
    source: &str,
) -> Result<(String, BTreeSet<String>), TemplateError> {
    let (mut text, mut names, mut rest) = (String::new(), BTreeSet::new(), source);
    while let Some((before, after)) = rest.split_once("{#") {
        let Some((comment, behind)) = after.split_once("#}") else {
            break;
        };
        text.push_str(before);
        let body = comment.trim_matches('-').trim();
        let Some(list) = body.strip_prefix(DECLARATION) else {
            text.extend(["{#", comment, "#}"]);
            rest = behind;
            continue;
        };
        let line = text.matches('\n').count() + 1;
        for variable in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let sample = (variable.to_owned(), String::new());
            Variables::new([sample].into()).map_err(|error| TemplateError::Invalid {
                name: name.to_owned(),
                line,
                problem: format!(
                    "`{variable}` is not a valid variable name: {}",
                    error.rule()
                ),
            })?;
            names.insert(variable.to_owned());
        }
        text.extend(["{#", comment.trim_end_matches('-'), "-#}"]);
        rest = behind;
    }
    text.push_str(rest);
    Ok((text, names))
}

/// Returns the request variables that template `name` uses. Each must be in `declared`.
pub(super) fn variables(
    environment: &Environment<'_>,
    name: &str,
    declared: &BTreeSet<String>,
) -> Result<BTreeSet<String>, TemplateError> {
    let Ok(template) = environment.get_template(name) else {
        return Ok(BTreeSet::new());
    };
    let globals: BTreeSet<_> = environment.globals().map(|(name, _)| name).collect();
    let used = template.undeclared_variables(false).into_iter();
    let used: BTreeSet<_> = used
        .filter(|name| !OWN.contains(&name.as_str()) && !globals.contains(name.as_str()))
        .collect();
    let undefined = used.difference(declared);
    let first = undefined
        .map(|variable| (line_of(template.source(), variable), variable))
        .min();
    if let Some((line, variable)) = first {
        return Err(TemplateError::Undefined {
            name: name.to_owned(),
            line,
            variable: variable.clone(),
        });
    }
    if used.len() > Variables::MOST {
        return Err(TemplateError::Invalid {
            name: name.to_owned(),
            line: 1,
            problem: format!(
                "uses {} variables; a request can have at most {}",
                used.len(),
                Variables::MOST
            ),
        });
    }
    Ok(used)
}

/// Returns the first line on which `name` occurs in a tag of `source`.
fn line_of(source: &str, name: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    while let Some(start) = source[at..]
        .find("{{")
        .into_iter()
        .chain(source[at..].find("{%"))
        .min()
    {
        let start = at + start;
        let tag = &source[start..];
        let end = tag.find("}}").into_iter().chain(tag.find("%}")).min();
        let end = start + end.map_or(tag.len(), |end| end + 2);
        let found = source[start..end].match_indices(name).find(|(place, _)| {
            let (before, after) = (
                &source[..start + place],
                &source[start + place + name.len()..],
            );
            !before.ends_with(is_word) && !after.starts_with(is_word)
        });
        if let Some((place, _)) = found {
            return source[..start + place].matches('\n').count() + 1;
        }
        at = end;
    }
    1
}

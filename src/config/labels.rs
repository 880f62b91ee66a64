//! `PYROSCOPE_LABELS`: labels that every profile gets, a JSON object of strings. `${NAME}` in a value is replaced by
//! that environment variable.

use crate::json::{self, Value};

use super::{Note, fail, warn};

const NAME: &str = "PYROSCOPE_LABELS";

/// Pyroscope's default limits: labels of a series, and bytes of a label's name and of its value.
const COUNT_MAX: usize = 30;
const NAME_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 2048;

/// The limit for all of them together, because each upload carries them.
const BYTES_MAX: usize = 16 << 10;

/// Names and values, without duplicate names, in their original order.
pub type Labels = Vec<(String, String)>;

pub(super) fn read(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Labels {
    let mut labels = Labels::new();
    let Some(text) = env(NAME) else {
        return labels;
    };
    let mut members = Vec::new();
    let is_object = json::object(&text, |name, value| members.push((name, value))).is_ok();
    if !is_object {
        let problem = "is not a JSON object of strings, no labels are added";
        fail(notes, NAME, problem.to_owned());
        return labels;
    }
    for (name, value) in &members {
        let problem = match value {
            Value::String(value) => add(&mut labels, name, &expand(value, env)),
            _ => Err("is not a string"),
        };
        if let Err(problem) = problem {
            let problem = format!("the label \"{name}\" {problem}, it is left out");
            warn(notes, NAME, problem);
        }
    }
    labels
}

fn add(labels: &mut Labels, name: &str, value: &str) -> Result<(), &'static str> {
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        let starts = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
    };
    let value = value.trim_ascii();
    if !is_name(name) || name.len() > NAME_BYTES_MAX {
        return Err("has no good name: letters, digits and underscores");
    }
    if name.starts_with("__") {
        return Err("begins with two underscores, as the server's own do");
    }
    if value.is_empty() {
        return Err("has no value");
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err("has a value of more than 2048 bytes");
    }
    // These end a value in the name that /ingest takes.
    if value.contains([',', '}']) || value.chars().any(char::is_control) {
        return Err("has a comma, a closing brace or a control character in its value");
    }
    let all = labels.iter().map(|(name, value)| name.len() + value.len());
    let bytes = all.sum::<usize>() + name.len() + value.len();
    if bytes > BYTES_MAX {
        return Err("makes more than 16 KiB with those before it");
    }
    let count = labels.len();
    if let Some((_, own)) = labels.iter_mut().find(|(own, _)| own == name) {
        value.clone_into(own);
    } else if count == COUNT_MAX {
        return Err("is one more than 30");
    } else {
        labels.push((name.to_owned(), value.to_owned()));
    }
    Ok(())
}

/// The text with each `${NAME}` replaced; by nothing if the variable is not set.
fn expand(text: &str, env: &impl Fn(&str) -> Option<String>) -> String {
    let mut parts = text.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some((name, rest)) = part.split_once('}') {
            out.push_str(&env(name).unwrap_or_default());
            out.push_str(rest);
        } else {
            out.push_str("${");
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> (Vec<String>, Vec<String>) {
        let env = |name: &str| match name {
            NAME => Some(text.to_owned()),
            "AWS_LAMBDA_FUNCTION_VERSION" => Some("42".to_owned()),
            "LONG" => Some("x".repeat(2049)),
            "LIST" => Some("a,b".to_owned()),
            _ => None,
        };
        let mut notes = Vec::new();
        let labels = read(&env, &mut notes);
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
        let problems = notes.into_iter().map(|note| note.problem);
        (labels.collect(), problems.collect())
    }

    #[test]
    fn values_may_hold_variables() {
        for (text, expected) in [
            (r#"{"env": "prod"}"#, "env=prod"),
            (r#"{"v": "${AWS_LAMBDA_FUNCTION_VERSION}"}"#, "v=42"),
            (
                r#"{"v": "a-${AWS_LAMBDA_FUNCTION_VERSION}${NONE}-${"}"#,
                "v=a-42-${",
            ),
            (r#"{"v": " $x ${ "}"#, "v=$x ${"),
            (r#"{"a.b_C9": "1", "a.b_C9": "2"}"#, "a.b_C9=2"),
        ] {
            assert_eq!(labels(text), (vec![expected.to_owned()], vec![]), "{text}");
        }
        assert_eq!(labels("{}"), (vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_a_label_is_named_and_left_out() {
        for (text, problem) in [
            (r#"{"": "x"}"#, "the label \"\" has no good name"),
            (r#"{"1a": "x"}"#, "the label \"1a\" has no good name"),
            (r#"{"a-b": "x"}"#, "the label \"a-b\" has no good name"),
            (r#"{"é": "x"}"#, "the label \"é\" has no good name"),
            (r#"{"__name__": "x"}"#, "the label \"__name__\" begins with"),
            (r#"{"a": ""}"#, "the label \"a\" has no value"),
            (r#"{"a": "${NONE}"}"#, "the label \"a\" has no value"),
            (r#"{"a": "${LONG}"}"#, "the label \"a\" has a value of more"),
            (r#"{"a": "${LIST}"}"#, "the label \"a\" has a comma"),
            (r#"{"a": "x}y"}"#, "the label \"a\" has a comma"),
            (r#"{"a": "x\ny"}"#, "the label \"a\" has a comma"),
            (r#"{"a": 1}"#, "the label \"a\" is not a string"),
            ("x", "is not a JSON object of strings"),
            ("[]", "is not a JSON object of strings"),
        ] {
            let (labels, problems) = labels(text);
            assert_eq!(labels, [""; 0], "{text}");
            assert!(
                problems.len() == 1 && problems[0].starts_with(problem),
                "{text}: {problems:?}"
            );
        }
        let many: Vec<String> = (0..32).map(|n| format!("\"l{n}\": \"x\"")).collect();
        let (labels, problems) = labels(&format!("{{{}}}", many.join(",")));
        assert_eq!((labels.len(), problems.len()), (30, 2));
        assert_eq!(
            problems[0],
            "the label \"l30\" is one more than 30, it is left out"
        );
    }

    #[test]
    fn names_values_and_all_of_them_may_be_so_long_and_no_longer() {
        let count = |name: usize, value: usize| {
            let (name, value) = ("n".repeat(name), "v".repeat(value));
            labels(&format!("{{\"{name}\": \"{value}\"}}")).0.len()
        };
        assert_eq!((count(1024, 1), count(1025, 1)), (1, 0), "a name");
        assert_eq!((count(1, 2048), count(1, 2049)), (1, 0), "a value");
        let all = |last: usize| {
            let value = "v".repeat(2047);
            let members: Vec<String> = (0..7).map(|n| format!("\"l{n}\": \"{value}\"")).collect();
            let text = format!(
                "{{{}, \"m\": \"{}\"}}",
                members.join(", "),
                "v".repeat(last)
            );
            labels(&text)
        };
        // Names of two bytes, values of 2,047: seven of them leave 2,041 of the 16 KiB.
        assert_eq!(all(2040).0.len(), 8);
        let (labels, problems) = all(2041);
        assert_eq!(labels.len(), 7);
        assert_eq!(
            problems,
            ["the label \"m\" makes more than 16 KiB with those before it, it is left out"]
        );
    }
}

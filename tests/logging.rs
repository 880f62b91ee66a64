//! Do settings and log lines mean and look what Go and logrus make of them? The expected values come from Go itself:
//! tests/go/ says how.

mod support;

use std::borrow::Cow;
use std::time::Duration;

use nix::sys::signal::Signal;
use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::json;
use pyroscope_lambda_extension::log::{Level, Log, Value, time};
use support::pyroscope::Pyroscope;
use support::sandbox::Sandbox;

/// One line of the expected values; every value is a string.
struct Case(Vec<(String, String)>);

impl Case {
    fn find(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.iter();
        fields
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    #[track_caller]
    fn get(&self, name: &str) -> &str {
        self.find(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }
}

/// The fields of a JSON object, strings and numbers alike.
fn object(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let read = json::object(line, |name, value| {
        let value = match value {
            json::Value::String(text) => text,
            json::Value::Number(digits) => Cow::Borrowed(digits),
            json::Value::Nested(_) | json::Value::Other => {
                panic!("{name} is neither string nor number in {line}")
            }
        };
        fields.push((name.into_owned(), value.into_owned()));
    });
    assert_eq!(read, Ok(()), "{line}");
    fields
}

/// Hands every case of a kind to `differs`, which says what we make of it where that is not what Go makes.
#[track_caller]
fn compare(kind: &str, at_least: usize, differs: impl Fn(&Case) -> Option<String>) {
    let all = include_str!("go/expected.jsonl").lines();
    let cases: Vec<Case> = all
        .map(|line| Case(object(line)))
        .filter(|case| case.get("kind") == kind)
        .collect();
    assert!(cases.len() >= at_least, "{} cases of {kind}", cases.len());
    let differing: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{:?}\n  ours: {}", case.0, differs(case)?)))
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} differ:\n{}",
        differing.len(),
        cases.len(),
        differing.join("\n")
    );
}

fn unlike<T: PartialEq + std::fmt::Debug>(ours: &T, theirs: &T) -> Option<String> {
    (ours != theirs).then(|| format!("{ours:?}"))
}

fn config(variables: &[(&str, &str)]) -> Config {
    Config::read(|name| {
        let mut same = variables.iter().filter(|(other, _)| *other == name);
        same.next().map(|(_, value)| (*value).to_owned())
    })
}

fn level(word: &str) -> Level {
    Level::parse(word).expect("a level")
}

#[test]
fn layouts() {
    compare("layout", 300, |case| {
        let mut ours = Vec::new();
        let unix_ms = case.get("unix_ms").parse().expect("a time");
        time::write(&mut ours, case.get("layout"), unix_ms);
        unlike(&String::from_utf8_lossy(&ours).as_ref(), &case.get("want"))
    });
}

#[test]
fn lines() {
    compare("line", 200, |case| {
        let mut fields: Vec<(&str, Value)> = Vec::new();
        for (name, value) in &case.0 {
            if let Some(name) = name.strip_prefix("text:") {
                fields.push((name, value.into()));
            } else if let Some(name) = name.strip_prefix("number:") {
                fields.push((name, value.parse::<u64>().expect("a number").into()));
            }
        }
        fields.sort_by_key(|(name, _)| *name);
        let ours = |form: &str| {
            let format = config(&[
                ("PYROSCOPE_LOG_FORMAT", form),
                ("PYROSCOPE_LOG_TIMESTAMP_FORMAT", case.get("layout")),
                ("PYROSCOPE_LOG_TIMESTAMP_DISABLE", case.get("no_time")),
                ("PYROSCOPE_LOG_TIMESTAMP_FIELD_NAME", case.get("time_name")),
                ("PYROSCOPE_LOG_LEVEL_FIELD_NAME", case.get("level_name")),
                ("PYROSCOPE_LOG_MSG_FIELD_NAME", case.get("msg_name")),
                (
                    "PYROSCOPE_LOG_LOGRUS_ERROR_FIELD_NAME",
                    case.get("error_name"),
                ),
                ("PYROSCOPE_LOG_FUNC_FIELD_NAME", case.get("func_name")),
                ("PYROSCOPE_LOG_FILE_FIELD_NAME", case.get("file_name")),
            ])
            .log_format;
            let mut log = Log::in_format(Level::Trace, format);
            let unix_ms = case.get("unix_ms").parse().expect("a time");
            log.line(level(case.get("level")), unix_ms, case.get("msg"), &fields);
            String::from_utf8(log.take().clone()).expect("UTF-8")
        };
        ["text", "json"].iter().find_map(|form| {
            let theirs = case.find(&format!("want_{form}"))?;
            let ours = ours(form);
            if ours == with_selectors_escaped(theirs) {
                return None;
            }
            unlike(&ours.as_str(), &theirs)
        })
    });
}

/// A known difference: a later Rust than the 1.95 of the releases escapes the variation selectors from U+E0100 on,
/// which Go prints. 1.99 does.
fn with_selectors_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\u{e0100}'..='\u{e01ef}' => escaped.push_str(&format!("\\U{:08x}", c as u32)),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A known difference: characters that came after Unicode 15, which is Go's. U+1C89 came with 16.
#[test]
fn characters_newer_than_gos_are_not_escaped() {
    let mut log = Log::new(Level::Info);
    log.line(Level::Info, 0, "\u{1c89}", &[]);
    let line = String::from_utf8_lossy(log.take()).into_owned();
    assert!(line.ends_with(" msg=\"\u{1c89}\"\n"), "{line}");
}

#[test]
fn durations() {
    compare("duration", 100, |case| {
        // An empty variable is an unset one.
        let text = Some(case.get("text")).filter(|text| !text.is_empty())?;
        let ours = config(&[("PYROSCOPE_TIMEOUT", text)]);
        // A timeout below zero is no timeout, and zero is the default without a word.
        let theirs = match case.get("want").parse::<i64>() {
            Ok(0) => (Duration::from_secs(10), 0),
            Ok(ns @ 1..) => (Duration::from_nanos(ns.unsigned_abs()), 0),
            Ok(_) | Err(_) => (Duration::from_secs(10), 1),
        };
        unlike(&(ours.timeout, ours.notes.len()), &theirs)
    });
}

#[test]
fn integers() {
    compare("integer", 30, |case| {
        let ours = config(&[("PYROSCOPE_NUM_WORKERS", case.get("text"))]);
        let theirs = match case.get("want").parse::<i64>() {
            Ok(0) => (5, 0),
            Ok(n @ 1..=64) => (usize::try_from(n).expect("small"), 0),
            Ok(65..) => (64, 1),
            Ok(_) | Err(_) => (5, 1),
        };
        unlike(&(ours.workers, ours.notes.len()), &theirs)
    });
}

#[test]
fn booleans() {
    compare("boolean", 30, |case| {
        let ours = config(&[("PYROSCOPE_DEV_MODE", case.get("text"))]);
        // What Go refuses is false.
        unlike(&ours.dev_mode, &(case.get("want") == "true"))
    });
}

/// Whether a server is reached through a proxy is for `golang.org/x/net/http/httpproxy` to say.
#[test]
fn proxies() {
    compare("proxy", 500, |case| {
        let set = config(&[
            ("PYROSCOPE_REMOTE_ADDRESS", case.get("remote")),
            ("HTTPS_PROXY", case.get("address")),
            ("NO_PROXY", case.get("exceptions")),
        ]);
        let proxy = set.remote.expect("a server").proxy;
        let ours = proxy.map_or_else(Default::default, |proxy| {
            let connect = String::from_utf8(proxy.connect).expect("a head in UTF-8");
            let credentials = connect.split_once("\r\nProxy-Authorization: ");
            let credentials = credentials.map_or("", |(_, rest)| rest.trim_end());
            (proxy.host, proxy.port.to_string(), credentials.to_owned())
        });
        let theirs = ["host", "port", "credentials"].map(|name| case.get(name).to_owned());
        unlike(&ours, &theirs.into())
    });
}

#[test]
fn every_log_setting_at_once() {
    let server = Pyroscope::http();
    let mut extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LOG_LEVEL", "DEBUG")
        .set("PYROSCOPE_LOG_FORMAT", "json")
        .set(
            "PYROSCOPE_LOG_TIMESTAMP_FORMAT",
            "<Mon Jan _2 15:04:05,000 MST 2006>",
        )
        .set("PYROSCOPE_LOG_TIMESTAMP_FIELD_NAME", "@timestamp")
        .set("PYROSCOPE_LOG_LEVEL_FIELD_NAME", "severity")
        .set("PYROSCOPE_LOG_MSG_FIELD_NAME", "svc")
        .set("PYROSCOPE_NUM_WORKERS", "a <few>")
        .start();
    extension.wait_log("Starting relay");
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);

    let log = extension.log();
    let lines: Vec<Vec<(String, String)>> = log.lines().map(object).collect();
    for line in &lines {
        assert!(line.is_sorted(), "{line:?}");
        let get = |name| {
            let field = line.iter().find(|(other, _)| other == name);
            field.map_or("", |(_, value)| value)
        };
        let stamp = get("@timestamp");
        assert!(
            stamp.len() == "<Mon Jan _2 15:04:05,000 MST 2006>".len() && stamp.contains(" UTC 20"),
            "{stamp}"
        );
        assert!(["debug", "info", "warning"].contains(&get("severity")));
        assert_eq!(get("fields.svc"), "pyroscope-lambda-ext-main");
        for default in ["time", "level", "msg"] {
            assert_eq!(get(default), "", "{line:?}");
        }
    }
    for part in [
        r#""svc":"Starting relay""#,
        r#""svc":"Relay closed""#,
        r#"{"@timestamp":"\u003c"#,
        r#" 20"#,
        r#"\u003cfew\u003e"#,
        r#""acknowledged":0,"#,
    ] {
        assert!(log.contains(part), "no {part} in\n{log}");
    }
}

#[test]
fn text_without_timestamps() {
    let server = Pyroscope::http();
    let mut extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LOG_FORMAT", "JSON")
        .set("PYROSCOPE_LOG_TIMESTAMP_DISABLE", "T")
        .set("PYROSCOPE_LOG_MSG_FIELD_NAME", "message")
        .start();
    let line = extension.wait_log("Starting relay");
    assert!(
        line.starts_with(r#"level=info message="Starting relay" address="127.0.0.1:"#),
        "{line}"
    );
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
}

//! Does every setting mean what it means in the extension we replace? One table for each; the form of log lines has
//! its own in logging.rs, with every case from Go itself.
//!
//! What a value means is asked of [`Config::read`]. What is said about a bad one is asked of the binary: of the one
//! that is shipped, too, with EXTENSION_BINARY.
//!
//! | file | what it tries |
//! |---|---|
//! | `all` | which settings there are, and all of them at once |
//! | `words` | settings that are a word: booleans, levels, formats |
//! | `flush` | the flush modes |
//! | `numbers` | durations, counts, bytes |
//! | `addresses` | the server's address, the local one, Lambda's |
//! | `network` | proxies and trusted roots |
//! | `headers` | credentials, the tenant, headers of the settings |
//! | `bench` | whether a secret in the log would be seen |

mod addresses;
mod all;
mod bench;
mod flush;
mod headers;
mod network;
mod numbers;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::sync::{Mutex, PoisonError};

use pyroscope_lambda_extension::config::Config;
use support::sandbox::{Extension, Sandbox};

fn config(variables: &[(&str, &str)]) -> Config {
    Config::read(|name| {
        let mut same = variables.iter().filter(|(other, _)| *other == name);
        same.next().map(|(_, value)| (*value).to_owned())
    })
}

/// A configuration with one variable set, and what is noted about it.
fn with(name: &'static str, value: &str) -> (Config, Vec<String>) {
    let config = config(&[(name, value)]);
    assert!(config.notes.iter().all(|note| note.variable == name));
    let notes = config.notes.iter().map(|note| note.problem.clone());
    let notes = notes.collect();
    (config, notes)
}

/// Starts the binary with these settings, on its own and relaying to nobody who answers.
fn alone(settings: &[(&str, &str)]) -> Extension {
    let quiet = Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_REMOTE_ADDRESS", "http://127.0.0.1:9");
    let set = |sandbox: Sandbox, &(name, value): &(&str, &str)| sandbox.set(name, value);
    settings.iter().fold(quiet, set).start()
}

/// Held by a test while its extension listens on the default port: there is one on the machine.
static DEFAULT_PORT: Mutex<()> = Mutex::new(());

/// What the binary says about its settings: all of it comes before it starts to relay.
#[track_caller]
fn said(settings: &[(&str, &str)]) -> Vec<String> {
    let mut names = settings.iter().map(|(name, _)| *name);
    let is_default = names.any(|name| name == "PYROSCOPE_LISTEN_ADDRESS");
    let _port = is_default.then(|| {
        let port = DEFAULT_PORT.lock();
        // A test that failed has let go of it, too.
        port.unwrap_or_else(PoisonError::into_inner)
    });
    let extension = alone(settings);
    extension.wait_log("Starting relay");
    let lines = extension.log_with(&["variable="]);
    let without_time = |line: &String| line.split_once(" level=").map(|(_, rest)| rest.to_owned());
    lines.iter().filter_map(without_time).collect()
}

/// The lines, one for each problem, in the words of a log.
fn lines(level: &str, variable: &str, problems: &[&str]) -> Vec<String> {
    let msg = match level {
        "error" => "Unusable setting",
        _ => "Bad setting",
    };
    let line = |problem: &&str| {
        let problem = problem.replace('\\', r"\\").replace('"', r#"\""#);
        format!(
            r#"{level} msg="{msg}" problem="{problem}" svc=pyroscope-lambda-ext-main variable={variable}"#
        )
    };
    problems.iter().map(line).collect()
}

/// A bad value costs one line, which says so, and is as good as no value.
#[track_caller]
fn expect_default(name: &'static str, value: &str, problem: &str) {
    let (mut read, _) = with(name, value);
    read.notes.clear();
    assert_eq!(
        format!("{read:?}"),
        format!("{:?}", config(&[])),
        "{name}={value:?}"
    );
    assert_eq!(said(&[(name, value)]), lines("warning", name, &[problem]));
}

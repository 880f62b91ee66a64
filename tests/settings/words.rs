//! Settings that are a word.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use pyroscope_lambda_extension::config::{Config, FlushMode};
use pyroscope_lambda_extension::log::Level;

use crate::support::extensions_api::ExtensionsApi;
use crate::support::pyroscope::Pyroscope;
use crate::support::sandbox::Sandbox;
use crate::{alone, expect_default, with};

/// Go, `strconv.ParseBool`: "It accepts 1, t, T, TRUE, true, True, 0, f, F, FALSE, false, False. Any other value
/// returns an error", which the extension we replace takes as false. We say so.
#[test]
fn booleans() {
    type Read = fn(&Config) -> bool;
    let read: [(&str, Read); 5] = [
        ("PYROSCOPE_UNIQUE_TIMES", |config| config.unique_times),
        ("PYROSCOPE_LOG_TIMESTAMP_DISABLE", |config| {
            !config.log_format.timestamps
        }),
        ("PYROSCOPE_FLUSH_ON_INVOKE", |config| {
            config.flush_mode == FlushMode::Invoke
        }),
        ("PYROSCOPE_SELF_PROFILING", |config| config.self_profiling),
        ("PYROSCOPE_DEV_MODE", |config| config.dev_mode),
    ];
    for (name, of) in read {
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            let (config, notes) = with(name, word);
            assert_eq!((of(&config), notes.len()), (true, 0), "{name}={word}");
        }
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            let (config, notes) = with(name, word);
            assert_eq!((of(&config), notes.len()), (false, 0), "{name}={word}");
        }
        for word in [
            "yes", "on", "2", "tRUE", " true", "true ", "\"true\"", "TrUe",
        ] {
            let (config, notes) = with(name, word);
            let default = of(&Config::read(|_| None));
            assert_eq!(of(&config), default, "{name}={word}");
            let problem =
                format!("\"{word}\" is neither true nor false, using the default {default}");
            assert_eq!(notes, [problem]);
        }
    }
    // Where it says whether there is a Lambda, the word cannot be tried on its own.
    let problem =
        |default| format!("\"on\" is neither true nor false, using the default {default}");
    for (name, of) in &read[..4] {
        expect_default(name, "on", &problem(of(&Config::read(|_| None))));
    }
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_DEV_MODE", "on")
        .start();
    lambda.wait_registered();
    extension.wait_complaint(&["PYROSCOPE_DEV_MODE", "neither true nor false"]);
    assert_eq!(extension.complaints().len(), 1);
}

#[test]
fn samples() {
    for share in ["1", "0.5", ".1", "0.000001"] {
        let (_, notes) = with("PYROSCOPE_SAMPLE", share);
        assert_eq!(notes, [""; 0], "{share}");
    }
    for bad in ["0", "2", "x", "-0.5", "50%", "1e-1"] {
        let problem =
            format!("\"{bad}\" is not a number above 0 and at most 1, using the default 1");
        expect_default("PYROSCOPE_SAMPLE", bad, &problem);
    }
}

/// logrus, `ParseLevel`: `switch strings.ToLower(lvl)` over these words; for any other the extension we replace
/// stays at info. Nothing of ours is a panic or fatal: whoever asks for no more gets no line.
#[test]
fn log_levels() {
    for (word, level) in [
        ("panic", Level::Fatal),
        ("fatal", Level::Fatal),
        ("error", Level::Error),
        ("warn", Level::Warning),
        ("warning", Level::Warning),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
        ("ERROR", Level::Error),
        ("Warn", Level::Warning),
        ("tRaCe", Level::Trace),
    ] {
        let (config, notes) = with("PYROSCOPE_LOG_LEVEL", word);
        assert_eq!((config.level, notes.len()), (level, 0), "{word}");
    }
    for word in ["verbose", "err", "0", " debug", "information"] {
        let problem = format!("\"{word}\" is not a level, using the default info");
        expect_default("PYROSCOPE_LOG_LEVEL", word, &problem);
    }
}

/// The extension we replace compares with `json`, and writes text for any other word.
#[test]
fn log_formats() {
    for (word, json) in [("json", true), ("text", false), ("Text", false)] {
        let (config, notes) = with("PYROSCOPE_LOG_FORMAT", word);
        assert_eq!((config.log_format.json, notes.len()), (json, 0), "{word}");
    }
    for word in ["JSON", "jsno", " json", "logfmt"] {
        let problem = format!("\"{word}\" is neither text nor json, using the default text");
        expect_default("PYROSCOPE_LOG_FORMAT", word, &problem);
    }
}

/// A level keeps its own lines and graver ones.
#[test]
fn a_level_keeps_lines() {
    let bad = [
        ("PYROSCOPE_NUM_WORKERS", "many"),
        ("PYROSCOPE_REMOTE_ADDRESS", "nonsense"),
    ];
    for (word, kept) in [
        ("Error", &["error"][..]),
        ("WARN", &["error", "warning"]),
        ("info", &["error", "info", "warning"]),
    ] {
        let mut extension = alone(&[bad[0], bad[1], ("PYROSCOPE_LOG_LEVEL", word)]);
        extension.wait_log("PYROSCOPE_REMOTE_ADDRESS");
        extension.signal(Signal::SIGTERM);
        extension.expect_exit(0);
        let log = extension.log();
        let level = |line: &str| {
            line.split(" level=")
                .nth(1)?
                .split(' ')
                .next()
                .map(str::to_owned)
        };
        let levels: BTreeSet<String> = log.lines().filter_map(level).collect();
        assert_eq!(levels.iter().collect::<Vec<_>>(), kept, "{word}:\n{log}");
    }
    for word in ["panic", "FATAL"] {
        let lambda = ExtensionsApi::start();
        let mut extension = Sandbox::new()
            .lambda(&lambda)
            .set("PYROSCOPE_REMOTE_ADDRESS", "nonsense")
            .set("PYROSCOPE_LOG_LEVEL", word)
            .start();
        lambda.shutdown(Duration::from_secs(2));
        extension.expect_exit(0);
        assert_eq!(extension.log(), "", "{word}");
    }
}

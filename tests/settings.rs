//! Does every setting mean what it means in the extension we replace? One table for each; the form of log lines has
//! its own in logging.rs, with every case from Go itself.
//!
//! What a value means is asked of [`Config::read`]. What is said about a bad one is asked of the binary: of the one
//! that is shipped, too, with EXTENSION_BINARY.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use pyroscope_lambda_extension::config::{Config, FlushMode};
use pyroscope_lambda_extension::log::Level;
use support::certificates::Authority;
use support::client::{Client, with_length};
use support::extensions_api::ExtensionsApi;
use support::play::{Gate, Play};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{Extension, ReservedPort, Sandbox};

/// All there are.
const ALL: [&str; 36] = [
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_RUNTIME_API",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PYROSCOPE_AUTH_TOKEN",
    "PYROSCOPE_BASIC_AUTH_PASSWORD",
    "PYROSCOPE_BASIC_AUTH_USER",
    "PYROSCOPE_BUFFER_BYTES",
    "PYROSCOPE_DEV_MODE",
    "PYROSCOPE_FLUSH_MODE",
    "PYROSCOPE_FLUSH_ON_INVOKE",
    "PYROSCOPE_HTTP_HEADERS",
    "PYROSCOPE_LABELS",
    "PYROSCOPE_LISTEN_ADDRESS",
    "PYROSCOPE_LOG_FILE_FIELD_NAME",
    "PYROSCOPE_LOG_FORMAT",
    "PYROSCOPE_LOG_FUNC_FIELD_NAME",
    "PYROSCOPE_LOG_LEVEL",
    "PYROSCOPE_LOG_LEVEL_FIELD_NAME",
    "PYROSCOPE_LOG_LOGRUS_ERROR_FIELD_NAME",
    "PYROSCOPE_LOG_MSG_FIELD_NAME",
    "PYROSCOPE_LOG_TIMESTAMP_DISABLE",
    "PYROSCOPE_LOG_TIMESTAMP_FIELD_NAME",
    "PYROSCOPE_LOG_TIMESTAMP_FORMAT",
    "PYROSCOPE_NUM_WORKERS",
    "PYROSCOPE_REMOTE_ADDRESS",
    "PYROSCOPE_SAMPLE",
    "PYROSCOPE_SELF_PROFILING",
    "PYROSCOPE_TENANT_ID",
    "PYROSCOPE_TIMEOUT",
    "PYROSCOPE_UNIQUE_TIMES",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "https_proxy",
    "no_proxy",
];

/// These name fields that the extension we replace never writes: there is nothing to read them for.
const UNREAD: [&str; 2] = [
    "PYROSCOPE_LOG_FILE_FIELD_NAME",
    "PYROSCOPE_LOG_FUNC_FIELD_NAME",
];

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

/// What the binary says about its settings: all of it comes before it starts to relay.
#[track_caller]
fn said(settings: &[(&str, &str)]) -> Vec<String> {
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

// What there is.

/// Whoever adds a setting adds it here, and to the tests below.
#[test]
fn all_are_known_here() {
    let asked = RefCell::new(BTreeSet::new());
    Config::read(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    });
    let asked = asked.into_inner();
    let known: BTreeSet<String> = ALL.iter().map(|&name| name.to_owned()).collect();
    let unread: Vec<&String> = known.difference(&asked).collect();
    assert_eq!(unread, UNREAD);
    assert!(asked.is_subset(&known), "{asked:?}");
}

/// Go's `os.Getenv` tells empty and unset apart as little as the extension we replace does.
#[test]
fn empty_is_unset() {
    let unset = config(&[]);
    assert_eq!(unset.notes, []);
    let all_empty: Vec<(&str, &str)> = ALL.iter().map(|&name| (name, "")).collect();
    assert_eq!(format!("{:?}", config(&all_empty)), format!("{unset:?}"));
}

#[test]
fn defaults() {
    let unset = config(&[]);
    assert_eq!(unset.level, Level::Info);
    assert_eq!(
        (unset.timeout, unset.workers, unset.buffer_bytes),
        (Duration::from_secs(10), 5, 16 << 20)
    );
    assert!(unset.flush_mode == FlushMode::None && !unset.self_profiling && !unset.dev_mode);
    assert_eq!((&unset.runtime_api, &unset.ca_file), (&None, &None));
    assert_eq!(unset.ca_directories, [""; 0]);
    let listen: Vec<String> = unset.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:4040", "[::1]:4040"]);
    let remote = unset.remote.expect("a default remote");
    assert_eq!(
        (remote.tls, remote.authority.as_str(), remote.port),
        (true, "profiles-prod-001.grafana.net", 443)
    );
    assert_eq!((remote.fields, remote.path.as_str()), (vec![], ""));
    assert_eq!(remote.fallback_authorization, None);
}

// Words.

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
    let (lambda, remote) = (ExtensionsApi::start(), Pyroscope::http());
    let extension = Sandbox::with(&lambda, &remote)
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

// Numbers.

/// Go, `time.ParseDuration`: "a possibly signed sequence of decimal numbers, each with optional fraction and a unit
/// suffix"; and, in the extension we replace, a timeout of 0 is `http.Client`'s default of ours, 10 s. A timeout
/// below zero ends every request of Go's client at once, which nobody can want.
#[test]
fn timeouts() {
    let ms = Duration::from_millis;
    for (text, timeout) in [
        ("10s", ms(10_000)),
        ("300ms", ms(300)),
        ("1.5h", ms(5_400_000)),
        ("2h45m", ms(9_900_000)),
        ("1m30s", ms(90_000)),
        ("+5s", ms(5_000)),
        (".5s", ms(500)),
        ("1.s", ms(1_000)),
        ("1s1s", ms(2_000)),
        ("1us", Duration::from_micros(1)),
        ("1µs", Duration::from_micros(1)),
        ("1μs", Duration::from_micros(1)),
        ("1ns", Duration::from_nanos(1)),
        ("0.5ns1us", Duration::from_micros(1)),
        (
            "9223372036854775807ns",
            Duration::from_nanos(i64::MAX as u64),
        ),
        // Zero, also what is cut to it, is the default without a word.
        ("0", ms(10_000)),
        ("-0", ms(10_000)),
        ("0s", ms(10_000)),
        ("0h0m", ms(10_000)),
        ("0.9ns", ms(10_000)),
    ] {
        let (config, notes) = with("PYROSCOPE_TIMEOUT", text);
        assert_eq!((config.timeout, notes.len()), (timeout, 0), "{text}");
    }
    // "missing unit", "unknown unit", "invalid duration", and past 290 years: each an error of ParseDuration.
    for text in [
        "10",
        "soon",
        "1d",
        "1S",
        "s",
        ".s",
        "1 s",
        " 1s",
        "1s ",
        "+",
        "--1s",
        "1e3s",
        "1,5s",
        "1s,",
        "9223372036854775808ns",
        "300y",
        "\"5s\"",
        "٣s",
    ] {
        let problem = format!("\"{text}\" is not a duration above zero, using the default 10s");
        expect_default("PYROSCOPE_TIMEOUT", text, &problem);
    }
    for text in ["-1ns", "-1h"] {
        let problem = format!("\"{text}\" is not a duration above zero, using the default 10s");
        expect_default("PYROSCOPE_TIMEOUT", text, &problem);
    }
}

/// The only test that takes as long as the default: what it is must be seen once, for all that mean it.
#[test]
fn a_timeout_that_is_none_is_ten_seconds() {
    let never = Gate::new();
    let start = |text: &str| {
        let remote = Pyroscope::http();
        remote.next(Play::answer(200).unanswered_until(&never));
        let extension = Sandbox::relay_only(&remote)
            .set("PYROSCOPE_TIMEOUT", text)
            .listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        (remote, extension)
    };
    let running = ["", "0", "-0s", "0.9ns", "-1s", "soon"].map(|text| (text, start(text)));
    for (text, (remote, _extension)) in &running {
        let requests = remote.wait_complete(2);
        let took = requests[1].head_at - requests[0].head_at;
        let expected = Duration::from_millis(9_900)..Duration::from_millis(12_000);
        assert!(expected.contains(&took), "{text:?}: {took:?}");
    }
}

/// Go, `strconv.Atoi`: an optional sign and decimal digits. 0 is the default without a word, as in the extension we
/// replace; what is not above zero is so with a word.
#[test]
fn workers() {
    for (text, workers) in [
        ("1", 1),
        ("5", 5),
        ("+7", 7),
        ("007", 7),
        ("64", 64),
        ("0", 5),
        ("-0", 5),
        ("+0", 5),
    ] {
        let (config, notes) = with("PYROSCOPE_NUM_WORKERS", text);
        assert_eq!((config.workers, notes.len()), (workers, 0), "{text}");
    }
    for text in [
        "-1",
        "many",
        "5.0",
        "1e1",
        "0x5",
        "1_000",
        " 5",
        "5 ",
        "five",
        "+",
        "9223372036854775808",
        "٣",
    ] {
        let problem = format!("\"{text}\" is not a number above zero, using the default 5");
        expect_default("PYROSCOPE_NUM_WORKERS", text, &problem);
    }
    // A limit of ours: Lambda's file descriptors are counted.
    for text in ["65", "1000", "9223372036854775807"] {
        let (config, notes) = with("PYROSCOPE_NUM_WORKERS", text);
        let problem = format!("\"{text}\" is more than 64, using 64");
        assert_eq!((config.workers, notes), (64, vec![problem.clone()]));
        let said = said(&[("PYROSCOPE_NUM_WORKERS", text)]);
        assert_eq!(said, lines("warning", "PYROSCOPE_NUM_WORKERS", &[&problem]));
    }
    assert_eq!(said(&[("PYROSCOPE_NUM_WORKERS", "0")]), [""; 0]);
}

/// A setting of ours.
#[test]
fn buffer_bytes() {
    const NAME: &str = "PYROSCOPE_BUFFER_BYTES";
    for (text, bytes) in [
        ("65536", 65_536),
        ("1000000", 1_000_000),
        ("1073741824", 1 << 30),
    ] {
        let (config, notes) = with(NAME, text);
        assert_eq!((config.buffer_bytes, notes.len()), (bytes, 0), "{text}");
    }
    for text in [
        "65535",
        "0",
        "-1",
        "16MB",
        "16 MiB",
        "1e6",
        "lots",
        "18446744073709551616",
    ] {
        let problem = format!(
            "\"{text}\" is not a number of bytes, 65536 at least, using the default 16777216"
        );
        expect_default(NAME, text, &problem);
    }
    // Lambda's own variable: never the user's fault, so never a word.
    for (mib, bytes) in [
        ("128", 16 << 20),
        ("64", 8 << 20),
        ("63", 8 << 20),
        ("0", 8 << 20),
        ("10240", 64 << 20),
        ("18446744073709551615", 64 << 20),
        ("256", 32 << 20),
        ("much", 16 << 20),
    ] {
        let memory = ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mib);
        assert_eq!(config(&[memory]).buffer_bytes, bytes);
        assert_eq!(config(&[memory]).notes, []);
        assert_eq!(config(&[memory, (NAME, "70000")]).buffer_bytes, 70_000);
    }
}

#[test]
fn snap_start_is_what_lambda_says() {
    let name = "AWS_LAMBDA_INITIALIZATION_TYPE";
    assert!(!config(&[]).snap_start);
    for (kind, snap_start) in [
        ("on-demand", false),
        ("provisioned-concurrency", false),
        ("snap-start", true),
        ("", false),
    ] {
        let config = config(&[(name, kind)]);
        assert_eq!((config.snap_start, config.notes), (snap_start, vec![]));
    }
}

// Addresses.

/// Go, `url.Parse` and `http.Transport`: the scheme in any letter case; the port from the scheme where there is
/// none; the Host as the address spells it; userinfo percent-decoded and sent as Basic credentials.
#[test]
fn remote_addresses() {
    let profiles = "profiles.example";
    for (address, tls, host, port, authority, path) in [
        (
            "https://profiles.example",
            true,
            profiles,
            443,
            profiles,
            "",
        ),
        ("http://profiles.example", false, profiles, 80, profiles, ""),
        (
            "HTTPS://profiles.example/",
            true,
            profiles,
            443,
            profiles,
            "",
        ),
        (
            "http://profiles.example:4040",
            false,
            profiles,
            4040,
            "profiles.example:4040",
            "",
        ),
        (
            "http://profiles.example:/a",
            false,
            profiles,
            80,
            profiles,
            "/a",
        ),
        (
            "https://user:pass@profiles.example:8443/a/b/",
            true,
            profiles,
            8443,
            "profiles.example:8443",
            "/a/b",
        ),
        (
            "http://a:b@c@profiles.example",
            false,
            profiles,
            80,
            profiles,
            "",
        ),
        (
            "http://127.0.0.1:1",
            false,
            "127.0.0.1",
            1,
            "127.0.0.1:1",
            "",
        ),
        ("http://[::1]", false, "::1", 80, "[::1]", ""),
        (
            "https://[2001:db8::1]:65535/x",
            true,
            "2001:db8::1",
            65_535,
            "[2001:db8::1]:65535",
            "/x",
        ),
        (
            "http://Profiles_1.Example.",
            false,
            "Profiles_1.Example.",
            80,
            "Profiles_1.Example.",
            "",
        ),
        (
            "http://profiles.example/a%20b",
            false,
            profiles,
            80,
            profiles,
            "/a%20b",
        ),
    ] {
        let (config, notes) = with("PYROSCOPE_REMOTE_ADDRESS", address);
        assert_eq!(notes, [""; 0], "{address}");
        let remote = config.remote.expect("a remote");
        assert_eq!(
            (
                remote.tls,
                remote.host.as_str(),
                remote.port,
                remote.authority.as_str(),
                remote.path.as_str()
            ),
            (tls, host, port, authority, path),
            "{address}"
        );
    }
}

/// They are of no use to a relay. They may hold a key, so they are not quoted.
#[test]
fn a_query_or_fragment_of_the_address_costs_one_line() {
    const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
    for (address, path) in [
        ("http://127.0.0.1:9?key=s3cret", ""),
        ("http://127.0.0.1:9/p?key=s3cret#c", "/p"),
        ("http://127.0.0.1:9/p#s3cret", "/p"),
        ("http://127.0.0.1:9/p?", "/p"),
    ] {
        let (config, _) = with(NAME, address);
        assert_eq!(config.remote.expect("a remote").path, path, "{address}");
        let problem = "has a query or a fragment, which is not used";
        assert_eq!(said(&[(NAME, address)]), lines("warning", NAME, &[problem]));
    }
}

/// Go, `http.Client.send`: `if u := req.URL.User; u != nil && req.Header.Get("Authorization") == ""`, with user and
/// password percent-decoded, either of them empty where it is missing.
#[test]
fn userinfo() {
    for (userinfo, credentials) in [
        ("user:pass@", Some("Basic dXNlcjpwYXNz")),
        ("user@", Some("Basic dXNlcjo=")),
        (":pass@", Some("Basic OnBhc3M=")),
        ("us%65r:p%40s%3as@", Some("Basic dXNlcjpwQHM6cw==")),
        ("%C3%A9:%ff@", Some("Basic w6k6/w==")),
        ("@", Some("Basic Og==")),
        ("", None),
    ] {
        let address = format!("http://{userinfo}profiles.example");
        let remote = with("PYROSCOPE_REMOTE_ADDRESS", &address)
            .0
            .remote
            .expect("a remote");
        assert_eq!(
            remote.fallback_authorization.as_deref(),
            credentials,
            "{address}"
        );
    }
}

/// Without a remote there is nothing to fall back to: profiles are taken, so that the function does not notice, and
/// counted as lost. The address may hold a password, so it is never quoted.
#[test]
fn remote_addresses_that_cannot_be() {
    for (address, problem) in [
        ("profiles.example", "is not an http:// or https:// URL"),
        ("profiles.example:4040", "is not an http:// or https:// URL"),
        (
            "s3cretuser:s3cretpass@profiles.example",
            "is not an http:// or https:// URL",
        ),
        (
            "ftp://s3cretuser:s3cretpass@profiles.example",
            "is not an http:// or https:// URL",
        ),
        (
            " https://profiles.example",
            "is not an http:// or https:// URL",
        ),
        ("//profiles.example", "is not an http:// or https:// URL"),
        ("http://", "has no host name"),
        ("http://:80", "has no host name"),
        ("http://s3cretuser:s3cretpass@", "has no host name"),
        (
            "http://s3cretuser:s3cretpass@pro files",
            "has a character in its host name that a name cannot have",
        ),
        (
            "https://profiles.example\n",
            "has a character in its host name that a name cannot have",
        ),
        ("https://profiles.example:0", "has a bad port"),
        ("https://profiles.example:65536", "has a bad port"),
        ("https://profiles.example:s3cretport", "has a bad port"),
        ("https://[::1]s3cret", "has a bad port"),
        (
            "https://[::1",
            "has an IPv6 address without its closing bracket",
        ),
        ("https://[profiles]", "has a bad IPv6 address"),
        (
            "https://s3cret%zzuser:x@profiles.example",
            "has a bad percent-encoding in its user or password",
        ),
        (
            "https://profiles..example",
            "has a host name that cannot be",
        ),
        (
            "https://profiles.example/\u{7f}",
            "has a character in its path that a URL cannot have",
        ),
    ] {
        const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
        let (config, _) = with(NAME, address);
        assert_eq!(config.remote, None, "{address:?}");
        let said = said(&[(NAME, address)]);
        let problem = format!("{problem}; profiles are taken and counted as lost");
        assert_eq!(said, lines("error", NAME, &[&problem]), "{address:?}");
        assert!(!said[0].contains("s3cret"), "{said:?}");
    }
}

/// A setting of ours: `net.Listen`'s addresses, and `localhost` as both of the loopback addresses.
#[test]
fn listen_addresses() {
    const NAME: &str = "PYROSCOPE_LISTEN_ADDRESS";
    for (text, addresses) in [
        ("localhost:4041", &["127.0.0.1:4041", "[::1]:4041"][..]),
        ("LocalHost:1", &["127.0.0.1:1", "[::1]:1"]),
        ("127.0.0.1:0", &["127.0.0.1:0"]),
        ("0.0.0.0:4040", &["0.0.0.0:4040"]),
        (":4040", &["0.0.0.0:4040"]),
        ("[::]:65535", &["[::]:65535"]),
    ] {
        let (config, notes) = with(NAME, text);
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(
            (listen, notes.len()),
            (addresses.iter().map(ToString::to_string).collect(), 0),
            "{text}"
        );
    }
    for text in [
        "4040",
        "localhost",
        "localhost:",
        "localhost:65536",
        "localhost:-1",
        "localhost:http",
        "::1:4040",
        "example.com:4040",
        "256.0.0.1:4040",
    ] {
        let problem =
            format!("\"{text}\" is not an address and port, using the default localhost:4040");
        expect_default(NAME, text, &problem);
    }
}

/// Set by Lambda. Without it there is nothing to register with, and whoever starts us by hand is told.
#[test]
fn runtime_api() {
    assert_eq!(
        with("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
            .0
            .runtime_api
            .as_deref(),
        Some("127.0.0.1:9001")
    );
    let mut extension = alone(&[("PYROSCOPE_DEV_MODE", "false")]);
    extension.expect_exit(1);
    extension.wait_complaint(&["level=error", "AWS_LAMBDA_RUNTIME_API is not set"]);
    assert_eq!(extension.log().lines().count(), 1);
}

// What is set on relayed requests.

/// The extension we replace: a token is `Bearer`; else user and password together are Basic, Go's `SetBasicAuth`;
/// a tenant is X-Scope-OrgID. On the wire: remote.rs.
#[test]
fn credentials_and_tenant() {
    const TOKEN: (&str, &str) = ("PYROSCOPE_AUTH_TOKEN", "t0ken");
    const USER: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_USER", "user");
    const PASSWORD: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_PASSWORD", "pass:wörd");
    const TENANT: (&str, &str) = ("PYROSCOPE_TENANT_ID", "tenant-7");
    let (bearer, basic) = (
        ("Authorization", "Bearer t0ken"),
        ("Authorization", "Basic dXNlcjpwYXNzOnfDtnJk"),
    );
    for (variables, fields) in [
        (&[][..], &[][..]),
        (&[TOKEN], &[bearer]),
        (&[TOKEN, USER], &[bearer]),
        (&[USER, PASSWORD], &[basic]),
        (&[TOKEN, USER, PASSWORD], &[bearer]),
        (&[("PYROSCOPE_AUTH_TOKEN", ""), USER, PASSWORD], &[basic]),
        (&[TENANT], &[("X-Scope-OrgID", "tenant-7")]),
        (&[TENANT, TOKEN], &[bearer, ("X-Scope-OrgID", "tenant-7")]),
    ] {
        let config = config(variables);
        assert_eq!(config.notes, [], "{variables:?}");
        assert_eq!(pairs(&config), fields, "{variables:?}");
    }
}

/// The extension we replace sends no credentials then, and does not say so.
#[test]
fn half_of_basic_credentials_names_the_variable_that_is_missing() {
    const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
    const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
    for (set, missing) in [(USER, PASSWORD), (PASSWORD, USER)] {
        let problem = format!("is not set, so {set} is not used");
        // Empty is unset.
        for more in [&[][..], &[(missing, "")]] {
            let variables = [&[(set, "s3crethidden")], more].concat();
            assert_eq!(pairs(&config(&variables)), []);
            assert_eq!(said(&variables), lines("error", missing, &[&problem]));
        }
    }
}

/// Go's client refuses every request with such a value: "net/http: invalid header field value". We relay without.
#[test]
fn credentials_that_no_header_can_hold() {
    for (name, field) in [
        ("PYROSCOPE_AUTH_TOKEN", "Authorization"),
        ("PYROSCOPE_TENANT_ID", "X-Scope-OrgID"),
    ] {
        for value in [
            "s3crethidden\n",
            "s3cret\r\nhidden: 1",
            "s3cret\u{1}hidden",
            "s3crethidden\u{7f}",
        ] {
            let problem = format!(
                "the value for \"{field}\" has a line break or control character, it is not sent"
            );
            expect_default(name, value, &problem);
        }
    }
}

fn pairs(config: &Config) -> Vec<(&str, &str)> {
    let remote = config.remote.as_ref().expect("a remote");
    let fields = remote.fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// What is bad is refused one by one, with a line each that names the header and never its value; what is good is
/// kept. The names are those with which a setting would break the request's framing or its way.
#[test]
fn extra_headers() {
    const NAME: &str = "PYROSCOPE_HTTP_HEADERS";
    let not_settable = |name: &str| format!("\"{name}\" cannot be set, this header is not added");
    let not_a_name =
        |name: &str| format!("\"{name}\" is not a header name, this header is not added");
    let not_a_string =
        |name: &str| format!("the value of \"{name}\" is not a string, this header is not added");
    let not_a_value = |name: &str| {
        format!("the value for \"{name}\" has a line break or control character, it is not sent")
    };
    for (text, kept, problems) in [
        ("{}", &[][..], vec![]),
        (" { } ", &[], vec![]),
        (
            r#"{"X-One":"1","X-Two":""}"#,
            &[("X-One", "1"), ("X-Two", "")],
            vec![],
        ),
        (
            r#"{"X-One":"\"\u00e9\" \/ \ud83d\ude00"}"#,
            &[("X-One", "\"é\" / 😀")],
            vec![],
        ),
        // Go's map has one value for a name, the last; HTTP has one name in all letter cases.
        (r#"{"X-One":"1","x-one":"2"}"#, &[("x-one", "2")], vec![]),
        (
            r#"{"X-One":"1","X-Two":12345678}"#,
            &[("X-One", "1")],
            vec![not_a_string("X-Two")],
        ),
        (
            r#"{"A":true,"B":null,"X-One":"1","C":["s3cretvalue"],"D":{"E":"s3cretvalue"},"F":-1.5e3}"#,
            &[("X-One", "1")],
            ["A", "B", "C", "D", "F"].map(not_a_string).to_vec(),
        ),
        (
            r#"{"X-Bad":"s3cret\r\nvalue: x","X-One":"1"}"#,
            &[("X-One", "1")],
            vec![not_a_value("X-Bad")],
        ),
        (
            r#"{"X-Bad":"s3cret\nvalue","X-Nul":"\u0000","X-Tab":"a\tb"}"#,
            &[("X-Tab", "a\tb")],
            vec![not_a_value("X-Bad"), not_a_value("X-Nul")],
        ),
        (
            r#"{"Host":"s3cret.example","content-length":"12345678","TRANSFER-ENCODING":"s3cretcoding","Connection":"s3cretclose","Expect":"s3cretthing","X-One":"1"}"#,
            &[("X-One", "1")],
            [
                "Host",
                "content-length",
                "TRANSFER-ENCODING",
                "Connection",
                "Expect",
            ]
            .map(not_settable)
            .to_vec(),
        ),
        (
            r#"{"":"s3cretvalue","a b":"s3cretvalue","a:b":"s3cretvalue","ä":"s3cretvalue","X-One":"1"}"#,
            &[("X-One", "1")],
            ["", "a b", "a:b", "ä"].map(not_a_name).to_vec(),
        ),
    ] {
        let (config, notes) = with(NAME, text);
        assert_eq!(
            (pairs(&config), &notes),
            (kept.to_vec(), &problems),
            "{text}"
        );
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        assert_eq!(
            said(&[(NAME, text)]),
            lines("warning", NAME, &problems),
            "{text}"
        );
    }
    // json.Unmarshal takes null for a map without entries.
    assert_eq!(said(&[(NAME, " null ")]), lines("error", NAME, &[]));
    let problem = "is not a JSON object of strings, no headers are added";
    for text in [
        "X-One: s3cretvalue",
        "s3cretvalue",
        "[\"s3cretvalue\"]",
        "\"s3cretvalue\"",
        "12345678",
        "{",
        r#"{"X-One":"s3cretvalue""#,
        r#"{"X-One":"s3cretvalue",}"#,
        r#"{"X-One":"s3cretvalue"} x"#,
        r#"{'X-One':'s3cretvalue'}"#,
        r#"{"X-One" "s3cretvalue"}"#,
        r#"{"X-One":"s3cret\qvalue"}"#,
        "{\"X-One\":\"s3cret\nvalue\"}",
    ] {
        let (config, _) = with(NAME, text);
        assert_eq!(pairs(&config), [], "{text}");
        assert_eq!(
            said(&[(NAME, text)]),
            lines("error", NAME, &[problem]),
            "{text}"
        );
    }
}

/// The good ones among bad ones arrive, and what the settings may not set is as ever.
#[test]
fn extra_headers_on_the_wire() {
    let remote = Pyroscope::http();
    let extra = r#"{"Host":"evil.example","Content-Length":"9999","X-One":"one and only","X-Bad":"s3cret\r\nX-Evil: 1","x-forwarded-host":"mine.example","Authorization":"Key s3cretkey"}"#;
    let extension = Sandbox::relay_only(&remote)
        .set("PYROSCOPE_HTTP_HEADERS", extra)
        .set("PYROSCOPE_AUTH_TOKEN", "t0ken")
        .listening();
    assert_eq!(extension.post("/ingest", b"body").status, 200);
    let got = remote.wait_only();
    let host = remote.host();
    let expected = format!(
        "POST /ingest HTTP/1.1\r\nHost: {host}\r\nX-One: one and only\r\nx-forwarded-host: mine.example\r\n\
         Authorization: Key s3cretkey\r\nContent-Length: 4\r\n\r\n"
    );
    assert_eq!(
        (got.head.text(), got.payload()),
        (expected, b"body".as_slice())
    );
    assert_eq!(extension.complaints().len(), 3);
}

/// A setting of ours. It wins over the older one, which is what counts where it is unset or of no use.
#[test]
fn flush_modes() {
    use FlushMode::{End, Invoke, None};
    const NAME: &str = "PYROSCOPE_FLUSH_MODE";
    for (word, alone, beside) in [
        ("", None, Invoke),
        ("none", None, None),
        ("invoke", Invoke, Invoke),
        ("END", End, End),
    ] {
        let old = ("PYROSCOPE_FLUSH_ON_INVOKE", "true");
        for (vars, expected) in [(&[(NAME, word)][..], alone), (&[(NAME, word), old], beside)] {
            let config = config(vars);
            assert_eq!(config.flush_mode, expected, "{vars:?}");
            assert_eq!(config.notes, []);
        }
    }
    let problem = r#""always" is none of none, invoke and end, using "#;
    expect_default(NAME, "always", &format!("{problem}the default none"));
    let config = config(&[(NAME, "always"), ("PYROSCOPE_FLUSH_ON_INVOKE", "1")]);
    assert_eq!(config.flush_mode, Invoke);
    assert_eq!(
        config.notes[0].problem,
        format!("{problem}invoke as PYROSCOPE_FLUSH_ON_INVOKE says")
    );
}

// Behaviour.

/// In the extension we replace, INVOKE waits with the next event until the queue is empty; unset or false, it asks
/// at once.
#[test]
fn flush_on_invoke() {
    for (word, waits) in [
        ("t", true),
        ("TRUE", true),
        ("", false),
        ("F", false),
        ("yes", false),
    ] {
        let (lambda, remote, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
        remote.next(Play::answer(200).unanswered_until(&gate));
        let extension = Sandbox::with(&lambda, &remote)
            .set("PYROSCOPE_FLUSH_ON_INVOKE", word)
            .listening();
        lambda.wait_next();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        remote.wait_complete(1);
        let calls = lambda.calls().len();
        lambda.invoke();
        if waits {
            // Answered behind the INVOKE, so the INVOKE has been read, and nothing was asked for since.
            extension.wait_log("Invoked");
            assert_eq!(extension.post("/ingest", b"another").status, 200);
            assert_eq!(lambda.calls().len(), calls, "{word:?}");
            gate.open();
            lambda.wait_next();
        } else {
            lambda.wait_next();
            assert_eq!(
                remote
                    .requests()
                    .iter()
                    .filter(|request| request.answered)
                    .count(),
                0
            );
            gate.open();
        }
        remote.wait_answered(1);
    }
}

/// Which remotes are reached through which proxy is Go's to say, in logging.rs; what goes through, in proxy.rs.
#[test]
fn proxies() {
    const REMOTE: (&str, &str) = ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.example");
    let through = |vars: &[(&str, &str)]| {
        let config = config(&[&[REMOTE], vars].concat());
        assert_eq!(config.notes, []);
        config
            .remote
            .expect("a remote")
            .proxy
            .map(|proxy| proxy.host)
    };
    let (upper, lower) = (("HTTPS_PROXY", "http://a:1"), ("https_proxy", "b:2"));
    assert_eq!(through(&[]), None);
    assert_eq!(through(&[upper]).as_deref(), Some("a"));
    assert_eq!(through(&[lower]).as_deref(), Some("b"));
    assert_eq!(through(&[lower, upper]).as_deref(), Some("a"));
    assert_eq!(through(&[upper, ("NO_PROXY", "example")]), None);
    assert_eq!(through(&[upper, ("no_proxy", "example")]), None);
    let both = [upper, ("no_proxy", "example"), ("NO_PROXY", "other")];
    assert_eq!(through(&both).as_deref(), Some("a"));
    // In clear there is nothing that a tunnel would be for.
    let clear = ("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.example");
    let clear = config(&[clear, upper]).remote.expect("a remote");
    assert_eq!(clear.proxy, None);
    // Without its bracket that is no address, however the rest of it is read.
    let number = ("PYROSCOPE_REMOTE_ADDRESS", "https://[fd00::]");
    for (exception, excepted) in [("[fd00::]:443", true), ("[fd00::1:443", false)] {
        let config = config(&[number, upper, ("NO_PROXY", exception)]);
        let proxy = config.remote.expect("a remote").proxy;
        assert_eq!(proxy.is_none(), excepted, "{exception}");
    }

    for (name, value, problem) in [
        ("HTTPS_PROXY", "socks5://s3cret@a", "is not an http:// URL"),
        ("https_proxy", "http://s3cret:@b:0", "has a bad port"),
        (
            "HTTPS_PROXY",
            "https://s3cret@a",
            "is https://, and only http:// proxies are supported",
        ),
        (
            "HTTPS_PROXY",
            "s3cret\r\nX: y",
            "has a character in its host name that a name cannot have",
        ),
    ] {
        let (config, notes) = with(name, value);
        assert_eq!(config.remote.expect("a remote").proxy, None);
        assert_eq!(
            notes,
            [format!("{problem}; the server is connected to directly")]
        );
    }
}

/// Go, `crypto/x509`: SSL_CERT_FILE is one file of PEM, SSL_CERT_DIR a list of directories with colons between.
/// What they hold comes on top of the built-in roots; what cannot be used costs one line. More in tls.rs.
#[test]
fn roots() {
    assert_eq!(
        with("SSL_CERT_FILE", "/a:b").0.ca_file.as_deref(),
        Some("/a:b")
    );
    for (list, directories) in [
        ("/a", &["/a"][..]),
        ("/a:/b", &["/a", "/b"]),
        (":/a::/b:", &["/a", "/b"]),
    ] {
        assert_eq!(with("SSL_CERT_DIR", list).0.ca_directories, directories);
    }
    let rubbish = tempfile::NamedTempFile::new().expect("a temporary file");
    rubbish
        .as_file()
        .write_all(b"no PEM")
        .expect("the file written");
    let rubbish = rubbish.path().to_str().expect("a path in UTF-8");
    let authority = Authority::new("Bench Root");
    for (name, path) in [
        ("SSL_CERT_FILE", "/there/is/no/such/file.pem"),
        ("SSL_CERT_FILE", "/proc"),
        ("SSL_CERT_FILE", rubbish),
        ("SSL_CERT_DIR", "/there/is/no/such"),
    ] {
        let remote = Pyroscope::https(Tls::by(&authority));
        let extension = Sandbox::relay_only(&remote).set(name, path).listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        extension.wait_complaint(&["certificate", "cannot reach"]);
        let complaints = extension.log_with(&["variable="]);
        assert_eq!(complaints.len(), 1, "{name}={path}: {complaints:?}");
        assert!(complaints[0].contains("level=warning msg=\"Bad setting\" problem="));
        assert!(
            complaints[0].ends_with(&format!("variable={name}")),
            "{complaints:?}"
        );
    }
}

// Several at once.

/// Each is told on a line of its own, in one go, and none keeps another from being read.
#[test]
fn all_bad_at_once() {
    let said = said(&[
        ("PYROSCOPE_TIMEOUT", "a\nb"),
        ("PYROSCOPE_NUM_WORKERS", "<\">"),
        ("PYROSCOPE_BUFFER_BYTES", "?"),
        ("PYROSCOPE_LISTEN_ADDRESS", "?"),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "https://s3cretuser:s3cretpass@[x",
        ),
        ("PYROSCOPE_HTTP_HEADERS", "s3cretvalue"),
        ("PYROSCOPE_AUTH_TOKEN", "s3cret\ntoken"),
        ("PYROSCOPE_TENANT_ID", "s3cret\rtenant"),
        ("PYROSCOPE_FLUSH_MODE", "?"),
        ("PYROSCOPE_FLUSH_ON_INVOKE", "?"),
        ("PYROSCOPE_SAMPLE", "?"),
        ("PYROSCOPE_SELF_PROFILING", "?"),
        ("PYROSCOPE_UNIQUE_TIMES", "?"),
        ("PYROSCOPE_LOG_LEVEL", "?"),
        ("PYROSCOPE_LOG_FORMAT", "?"),
    ]);
    let variable = |line: &String| {
        line.rsplit_once("variable=")
            .map(|(_, name)| name.to_owned())
    };
    let mut variables: Vec<String> = said.iter().filter_map(variable).collect();
    variables.sort();
    assert_eq!(
        variables,
        [
            "PYROSCOPE_AUTH_TOKEN",
            "PYROSCOPE_BUFFER_BYTES",
            "PYROSCOPE_FLUSH_MODE",
            "PYROSCOPE_FLUSH_ON_INVOKE",
            "PYROSCOPE_HTTP_HEADERS",
            "PYROSCOPE_LISTEN_ADDRESS",
            "PYROSCOPE_LOG_FORMAT",
            "PYROSCOPE_LOG_LEVEL",
            "PYROSCOPE_NUM_WORKERS",
            "PYROSCOPE_REMOTE_ADDRESS",
            "PYROSCOPE_SAMPLE",
            "PYROSCOPE_SELF_PROFILING",
            "PYROSCOPE_TENANT_ID",
            "PYROSCOPE_TIMEOUT",
            "PYROSCOPE_UNIQUE_TIMES",
        ]
    );
    for part in [
        r#"problem="\"a\nb\" is not "#,
        r#"problem="\"<\">\" is not "#,
    ] {
        assert!(said.concat().contains(part), "{said:?}");
    }
    assert!(!said.concat().contains("s3cret"));
}

/// One sandbox's life with every variable set: what is relayed, byte for byte, and what is logged, line for line.
#[test]
fn every_variable_at_once() {
    let authority = Authority::new("Bench Root");
    let (lambda, remote) = (
        ExtensionsApi::start(),
        Pyroscope::https(Tls::by(&authority)),
    );
    let roots = authority.pem_file();
    let more_roots = tempfile::tempdir().expect("a temporary directory");
    let other = Authority::new("Other Root");
    fs::write(more_roots.path().join("other.pem"), other.pem()).expect("the file written");
    let port = ReservedPort::new();
    let (local, host) = (format!("127.0.0.1:{}", port.number), remote.host());
    let values = everything(
        &format!("https://s3cretuser:s3cretpass@{host}/base/"),
        &local,
        &lambda.address(),
        roots.path().to_str().expect("a path in UTF-8"),
        more_roots.path().to_str().expect("a path in UTF-8"),
    );
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ALL);
    let sandbox = values
        .iter()
        .fold(Sandbox::new(), |sandbox, (name, value)| {
            sandbox.set(name, value)
        });
    let mut extension = sandbox.named("layer").listening();
    lambda.invoke_and_wait();
    let mut client = extension.client();
    client.send(with_length(
        "POST //ingest?name=shop%7Benv%3Dprod%7D&from=1 HTTP/1.1\r\nHost: localhost:4040\r\nUser-Agent: sdk\r\n\
         Authorization: Bearer s3cretofsdk\r\nx-scope-orgid: s3cretsdktenant\r\nX-ONE: sdk\r\nConnection: keep-alive\r\n\
         Accept-Encoding: gzip\r\nX-Kept:  as it is \r\n",
        b"profile",
    ));
    client.expect_ok();
    let relayed = remote.wait_only();
    let session = session_of(&relayed.target());
    assert_eq!(
        relayed.head.text(),
        format!(
            "POST /base/ingest?from=1&name=shop%7B__session_id__%3D{session}%2Cenv%3Dprod%2Cv%3Ds3crettenant%7D HTTP/1.1\r\nHost: {host}\r\n\
             User-Agent: sdk\r\nX-Kept: as it is\r\nAuthorization: Bearer s3crettoken\r\nX-Scope-OrgID: s3crettenant\r\n\
             X-One: s3cret \"one\"\r\nX-Two: s3crettwo\r\nX-Forwarded-Host: localhost:4040\r\nContent-Length: 7\r\n\r\n"
        )
    );
    assert_eq!(relayed.payload(), b"profile");
    remote.wait_answered(1);
    lambda.invoke_and_wait();
    lambda.shutdown(Duration::from_secs(5));
    extension.expect_exit(0);

    // The extension's own profile goes the same way, and with the same fields.
    let own = remote.wait_answered(2).remove(1);
    let own_head = own.head.text();
    assert!(own_head.starts_with("POST /base/"), "{own_head}");
    assert!(
        own.target().contains(&format!(
            "pyroscope.lambda.extension%7B__session_id__%3D{session}"
        )),
        "{own_head}"
    );
    assert!(
        own_head
            .contains("\r\nAuthorization: Bearer s3crettoken\r\nX-Scope-OrgID: s3crettenant\r\n"),
        "{own_head}"
    );

    let log = extension.log();
    let lines: Vec<&str> = log.lines().map(|line| after_stamp(line)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let told = |severity: &str| -> Vec<&str> {
        let part = format!(r#""severity":"{severity}""#);
        lines
            .iter()
            .filter(|line| line.contains(&part))
            .copied()
            .collect()
    };
    let svc = r#""svc":"pyroscope-lambda-ext-main""#;
    assert_eq!(told("warning"), [""; 0]);
    assert_eq!(told("error"), [""; 0]);
    let told_info = told("info");
    assert_eq!(
        told_info[0],
        format!(
            r#""address":"{local}","message":"Starting relay","severity":"info",{svc},"version":"{version}"}}"#
        )
    );
    let bytes = relayed.payload().len() + own.payload().len();
    let closed = told_info[1];
    let field = |name: &str| {
        let rest = closed
            .split_once(&format!("\"{name}\":"))
            .map_or("", |(_, rest)| rest);
        rest.split([',', '}']).next().unwrap_or_default()
    };
    let (held, high_water) = (field("held_ms"), field("high_water_bytes"));
    assert_eq!(
        closed,
        format!(
            r#""acknowledged":2,"bytes":{bytes},"held_ms":{held},"high_water_bytes":{high_water},"lost":0,"message":"Relay closed","relayed":2,"resent":0,"self_profiles":1,"severity":"info",{svc}}}"#
        )
    );
    assert_eq!(told_info.len(), 2, "{log}");
    for message in ["TLS handshake done", "Invoked", "Shutting down"] {
        let part = format!(r#""message":"{message}","#);
        assert!(
            told("debug").iter().any(|line| line.contains(&part)),
            "no {message} in\n{log}"
        );
    }
}

/// A value for each of [`ALL`], in that order.
fn everything(
    address: &str,
    local: &str,
    lambda: &str,
    file: &str,
    directory: &str,
) -> Vec<(&'static str, String)> {
    let values = [
        "256",
        "on-demand",
        lambda,
        // Not for this machine's own addresses.
        "http://s3cretproxyuser:s3cretproxypass@proxy.invalid:3128",
        "example.com",
        "s3crettoken",
        "s3cretbasicpass",
        "s3cretbasicuser",
        "1000000",
        "F",
        "invoke",
        "True",
        r#"{"X-One":"s3cret \"one\"","X-Two":"s3crettwo"}"#,
        r#"{"v":"${PYROSCOPE_TENANT_ID}"}"#,
        local,
        "source",
        "json",
        "function",
        "TRACE",
        "severity",
        "cause_of_it",
        "message",
        "f",
        "@timestamp",
        "Monday, 02-Jan-06 15:04:05.000 MST <_2>",
        "2",
        address,
        "1.0",
        "1",
        "s3crettenant",
        "1m5.5s",
        "false",
        directory,
        file,
        "http://proxy.invalid",
        "*",
    ];
    ALL.into_iter().zip(values.map(str::to_owned)).collect()
}

fn session_of(target: &str) -> String {
    let (_, rest) = target
        .split_once("__session_id__%3D")
        .expect("a session label");
    let id = &rest[..16];
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{id}"
    );
    id.to_owned()
}

/// A line of JSON behind its time, which must look as the layout says.
#[track_caller]
fn after_stamp(line: &str) -> &str {
    let rest = line.strip_prefix(r#"{"@timestamp":""#);
    let (stamp, rest) = rest.and_then(|rest| rest.split_once(r#"","#)).expect(line);
    let day = stamp.split_once("day, ").map(|(day, _)| day);
    assert!(
        day.is_some_and(
            |day| ["Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun"].contains(&day)
        ),
        "{stamp}"
    );
    let ends = stamp.ends_with(r"\u003e") && stamp.contains(r" UTC \u003c");
    let digits = stamp.bytes().filter(u8::is_ascii_digit).count();
    assert!(ends && (20..=24).contains(&digits), "{stamp}");
    rest
}

// The bench itself: would a secret be seen?

/// A secret of each kind, written by a stand-in for the extension as it might slip into a line.
#[test]
fn a_secret_in_a_line_fails_the_test() {
    let headers = r#"{"X-Key":"k3y","X-Other": "s3cret \"quoted\""}"#;
    for (name, value, line) in [
        ("PYROSCOPE_AUTH_TOKEN", "t0ken", "msg=\"sent Bearer t0ken\""),
        (
            "PYROSCOPE_AUTH_TOKEN",
            "long-t0ken",
            "level=trace msg=xxlong-t0kenxx",
        ),
        (
            "PYROSCOPE_AUTH_TOKEN",
            "a\"b<c>d",
            r#"{"msg":"a\"b\u003cc\u003ed"}"#,
        ),
        (
            "PYROSCOPE_AUTH_TOKEN",
            "first\nsecond",
            r#"problem="first\nsecond is bad""#,
        ),
        ("PYROSCOPE_BASIC_AUTH_USER", "user", "for=user"),
        (
            "PYROSCOPE_BASIC_AUTH_PASSWORD",
            "pass:word",
            "with=\"user:pass:word\"",
        ),
        ("PYROSCOPE_BASIC_AUTH_PASSWORD", "word", "with=OndvcmQ="),
        ("PYROSCOPE_TENANT_ID", "ten4nt", "orgid=ten4nt"),
        (
            "PYROSCOPE_HTTP_HEADERS",
            headers,
            r#"header="s3cret \"quoted\"""#,
        ),
        (
            "PYROSCOPE_HTTP_HEADERS",
            "n0 json",
            "problem=\"n0 json is no JSON\"",
        ),
        ("PYROSCOPE_HTTP_HEADERS", r#"{"a":12345"#, "problem=12345"),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://m3m3:p%40ss@h/",
            "remote=http://m3m3@h/",
        ),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://m3m3:p%40ss@h/",
            "remote=\"p@ss\"",
        ),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://m3m3:p%40ss@h/",
            "remote=\"p%40ss\"",
        ),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "m3m3:p%40ss@h",
            "with=\"Basic bTNtMzpwQHNz\"",
        ),
    ] {
        let message = ended(written(&[(name, value)], line)).expect(line);
        assert!(
            message.starts_with("a secret in the log, ") && message.ends_with(line),
            "{message}"
        );
        assert!(message.contains(name), "{message}");
    }
    for (name, value, line) in [
        (
            "PYROSCOPE_AUTH_TOKEN",
            "t0ken",
            "variable=PYROSCOPE_AUTH_TOKEN msg=t0kens",
        ),
        (
            "PYROSCOPE_HTTP_HEADERS",
            r#"{"X-Kept":"one"}"#,
            "header=X-Kept number=one",
        ),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://m3m3:p%40ss@h.example/",
            "remote=h.example",
        ),
    ] {
        assert_eq!(ended(written(&[(name, value)], line)), None);
    }
}

/// What a client of this extension sent, and not what one of another did.
#[test]
fn a_secret_of_a_client_fails_the_test() {
    for (field, line) in [
        (
            "Authorization: Bearer cl1ent-token",
            "msg=\"cl1ent-token came\"",
        ),
        (
            "authorization: Basic dXNlcjpjbDFlbnQ=",
            "msg=\"cl1ent came\"",
        ),
        ("X-Scope-Orgid: cl1ent", "msg=\"for cl1ent\""),
    ] {
        let (here, elsewhere) = (Pyroscope::http(), Pyroscope::http());
        let address = format!("address=\"{}\"", here.addr());
        let request = with_length(&format!("POST / HTTP/1.1\r\nHost: x\r\n{field}\r\n"), b"");
        let send = |to: &Pyroscope| Client::connect(to.addr()).send(&request);
        let both = format!("{line}\nmsg=\"Starting relay\" {address}");
        send(&elsewhere);
        assert_eq!(ended(written(&[], &both)), None);
        send(&here);
        let message = ended(written(&[], &both)).expect(line);
        assert!(
            message.contains("a secret in the log, ") && message.ends_with(line),
            "{message}"
        );
    }
}

/// Something that logs these lines and no more.
fn written(settings: &[(&str, &str)], lines: &str) -> Extension {
    let set = |sandbox: Sandbox, &(name, value): &(&str, &str)| sandbox.set(name, value);
    let planted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/planted");
    let sandbox = Sandbox::new()
        .set("LINES_TO_LOG", lines)
        .binary(Path::new(planted));
    settings.iter().fold(sandbox, set).start()
}

/// Ends it; gives what is said to be wrong then.
fn ended(mut extension: Extension) -> Option<String> {
    extension.wait_exit();
    let outcome = catch_unwind(AssertUnwindSafe(|| drop(extension)));
    let message = outcome.err()?.downcast::<String>();
    Some(*message.expect("a message"))
}

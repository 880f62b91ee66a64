//! Which settings there are, what each is by default, and all of them at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use pyroscope_lambda_extension::config::{Config, FlushMode};
use pyroscope_lambda_extension::log::Level;

use crate::support::certificates::Authority;
use crate::support::client::with_length;
use crate::support::extensions_api::ExtensionsApi;
use crate::support::pyroscope::{Pyroscope, Tls};
use crate::support::sandbox::{ReservedPort, Sandbox};
use crate::{config, said};

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
    let server = unset.remote.expect("a default server");
    assert_eq!(
        (server.tls, server.authority.as_str(), server.port),
        (true, "profiles-prod-001.grafana.net", 443)
    );
    assert_eq!((server.fields, server.path.as_str()), (vec![], ""));
    assert_eq!(server.fallback_authorization, None);
}

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
    let (lambda, server) = (
        ExtensionsApi::start(),
        Pyroscope::https(Tls::by(&authority)),
    );
    let roots = authority.pem_file();
    let more_roots = tempfile::tempdir().expect("a temporary directory");
    let other = Authority::new("Other Root");
    fs::write(more_roots.path().join("other.pem"), other.pem()).expect("the file written");
    let port = ReservedPort::new();
    let (local, host) = (format!("127.0.0.1:{}", port.number), server.host());
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
    let relayed = server.wait_only();
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
    server.wait_answered(1);
    lambda.invoke_and_wait();
    lambda.shutdown(Duration::from_secs(5));
    extension.expect_exit(0);

    // The extension's own profile goes the same way, and with the same fields.
    let own = server.wait_answered(2).remove(1);
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

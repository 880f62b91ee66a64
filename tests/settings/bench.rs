//! The bench itself: would a secret be seen?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::support::client::{Client, with_length};
use crate::support::pyroscope::Pyroscope;
use crate::support::sandbox::{Extension, Sandbox};

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

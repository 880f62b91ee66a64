//! What a server says of a request may quote the request. Of an answer, a log line holds the status and phrases of our
//! own list, and of a redirect where it points: nothing that we or an SDK sent, in whatever form it comes back.

#[path = "support/world.rs"]
mod world;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use world::World;

/// Answered with in turn, by a server that has a fault to find with everything.
const STATUSES: [u16; 14] = [
    300, 302, 400, 401, 403, 404, 407, 413, 422, 429, 451, 500, 503, 504,
];

type Encode = fn(&str) -> String;

/// A relay with every secret a setting can give, and a client that sends more of them.
fn secretive() -> World {
    World::new(&[
        ("PYROSCOPE_LOG_LEVEL", "trace"),
        ("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret/+=\"<&"),
        ("PYROSCOPE_TENANT_ID", "t3nant-s3cret"),
        ("PYROSCOPE_HTTP_HEADERS", r#"{"X-Set":"s3t-s3cret"}"#),
        (
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://us3r:passw0rd@10.0.0.1:4040/hidden",
        ),
    ])
}

/// Uploads a profile with credentials of the SDK's own; what the server got, and the log of what it `answers`.
fn answered(world: &mut World, answers: impl Fn(&str) -> String) -> (String, Vec<String>) {
    let client = world.client();
    let request = "POST /ingest?name=checkout%7Bcard%3D4711%7D HTTP/1.1\r\nHost: localhost:4040\r\n\
        X-Auth-Token: auth-s3cret\r\nApi-Key: key-s3cret\r\nX-Amz-Security-Token: amz-s3cret\r\n\
        Cookie: session=c00kie\r\nContent-Length: 15\r\n\r\nprofile-s3cret!";
    world.arrive(client, request.as_bytes(), usize::MAX);
    world.log();
    if world.connecting.is_empty() {
        world.pass_to_deadline();
    }
    let id = world.connect();
    let sent = world.seen(id);
    assert!(sent.ends_with("profile-s3cret!"), "{sent}");
    world.answer(id, &answers(&sent));
    let log = world.log();
    assert!(!log.contains("s3cret") && !log.contains("4711"), "{log}");
    (sent, causes(&log))
}

/// What the lines of a log give as their causes.
#[track_caller]
fn causes(log: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("cause=")?;
            Some(match rest.strip_prefix('"') {
                Some(rest) => rest.split_once('"').expect("its end").0.to_owned(),
                None => rest.split(' ').next().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

fn answer(status: u16, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_credential_that_is_quoted_is_not_logged() {
    let mut logged = Vec::new();
    for quoted in [
        "unknown token t0ken-s3cret/+=",
        "unknown token t0ken-s3cret%2F%2B%3D%22%3C%26",
        "unknown token t0ken-s3cret%2f%2b%3d",
        "X-Auth-Token: auth-s3cret",
        "Api-Key: key-s3cret",
        "X-Amz-Security-Token: amz-s3cret",
        "no org t3nant-s3cret",
        "profile of checkout{card=4711}",
    ] {
        for status in [400, 503] {
            let (_, causes) = answered(&mut secretive(), |_| answer(status, "", quoted));
            if causes != [format!("status {status}")] {
                logged.extend(causes);
            }
        }
    }
    assert_eq!(logged, Vec::<String>::new());
}

/// In any encoding, in the head and in the body: what is logged is the same as if nothing were quoted.
#[test]
fn whatever_is_quoted_is_not_logged() {
    let encodings: [(&str, Encode); 9] = [
        ("as it is", str::to_owned),
        ("percent", |text| {
            encoded(text, |byte| format!("%{byte:02X}"))
        }),
        ("percent, small", |text| {
            encoded(text, |byte| format!("%{byte:02x}"))
        }),
        ("hexadecimal", |text| {
            text.bytes().map(|byte| format!("{byte:02x}")).collect()
        }),
        ("base64", |text| STANDARD.encode(text)),
        ("base64url", |text| URL_SAFE_NO_PAD.encode(text)),
        ("HTML", |text| encoded(text, |byte| format!("&#{byte};"))),
        ("JSON", |text| {
            encoded(text, |byte| format!("\\u{byte:04x}"))
        }),
        ("backwards", |text| text.chars().rev().collect()),
    ];
    for (name, encode) in encodings {
        for status in STATUSES {
            let (sent, causes) = answered(&mut secretive(), |sent| {
                let quoted = encode(sent);
                let line = quoted.replace(['\r', '\n'], " ");
                // Where a redirect points is logged, but for its query.
                let authority = if status < 400 { "/" } else { &line };
                let fields = format!(
                    "WWW-Authenticate: {line}\r\nRetry-After: {line}\r\nLocation: {authority}?{line}\r\n"
                );
                answer(status, &fields, &quoted).replace(" X\r\n", &format!(" {line}\r\n"))
            });
            assert!(sent.contains("t0ken-s3cret") && sent.contains("X-Set: s3t-s3cret"));
            let place = if status < 400 { ": /" } else { "" };
            assert_eq!(causes, [format!("status {status}{place}")], "{name}");
        }
    }
}

/// Every byte that is neither a letter nor a digit, otherwise.
fn encoded(text: &str, encode: impl Fn(u8) -> String) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => encode(byte),
        })
        .collect()
}

/// Of a redirect its scheme, host and path: the rest is where secrets are.
#[test]
fn where_a_redirect_points() {
    let long = "p".repeat(3000);
    for (location, logged) in [
        ("https://h.example/ingest", ": https://h.example/ingest"),
        ("https://h.example", ": https://h.example"),
        ("HTTPS://h.example:8443/", ": HTTPS://h.example:8443/"),
        ("/login?token=s3cret", ": /login"),
        ("/login#s3cret", ": /login"),
        ("/login;jsessionid=s3cret", ": /login"),
        ("//h.example/login?s3cret", ": //h.example/login"),
        // Where there is an @ in what looks like the path, the password had a slash.
        ("https://us3r:s3cret@h.example/a@b?c", ""),
        ("https://us3r:s3/cret@h.example/a", ""),
        ("https://us3r:s3cret@x@h.example/", ": https://h.example/"),
        ("https://us;er:s3cret@h.example/", ": https://h.example/"),
        (&format!("https://{long}:s3cret@h/"), ": https://h/"),
        (&format!("https://{long}:s3cret@h"), ": https://h"),
        ("https://h.example?a@b", ": https://h.example"),
        ("?token=s3cret", ""),
        ("mailto:s3cret@h.example", ""),
        ("s3cret", ""),
        ("", ""),
    ] {
        let (_, causes) = answered(&mut secretive(), |_| {
            answer(
                301,
                &format!("Location: {location}\r\n"),
                "<html>Moved to s3cret",
            )
        });
        assert_eq!(causes, [format!("status 301{logged}")], "{location}");
    }
    // However long it is, the line is not.
    let (_, causes) = answered(&mut secretive(), |_| {
        answer(301, &format!("Location: /{long}\r\n"), "")
    });
    assert!(causes[0].len() < 300, "{}", causes[0]);
}

/// What servers say, as they say it: Pyroscope 1.21, and what stands before it.
#[test]
fn what_is_known_to_hold_no_secret_is_logged() {
    for (status, body, logged) in [
        (
            400,
            r#"{"code":"invalid_argument","message":"profile with labels '{card=\"4711\", service_name=\"s3cret\"}' is outside of ingestion window (profile timestamp: 2026-08-21T10:00:00Z, the ingestion window starts at 2026-08-21T11:00:00Z)"}"#,
            "invalid_argument, outside of ingestion window",
        ),
        (
            422,
            "pushing IngestInput-pprof failed push series with index 0 and id  failed: unknown: empty ring",
            "pushing IngestInput-pprof failed, empty ring",
        ),
        (
            429,
            r#"{"code":"resource_exhausted","message":"limit of 1.0 GiB/day reached, next reset at 2026-08-22T00:00:00Z"}"#,
            "resource_exhausted, next reset at",
        ),
        (
            429,
            "resource_exhausted: push rate limit (4.0 MiB) exceeded while adding 1.2 MiB",
            "resource_exhausted, push rate limit",
        ),
        (
            500,
            "at least 2 live replicas required, could only find 1",
            "live replicas required",
        ),
        (
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
            "upstream connect error",
        ),
        (503, "no healthy upstream", "no healthy upstream"),
        (
            400,
            "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n",
            "plain HTTP request was sent to HTTPS port",
        ),
        (
            400,
            "Client sent an HTTP request to an HTTPS server.\n",
            "HTTP request to an HTTPS server",
        ),
        (404, "404 page not found\n", "404 page not found"),
    ] {
        let (_, causes) = answered(&mut secretive(), |_| answer(status, "", body));
        assert_eq!(causes, [format!("status {status}: {logged}")]);
    }
}

/// Who refuses credentials is the likeliest to quote them, and the status says it all.
#[test]
fn of_refused_credentials_the_status_alone() {
    for status in [401, 403] {
        let (_, causes) = answered(&mut secretive(), |_| {
            answer(status, "", "empty ring for t0ken-s3cret")
        });
        assert_eq!(causes, [format!("status {status}")]);
    }
}

/// The labels of a profile come first in what Pyroscope says of it, and can be long.
#[test]
fn a_phrase_that_comes_late_is_found() {
    let labels = "a_label=\"a-value-of-some-length\", ".repeat(20);
    let body = format!(
        r#"{{"code":"invalid_argument","message":"profile with labels '{{{labels}}}' is outside of ingestion window"}}"#
    );
    let (_, causes) = answered(&mut secretive(), |_| answer(400, "", &body));
    let expected = "status 400: invalid_argument, outside of ingestion window";
    assert_eq!(causes, [expected], "{} bytes", body.len());
}

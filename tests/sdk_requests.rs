//! Does the server get, byte for byte, what it should for what each SDK sends?
//!
//! The requests are those the SDKs make, in the segments in which they make them: captured on the wire, or
//! derived from their source where no capture was at hand. The expectations are whole heads, written out.

mod support;

use support::client::{Client, chunked};
use support::pyroscope::{Pyroscope, Request};
use support::sandbox::{Extension, Sandbox};

/// A relay with its server.
struct Bench {
    server: Pyroscope,
    extension: Extension,
}

impl Bench {
    fn start() -> Self {
        let server = Pyroscope::http();
        let extension = Sandbox::relay_only(&server).listening();
        Self { server, extension }
    }

    fn client(&self) -> Client {
        self.extension.client()
    }

    /// The server got this head and this body. `SERVER` stands for the server's host and port, and `SESSION`
    /// for a session id, which must be 16 lower-case hex digits; lines end as written here, with `\n`.
    #[track_caller]
    fn expect(&self, head: &str, body: &[u8]) -> Request {
        let request = self.server.wait_only();
        let got = with_session_masked(&request.head.text()).replace(&self.server.host(), "SERVER");
        assert_eq!(got, head.replace('\n', "\r\n"));
        assert_eq!(request.payload(), body);
        assert_eq!(
            request.body.raw, body,
            "the relayed body is framed by its length"
        );
        request
    }
}

/// Replaces the value of each injected session label by `SESSION`.
fn with_session_masked(head: &str) -> String {
    let mark = "__session_id__%3D";
    let mut parts = head.split(mark);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (id, rest) = part
            .split_at_checked(16)
            .expect("a session id of 16 digits");
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "session id {id}"
        );
        masked.push_str(mark);
        masked.push_str("SESSION");
        masked.push_str(rest);
    }
    masked
}

fn crlf(head: &str) -> Vec<u8> {
    head.replace('\n', "\r\n").into_bytes()
}

/// A gzip pprof as far as a relay is concerned: bytes of every value, in no order.
fn profile(length: usize) -> Vec<u8> {
    let mixed = (0_u32..).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let mut bytes = vec![0x1f, 0x8b, 0x08, 0];
    bytes.extend(mixed.take(length - bytes.len()));
    bytes
}

/// What a multipart body is made of: up to the data, the data, and what follows it.
fn multipart(boundary: &str, name: &str, filename: &str, data: &[u8]) -> [Vec<u8>; 3] {
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    [
        before.into_bytes(),
        data.to_vec(),
        format!("\r\n--{boundary}--\r\n").into_bytes(),
    ]
}

const GO_BOUNDARY: &str = "3f6c0d0b6b1d1e7a5a9d6b8f1f0a2c4e6d8b0a1c3e5f7092b4d6f8a0c2e4";

/// R1: Go, CPU, 1.4.x. It has a session id of its own, so the query stays as it is.
#[test]
fn go_cpu() {
    let bench = Bench::start();
    let target = "/ingest?aggregationType=sum&from=1755500000000000000&name=simple.golang.lambda%7B__session_id__%3D0a1b2c3d4e5f6071%2Cenv%3Dprod%2Cotel.scope.name%3Dcom.grafana.pyroscope%2Fgo%2Cotel.scope.version%3Dv1.4.2%2Cprocess.runtime.name%3Dgo%2Cprocess.runtime.version%3Dgo1.25.13%7D&sampleRate=100&spyName=gospy&units=samples&until=1755500015000000000";
    let body = multipart(GO_BOUNDARY, "profile", "profile.pprof", &profile(6_000)).concat();
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\nHost: localhost:4040\nUser-Agent: Go-http-client/1.1\nContent-Length: {length}\nContent-Type: multipart/form-data; boundary={GO_BOUNDARY}\nAccept-Encoding: gzip\n\n"
    );
    let mut client = bench.client();
    // net/http writes through a buffer of 4 KiB.
    let request = [crlf(&head), body.clone()].concat();
    client.send_segments(&[&request[..4096], &request[4096..]]);
    client.expect_ok();
    let request = bench.expect(
        &format!(
            "POST {target} HTTP/1.1\nHost: SERVER\nUser-Agent: Go-http-client/1.1\nContent-Type: multipart/form-data; boundary={GO_BOUNDARY}\nX-Forwarded-Host: localhost:4040\nContent-Length: {length}\n\n"
        )
        .replace("0a1b2c3d4e5f6071", "SESSION"),
        &body,
    );
    assert_eq!(request.target(), target, "the SDK's own session id stays");
}

/// R4: Go before 1.4.0, which has no session id: it gets one.
#[test]
fn go_without_a_session_id() {
    let bench = Bench::start();
    let body = multipart(GO_BOUNDARY, "profile", "profile.pprof", &profile(900)).concat();
    let length = body.len();
    let head = format!(
        "POST /ingest?aggregationType=sum&from=1655819920&name=simple.golang.app-new%7B%7D&sampleRate=100&spyName=gospy&units=samples&until=1655819927 HTTP/1.1\nHost: localhost:4040\nUser-Agent: Go-http-client/1.1\nContent-Length: {length}\nContent-Type: multipart/form-data; boundary={GO_BOUNDARY}\nAccept-Encoding: gzip\n\n"
    );
    let mut client = bench.client();
    client.send([crlf(&head), body.clone()].concat());
    client.expect_ok();
    bench.expect(
        &format!(
            "POST /ingest?aggregationType=sum&from=1655819920&name=simple.golang.app-new%7B__session_id__%3DSESSION%7D&sampleRate=100&spyName=gospy&units=samples&until=1655819927 HTTP/1.1\nHost: SERVER\nUser-Agent: Go-http-client/1.1\nContent-Type: multipart/form-data; boundary={GO_BOUNDARY}\nX-Forwarded-Host: localhost:4040\nContent-Length: {length}\n\n"
        ),
        &body,
    );
}

/// R6: Java, JFR, as it is by default: chunked, in chunks of 8 KiB at most, spaces as %20.
#[test]
fn java_jfr_chunked() {
    let bench = Bench::start();
    let boundary = "7b0c5f2e-3c1e-4a55-9c6d-0f4f6f0b7a11";
    let [before, data, after] = multipart(boundary, "jfr", "jfr", &profile(50_000));
    let body = [before, data, after].concat();
    let head = format!(
        "POST /ingest?name=my.java.app%7Botel.scope.name%3Dcom.grafana.pyroscope%2Fjava%2Cotel.scope.version%3D2.9.1%2Cprocess.runtime.name%3DOpenJDK%20Runtime%20Environment%2Cprocess.runtime.version%3D21.0.4%2B7-LTS%7D&units=samples&aggregationType=sum&from=1755500000&until=1755500010&spyName=javaspy&sampleRate=100&format=jfr HTTP/1.1\nContent-Type: multipart/form-data; boundary={boundary}\nTransfer-Encoding: chunked\nHost: localhost:4040\nConnection: Keep-Alive\nAccept-Encoding: gzip\nUser-Agent: okhttp/4.12.0\n\n"
    );
    let mut client = bench.client();
    client.send(crlf(&head));
    client.send_in_pieces(chunked(&body, 8192), 8192);
    client.expect_ok();
    let length = body.len();
    bench.expect(
        &format!(
            "POST /ingest?aggregationType=sum&format=jfr&from=1755500000&name=my.java.app%7B__session_id__%3DSESSION%2Cotel.scope.name%3Dcom.grafana.pyroscope%2Fjava%2Cotel.scope.version%3D2.9.1%2Cprocess.runtime.name%3DOpenJDK+Runtime+Environment%2Cprocess.runtime.version%3D21.0.4%2B7-LTS%7D&sampleRate=100&spyName=javaspy&units=samples&until=1755500010 HTTP/1.1\nHost: SERVER\nContent-Type: multipart/form-data; boundary={boundary}\nUser-Agent: okhttp/4.12.0\nX-Forwarded-Host: localhost:4040\nContent-Length: {length}\n\n"
        ),
        &body,
    );
}

/// R9: Java, OTLP: chunked and gzip, no query. The gzip is the body's and stays.
#[test]
fn java_otlp_chunked_and_gzipped() {
    let bench = Bench::start();
    let body = profile(12_345);
    let head = "POST /v1development/profiles HTTP/1.1\nContent-Encoding: gzip\nContent-Type: application/x-protobuf\nTransfer-Encoding: chunked\nHost: localhost:4040\nConnection: Keep-Alive\nAccept-Encoding: gzip\nUser-Agent: okhttp/4.12.0\n\n";
    let mut client = bench.client();
    client.send([crlf(head), chunked(&body, 8192)].concat());
    client.expect_ok();
    bench.expect(
        "POST /v1development/profiles HTTP/1.1\nHost: SERVER\nContent-Encoding: gzip\nContent-Type: application/x-protobuf\nUser-Agent: okhttp/4.12.0\nX-Forwarded-Host: localhost:4040\nContent-Length: 12345\n\n",
        &body,
    );
}

/// R11: Node.js, wall: in four writes, lower-case names, every awkward character in a label.
#[test]
fn node_wall_in_four_writes() {
    let bench = Bench::start();
    let boundary = "----formdata-undici-009060026330";
    let [before, data, after] = multipart(boundary, "profile", "profile", &profile(3_000));
    let body = [before.clone(), data.clone(), after.clone()].concat();
    let length = body.len();
    let head = format!(
        "POST /ingest?from=1700000000&name=nodejs%7Botel.scope.name%3Dcom.grafana.pyroscope%2Fnodejs%2Cotel.scope.version%3D0.6.1%2Cprocess.runtime.name%3Dnodejs%2Cprocess.runtime.version%3D20.20.2%2Cenv%3Dtest+env%2Ck%3Da%2Bb%7Ec*d%21%27%28%29%25%C3%A9%7D&spyName=nodespy&until=1700000060&sampleRate=17 HTTP/1.1\nhost: localhost:4040\nconnection: keep-alive\nX-Scope-OrgID: t1\ncontent-type: multipart/form-data; boundary={boundary}\naccept: */*\naccept-language: *\nsec-fetch-mode: cors\nuser-agent: node\naccept-encoding: gzip, deflate\ncontent-length: {length}\n\n"
    );
    let first = [crlf(&head), before].concat();
    let (line_end, last) = after.split_at(2);
    let mut client = bench.client();
    client.send_segments(&[&first, &data, line_end, last]);
    client.expect_ok();
    bench.expect(
        &format!(
            "POST /ingest?from=1700000000&name=nodejs%7B__session_id__%3DSESSION%2Cenv%3Dtest+env%2Ck%3Da%2Bb~c%2Ad%21%27%28%29%25%C3%A9%2Cotel.scope.name%3Dcom.grafana.pyroscope%2Fnodejs%2Cotel.scope.version%3D0.6.1%2Cprocess.runtime.name%3Dnodejs%2Cprocess.runtime.version%3D20.20.2%7D&sampleRate=17&spyName=nodespy&until=1700000060 HTTP/1.1\nHost: SERVER\nX-Scope-OrgID: t1\ncontent-type: multipart/form-data; boundary={boundary}\naccept: */*\naccept-language: *\nsec-fetch-mode: cors\nuser-agent: node\nX-Forwarded-Host: localhost:4040\nContent-Length: {length}\n\n"
        ),
        &body,
    );
}

/// Node.js with a server address that ends in a slash: the slashes become one, nothing is redirected.
#[test]
fn node_with_a_doubled_slash() {
    let bench = Bench::start();
    let mut client = bench.client();
    client.send(crlf(
        "POST //ingest?from=1&until=2 HTTP/1.1\nhost: localhost:4040\ncontent-length: 2\n\nhi",
    ));
    client.expect_ok();
    bench.expect(
        "POST /ingest?from=1&until=2 HTTP/1.1\nHost: SERVER\nX-Forwarded-Host: localhost:4040\nContent-Length: 2\n\n",
        b"hi",
    );
}

/// R14: Python, 1.0.7: Push, gzip, all names in lower case. Labels are in the body, which is not ours.
#[test]
fn python_push() {
    let bench = Bench::start();
    let body = profile(7_777);
    let head = "POST /push.v1.PusherService/Push HTTP/1.1\nuser-agent: pyroscope-rs/pyspy/1.0.7 reqwest\ncontent-type: application/proto\ncontent-encoding: gzip\naccept: */*\nhost: localhost:4040\ncontent-length: 7777\n\n";
    let mut client = bench.client();
    client.send([crlf(head), body.clone()].concat());
    client.expect_ok();
    bench.expect(
        "POST /push.v1.PusherService/Push HTTP/1.1\nHost: SERVER\nuser-agent: pyroscope-rs/pyspy/1.0.7 reqwest\ncontent-type: application/proto\ncontent-encoding: gzip\naccept: */*\nX-Forwarded-Host: localhost:4040\nContent-Length: 7777\n\n",
        &body,
    );
}

/// The relayed head of R18 and R19: .NET's, without what is between us and the SDK alone.
const DOTNET_RELAYED: &str = "POST /push.v1.PusherService/Push HTTP/1.1\nHost: SERVER\nAccept: */*\nContent-Type: application/proto\nUser-Agent: pyroscope-dotnet/1.4.0 cpp-httplib\nX-Scope-OrgID: tenant-1\nX-Forwarded-Host: localhost:4040\nContent-Length: 5000\n\n";

/// R18: .NET from 1.2.0: an empty Accept-Encoding, one connection per request, head and body apart.
#[test]
fn dotnet_push() {
    let bench = Bench::start();
    let body = profile(5_000);
    let head = "POST /push.v1.PusherService/Push HTTP/1.1\nAccept-Encoding: \nAccept: */*\nHost: localhost:4040\nConnection: close\nContent-Type: application/proto\nContent-Length: 5000\nUser-Agent: pyroscope-dotnet/1.4.0 cpp-httplib\nX-Scope-OrgID: tenant-1\n\n";
    let mut client = bench.client();
    client.send_segments(&[&crlf(head), &body]);
    client.expect_ok();
    client.expect_end();
    bench.expect(DOTNET_RELAYED, &body);
}

/// R19: .NET 0.14.2 to 1.1.0: holds the body back until it is told to go on, and takes a final answer before
/// the body for the end.
#[test]
fn dotnet_push_expecting_100_continue() {
    let bench = Bench::start();
    let body = profile(5_000);
    let head = "POST /push.v1.PusherService/Push HTTP/1.1\nAccept-Encoding: \nAccept: */*\nHost: localhost:4040\nConnection: close\nExpect: 100-continue\nContent-Type: application/proto\nContent-Length: 5000\nUser-Agent: pyroscope-dotnet/1.4.0 cpp-httplib\nX-Scope-OrgID: tenant-1\n\n";
    let mut client = bench.client();
    client.send(crlf(head));
    let go_on = client.response();
    assert_eq!(go_on.head.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    // All of the body but its last byte is in: what comes before that byte comes too early.
    client.send_segments(&[&body[..4_999]]);
    client.expect_silence();
    client.send(&body[4_999..]);
    client.expect_ok();
    client.expect_end();
    bench.expect(DOTNET_RELAYED, &body);
}

/// R21: folded text by curl, as in the server's documentation.
#[test]
fn curl_folded_text() {
    let bench = Bench::start();
    let mut client = bench.client();
    client.send(crlf(
        "POST /ingest?name=curl-test-app&from=1615709120&until=1615709130 HTTP/1.1\nHost: localhost:4040\nUser-Agent: curl/8.5.0\nAccept: */*\nContent-Length: 11\nContent-Type: application/x-www-form-urlencoded\n\nfoo;bar 100",
    ));
    client.expect_ok();
    bench.expect(
        "POST /ingest?from=1615709120&name=curl-test-app%7B__session_id__%3DSESSION%7D&until=1615709130 HTTP/1.1\nHost: SERVER\nUser-Agent: curl/8.5.0\nAccept: */*\nContent-Type: application/x-www-form-urlencoded\nX-Forwarded-Host: localhost:4040\nContent-Length: 11\n\n",
        b"foo;bar 100",
    );
}

/// .NET up to 0.13.0 leaves `=` and `/` bare inside the value; a `name` that no server would take stays as it came.
#[test]
fn names_half_encoded_and_unparsable() {
    let bench = Bench::start();
    let mut client = bench.client();
    let targets = [
        (
            "/ingest?name=app%7Ba=b/c%2Cd=e%7D&from=1",
            "/ingest?from=1&name=app%7B__session_id__%3DSESSION%2Ca%3Db%2Fc%2Cd%3De%7D",
        ),
        (
            "/ingest?name=%7Benv%3Dprod%7D&b=1&a=2",
            "/ingest?name=%7Benv%3Dprod%7D&b=1&a=2",
        ),
        ("/ingest?b=%7e&a=+", "/ingest?b=%7e&a=+"),
        ("/ingest?name=&b=1", "/ingest?name=&b=1"),
        ("/ingest", "/ingest"),
    ];
    for (count, (sent, relayed)) in targets.into_iter().enumerate() {
        client.send(format!(
            "POST {sent} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ));
        client.expect_ok();
        let requests = bench.server.wait_complete(count + 1);
        assert_eq!(with_session_masked(&requests[count].target()), relayed);
    }
}

/// One session id for the sandbox's whole life, and another one in another sandbox.
#[test]
fn the_session_id_is_the_sandboxs_own() {
    let session = |bench: &Bench| {
        let before = bench.server.complete().len();
        assert_eq!(bench.extension.post("/ingest?name=app", b"x").status, 200);
        let target = bench.server.wait_complete(before + 1)[before].target();
        target
            .split("__session_id__%3D")
            .nth(1)
            .expect("a session id")
            .to_owned()
    };
    let (one, other) = (Bench::start(), Bench::start());
    let id = session(&one);
    assert_eq!(session(&one), id);
    assert_ne!(session(&other), id);
}

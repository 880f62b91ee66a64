//! Do the stand-ins do what they say? Played against each other and a TLS client, without the extension.

#![expect(
    clippy::disallowed_methods,
    reason = "how long the server takes is measured here"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::certificates::Authority;
use support::client::{Client, chunked, post, with_length};
use support::extensions_api::{ExtensionsApi, Fault, IDENTIFIER, Kind};
use support::play::{Gate, Play, response};
use support::pyroscope::{LATENCY, Pyroscope, Tls};

// The server.

#[test]
fn the_server_keeps_a_request_byte_for_byte() {
    let server = Pyroscope::http();
    let mut client = Client::connect(server.addr());
    let request = post("/ingest?name=a", b"\0body\xff");
    client.send_bytewise(&request);
    client.expect_ok();
    let kept = server.wait_only();
    assert_eq!([kept.head.raw.as_slice(), &kept.body.raw].concat(), request);
    assert_eq!(
        (
            kept.method().as_str(),
            kept.path().as_str(),
            kept.query().as_deref()
        ),
        ("POST", "/ingest", Some("name=a"))
    );
}

#[test]
fn the_server_reads_chunks_and_pipelined_requests() {
    let server = Pyroscope::http();
    let mut client = Client::connect(server.addr());
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let twice = [
        head.as_slice(),
        &chunked(b"hello world", 4),
        &post("/second", b"x"),
    ]
    .concat();
    client.send(&twice);
    client.expect_ok();
    client.expect_ok();
    let kept = server.wait_complete(2);
    assert_eq!(
        (kept[0].payload(), kept[1].payload()),
        (b"hello world".as_slice(), b"x".as_slice())
    );
    assert_eq!((kept[1].connection, kept[1].place), (0, 1));
}

#[test]
fn the_server_answers_bytewise_early_and_only_when_let() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    server.next(Play::bytewise(response(
        503,
        &[("Retry-After", "1")],
        b"busy",
    )));
    server.next(Play::answer(200).unanswered_until(&gate));
    let mut client = Client::connect(server.addr());
    client.send(post("/", b"1"));
    let answer = client.response();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (503, b"busy".as_slice())
    );
    client.send(post("/", b"2"));
    server.wait_complete(2);
    client.expect_silence();
    gate.open();
    client.expect_ok();

    server.next(Play::early(response(413, &[], b"")));
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert_eq!(server.wait_ended(0), "closed");
    assert!(!server.requests()[2].complete);
}

#[test]
fn the_server_takes_its_time_on_every_connection_by_itself() {
    let server = Pyroscope::http();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.addr())).collect();
    let since = Instant::now();
    for client in &mut clients {
        client.send(post("/", b"1"));
    }
    for client in &mut clients {
        client.expect_ok();
        assert!(since.elapsed() >= LATENCY, "{:?}", since.elapsed());
    }
    // One after the other they would take eight times as long.
    assert!(since.elapsed() < 4 * LATENCY, "{:?}", since.elapsed());
}

/// Its end comes when it is asked for, not when the answer would have come.
#[test]
fn the_server_ends_a_connection_that_waits_for_its_answer() {
    let server = Pyroscope::http();
    let mut client = Client::connect(server.addr());
    client.send(post("/", b"1"));
    server.wait_complete(1);
    let since = Instant::now();
    server.reset_all();
    assert_eq!(
        client.try_response().expect_err("a RST").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(since.elapsed() < LATENCY, "{:?}", since.elapsed());
    assert!(!server.requests()[0].answered);
}

/// An answer ends a request; without one, its connection's end does.
#[test]
fn the_server_notes_when_each_request_ended() {
    let server = Pyroscope::http().quick();
    let mut client = Client::connect(server.addr());
    client.send(post("/answered", b"body"));
    client.expect_ok();
    let answered = server.wait_answered(1).remove(0);
    let first = answered.ended_at.expect("an end");
    assert!(answered.body_at.expect("a body") <= first);

    server.next(Play::answer(200).unanswered_until(&Gate::new()));
    client.send(post("/cut", b"body"));
    assert_eq!(server.wait_complete(2)[1].ended_at, None);
    server.reset_all();
    let requests = server.requests();
    assert_eq!(requests[0].ended_at, Some(first));
    assert!(requests[1].ended_at.expect("an end") > first);
    assert!(!requests[1].answered);
}

#[test]
fn the_server_answers_at_once_when_quick_or_told_to() {
    let (quick, server, gate) = (Pyroscope::http().quick(), Pyroscope::http(), Gate::new());
    gate.open();
    server.next(Play::answer(200).at_once());
    server.next(Play::answer(200).unanswered_until(&gate));
    server.next(Play::early(response(200, &[], b"")));
    let mut client = Client::connect(server.addr());
    let since = Instant::now();
    for client in [&mut Client::connect(quick.addr()), &mut client] {
        client.send(post("/", b"1"));
        client.expect_ok();
    }
    for _ in 0..2 {
        client.send(post("/", b"1"));
        client.expect_ok();
    }
    assert!(since.elapsed() < LATENCY, "{:?}", since.elapsed());
}

#[test]
fn the_server_leaves_a_request_unread() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    server.next(Play::answer(200).unread_until(&gate));
    let mut client = Client::connect(server.addr());
    client.send(post("/", b"1"));
    server.wait_begun(1);
    assert!(server.requests().is_empty());
    gate.open();
    client.expect_ok();
}

#[test]
fn the_server_ends_connections_by_fin_and_by_rst() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    let (mut idle, mut busy) = (
        Client::connect(server.addr()),
        Client::connect(server.addr()),
    );
    idle.send(post("/", b"1"));
    idle.expect_ok();
    server.next(Play::answer(200).unanswered_until(&gate));
    busy.send(post("/", b"2"));
    server.wait_complete(2);
    server.wait_idle(1);
    server.close_idle();
    assert!(idle.try_response().expect("a FIN, not a RST").is_none());
    server.reset_all();
    assert_eq!(
        busy.try_response().expect_err("a RST").kind(),
        std::io::ErrorKind::ConnectionReset
    );

    let mut third = Client::connect(server.addr());
    server.next(Play::reset_in_body());
    third.send(post("/", &[7; 100_000]));
    assert_eq!(
        third.try_response().expect_err("a RST").kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[test]
fn the_server_refuses_and_accepts_on_the_same_port() {
    let server = Pyroscope::refusing(None);
    for _ in 0..3 {
        let refused = TcpStream::connect(server.addr()).expect_err("nothing listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        server.accept();
        let mut client = Client::connect(server.addr());
        client.send(post("/", b"1"));
        client.expect_ok();
        server.refuse();
    }
}

#[test]
fn the_server_counts_full_and_resumed_handshakes() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        let config = trusting(&authority);
        for _ in 0..3 {
            let tls =
                ClientConnection::new(Arc::clone(&config), "localhost".try_into().expect("a name"))
                    .expect("a client");
            let mut stream = StreamOwned::new(
                tls,
                TcpStream::connect(server.addr()).expect("a connection"),
            );
            stream
                .write_all(&post("/ingest", b"body"))
                .expect("a request sent");
            let mut answer = [0; 38];
            stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(answer.as_slice(), response(200, &[], b""));
        }
        assert_eq!(server.handshakes(), (1, 2));
        assert_eq!(server.connections()[0].version, Some(version.version));
        assert_eq!(server.complete()[2].payload(), b"body");
    }
}

#[test]
fn the_server_notes_why_a_handshake_failed() {
    let server = Pyroscope::https(Tls::by(&Authority::new("Unknown Root")));
    let config = trusting(&Authority::new("Bench Root"));
    let name: ServerName<'static> = "localhost".try_into().expect("a name");
    let tls = ClientConnection::new(config, name).expect("a client");
    let mut stream = StreamOwned::new(
        tls,
        TcpStream::connect(server.addr()).expect("a connection"),
    );
    stream
        .write_all(b"x")
        .expect_err("a certificate that is not trusted");
    drop(stream);
    let why = server.wait_ended(0);
    assert!(why.contains("UnknownCA"), "{why}");
}

fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root =
        CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a PEM certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    Arc::new(
        builder
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

// Lambda's side.

const REGISTER: &str = "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: lambda\r\nLambda-Extension-Name: bench\r\n";
const BOTH: &[u8] = br#"{"events":["INVOKE","SHUTDOWN"]}"#;

fn lambda_client(lambda: &ExtensionsApi) -> Client {
    Client::connect(lambda.address().parse().expect("an address"))
}

fn next() -> String {
    format!(
        "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: lambda\r\nLambda-Extension-Identifier: {IDENTIFIER}\r\n\r\n"
    )
}

#[test]
fn lambda_registers_and_hands_over_events() {
    let lambda = ExtensionsApi::start();
    lambda.answer_in_pieces(7);
    let mut extension = lambda_client(&lambda);
    extension.send(with_length(REGISTER, BOTH));
    let granted = extension.response();
    assert_eq!(
        granted
            .head
            .header("Lambda-Extension-Identifier")
            .as_deref(),
        Some(IDENTIFIER)
    );
    let registration = lambda.wait_registered();
    assert_eq!(
        (registration.name.as_str(), registration.events),
        ("bench", vec!["INVOKE".to_owned(), "SHUTDOWN".to_owned()])
    );
    extension.send(next());
    lambda.wait_next();
    extension.expect_silence();
    // Handing over an event ends when it has been read, so both ends need a thread.
    let (request_id, response) = thread::scope(|both| {
        let invoking = both.spawn(|| lambda.invoke());
        let response = extension.response();
        (invoking.join().expect("an event handed over"), response)
    });
    let event = String::from_utf8(response.body).expect("JSON");
    assert!(
        event.contains("\"INVOKE\"") && event.contains(&request_id),
        "{event}"
    );
    extension.send(next());
    let response = thread::scope(|both| {
        both.spawn(|| lambda.shutdown(Duration::from_secs(2)));
        extension.response()
    });
    let event = String::from_utf8(response.body).expect("JSON");
    assert!(event.contains("spindown"), "{event}");
    assert_eq!(lambda.calls().len(), 3);
}

#[test]
fn lambda_refuses_as_told_and_what_breaks_the_contract() {
    let lambda = ExtensionsApi::start();
    lambda.fault(
        Kind::Register,
        Fault::Refuse(403, "Extension.InvalidEventType"),
    );
    lambda.fault(
        Kind::Register,
        Fault::Refuse(500, "Extension.ContainerError"),
    );
    let mut extension = lambda_client(&lambda);
    for status in [403, 500] {
        extension.send(with_length(REGISTER, BOTH));
        assert_eq!(extension.response().status, status);
    }
    assert_eq!(lambda.violations(), Vec::<String>::new());

    extension.send(next());
    assert_eq!(extension.response().status, 403);
    extension.send(with_length(
        "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: lambda\r\n",
        BOTH,
    ));
    assert_eq!(extension.response().status, 403);
    extension.send(with_length(REGISTER, BOTH));
    assert_eq!(extension.response().status, 200);
    let report = "POST /2020-01-01/extension/exit/error HTTP/1.1\r\nHost: lambda\r\n";
    extension.send(with_length(report, b"{}"));
    assert_eq!(extension.response().status, 403);
    let report = format!(
        "{report}Lambda-Extension-Identifier: {IDENTIFIER}\r\nLambda-Extension-Function-Error-Type: Bench.Test\r\n"
    );
    extension.send(with_length(&report, b"{}"));
    assert_eq!(extension.response().status, 202);
    assert_eq!(lambda.forgive().len(), 3);
}

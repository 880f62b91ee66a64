//! Does the local server speak HTTP/1.1 with any client, and hold its ground with a bad one?

#![expect(
    clippy::disallowed_methods,
    reason = "clients that come at once need threads, and waits have an end"
)]

mod support;

use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use support::client::{Client, chunked, post, with_length};
use support::monitor::GUARD;
use support::play::{Gate, Play};
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, Sandbox};

fn bench() -> (Pyroscope, Extension) {
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server).listening();
    (server, extension)
}

/// It has no server, so that nothing but its clients keeps it busy.
fn alone() -> Extension {
    Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_REMOTE_ADDRESS", "ftp://nowhere")
        .listening()
}

/// Bytes in which no two places look alike.
fn bytes(length: usize) -> Vec<u8> {
    (0_u32..)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .take(length)
        .collect()
}

#[test]
fn any_method_and_any_path() {
    let (server, extension) = bench();
    let mut client = extension.client();
    let lines = [
        ("GET", "/", "/"),
        ("PUT", "/a/b?x=1&x=2", "/a/b?x=1&x=2"),
        (
            "DELETE",
            "/v1development/profiles",
            "/v1development/profiles",
        ),
        ("PATCH", "/with%20space/%C3%A9", "/with%20space/%C3%A9"),
        ("OPTIONS", "/ingest?", "/ingest?"),
        ("BREW", "///many////slashes", "/many/slashes"),
    ];
    for (count, (method, sent, relayed)) in lines.into_iter().enumerate() {
        client.send(with_length(
            &format!("{method} {sent} HTTP/1.1\r\nHost: x\r\n"),
            b"body",
        ));
        client.expect_ok();
        let request = server.wait_complete(count + 1).remove(count);
        assert_eq!(
            request.head.start_line().trim_end_matches('?'),
            format!("{method} {relayed} HTTP/1.1").trim_end_matches('?')
        );
        assert_eq!(request.payload(), b"body");
    }
    client.send("GET /no/body HTTP/1.1\r\nHost: x\r\n\r\n");
    client.expect_ok();
    let request = server.wait_complete(lines.len() + 1).remove(lines.len());
    assert_eq!(
        (request.method().as_str(), request.payload()),
        ("GET", b"".as_slice())
    );
}

#[test]
fn bodies_of_every_framing_and_size() {
    let (server, extension) = bench();
    let mut client = extension.client();
    let mut count = 0;
    for size in [0, 1, 4095, 65_535, 65_536, 65_537, 1_000_000] {
        let body = bytes(size);
        for chunk in [None, Some(1_000_003), Some(8192), Some(777)] {
            match chunk {
                None => client.send(post("/", &body)),
                Some(chunk) => {
                    client.send("POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: Chunked\r\n\r\n");
                    client.send(chunked(&body, chunk));
                }
            }
            client.expect_ok();
            count += 1;
            let request = server.wait_complete(count).remove(count - 1);
            assert!(
                request.payload() == body,
                "{size} bytes in chunks of {chunk:?} came differently"
            );
            assert_eq!(request.header("Content-Length"), Some(size.to_string()));
        }
    }
}

#[test]
fn chunk_extensions_trailers_and_either_case_of_hex() {
    let (server, extension) = bench();
    let mut client = extension.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n\
         A;name=value;quoted=\"a b\"\r\n0123456789\r\n00b\r\nabcdefghijk\r\n0;last\r\nDigest: x\r\nOther: y\r\n\r\n",
    );
    client.expect_ok();
    let request = server.wait_only();
    assert_eq!(request.payload(), b"0123456789abcdefghijk");
    assert_eq!(
        (request.header("Trailer"), request.header("Digest")),
        (None, None)
    );
}

#[test]
fn heads_and_bodies_split_at_every_byte() {
    let (server, extension) = bench();
    let mut client = extension.client();
    client.send_bytewise(post("/ingest?name=length", b"0123456789"));
    client.expect_ok();
    server.wait_complete(1);
    client.send_bytewise("POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_bytewise(chunked(b"abcdefghijklmnopqrstuvwxyz", 10));
    client.expect_ok();
    let requests = server.wait_complete(2);
    assert_eq!(requests[0].payload(), b"0123456789");
    assert_eq!(requests[1].payload(), b"abcdefghijklmnopqrstuvwxyz");
}

#[test]
fn goes_on_when_asked_and_never_unasked() {
    let (server, extension) = bench();
    let mut client = extension.client();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"
        ));
        assert_eq!(
            client.response().head.text(),
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        client.send(if framing.starts_with('C') {
            "hello"
        } else {
            "5\r\nhello\r\n0\r\n\r\n"
        });
        client.expect_ok();
    }
    // Unasked: the very next thing after a request is its one answer.
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    client.send_segments(&[b"hel"]);
    client.expect_silence();
    client.send("lo");
    client.expect_ok();
    let requests = server.wait_complete(3);
    assert!(
        requests
            .iter()
            .all(|request| request.payload() == b"hello" && request.header("Expect").is_none())
    );
}

#[test]
fn a_client_that_does_not_wait_for_100() {
    let (server, extension) = bench();
    let mut client = extension.client();
    let expecting = with_length(
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n",
        b"hello",
    );
    client.send([expecting, post("/second", b"x")].concat());
    let first = client.response();
    if first.status == 100 {
        client.expect_ok();
    } else {
        assert_eq!(first.status, 200);
    }
    client.expect_ok();
    let mut bodies: Vec<Vec<u8>> = server
        .wait_complete(2)
        .iter()
        .map(|request| request.payload().to_vec())
        .collect();
    bodies.sort();
    assert_eq!(bodies, [b"hello".to_vec(), b"x".to_vec()]);
}

#[test]
fn one_connection_for_many_requests() {
    let (server, extension) = bench();
    let mut client = extension.client();
    for count in 1..=50 {
        client.send(post("/", format!("{count}").as_bytes()));
        let response = client.expect_ok();
        assert_eq!(response.head.header("Keep-Alive"), None);
        assert_ne!(
            response
                .head
                .header("Connection")
                .map(|value| value.to_lowercase())
                .as_deref(),
            Some("close")
        );
    }
    server.wait_complete(50);
}

#[test]
fn pipelined_requests_are_answered_and_relayed_in_order() {
    let server = Pyroscope::http().quick();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_NUM_WORKERS", "1")
        .listening();
    let mut client = extension.client();
    let all: Vec<u8> = (0..30)
        .flat_map(|n| post("/", format!("body {n}").as_bytes()))
        .collect();
    client.send(all);
    (0..30).for_each(|_| drop(client.expect_ok()));
    let bodies: Vec<String> = server
        .wait_complete(30)
        .iter()
        .map(|request| String::from_utf8_lossy(request.payload()).into_owned())
        .collect();
    assert_eq!(
        bodies,
        (0..30).map(|n| format!("body {n}")).collect::<Vec<_>>()
    );
}

/// They are more than is read at once, and no event says that the rest is still there.
#[test]
fn requests_that_have_all_arrived_are_all_answered() {
    let extension = alone();
    let mut client = extension.client();
    extension.wait_asleep();
    extension.freeze();
    client.send(post("/ingest", b"goes nowhere").repeat(300));
    extension.thaw();
    (0..300).for_each(|_| drop(client.expect_ok()));
}

#[test]
fn the_client_says_when_the_connection_ends() {
    let (server, extension) = bench();
    for head in [
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nconnection: TE, Close\r\n",
        "POST / HTTP/1.0\r\n",
    ] {
        let mut client = extension.client();
        client.send(with_length(head, b"body"));
        client.expect_ok();
        client.expect_end();
    }
    server.wait_complete(3);
}

/// What it sent last and its end are read in one go, before the answer is written.
#[test]
fn a_client_that_half_closes_with_the_last_of_its_request_gets_its_answer() {
    let (server, extension) = bench();
    let mut client = extension.client();
    let request = post("/ingest", b"payload");
    let (first, last) = request.split_at(request.len() - 1);
    client.send(first);
    extension.wait_asleep();
    extension.freeze();
    client.send(last);
    client.half_close();
    extension.thaw();
    client.expect_ok();
    client.expect_end();
    server.wait_answered(1);
}

/// A read that leaves room does not mean that its end has not come with what was read.
#[test]
fn a_client_that_half_closes_with_a_whole_request_is_answered_and_closed() {
    let (server, extension) = bench();
    let mut client = extension.client();
    client.send(post("/ingest", b"first"));
    client.expect_ok();
    server.wait_answered(1);
    extension.wait_asleep();
    extension.freeze();
    client.send(post("/ingest", b"second"));
    client.half_close();
    extension.thaw();
    client.expect_ok();
    client.expect_end();
    server.wait_answered(2);
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let (server, extension) = bench();
    let mut client = extension.client();
    client.send([post("/", b"first"), post("/", b"second")].concat());
    client.half_close();
    client.expect_ok();
    client.expect_ok();
    client.expect_end();
    server.wait_complete(2);
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let (server, extension) = bench();
    for part in [
        "POST / HT",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this",
    ] {
        let mut client = extension.client();
        client.send(part);
        client.half_close();
        client.rest();
    }
    assert_eq!(extension.post("/", b"whole").status, 200);
    assert_eq!(server.wait_only().payload(), b"whole");
}

/// It is not read from either by then, so that only a write can fail.
#[test]
fn a_client_that_goes_away_and_never_listened_leaves_nothing_behind() {
    let extension = alone();
    let mut other = extension.client();
    other.send(post("/ingest", b"first"));
    other.expect_ok();
    let before = extension.sockets();
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.set_tcp_mss(536).expect("small segments");
    deaf.set_recv_buffer_size(2048).expect("a small buffer");
    deaf.connect(&extension.addr().into())
        .expect("the extension takes connections");
    deaf.set_nonblocking(true).expect("a socket");
    let requests = post("/ingest", b"unheard").repeat(100);
    let mut refused = 0;
    while refused < 100 {
        match deaf.send(&requests) {
            Ok(_) => refused = 0,
            Err(_) => refused += 1,
        }
        extension.wait_asleep();
    }
    // Its kernel answers what it has not read with a RST.
    drop(deaf);
    let since = Instant::now();
    while extension.sockets() > before {
        assert!(since.elapsed() < GUARD, "its connection is held");
        thread::yield_now();
    }
    other.send(post("/ingest", b"second"));
    other.expect_ok();
}

#[test]
fn answers_before_the_server_has_read_a_byte() {
    let (server, extension) = bench();
    let gate = Gate::new();
    server.always(Play::answer(200).unread_until(&gate));
    let mut client = extension.client();
    for n in 0..8_u8 {
        client.send(post("/", &[n; 100_000]));
        client.expect_ok();
    }
    assert!(server.requests().is_empty());
    gate.open();
    server.wait_complete(8);
}

#[test]
fn malformed_requests_get_the_right_status_and_hurt_nobody_else() {
    let (server, extension) = bench();
    let mut bystander = extension.client();
    let whole = post("/", b"bystander");
    let (first_half, second_half) = whole.split_at(whole.len() - 4);
    bystander.send_segments(&[first_half]);

    let long_line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    let long_head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        format!("X: {}\r\n", "b".repeat(1000)).repeat(70)
    );
    let cases: &[(&str, &[u16])] = &[
        ("GARBAGE\r\n\r\n", &[400]),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", &[400]),
        ("POST / HTTP/1.1\r\nno colon\r\n\r\n", &[400]),
        (
            "POST / HTTP/1.1\r\nHost: x\r\n folded: header\r\n\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            &[400, 413],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            &[400, 501],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
            &[400],
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            &[400, 413],
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]),
        (&long_line, &[414, 431]),
        (&long_head, &[431]),
    ];
    for (request, statuses) in cases {
        let mut client = extension.client();
        // What refuses a request may close before it has been sent to its end.
        let _ = client.try_send(request);
        let shown: String = request.chars().take(80).collect();
        let response = client
            .try_response()
            .unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        let status = response
            .unwrap_or_else(|| panic!("{shown:?}: closed without an answer"))
            .status;
        assert!(
            statuses.contains(&status),
            "{shown:?} got {status}, not one of {statuses:?}"
        );
        client.expect_end();
    }

    bystander.send(second_half);
    bystander.expect_ok();
    assert_eq!(server.wait_only().payload(), b"bystander");
}

/// An empty line before a request is what old clients send after a body; RFC 9112 says to ignore it.
#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let (server, extension) = bench();
    let mut client = extension.client();
    client.send(
        [
            b"\r\n".as_slice(),
            &post("/", b"a"),
            b"\r\n",
            &post("/", b"b"),
        ]
        .concat(),
    );
    client.expect_ok();
    client.expect_ok();
    server.wait_complete(2);
}

/// The ring holds 16 MiB where the function's memory is not known.
const RING_BYTES: usize = 16 << 20;

/// The announced length tells; what is in the ring stays.
#[test]
fn a_body_larger_than_the_ring_is_refused_and_drained() {
    let (server, extension) = bench();
    let gate = Gate::new();
    server.always(Play::answer(200).unread_until(&gate));
    assert_eq!(extension.post("/", b"was here before").status, 200);
    expect_too_large(&extension, &post("/", &vec![7; RING_BYTES + (1 << 20)]));
    gate.open();
    assert_eq!(server.wait_only().payload(), b"was here before");
}

/// Nothing tells how long it will be, so the ring is filled first.
#[test]
fn a_chunked_body_larger_than_the_ring_is_refused_and_drained() {
    let (server, extension) = bench();
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = chunked(&vec![7; RING_BYTES + (1 << 20)], 60_000);
    expect_too_large(&extension, &[head.as_slice(), &body].concat());
    assert_eq!(extension.post("/", b"comes after").status, 200);
    assert_eq!(server.wait_only().payload(), b"comes after");
}

/// Sends all of it before reading the answer, as clients do: it must not be cut off.
#[track_caller]
fn expect_too_large(extension: &Extension, request: &[u8]) {
    let mut client = extension.client();
    client.send(request);
    assert_eq!(client.response().status, 413);
    client.half_close();
    client.expect_end();
}

/// Told before the body is sent that it is too large, a client that asked first need not send it.
#[test]
fn a_body_larger_than_the_ring_is_refused_before_it_is_sent() {
    let (_server, extension) = bench();
    let mut client = extension.client();
    let length = RING_BYTES + 1;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 413);
}

/// Fewer payloads than the ring has slots, so none has to give way.
#[test]
fn many_clients_at_once() {
    let server = Pyroscope::http().quick();
    let extension = Sandbox::relay_only(&server).listening();
    let addr = extension.addr();
    let clients: Vec<_> = (0..16_u8)
        .map(|n| {
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                for _ in 0..12 {
                    client.send(post("/", &vec![n; 10_000 + usize::from(n)]));
                    client.expect_ok();
                }
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().expect("a client that was served"));
    let requests = server.wait_complete(192);
    for n in 0..16_u8 {
        let whole = |body: &[u8]| {
            body.len() == 10_000 + usize::from(n) && body.iter().all(|&byte| byte == n)
        };
        assert_eq!(
            requests
                .iter()
                .filter(|request| whole(request.payload()))
                .count(),
            12
        );
    }
}

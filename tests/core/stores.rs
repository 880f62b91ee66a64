//! The store that keeps credentials: what it is asked, and what becomes of what it answers.

use std::io::ErrorKind;
use std::time::Duration;

use pyroscope_lambda_extension::contract::{ConnId, End, Ends, Peer, RootSource};

use super::world::{ELSEWHERE, World, invoke, sandbox_with, status};

/// A secret in a store that is spoken to in clear, at an address.
pub(super) const SECRET: [(&str, &str); 4] = [
    (
        "PYROSCOPE_AUTH_TOKEN",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:token-AbCdEf",
    ),
    ("AWS_ENDPOINT_URL", "http://10.0.0.7:4566"),
    ("AWS_ACCESS_KEY_ID", "AKID"),
    ("AWS_SECRET_ACCESS_KEY", "s3cret"),
];

pub(super) const STORE: &str = "10.0.0.7:4566";

pub(super) fn json(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn kept(secret: &str) -> String {
    json(200, &format!(r#"{{"SecretString":"{secret}"}}"#))
}

/// The connection to the store that is asked for stands, and the request for the secret is on it.
pub(super) fn store(world: &mut World) -> ConnId {
    let (_, address) = *world.connecting.last().expect("the store is connected to");
    assert_eq!(address, STORE.parse().unwrap());
    let id = world.connect();
    let request = world.seen(id);
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\nx-amz-target: secretsmanager.GetSecretValue\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(
            "\r\n\r\n{\"SecretId\":\"arn:aws:secretsmanager:eu-west-1:123456789012:secret:token-AbCdEf\"}"
        ),
        "{request}"
    );
    id
}

/// The payload that has waited goes to the server with that token.
fn expect_arrival(world: &mut World, token: &str) {
    let server = world.connect();
    expect_token(&world.seen(server), token);
}

/// The store is asked, and what it answers goes to the server with the payload.
fn expect_answer_taken(world: &mut World) {
    let id = store(world);
    world.answer(id, &kept("t0ken"));
    expect_arrival(world, "t0ken");
}

pub(super) fn expect_token(request: &str, token: &str) {
    let line = format!("\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(request.matches("uthorization").count(), 1, "{request}");
    assert!(request.contains(&line), "{request}");
    let (head, body) = request.split_once("\r\n\r\n").expect("a whole head");
    assert_eq!(body, "x");
    assert!(!head.contains("arn:") && !head.contains("file:"), "{head}");
}

#[test]
fn the_keys_come_from_the_container_endpoint_where_the_environment_has_none() {
    let container = [
        ("AWS_ACCESS_KEY_ID", ""),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://127.0.0.1:9001/2021-04-23/credentials",
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token"),
    ];
    let mut world = World::new(&[&container[..], &SECRET].concat());
    let (_, address) = *world.connecting.last().unwrap();
    assert_eq!(address, "127.0.0.1:9001".parse().unwrap());
    let keys = world.connect();
    let request = world.seen(keys);
    assert!(
        request.starts_with("GET /2021-04-23/credentials HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("\r\nauthorization: container-token\r\n"),
        "{request}"
    );
    world.answer(
        keys,
        &json(
            200,
            r#"{"AccessKeyId":"ASIA1","SecretAccessKey":"s3cret","Token":"t/k+n=","Expiration":"2027-01-01T00:00:00Z"}"#,
        ),
    );
    let (_, address) = *world.connecting.last().unwrap();
    assert_eq!(address, STORE.parse().unwrap());
    let id = world.connect();
    let request = world.seen(id);
    assert!(
        request.contains(" Credential=ASIA1/20270115/eu-west-1/secretsmanager/aws4_request, "),
        "{request}"
    );
    assert!(
        request.contains("\r\nx-amz-security-token: t/k+n=\r\n"),
        "{request}"
    );
    world.answer(id, &kept("t0ken"));
    world.post("x");
    expect_arrival(&mut world, "t0ken");
}

#[test]
fn errors_of_the_store_are_logged_by_their_code_and_nothing_of_its_words() {
    for (answer, cause) in [
        (
            json(
                400,
                r#"{"__type":"AccessDeniedException","Message":"User: s3cret is not authorized to perform: secretsmanager:GetSecretValue"}"#,
            ),
            "AccessDeniedException, the function's role needs the permission secretsmanager:GetSecretValue",
        ),
        (
            json(
                400,
                r#"{"__type":"AccessDeniedException","Message":"Access to KMS is not allowed"}"#,
            ),
            "AccessDeniedException, the function's role needs the permission kms:Decrypt for its key",
        ),
        (
            json(
                400,
                r#"{"__type":"com.amazonaws.x#ResourceNotFoundException","message":"s3cret"}"#,
            ),
            "ResourceNotFoundException, nothing has this ARN: check its name, region and account",
        ),
        (
            json(400, r#"{"__type":"ParameterNotFound"}"#),
            "ParameterNotFound, nothing has this ARN: check its name, region and account",
        ),
        (
            json(
                400,
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
            ),
            "ThrottlingException",
        ),
        (
            json(
                400,
                r#"{"__type":"InvalidSignatureException","message":"Signature expired: 20270115T080000Z is now earlier than s3cret"}"#,
            ),
            "InvalidSignatureException, the clock of this machine is off",
        ),
        (json(400, r#"{"__type":"s3cret"}"#), "status 400"),
        (json(503, "s3cret"), "status 503"),
        (json(200, "{}"), "the answer is not one of this service"),
        (
            json(200, r#"{"SecretBinary":"c3s="}"#),
            "the secret is binary, not text",
        ),
        (json(200, r#"{"SecretString":""}"#), "it is empty"),
        (
            kept(r"s3c\nret"),
            "it has a line break or control character in it",
        ),
        ("HTTP/1.1 nonsense\r\n\r\n".to_owned(), "malformed"),
    ] {
        let mut world = World::new(&SECRET);
        let id = store(&mut world);
        world.offer(id, answer.as_bytes(), usize::MAX);
        let log = world.log();
        assert_eq!(log.matches("level=error").count(), 1, "{log}");
        assert!(log.contains(cause), "{cause}: {log}");
        assert!(log.contains(" place=\"10.0.0.7:4566\" "), "{log}");
        assert!(log.contains(" variable=PYROSCOPE_AUTH_TOKEN\n"), "{log}");
        assert!(!log.contains("s3c"), "{log}");
        assert!(!world.written.contains_key(&id), "closed");
        world.post("x");
        world.pass_to_deadline();
        expect_answer_taken(&mut world);
    }
}

#[test]
fn a_store_that_is_slow_or_dead_costs_an_attempts_time_and_no_more() {
    let mut world = World::new(&SECRET);
    world.post("x");
    let silent = store(&mut world);
    assert_eq!(world.pass_to_deadline(), Duration::from_secs(10));
    assert!(!world.written.contains_key(&silent));
    assert!(world.log().contains("cause=\"timed out: answer\""));
    world.pass_to_deadline();
    world.refuse();
    world.pass_to_deadline();
    let broken = store(&mut world);
    world.close(broken, End::Io(ErrorKind::ConnectionReset));
    world.pass_to_deadline();
    expect_answer_taken(&mut world);
}

#[test]
fn a_freeze_in_the_middle_costs_a_second_and_no_failure() {
    for seen in [true, false] {
        let (mut world, api) = sandbox_with(&SECRET);
        world.post("x");
        let dead = store(&mut world);
        if seen {
            world.now.mono += Duration::from_mins(5);
            world.now.unix_ms += 300_000;
            world.relay.thawed(Duration::from_mins(5), world.now);
            world.settle();
        } else {
            world.answer(api, &invoke(&world, 60_000));
        }
        world.pass(Duration::from_millis(999));
        assert!(world.written.contains_key(&dead), "{seen}: it may live");
        world.pass(Duration::from_millis(1));
        assert!(!world.written.contains_key(&dead), "{seen}");
        let id = store(&mut world);
        world.pass(Duration::from_secs(9));
        world.answer(id, &kept("t0ken"));
        expect_arrival(&mut world, "t0ken");
        assert!(!world.log().contains("level=error"), "{seen}");
    }
}

#[test]
fn a_store_whose_first_address_speaks_no_tls_is_asked_at_the_next() {
    let named = [("AWS_ENDPOINT_URL", "https://store.test")];
    let mut world = World::new(&[&named[..], &SECRET].concat());
    world.post("x");
    let addresses = ["10.0.0.8:443", "10.0.0.9:443"].map(|address| address.parse().unwrap());
    world
        .relay
        .resolved(Peer::Store, Ok(addresses.to_vec()), world.now);
    world.settle();
    let (_, first) = *world.connecting.last().expect("the store is connected to");
    assert_eq!(first, addresses[0]);
    let id = world.connect();
    world.offer(id, b"HTTP/1.1 400 Bad Request\r\n\r\n", usize::MAX);
    let tried: Vec<_> = world
        .connecting
        .iter()
        .map(|(_, address)| *address)
        .collect();
    assert_eq!(tried, addresses[1..]);
    assert!(!world.log().contains("level=error"));
}

/// Half an answer, the rest of which never comes.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{";

#[test]
fn a_store_that_speaks_after_a_wake_has_its_whole_time() {
    let (mut world, api) = sandbox_with(&SECRET);
    world.post("x");
    let alive = store(&mut world);
    world.answer(api, &invoke(&world, 60_000));
    world.pass(Duration::from_millis(500));
    world.offer(alive, HALF, usize::MAX);
    world.pass(Duration::from_secs(8));
    assert!(
        world.written.contains_key(&alive),
        "it has shown that it lives"
    );
    world.pass(Duration::from_millis(1_500));
    assert!(!world.written.contains_key(&alive), "ten seconds in all");
}

#[test]
fn what_a_store_said_before_a_wake_does_not_show_that_it_lives() {
    let (mut world, api) = sandbox_with(&SECRET);
    world.post("x");
    let dead = store(&mut world);
    world.answer(api, &invoke(&world, 60_000));
    // In the turn of the wake: it may have come before the freeze.
    world.offer(dead, HALF, usize::MAX);
    world.pass(Duration::from_secs(1));
    assert!(!world.written.contains_key(&dead));
}

#[test]
fn a_freeze_takes_nothing_of_the_second_that_a_suspect_store_has() {
    let (mut world, api) = sandbox_with(&SECRET);
    world.post("x");
    let dead = store(&mut world);
    world.answer(api, &invoke(&world, 60_000));
    world.pass(Duration::from_millis(600));
    let frozen = Duration::from_hours(1);
    world.now.mono += frozen;
    world.now.unix_ms += frozen.as_millis() as u64;
    world.relay.thawed(frozen, world.now);
    world.pass(Duration::from_millis(399));
    assert!(world.written.contains_key(&dead), "a second of awake time");
    world.pass(Duration::from_millis(1));
    assert!(!world.written.contains_key(&dead));
}

#[test]
fn an_answer_that_is_too_long_is_none() {
    for (more, is_taken) in [(0, true), (1, false)] {
        let mut world = World::new(&SECRET);
        world.post("x");
        let id = store(&mut world);
        let begin = r#"{"SecretString":"t0ken","Name":""#;
        let name = "n".repeat(
            pyroscope_lambda_extension::aws::store::ANSWER_BYTES_MAX - begin.len() - 2 + more,
        );
        let answer = format!("HTTP/1.1 200 OK\r\n\r\n{begin}{name}\"}}");
        world.offer(id, answer.as_bytes(), usize::MAX);
        let has_failed = world.log().contains("cause=\"the answer is too long\"");
        assert_eq!(has_failed, !is_taken, "{more}");
        if is_taken {
            // It ends with the connection.
            world.close(id, End::Eof);
            expect_arrival(&mut world, "t0ken");
        }
    }
}

#[test]
fn a_store_whose_first_address_refuses_is_asked_at_the_next() {
    let named = [("AWS_ENDPOINT_URL", "http://store.test:4566")];
    let mut world = World::new(&[&named[..], &SECRET].concat());
    world.post("x");
    world.resolving.clear();
    let addresses = ["10.0.0.8:4566", STORE].map(|address| address.parse().unwrap());
    world
        .relay
        .resolved(Peer::Store, Ok(addresses.to_vec()), world.now);
    world.settle();
    let (first, address) = world.connecting.pop().unwrap();
    assert_eq!(address, addresses[0]);
    world.close(first, End::Io(ErrorKind::ConnectionRefused));
    let id = store(&mut world);
    world.answer(id, &kept("t0ken"));
    assert!(!world.log().contains("level=error"));
    expect_arrival(&mut world, "t0ken");
}

#[test]
fn that_the_credentials_were_read_is_logged_once() {
    let debug = [("PYROSCOPE_LOG_LEVEL", "debug")];
    let mut world = World::new(&[&debug[..], &SECRET].concat());
    let line = "msg=\"The credentials were read\" ";
    world.post("x");
    let id = store(&mut world);
    assert!(!world.log().contains(line));
    world.answer(id, &kept("t0ken"));
    assert_eq!(world.log().matches(line).count(), 1);
    expect_arrival(&mut world, "t0ken");
    world.post("y");
    assert!(!world.log().contains(line));
}

/// Each address has its share of the time.
#[test]
fn a_store_whose_first_address_is_silent_is_asked_at_the_next() {
    let named = [("AWS_ENDPOINT_URL", "https://store.test")];
    let mut world = World::new(&[&named[..], &SECRET].concat());
    world.post("x");
    let addresses = ["10.0.0.8:443", "10.0.0.9:443"].map(|address| address.parse().unwrap());
    let answer = Ok(addresses.to_vec());
    world.relay.resolved(Peer::Store, answer, world.now);
    world.settle();
    let first = world.connect();
    assert!(!world.written[&first].is_empty(), "the handshake has begun");

    let share = world.asleep_for().expect("it has its time");
    world.pass(share / 2);
    assert!(world.connecting.is_empty(), "it still has time");
    world.pass(share / 2);
    let tried = world.connecting.last().map(|(_, address)| *address);
    assert_eq!(tried, Some(addresses[1]));
    assert!(!world.log().contains("level=error"));
}

#[test]
fn a_stores_name_is_looked_up_and_a_late_answer_is_for_nobody() {
    let named = [("AWS_ENDPOINT_URL", "http://store.test:4566")];
    let mut world = World::new(&[&named[..], &SECRET].concat());
    world.post("x");
    let asked = [(Peer::Store, "store.test:4566".to_owned())];
    assert_eq!(world.resolving, asked);
    world.pass(Duration::from_secs(10));
    assert!(world.log().contains("cause=\"timed out: name lookup\""));
    world.pass_to_deadline();
    assert_eq!(world.resolving, asked, "one lookup at a time");
    world
        .relay
        .resolved(Peer::Store, Ok(vec![STORE.parse().unwrap()]), world.now);
    world.settle();
    expect_answer_taken(&mut world);
}

/// Where the settings name no roots, the built-in ones need no look at a file.
#[test]
fn the_roots_of_the_settings_are_read_for_a_store() {
    let named = ("AWS_ENDPOINT_URL", "https://store.test");
    let file = Some("/roots.pem".to_owned());
    for (roots, expected) in [
        (
            ("SSL_CERT_DIR", "/certs"),
            Some((None, vec!["/certs".to_owned()])),
        ),
        (("SSL_CERT_FILE", "/roots.pem"), Some((file, Vec::new()))),
        (("SSL_CERT_DIR", ""), None),
    ] {
        let world = World::new(&[&[named, roots][..], &SECRET].concat());
        assert_eq!(world.resolving.is_empty(), expected.is_some(), "{roots:?}");
        assert_eq!(world.reading_roots, expected, "{roots:?}");
    }
}

/// Where the server is spoken to in clear, nobody else says it.
#[test]
fn roots_that_cannot_be_read_for_a_store_are_logged() {
    let vars = [
        ("AWS_ENDPOINT_URL", "https://store.test"),
        ("SSL_CERT_FILE", "/roots.pem"),
    ];
    let mut world = World::new(&[&vars[..], &SECRET].concat());
    let source = RootSource {
        variable: "SSL_CERT_FILE",
        pem: Err(ErrorKind::NotFound),
    };
    world.relay.roots(vec![source], world.now);
    world.settle();
    let log = world.log();
    assert_eq!(log.matches("msg=\"Bad setting\" ").count(), 1, "{log}");
}

#[test]
fn a_connection_of_nobody_is_not_the_stores() {
    let mut world = World::new(&SECRET);
    let nobodys = world.client();
    world.close(nobodys, End::Eof);
    let id = store(&mut world);
    assert!(world.relay.wants(id) && !world.relay.wants(nobodys));
    world.written.insert(nobodys, Vec::new());
    world.relay.connected(nobodys, ELSEWHERE, world.now);
    world.settle();
    assert!(!world.written.contains_key(&nobodys), "it is closed");
}

#[test]
fn a_store_that_has_answered_is_read_no_further() {
    let mut world = World::new(&SECRET);
    assert!(world.relay.has_connections(), "a freeze may harm it");
    let id = store(&mut world);
    let answer = kept("t0ken");
    world.relay.space(id)[..answer.len()].copy_from_slice(answer.as_bytes());
    world.relay.received(id, answer.len(), world.now);
    assert!(!world.relay.wants(id));
    assert!(world.relay.space(id).is_empty());
    world.settle();
    assert!(!world.relay.has_connections());
}

#[test]
fn a_store_that_is_this_relay_is_none() {
    let own = [("AWS_ENDPOINT_URL", "http://127.0.0.1:4040")];
    let mut world = World::new(&[&own[..], &SECRET].concat());
    let (id, address) = world.connecting.pop().unwrap();
    let ends = Ends {
        local: "127.0.0.1:50000".parse().unwrap(),
        peer: address,
    };
    world.relay.connected(id, ends, world.now);
    world.settle();
    let log = world.log();
    assert!(log.contains("this relay itself listens there"), "{log}");
    assert_eq!(world.totals().acknowledged, 0);
}

/// It turns out while the credentials are read again, because another address of the server has refused them.
#[test]
fn a_store_is_not_asked_for_a_server_that_is_this_relay() {
    let mut world = World::new(&SECRET);
    let id = store(&mut world);
    world.answer(id, &kept("t0ken"));
    world.post("x");
    world.post("x");
    let server = world.connect();
    let (own, _) = world.connecting.pop().expect("the second payload's");
    world.answer(server, &status(401));
    let id = store(&mut world);
    let ends = Ends {
        local: "127.0.0.1:50000".parse().unwrap(),
        peer: "127.0.0.1:4040".parse().unwrap(),
    };
    world.relay.connected(own, ends, world.now);
    world.settle();
    assert!(!world.written.contains_key(&id), "it is closed");
    assert_eq!(world.totals().lost_sum(), 2);
}

#[test]
fn without_keys_nobody_is_asked() {
    let none = [("AWS_ACCESS_KEY_ID", "")];
    let mut world = World::new(&[&none[..], &SECRET].concat());
    assert_eq!(world.connecting, []);
    let log = world.log();
    assert!(
        log.contains("no AWS keys: AWS_ACCESS_KEY_ID is not set"),
        "{log}"
    );
}

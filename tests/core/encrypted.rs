//! Servers that speak TLS, or should: rustls' own server, in memory.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use pyroscope_lambda_extension::contract::{ConnId, End};
use rustls::server::{ServerConfig, ServerConnection};

use crate::certificates::Authority;
use crate::world::{OK, World, named_server};

const SECOND: Duration = Duration::from_secs(1);
const NAME: &str = "pyroscope.test";

/// A server's end of a connection.
struct Server {
    tls: ServerConnection,
    id: ConnId,
    /// What it was asked, in clear.
    request: String,
    /// Says when the handshake is done that it sends no more.
    closes: bool,
}

fn config(authority: &Authority) -> Arc<ServerConfig> {
    let leaf = authority.leaf(&[NAME]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key)
        .expect("a certificate that fits its key");
    Arc::new(config)
}

impl Server {
    fn new(config: &Arc<ServerConfig>, id: ConnId) -> Self {
        Self {
            tls: ServerConnection::new(Arc::clone(config)).expect("a connection"),
            id,
            request: String::new(),
            closes: false,
        }
    }

    /// Reads what was written to it and says what TLS has to say, until neither has any more.
    fn serve(&mut self, world: &mut World) {
        loop {
            let written = world.written.get_mut(&self.id).map(std::mem::take);
            let written = written.unwrap_or_default();
            let mut rest = written.as_slice();
            while !rest.is_empty() {
                self.tls.read_tls(&mut rest).expect("read from memory");
                // Where it cannot go on, it says so in an alert.
                if self.tls.process_new_packets().is_err() {
                    break;
                }
                // It ends with an error where no more has come.
                let mut plain = Vec::new();
                let _ = self.tls.reader().read_to_end(&mut plain);
                self.request += std::str::from_utf8(&plain).expect("a request in text");
            }
            if self.closes && !self.tls.is_handshaking() {
                self.tls.send_close_notify();
                self.closes = false;
            }
            let flight = self.flight();
            world.offer(self.id, &flight, usize::MAX);
            if written.is_empty() && flight.is_empty() {
                return;
            }
        }
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut flight).expect("written to memory");
        }
        flight
    }

    fn answer(&mut self, world: &mut World, answer: &str) {
        self.tls
            .writer()
            .write_all(answer.as_bytes())
            .expect("room");
        self.serve(world);
    }
}

/// A profile waits for one of the server's addresses, with roots that vouch for it there.
fn waiting(authority: &Authority, addresses: &[&str]) -> World {
    let mut world = World::new(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
        ("PYROSCOPE_LOG_LEVEL", "debug"),
        ("SSL_CERT_FILE", "/roots.pem"),
    ]);
    world.post("x");
    world.roots(Ok(authority.pem().into()));
    named_server(&mut world, addresses);
    world
}

const TWO: [&str; 2] = ["10.0.0.1:443", "10.0.0.2:443"];

/// The profile arrives at the second address, as one that was sent once and with nothing said about it.
#[track_caller]
fn arrives_at_the_second(mut world: World, authority: &Authority) {
    assert_eq!(world.connecting.len(), 1, "the other address is begun");
    assert_eq!(world.connecting[0].1, TWO[1].parse().unwrap());
    let id = world.connect();
    let mut server = Server::new(&config(authority), id);
    server.serve(&mut world);
    assert!(server.request.ends_with("\r\n\r\nx"), "{}", server.request);
    server.answer(&mut world, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 0));
    assert_eq!(world.log().matches("level=error").count(), 0);
}

#[test]
fn an_address_whose_handshake_fails_is_followed_by_the_next_at_once() {
    let root = Authority::new("Bench Root");
    let nobody = config(&Authority::new("Somebody Else"));
    type Break<'b> = &'b dyn Fn(&mut World, ConnId);
    let cases: [(&str, Break); 4] = [
        ("plain HTTP", &|world, id| {
            _ = world.offer(id, b"HTTP/1.1 400 Bad Request\r\n\r\n", usize::MAX);
        }),
        ("an alert", &|world, id| {
            _ = world.offer(id, b"\x15\x03\x03\x00\x02\x02\x28", usize::MAX);
        }),
        ("a certificate of somebody else", &|world, id| {
            Server::new(&nobody, id).serve(world);
        }),
        ("the connection's end", &|world, id| {
            world.close(id, End::Eof);
        }),
    ];
    for (what, fail) in cases {
        let mut world = waiting(&root, &TWO);
        let first = world.connect();
        fail(&mut world, first);
        assert!(!world.written.contains_key(&first), "{what} ends it");
        arrives_at_the_second(world, &root);
    }
}

/// It has its share of the time that is left, not all of it.
#[test]
fn an_address_that_is_silent_in_the_handshake_is_followed_by_the_next() {
    let root = Authority::new("Bench Root");
    let mut world = waiting(&root, &TWO);
    let first = world.connect();
    assert_eq!(world.pass_to_deadline(), SECOND * 5);
    assert!(!world.written.contains_key(&first), "its share is over");
    arrives_at_the_second(world, &root);
}

#[test]
fn the_log_says_whether_a_handshake_took_up_an_earlier_session() {
    let root = Authority::new("Bench Root");
    let config = config(&root);
    let mut world = waiting(&root, &TWO[..1]);
    for kind in ["full", "resumed"] {
        let id = world.connect();
        let mut server = Server::new(&config, id);
        server.serve(&mut world);
        let log = world.log();
        let line = format!("msg=\"TLS handshake done\" handshake={kind} ");
        assert_eq!(log.matches(&line).count(), 1, "{log}");
        assert_eq!(log.matches("TLS handshake").count(), 1, "{log}");
        server.answer(&mut world, OK);
        world.close(id, End::Eof);
        world.post("x");
    }
    assert_eq!(world.totals().relayed, 2);
}

#[test]
fn a_connection_over_tls_is_used_again() {
    let root = Authority::new("Bench Root");
    let mut world = waiting(&root, &TWO[..1]);
    let id = world.connect();
    let mut server = Server::new(&config(&root), id);
    server.serve(&mut world);
    for body in ["x", "another", "a third", &"large".repeat(100_000)] {
        if body != "x" {
            world.post(body);
            server.serve(&mut world);
        }
        let head = format!("Content-Length: {}\r\n\r\n", body.len());
        let (_, rest) = server.request.split_once(&head).expect("its length");
        assert!(rest == body, "{}", server.request.len());
        server.request.clear();
        server.answer(&mut world, OK);
    }
    assert_eq!((world.totals().relayed, world.totals().resent), (4, 0));
    assert_eq!(world.connecting, []);
}

/// A server that says in TLS that it sends no more takes no further request, though TCP stays open.
#[test]
fn a_close_notify_ends_a_connection() {
    let root = Authority::new("Bench Root");
    let mut world = waiting(&root, &TWO[..1]);
    let id = world.connect();
    let mut server = Server::new(&config(&root), id);
    server.serve(&mut world);
    server.answer(&mut world, OK);
    server.tls.send_close_notify();
    server.serve(&mut world);
    assert!(!world.written.contains_key(&id));
    world.post("y");
    assert_eq!(world.connecting.len(), 1);
}

/// Whatever is wrong with them, Mozilla's are trusted, and the profile goes on its way.
#[test]
fn roots_that_cannot_be_used_are_a_line_in_the_log() {
    let (good, other) = (Authority::new("Bench Root"), Authority::new("Other Root"));
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let none = "holds no certificate that can be used, nothing is added to the built-in roots";
    let pem = |parts: &[&str]| Ok(parts.concat().into_bytes());
    for (roots, problem) in [
        (pem(&[good.pem()]), None),
        (pem(&[good.pem(), other.pem()]), None),
        (pem(&[]), Some(none)),
        (pem(&["no PEM"]), Some(none)),
        (pem(&[bad]), Some(none)),
        (
            pem(&[bad, good.pem(), bad]),
            Some("2 of its certificates cannot be used"),
        ),
        (
            Err(ErrorKind::NotFound),
            Some("cannot be read, nothing is added to the built-in roots: not found"),
        ),
    ] {
        let mut world = World::new(&[
            ("PYROSCOPE_REMOTE_ADDRESS", "https://10.0.0.1"),
            ("SSL_CERT_FILE", "/roots.pem"),
        ]);
        world.log();
        world.post("x");
        let (file, directories) = world.reading_roots.clone().expect("they are read");
        assert_eq!((file.as_deref(), directories), (Some("/roots.pem"), vec![]));
        world.roots(roots);
        let expected = problem.map(|problem| {
            format!(
                "level=warning msg=\"Bad setting\" problem=\"{problem}\" \
                 svc=pyroscope-lambda-ext-main variable=SSL_CERT_FILE\n"
            )
        });
        let log = world.log();
        let said = log.split_once(' ').map(|(_, said)| said.to_owned());
        assert_eq!(said, expected, "{log}");
        assert_eq!(world.connecting.len(), 1);
    }
}

/// What a long answer or a large record took does not stay with a connection that waits.
#[test]
fn an_idle_connection_gives_its_buffers_back_after_a_second() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(30_000));
    let long = long.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    for (is_tls, first) in [(false, 2048), (true, 4096)] {
        let root = Authority::new("Bench Root");
        let mut world = if is_tls {
            waiting(&root, &TWO[..1])
        } else {
            let mut world = World::new(&[]);
            world.post("x");
            world
        };
        let id = world.connect();
        if is_tls {
            let mut server = Server::new(&config(&root), id);
            server.serve(&mut world);
            server.answer(&mut world, &long);
        } else {
            world.answer(id, &long);
        }
        assert_eq!(world.totals().relayed, 1);
        assert!(world.relay.space(id).len() > 2 * first);
        world.pass(SECOND);
        assert_eq!(world.relay.space(id).len(), first, "TLS: {is_tls}");
    }
}

/// TLS begins with us: whoever speaks before is not the server.
#[test]
fn a_tunnel_is_open_when_the_proxy_has_said_so_and_nothing_else() {
    for (answer, cause) in [
        ("HTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.0 299 OK\r\nContent-Length: 7\r\n\r\n", None),
        (
            "HTTP/1.1 200 OK\r\n\r\n\x16",
            Some("the proxy: it sent more than its answer"),
        ),
        (
            "HTTP/1.1 407 No\r\n\r\n",
            Some("the proxy: status 407, it wants other credentials"),
        ),
    ] {
        let mut world = World::new(&[
            ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
            ("HTTPS_PROXY", "http://10.0.0.9:3128"),
        ]);
        world.post("x");
        let id = world.connect();
        assert!(
            world
                .seen(id)
                .starts_with("CONNECT pyroscope.test:443 HTTP/1.1\r\n")
        );
        world.answer(id, answer);
        let hello = world.written.get(&id).and_then(|written| written.first());
        assert_eq!(hello, cause.is_none().then_some(&22), "{answer}");
        let log = world.log();
        assert!(log.contains(cause.unwrap_or_default()), "{log}");
    }
}

/// What TLS says for itself, as new keys, is neither an answer nor one that comes unasked.
#[test]
fn records_without_data_are_no_answer() {
    let root = Authority::new("Bench Root");
    let mut world = waiting(&root, &TWO[..1]);
    let id = world.connect();
    let mut server = Server::new(&config(&root), id);
    server.serve(&mut world);
    server.answer(&mut world, OK);
    server.tls.refresh_traffic_keys().expect("a KeyUpdate");
    server.serve(&mut world);
    world.post("y");
    server.serve(&mut world);
    assert!(server.request.ends_with('y'), "on the same connection");
    server.tls.refresh_traffic_keys().expect("another");
    server.serve(&mut world);
    world.close(id, End::Eof);
    // A connection that was reused died without an answer: the payload goes out again at once.
    assert_eq!(world.connecting.len(), 1);
    assert!(!world.log().contains("level=error"));
}

/// A server of TLS 1.2 has the last word of a handshake, and may say with it that it sends no more.
#[test]
fn a_close_notify_with_the_handshakes_end_leaves_no_connection() {
    let root = Authority::new("Bench Root");
    let leaf = root.leaf(&[NAME]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version that the provider has")
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key)
        .expect("a certificate that fits its key");
    let mut world = waiting(&root, &TWO);
    let id = world.connect();
    let mut server = Server::new(&Arc::new(config), id);
    server.closes = true;
    server.serve(&mut world);
    assert_eq!(server.request, "");
    arrives_at_the_second(world, &root);
}

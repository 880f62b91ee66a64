//! One TLS connection without a socket: bytes in and bytes out, against rustls' own server.

#[path = "support/certificates.rs"]
#[allow(dead_code, reason = "each program uses its own part of the bench")]
mod certificates;

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use certificates::{Authority, Leaf, OUR_NAMES};
use pyroscope_lambda_extension::http1::buffer::ReceiveBuffer;
use pyroscope_lambda_extension::tls::{self, Client, Roots, Tls};
use rcgen::KeyPair;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig as Config, SupportedProtocolVersion};

/// Both ends of a connection.
struct Pair {
    tls: Tls,
    server: ServerConnection,
}

/// Shows a certificate and signs with a key, be it the certificate's or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn client(roots: &str) -> Client {
    let mut all = Roots::mozilla();
    assert_eq!(all.add(roots.as_bytes()).added, 1);
    Client::new("localhost", all).expect("a client")
}

fn config(leaf: Leaf, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(leaf.key);
    let shown = CertifiedKey::new(leaf.chain, key.expect("a key"));
    Config::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))))
}

impl Pair {
    fn new(client: &Client, config: impl Into<Arc<ServerConfig>>) -> Self {
        Self {
            tls: Tls::new(client).expect("a connection"),
            server: ServerConnection::new(config.into()).expect("a connection"),
        }
    }

    /// After the handshake.
    fn connected(version: &'static SupportedProtocolVersion) -> Self {
        let root = Authority::new("Bench Root");
        let config = config(root.leaf(&OUR_NAMES), version);
        let mut pair = Self::new(&client(root.pem()), config);
        pair.shake_hands().expect("a handshake");
        assert!(pair.tls.may_send() && !pair.tls.is_closed());
        pair
    }

    fn shake_hands(&mut self) -> Result<(), String> {
        while self.server.is_handshaking() || !self.tls.may_send() {
            self.deliver();
            let flight = self.flight();
            self.arrive(&flight, usize::MAX).1?;
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let mut pending = self.tls.pending();
        while !pending.is_empty() {
            self.server.read_tls(&mut pending).expect("read of memory");
            self.server.process_new_packets().expect("TLS");
        }
        let sent = self.tls.pending().len();
        self.tls.sent(sent);
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.server.wants_write() {
            self.server
                .write_tls(&mut flight)
                .expect("written to memory");
        }
        flight
    }

    /// What the client makes of ciphertext that comes in reads of that size: the plaintext, and how it ended.
    fn arrive(&mut self, mut flight: &[u8], step: usize) -> (Vec<u8>, Result<(), String>) {
        let mut plain = ReceiveBuffer::new();
        while !flight.is_empty() {
            let space = self.tls.space();
            let n = flight.len().min(space.len()).min(step);
            space[..n].copy_from_slice(&flight[..n]);
            flight = &flight[n..];
            if let Err(cause) = self.tls.received(n, &mut plain) {
                return (plain.bytes().to_vec(), Err(cause));
            }
        }
        (plain.bytes().to_vec(), Ok(()))
    }

    fn say(&mut self, plain: &[u8]) {
        self.server.writer().write_all(plain).expect("room");
    }
}

const STEPS: [usize; 3] = [usize::MAX, 1000, 1];

#[test]
fn what_comes_before_garbage_is_handed_out() {
    let damaged = [b"\x17\x03\x03\x00\x20".as_slice(), &[0; 32]].concat();
    for version in [&TLS12, &TLS13] {
        for (garbage, reason) in [
            (damaged.as_slice(), "damaged"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "does not speak TLS"),
        ] {
            for step in STEPS {
                let mut pair = Pair::connected(version);
                pair.say(b"an answer");
                let flight = [&pair.flight(), garbage].concat();
                let (plain, end) = pair.arrive(&flight, step);
                assert_eq!(plain, b"an answer", "{reason}, {step}");
                assert!(end.as_ref().unwrap_err().contains(reason), "{end:?}");
            }
        }
    }
}

#[test]
fn what_comes_before_a_fatal_alert_is_handed_out() {
    for version in [&TLS12, &TLS13] {
        for step in STEPS {
            let mut pair = Pair::connected(version);
            pair.say(b"an answer");
            let mut flight = pair.flight();
            let damaged = [b"\x17\x03\x03\x00\x20".as_slice(), &[0; 32]].concat();
            pair.server.read_tls(&mut damaged.as_slice()).expect("read");
            pair.server.process_new_packets().expect_err("a bad record");
            flight.extend(pair.flight());
            let (plain, end) = pair.arrive(&flight, step);
            assert_eq!(plain, b"an answer", "{step}");
            assert_eq!(end, Err("the server sent the TLS alert 20".to_owned()));
            assert!(!pair.tls.is_closed(), "that was no orderly end");
        }
    }
}

#[test]
fn a_close_notify_is_seen_and_what_comes_before_it_is_handed_out() {
    for version in [&TLS12, &TLS13] {
        for step in STEPS {
            let mut pair = Pair::connected(version);
            pair.say(b"an answer");
            let answer = pair.flight();
            pair.server.send_close_notify();
            let notify = pair.flight();
            if step == 1 {
                assert_eq!(pair.arrive(&answer, step), (b"an answer".to_vec(), Ok(())));
                assert!(!pair.tls.is_closed(), "not yet");
                assert_eq!(pair.arrive(&notify, step), (Vec::new(), Ok(())));
            } else {
                let flight = [answer, notify].concat();
                assert_eq!(pair.arrive(&flight, step), (b"an answer".to_vec(), Ok(())));
            }
            assert!(pair.tls.is_closed());
        }
    }
}

/// A server that is about to leave says so with the last of its handshake.
#[test]
fn a_close_notify_with_the_handshakes_end() {
    let root = Authority::new("Bench Root");
    let leaf = root.leaf(&OUR_NAMES);
    let mut pair = Pair::new(&client(root.pem()), config(leaf, &TLS12));
    while pair.server.is_handshaking() {
        let flight = pair.flight();
        pair.arrive(&flight, usize::MAX).1.expect("a handshake");
        pair.deliver();
    }
    pair.server.send_close_notify();
    let flight = pair.flight();
    assert_eq!(pair.arrive(&flight, usize::MAX), (Vec::new(), Ok(())));
    assert!(pair.tls.may_send() && pair.tls.is_closed());
}

/// The other direction is still open: what was begun is still sent.
#[test]
fn a_request_can_go_on_after_a_close_notify() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.server.send_close_notify();
        let flight = pair.flight();
        assert_eq!(pair.arrive(&flight, usize::MAX), (Vec::new(), Ok(())));
        assert_eq!(pair.tls.seal(b"the rest"), Ok(8));
        pair.deliver();
        let mut got = [0; 8];
        pair.server
            .reader()
            .read_exact(&mut got)
            .expect("plaintext");
        assert_eq!(&got, b"the rest");
    }
}

/// The certificate is for everyone to see; the key is what makes a server the one that was named.
#[test]
fn the_named_certificate_without_its_key_is_refused() {
    let pair = || KeyPair::generate().expect("a key pair");
    for version in [&TLS12, &TLS13] {
        let (leaf, pem) = Leaf::self_signed_authority(&OUR_NAMES, &pair(), |_| {});
        let stolen = Leaf {
            chain: leaf.chain.clone(),
            key: Leaf::self_signed(&OUR_NAMES).key,
        };
        let shake = |leaf| Pair::new(&client(&pem), config(leaf, version)).shake_hands();
        shake(leaf).expect("with its key");
        let refused = shake(stolen).expect_err("without");
        assert!(refused.contains("has a bad signature"), "{refused}");
    }
}

#[test]
fn a_second_connection_takes_up_the_session_of_the_first() {
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let root = Authority::new("Bench Root");
        let client = client(root.pem());
        let config = Arc::new(config(root.leaf(&OUR_NAMES), version));
        for is_resumed in [false, true] {
            let mut pair = Pair::new(&client, Arc::clone(&config));
            assert_eq!(pair.tls.version(), "unknown", "so far");
            assert!(!pair.tls.is_resumed());
            pair.shake_hands().expect("a handshake");
            // A ticket may come after it.
            let flight = pair.flight();
            pair.arrive(&flight, usize::MAX).1.expect("a ticket");
            assert_eq!(
                (pair.tls.version(), pair.tls.is_resumed()),
                (name, is_resumed)
            );
        }
    }
}

/// What one write takes, and no more: the rest is not copied until there is room for it.
#[test]
fn four_full_records_are_sealed_at_once() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        let body = vec![7; 100_000];
        assert_eq!(pair.tls.seal(&body), Ok(4 * 16_384));
        let records = pair.tls.pending().len() - 4 * 16_384;
        assert!((4 * 22..=4 * 32).contains(&records), "{records}");
        assert_eq!(pair.tls.seal(&body), Ok(0), "not before that is written");
        let sent = pair.tls.pending().len();
        pair.tls.sent(sent);
        assert_eq!(pair.tls.seal(&body[4 * 16_384..]), Ok(100_000 - 4 * 16_384));
    }
}

/// A head and the first of its body go out in one write.
#[test]
fn what_is_sealed_waits_for_more_up_to_four_kilobytes() {
    // A record of TLS 1.3 is 22 bytes longer than what is in it.
    for (head, body) in [(1, 100), (4096 - 22, 100), (4096 - 21, 0)] {
        let mut pair = Pair::connected(&TLS13);
        assert_eq!(pair.tls.seal(&vec![7; head]), Ok(head));
        assert_eq!(pair.tls.seal(&[7; 100]), Ok(body), "after {head}");
    }
}

/// With the number, which is what can be looked up, and in words where it says what to do.
#[test]
fn a_servers_alert_is_named() {
    let root = Authority::new("Bench Root");
    let client = client(root.pem());
    let certificate = ", it rejects a certificate";
    for (number, words) in [
        (10, ""),
        (20, ""),
        (40, ", handshake failure"),
        (41, ""),
        (42, certificate),
        (43, certificate),
        (44, certificate),
        (45, certificate),
        (46, certificate),
        (47, ""),
        (48, certificate),
        (49, ""),
        (50, ""),
        (70, ", protocol version"),
        (71, ", insufficient security"),
        (80, ", internal error"),
        (112, ", unrecognized name"),
        (113, ""),
        (116, ", it requires a client certificate"),
        (120, ""),
        (200, ""),
    ] {
        let mut tls = Tls::new(&client).expect("a connection");
        tls.space()[..7].copy_from_slice(&[0x15, 3, 3, 0, 2, 2, number]);
        let end = tls.received(7, &mut ReceiveBuffer::new());
        let named = format!("the server sent the TLS alert {number}{words}");
        assert_eq!(end, Err(named));
    }
}

/// The rest of a server's flight in TLS 1.2, with no certificate in the list of them.
fn without_certificate() -> Vec<u8> {
    let certificates = [11, 0, 0, 3, 0, 0, 0].to_vec();
    // X25519, a public key, and a signature by RSA-PSS that nobody comes to look at.
    let key = [&[3, 0, 0x1d, 32], [9; 32].as_slice(), &[8, 4, 0, 1, 7]].concat();
    let exchange = [&[12, 0, 0, 41], key.as_slice()].concat();
    let done = [14, 0, 0, 0].to_vec();
    let records = [certificates, exchange, done].map(|message| {
        let length = u8::try_from(message.len()).expect("short");
        [&[22, 3, 3, 0, length], message.as_slice()].concat()
    });
    records.concat()
}

/// What is no handshake ends it, and the reason is one that can be looked into.
#[test]
fn a_server_that_is_none_is_described() {
    let root = Authority::new("Bench Root");
    let client = client(root.pem());
    // A ServerHello of TLS 1.1, and one of TLS 1.3 with a cipher that was not offered.
    let hello = |version: u8, cipher: [u8; 2], more: &[u8]| {
        let mut hello = vec![2, 0, 0, 0, 3, version];
        hello.extend([7; 32]);
        hello.push(0);
        hello.extend(cipher);
        hello.push(0);
        hello.extend(more);
        let length = hello.len() - 4;
        hello[3] = u8::try_from(length).expect("it is short");
        let mut record = vec![22, 3, 3, 0, u8::try_from(hello.len()).expect("short")];
        record.extend(hello);
        record
    };
    for (record, words) in [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "the server does not speak TLS here",
        ),
        (
            // Data before there are keys.
            b"\x17\x03\x03\x00\x05hello".to_vec(),
            "the server does not speak TLS here",
        ),
        (
            // Certificates before the ServerHello.
            b"\x16\x03\x03\x00\x07\x0b\x00\x00\x03\x00\x00\x00".to_vec(),
            "the server does not speak TLS here",
        ),
        (
            hello(2, [0xc0, 0x2f], &[]),
            "the server has no TLS version or cipher in common with us",
        ),
        (
            hello(3, [0x00, 0x2f], &[]),
            "the server broke the TLS protocol",
        ),
        (
            [hello(3, [0xc0, 0x2f], &[]), without_certificate()].concat(),
            "the server showed no certificate",
        ),
    ] {
        let mut tls = Tls::new(&client).expect("a connection");
        tls.space()[..record.len()].copy_from_slice(&record);
        let end = tls.received(record.len(), &mut ReceiveBuffer::new());
        assert_eq!(end, Err(words.to_owned()));
    }
}

#[test]
fn a_certificate_that_cannot_be_read_is_malformed() {
    let root = Authority::new("Bench Root");
    for version in [&TLS12, &TLS13] {
        let leaf = Leaf {
            chain: vec![b"no certificate".to_vec().into()],
            key: root.leaf(&OUR_NAMES).key,
        };
        let refused = Pair::new(&client(root.pem()), config(leaf, version)).shake_hands();
        assert_eq!(
            refused,
            Err("the server's certificate is malformed".to_owned())
        );
    }
}

#[test]
fn random_numbers_are_no_constants() {
    let numbers = [(); 8].map(|()| tls::random());
    for (at, number) in numbers.iter().enumerate() {
        assert!(!numbers[..at].contains(number), "{numbers:?}");
        assert!(u32::try_from(*number).is_err(), "{number}: 64 bits of it");
    }
}

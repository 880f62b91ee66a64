//! Payloads on their way through the core, for `size-report/measure` to count what that takes: `instructions PATH BYTES COUNT`
//!
//! Under callgrind, which counts only what runs inside [`ours`]: a client, a server and its TLS are made of bytes
//! here and count for nothing. Nothing depends on time, chance or sockets, so that the same code gives the same
//! count; twice as many payloads less once as many leaves what a payload takes, without start and handshake.

use std::env::args;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use pyroscope_lambda_extension::config::{Config, Labels, Remote};
use pyroscope_lambda_extension::contract::{Command, ConnId, Ends, Now, RootSource};
use pyroscope_lambda_extension::http1::{fields, head, header_slots};
use pyroscope_lambda_extension::relay::forward::{self, Added};
use pyroscope_lambda_extension::relay::{Relay, labels};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use schema::{Function, Label, Line, Location, Profile, PushRequest, RawProfileSeries};
use schema::{RawSample, Sample};

#[path = "../tests/support/decode/schema.rs"]
mod schema;

/// Where Go's SDK sends profiles.
const PUSH: &str = "/push.v1.PusherService/Push";

/// Where the older SDKs do: with a name, which gets the sandbox's label.
const INGEST: &str = "/ingest?name=checkout.cpu%7Bregion%3Deu-west-1%2Cversion%3D42%7D\
    &from=1800000000&until=1800000010&sampleRate=100&spyName=gospy&units=samples&aggregationType=sum";

/// Where Java's does: the times are in the query.
const JFR: &str = "/ingest?name=checkout&units=samples&aggregationType=sum&from=1800000000&until=1800000010\
    &spyName=javaspy&format=jfr";

/// What Pyroscope answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\n\
    Date: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";

const HOST: &str = "10.0.0.1";
const SESSION: u64 = 0x0123_4567_89ab_cdef;

fn main() -> ExitCode {
    let mut arguments = args().skip(1);
    let mut next = || arguments.next().unwrap_or_default();
    let (path, bytes, count) = (next(), next().parse().unwrap_or(0), next());
    let count = count.parse().unwrap_or(0);
    match path.as_str() {
        "push" => World::new("http").relay(&request(PUSH, bytes), count),
        "ingest" => World::new("http").relay(&request(INGEST, bytes), count),
        "profile" => World::new("http").relay(&profile(bytes), count),
        "jfr" => World::new("http").relay(&request(JFR, bytes), count),
        "push-tls" => World::new("https").relay(&request(PUSH, bytes), count),
        "trust" => World::new("https").trust(count),
        "parse" => parse(&request(PUSH, 0), count),
        "forward" => forward_heads(&request(PUSH, 0), count),
        "labels" => add_labels(count),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// What runs in here is counted. It keeps its name: `measure` finds it by that.
#[inline(never)]
fn ours<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn request(target: &str, bytes: usize) -> Vec<u8> {
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost:4040\r\nUser-Agent: connect-go/1.18.1 (go1.24.1)\r\n\
         Content-Length: {bytes}\r\nAccept-Encoding: gzip\r\nConnect-Protocol-Version: 1\r\n\
         Connect-Timeout-Ms: 9999\r\nContent-Type: application/proto\r\n\r\n"
    )
    .into_bytes();
    // As hard to compress as profiles, which are: of bytes like these it is soon clear that they are no profile.
    let mut state = 1_u32;
    request.extend((0..bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    request
}

/// A Push as Rust's SDK sends it: a pprof of about so many bytes, compressed with the rest, whose time is in whole
/// seconds.
fn profile(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut random = |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        i64::from((state >> 8) % limit)
    };
    let mut profile = Profile::default();
    while profile.encoded_len() < bytes {
        for _ in 0..4 {
            let name = profile.string_table.len() as i64;
            let word = format!(
                "core::iter::adapters::map_{}::fold{}",
                random(64),
                random(64)
            );
            profile.string_table.push(word);
            profile.function.push(Function {
                id: name.cast_unsigned(),
                name,
                filename: random(8),
            });
            profile.location.push(Location {
                id: name.cast_unsigned(),
                line: vec![Line {
                    function_id: name.cast_unsigned(),
                }],
            });
        }
        let functions = profile.function.len() as u32;
        profile.sample.extend((0..6).map(|_| Sample {
            location_id: (0..8).map(|_| random(functions).cast_unsigned()).collect(),
            value: vec![random(100)],
        }));
    }
    profile.time_nanos = 1_800_000_000_000_000_000;
    profile.duration_nanos = 10_000_000_000;
    let push = PushRequest {
        series: vec![RawProfileSeries {
            labels: vec![Label {
                name: "service_name".to_owned(),
                value: "checkout".to_owned(),
            }],
            samples: vec![RawSample {
                raw_profile: profile.encode_to_vec(),
                id: "a51a0f37-07ee-47eb-ac60-d9fafd848ca4".to_owned(),
            }],
        }],
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&push.encode_to_vec()).expect("in memory");
    let body = encoder.finish().expect("in memory");
    let mut request = request(PUSH, body.len());
    let head = request.len() - body.len();
    request.truncate(head);
    request.extend(body);
    request
}

fn parse(request: &[u8], count: usize) {
    for _ in 0..count {
        let framing = ours(|| {
            let end = head::end(request, &mut 0).expect("the head is whole");
            let mut slots = header_slots();
            let request = head::request(&request[..end], &mut slots).expect("the head is good");
            request.framing().is_ok()
        });
        assert!(framing);
    }
}

fn forward_heads(request: &[u8], count: usize) {
    let remote = Remote::parse("https://user:password@profiles.example.com").expect("a good URL");
    let mut slots = header_slots();
    let request = head::request(request, &mut slots).expect("the head is good");
    let mut out = Vec::new();
    let added = Added::session(SESSION);
    for _ in 0..count {
        out.clear();
        ours(|| forward::head(&mut out, &request, &remote, &added));
        assert!(out.starts_with(b"POST /push.v1"));
    }
}

fn add_labels(count: usize) {
    let (_, query) = INGEST.split_once('?').expect("it has a query");
    for _ in 0..count {
        assert!(ours(|| labels::with_labels(query, SESSION, &Labels::new())).is_some());
    }
}

/// The core, one client that keeps its connection, and the server.
struct World {
    relay: Relay,
    now: Now,
    client: ConnId,
    /// What the client was answered.
    answered: Vec<u8>,
    uplink: Option<(ConnId, Server)>,
    /// Only for https.
    authority: Option<Authority>,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    fn new(scheme: &str) -> Self {
        let config = Config::read(|name| match name {
            "PYROSCOPE_DEV_MODE" => Some("true".to_owned()),
            "PYROSCOPE_REMOTE_ADDRESS" => Some(format!("{scheme}://{HOST}:4040")),
            "SSL_CERT_FILE" => Some("authority.pem".to_owned()),
            _ => None,
        });
        let now = Now {
            mono: Instant::now(),
            unix_ms: 1_800_000_000_000,
        };
        let mut relay = Relay::new(config, "extension".to_owned(), || 4);
        relay.started(&[SocketAddr::from(([127, 0, 0, 1], 4040))], now);
        let client = relay.accepted(now);
        Self {
            relay,
            now,
            client,
            answered: Vec::new(),
            uplink: None,
            authority: (scheme == "https").then(Authority::new),
        }
    }

    fn relay(&mut self, request: &[u8], count: usize) {
        for _ in 0..count {
            self.arrive(self.client, request);
            self.turn();
            assert!(self.answered.starts_with(b"HTTP/1.1 200 OK\r\n"));
            self.answered.clear();
        }
        assert_eq!(self.relay.totals().relayed, count as u64);
    }

    /// Makes the TLS client with the roots that are built in, which is all most functions have.
    fn trust(&mut self, count: usize) {
        for _ in 0..count {
            ours(|| self.relay.roots(Vec::new(), self.now));
        }
    }

    /// As the shell does it: everything that can be done without waiting.
    fn turn(&mut self) {
        loop {
            let mut moved = false;
            while let Some(command) = ours(|| self.relay.step(self.now)) {
                self.perform(command);
                moved = true;
            }
            moved |= self.write_all();
            if !moved && !ours(|| self.relay.has_finished()) {
                break;
            }
        }
        let uplink = self.uplink.as_ref().map(|(id, _)| *id);
        ours(|| {
            self.relay.expire(self.now);
            // All that it asks before it sleeps.
            let wanted =
                self.relay.wants(self.client) && uplink.is_none_or(|id| self.relay.wants(id));
            (
                wanted,
                self.relay.deadline(self.now),
                self.relay.has_connections(),
            )
        });
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Connect(id, peer) => {
                let server = Server {
                    tls: self.authority.as_ref().map(Authority::accept),
                    request: Vec::new(),
                };
                self.uplink = Some((id, server));
                let local = SocketAddr::from(([10, 0, 0, 99], 50_000));
                ours(|| self.relay.connected(id, Ends { local, peer }, self.now));
            }
            Command::ReadRoots(..) => {
                let pem = self.authority.iter().map(|authority| RootSource {
                    variable: "SSL_CERT_FILE",
                    pem: Ok(authority.pem.clone().into_bytes()),
                });
                let pem = pem.collect();
                ours(|| self.relay.roots(pem, self.now));
            }
            other => unreachable!("{other:?} is not asked for here"),
        }
    }

    /// Whether anything was written. Both sockets take all there is.
    fn write_all(&mut self) -> bool {
        let mut moved = false;
        if let Some((id, mut server)) = self.uplink.take() {
            let mut said = Vec::new();
            loop {
                let [head, body] = ours(|| self.relay.pending(id));
                if head.is_empty() && body.is_empty() {
                    break;
                }
                server.takes(head, &mut said);
                server.takes(body, &mut said);
                let n = head.len() + body.len();
                ours(|| self.relay.sent(id, n, self.now));
                moved = true;
            }
            self.uplink = Some((id, server));
            self.arrive(id, &said);
        }
        let [answer, _] = ours(|| self.relay.pending(self.client));
        if !answer.is_empty() {
            self.answered.extend_from_slice(answer);
            let n = answer.len();
            ours(|| self.relay.sent(self.client, n, self.now));
            moved = true;
        }
        moved
    }

    fn arrive(&mut self, id: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = ours(|| self.relay.space(id));
            assert!(!space.is_empty(), "what is sent is wanted");
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            ours(|| self.relay.received(id, n, self.now));
            bytes = &bytes[n..];
        }
    }
}

/// The server's end of the one connection.
struct Server {
    tls: Option<ServerConnection>,
    request: Vec<u8>,
}

impl Server {
    /// Takes bytes off the wire, and says onto it what is to be said to them.
    fn takes(&mut self, wire: &[u8], said: &mut Vec<u8>) {
        let Some(tls) = &mut self.tls else {
            self.request.extend_from_slice(wire);
            if is_whole(&self.request) {
                self.request.clear();
                said.extend_from_slice(ANSWER);
            }
            return;
        };
        let mut rest = wire;
        while !rest.is_empty() {
            tls.read_tls(&mut rest).expect("it takes bytes");
            tls.process_new_packets().expect("the client speaks TLS");
            // What is there is read; that there is no more yet is no error.
            let _ = tls.reader().read_to_end(&mut self.request);
        }
        if is_whole(&self.request) {
            self.request.clear();
            tls.writer().write_all(ANSWER).expect("room");
        }
        while tls.wants_write() {
            tls.write_tls(said).expect("room");
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = head::end(request, &mut 0) else {
        return false;
    };
    let mut slots = header_slots();
    let head = head::request(&request[..end], &mut slots).expect("the head is good");
    let length = fields::value(head.headers, "content-length").and_then(fields::digits);
    (request.len() - end) as u64 == length.unwrap_or(0)
}

/// Whom the client trusts, and what it vouches for.
struct Authority {
    pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// A P-256 leaf, by a P-384 intermediate, by a P-384 root, as many public servers have it.
    fn new() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key pair");
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let (params, root) = (authority("root"), key());
        let pem = params.self_signed(&root).expect("a root certificate").pem();
        let root = Issuer::new(params, root);
        let (params, intermediate) = (authority("intermediate"), key());
        let shown = params
            .signed_by(&intermediate, &root)
            .expect("a certificate");
        let issuer = Issuer::new(params, intermediate);
        let key = KeyPair::generate().expect("a key pair");
        let params = CertificateParams::new([HOST.to_owned()]).expect("a good name");
        let leaf = params.signed_by(&key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), shown.der().clone()], key)
            .expect("certificate and key belong together");
        Self {
            pem,
            server: Arc::new(server),
        }
    }

    fn accept(&self) -> ServerConnection {
        ServerConnection::new(Arc::clone(&self.server)).expect("a connection")
    }
}

//! What TLS costs: each payload's CPU time over plain HTTP, beside what rustls takes to encrypt the same bytes in
//! memory.

use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore, ServerConnection};

use crate::certificates::{Authority, OUR_NAMES};
use crate::client::Client;
use crate::figures::{Judged, Row, Unit, micros};
use crate::lambda::Lambda;
use crate::pinned::Pinned;
use crate::server::{Server, server_config};
use crate::subjects::Subject;
use crate::{Effort, GUARD};

pub const GROUP: &str = "TLS";

/// The payloads' sizes, and how many there are in a round.
const LOADS: [(&str, usize, usize); 3] = [
    ("2,000 B", 2000, 2000),
    ("64 KiB", 64 << 10, 600),
    ("1 MB", 1_000_000, 100),
];

const WARM_UP: usize = 5;

/// As much as ours encrypts at once, so that both use the caches alike.
const SEALED_AT_ONCE: usize = 64 << 10;

/// More than one round of encryption adds to that much.
const OVERHEAD: usize = 4096;

pub fn measure(ours: &Subject, effort: Effort) -> Vec<Row> {
    let _pinned = Pinned::start();
    let authority = Authority::new("the bench's authority");
    let roots = authority.pem_file();
    let trusted = roots.path().to_str().expect("a path of our own making");
    let (plain, secure) = (Server::http(), Server::https(&authority));
    let mut rows = Vec::new();
    for (size, payload_bytes, payloads) in LOADS {
        let payloads = payloads / effort.shortened;
        let what = format!("{size} over TLS: CPU over plain / rustls alone");
        let mut row = Row::new(GROUP, what, Unit::Micros, Judged::Ratio).promised(1.2);
        for _ in 0..effort.rounds {
            let settings = [("PYROSCOPE_NUM_WORKERS", "1"), ("SSL_CERT_FILE", trusted)];
            let over_plain = relayed(ours, &plain, &settings, payload_bytes, payloads);
            let over_tls = relayed(ours, &secure, &settings, payload_bytes, payloads);
            row.base
                .push(encrypted(&authority, payload_bytes, payloads));
            row.ours.push(over_tls - over_plain);
        }
        rows.push(row);
    }
    rows
}

/// CPU time per payload, one after another over one connection: a handshake within would be measured with them.
fn relayed(
    ours: &Subject,
    server: &Server,
    settings: &[(&str, &str)],
    payload_bytes: usize,
    payloads: usize,
) -> f64 {
    let mut lambda = Lambda::start();
    let running = ours.start(&lambda, &server.url(), settings);
    lambda.register();
    lambda.wait_parked();
    let mut client = Client::connect(running.address(), payload_bytes);
    let mut relay = |payloads: usize| {
        for _ in 0..payloads {
            let before = server.arrivals.count();
            client.post();
            assert!(
                server.arrivals.wait(before + 1, GUARD),
                "a payload did not arrive"
            );
        }
        running.wait_asleep();
    };
    relay(WARM_UP);
    let cpu = running.cpu();
    relay(payloads);
    per_payload(micros(running.cpu() - cpu), payloads)
}

/// CPU time that rustls takes to encrypt as much, with nothing around it: no socket, no relay.
fn encrypted(authority: &Authority, payload_bytes: usize, payloads: usize) -> f64 {
    let mut client = handshaken(authority);
    let payload = vec![b'x'; payload_bytes];
    let mut sealed = vec![0; SEALED_AT_ONCE + OVERHEAD];
    let mut seal_all = |payloads: usize| {
        for _ in 0..payloads {
            for piece in payload.chunks(SEALED_AT_ONCE) {
                let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                    client.process_tls_records(&mut []).state
                else {
                    panic!("a session that cannot be written to")
                };
                traffic
                    .encrypt(piece, &mut sealed)
                    .expect("room for what is sealed");
            }
        }
    };
    seal_all(WARM_UP);
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let now = || {
        clock_gettime(clock)
            .expect("this thread's CPU clock")
            .into()
    };
    let from: std::time::Duration = now();
    seal_all(payloads);
    per_payload(micros(now() - from), payloads)
}

/// A client's session that has shaken hands with a server in memory, over the cipher that ours takes first.
fn handshaken(authority: &Authority) -> UnbufferedClientConnection {
    let provider = CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    };
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("our own PEM");
    roots.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).expect("a client");
    let mut server =
        ServerConnection::new(server_config(authority.leaf(&OUR_NAMES))).expect("a server");
    let mut inbox = Vec::new();
    loop {
        let UnbufferedStatus { discard, state, .. } = client.process_tls_records(&mut inbox);
        let mut waits = false;
        match state.expect("a handshake") {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut record = vec![0; SEALED_AT_ONCE];
                let length = data.encode(&mut record).expect("room for a message");
                server
                    .read_tls(&mut &record[..length])
                    .expect("bytes taken");
                server.process_new_packets().expect("a handshake");
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(_) if !server.is_handshaking() => return client,
            _ => waits = true,
        }
        inbox.drain(..discard);
        if waits {
            server.write_tls(&mut inbox).expect("memory");
        }
    }
}

fn per_payload(total: f64, payloads: usize) -> f64 {
    total / f64::from(u32::try_from(payloads).unwrap_or(u32::MAX))
}

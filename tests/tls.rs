//! Does it speak TLS, waste no handshake, and trust only whom it should?

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use pyroscope_lambda_extension::http1::buffer::ReceiveBuffer;
use pyroscope_lambda_extension::tls;
use rustls::ProtocolVersion;
use rustls::server::{ServerConfig, ServerConnection};
use rustls::version::{TLS12, TLS13};
use support::certificates::{Authority, OUR_NAMES};
use support::client::post;
use support::monitor::GUARD;
use support::play::{Gate, Play, Step, response};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{Extension, Sandbox};
use tempfile::NamedTempFile;

/// A relay that trusts `authority` besides the usual roots. The file lives as long as the relay may read it.
#[track_caller]
fn trusting(authority: &Authority, server: &Pyroscope) -> (Extension, NamedTempFile) {
    let roots = authority.pem_file();
    let path = roots.path().to_str().expect("a path in UTF-8");
    (
        Sandbox::relay_only(server)
            .set("SSL_CERT_FILE", path)
            .listening(),
        roots,
    )
}

#[track_caller]
fn end(mut extension: Extension, relayed: u64, lost: u64) {
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals().expect(relayed, lost);
}

#[test]
fn relays_over_either_version() {
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        let (extension, _roots) = trusting(&authority, &server);
        let large: Vec<u8> = (0_u32..3_000_000)
            .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for (count, body) in [b"small".as_slice(), b"", &large].into_iter().enumerate() {
            assert_eq!(extension.post("/ingest", body).status, 200);
            let request = server.wait_answered(count + 1).remove(count);
            assert!(request.payload() == body);
            assert_eq!(request.header("Host"), Some(server.host()));
            server.wait_read();
        }
        assert_eq!(server.connections()[0].version, Some(expected));
        assert_eq!(server.handshakes(), (1, 0));
        end(extension, 3, 0);
    }
}

/// Of its ciphertext there is never more than one write takes.
#[test]
fn a_large_profile_over_tls_takes_little_more_memory_than_itself() {
    const PROFILE_KIB: u64 = 3072;
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority));
    let (extension, _roots) = trusting(&authority, &server);
    assert_eq!(extension.post("/ingest", b"small").status, 200);
    server.wait_answered(1);
    let before = extension.status_kib("VmHWM:");
    assert_eq!(
        extension
            .post("/ingest", &vec![7; 1024 * PROFILE_KIB as usize])
            .status,
        200
    );
    server.wait_answered(2);
    let took = extension.status_kib("VmHWM:") - before;
    assert!(took < PROFILE_KIB + 1024, "{took} KiB");
}

#[test]
fn a_thousand_payloads_one_after_another_need_one_handshake() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority)).quick();
    let (extension, _roots) = trusting(&authority, &server);
    let mut client = extension.client();
    for count in 1..=1000 {
        client.send(post("/ingest", b"payload"));
        client.expect_ok();
        server.wait_answered_count(count);
        server.wait_read();
    }
    assert_eq!(
        (server.connections().len(), server.handshakes()),
        (1, (1, 0))
    );
    end(extension, 1000, 0);
}

#[test]
fn resumes_its_session_after_the_server_has_closed() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        let (extension, _roots) = trusting(&authority, &server);
        for count in 1..=4 {
            assert_eq!(extension.post("/ingest", b"payload").status, 200);
            server.wait_answered(count);
            server.wait_read();
            server.wait_idle(1);
            if count % 2 == 0 {
                server.close_idle()
            } else {
                server.reset_all()
            }
        }
        assert_eq!(
            server.handshakes(),
            (1, 3),
            "full and resumed, {:?}",
            version.version
        );
        assert_eq!(server.requests().len(), 4);
        end(extension, 4, 0);
    }
}

#[test]
fn a_payload_whose_reused_connection_dies_is_resent_once() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority));
    let (extension, _roots) = trusting(&authority, &server);
    for count in [1, 2, 3] {
        if count > 1 {
            server.next(if count == 2 {
                Play::close_unanswered()
            } else {
                Play::reset_unanswered()
            });
        }
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        server.wait_answered(count);
        server.wait_read();
    }
    assert_eq!(server.complete().len(), 5, "two were sent twice");
    end(extension, 3, 0);
}

#[test]
fn answers_split_at_every_byte_and_read_slowly() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority));
    let gate = Gate::new();
    server.next(Play::bytewise(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ));
    server.next(Play::answer(200).unread_until(&gate));
    let (extension, _roots) = trusting(&authority, &server);
    assert_eq!(extension.post("/ingest", b"first").status, 200);
    server.wait_answered(1);
    let large = vec![7; 6 << 20];
    assert_eq!(extension.post("/ingest", &large).status, 200);
    server.wait_begun(2);
    gate.open();
    assert!(server.wait_answered(2)[1].payload() == large);
    end(extension, 2, 0);
}

/// Down to the reason: which name, and what is wrong with the certificate.
#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::with(authority.leaf(&["elsewhere.example"])));
    let (extension, _roots) = trusting(&authority, &server);
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    let line = extension.wait_complaint(&["certificate"]);
    assert!(
        line.contains("localhost"),
        "the name it was not valid for: {line}"
    );
    assert!(server.requests().is_empty(), "not a byte of a payload");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let known = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&Authority::new("Nobody's Root")));
    let (extension, _roots) = trusting(&known, &server);
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    let line = extension.wait_complaint(&["certificate"]).to_lowercase();
    assert!(
        ["unknown", "trust", "issuer"]
            .iter()
            .any(|word| line.contains(word)),
        "why: {line}"
    );
    assert!(server.requests().is_empty(), "not a byte of a payload");
}

/// Without SSL_CERT_FILE the made-up authority is unknown; a file that cannot be used is said, and is no trust.
#[test]
fn a_root_file_that_cannot_be_used() {
    let authority = Authority::new("Bench Root");
    for content in [None, Some("no PEM at all"), Some("")] {
        let server = Pyroscope::https(Tls::with(authority.leaf(&OUR_NAMES)));
        let file = NamedTempFile::new().expect("a temporary file");
        let path = match content {
            None => "/there/is/no/such/file.pem".to_owned(),
            Some(content) => {
                std::fs::write(file.path(), content).expect("the file written");
                file.path().to_str().expect("a path in UTF-8").to_owned()
            }
        };
        let extension = Sandbox::relay_only(&server)
            .set("SSL_CERT_FILE", path)
            .listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        extension.wait_complaint(&["SSL_CERT_FILE"]);
        extension.wait_complaint(&["certificate"]);
        assert!(server.requests().is_empty());
    }
}

/// Comments, and several certificates of which one is ours, as in a system's bundle.
#[test]
fn a_root_file_with_several_certificates() {
    let (ours, other) = (Authority::new("Bench Root"), Authority::new("Other Root"));
    let server = Pyroscope::https(Tls::by(&ours));
    let file = NamedTempFile::new().expect("a temporary file");
    let bundle = format!("# a bundle\n{}\n# ours:\n{}", other.pem(), ours.pem());
    std::fs::write(file.path(), bundle).expect("the file written");
    let path = file.path().to_str().expect("a path in UTF-8");
    let extension = Sandbox::relay_only(&server)
        .set("SSL_CERT_FILE", path)
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    server.wait_answered(1);
    end(extension, 1, 0);
}

/// A list of directories, of which one is missing and one holds files of other kinds beside the authority's.
#[test]
fn directories_of_roots() {
    let ours = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&ours));
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("0a.pem"), ours.pem()).expect("the file written");
    std::fs::write(directory.path().join("README"), "no certificate").expect("the file written");
    std::fs::create_dir(directory.path().join("nested")).expect("the directory made");
    // To open a pipe would be to wait for its other end.
    let pipe = Command::new("mkfifo")
        .arg(directory.path().join("pipe"))
        .status();
    assert!(pipe.expect("mkfifo runs").success());
    let path = directory.path().to_str().expect("a path in UTF-8");
    let extension = Sandbox::relay_only(&server)
        .set("SSL_CERT_DIR", format!("/there/is/no/such:{path}:"))
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    server.wait_answered(1);
    end(extension, 1, 0);
}

#[test]
fn a_directory_of_roots_that_cannot_be_read() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority));
    let extension = Sandbox::relay_only(&server)
        .set("SSL_CERT_DIR", "/there/is/no/such")
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    extension.wait_complaint(&["SSL_CERT_DIR", "not found"]);
    extension.wait_complaint(&["certificate"]);
}

/// A server that speaks no TLS, and says so in plain HTTP, is a line in the log, not the end.
#[test]
fn a_server_without_tls() {
    let server = Pyroscope::http();
    let bad_request = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    server.always(Play(vec![Step::Write(bad_request.into()), Step::Close]));
    let address = server.url().replace("http://", "https://");
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_REMOTE_ADDRESS", address)
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    extension.wait_complaint(&[]);
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    assert!(server.requests().is_empty());
}

/// It accepts and never says a word: the attempt ends by its timeout, the function notices nothing, and the
/// payload is still there when somebody answers.
#[test]
fn a_server_that_never_greets() {
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let address = format!(
        "https://{}",
        mute.local_addr().expect("a bound socket has an address")
    );
    let extension = Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_REMOTE_ADDRESS", address)
        .set("PYROSCOPE_TIMEOUT", "200ms")
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    let first = mute.accept().expect("a connection").0;
    first
        .set_read_timeout(Some(GUARD))
        .expect("a guard on reads");
    let mut hello = Vec::new();
    (&first)
        .read_to_end(&mut hello)
        .expect("its end after the timeout");
    assert_eq!(hello.first(), Some(&22), "a TLS handshake record");
    mute.accept().expect("another attempt");
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
}

/// A session ticket that comes in two records, the second only behind the answer: while a part of it is there, the
/// rest of a large payload is still to be encrypted.
#[test]
fn a_ticket_in_two_records() {
    let authority = Authority::new("Bench Root");
    let leaf = authority.leaf(&OUR_NAMES);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key)
        .expect("a certificate and its key");
    config.max_fragment_size = Some(64);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let body = vec![7; 6 << 20];
    let (got, whole) = (body.len(), body.clone());
    #[expect(clippy::disallowed_methods, reason = "a server besides the test")]
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(GUARD)).expect("a guard");
        let mut tls = ServerConnection::new(Arc::new(config)).expect("a connection");
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut stream).expect("the handshake written");
            }
            tls.read_tls(&mut stream).expect("the handshake read");
            tls.process_new_packets().expect("a handshake");
        }
        let mut tickets = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut tickets).expect("written to memory");
        }
        let first = 5 + usize::from(u16::from_be_bytes([tickets[3], tickets[4]]));
        assert!(first < tickets.len(), "the ticket has a second record");
        stream
            .write_all(&tickets[..first])
            .expect("the first record");
        let mut plain = Vec::new();
        while plain.len() < got {
            assert!(
                tls.read_tls(&mut stream).expect("the payload") > 0,
                "it broke off"
            );
            tls.process_new_packets().expect("records");
            let _ = tls.reader().read_to_end(&mut plain);
        }
        stream.write_all(&tickets[first..]).expect("the rest");
        tls.writer()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .expect("an answer");
        while tls.wants_write() {
            tls.write_tls(&mut stream).expect("the answer written");
        }
        let _ = stream.read(&mut [0; 64]);
        plain
    });
    let roots = authority.pem_file();
    let extension = Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set(
            "PYROSCOPE_REMOTE_ADDRESS",
            format!("https://localhost:{port}"),
        )
        .set(
            "SSL_CERT_FILE",
            roots.path().to_str().expect("a path in UTF-8"),
        )
        .listening();
    assert_eq!(extension.post("/ingest", &body).status, 200);
    end(extension, 1, 0);
    let plain = server.join().expect("the server ends well");
    assert!(plain.ends_with(&whole), "byte for byte");
}

/// What the server makes of these records.
fn read_by(server: &mut ServerConnection, mut records: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !records.is_empty() {
        server.read_tls(&mut records).expect("read from memory");
        server.process_new_packets().expect("records it can read");
        // It ends with an error where no more has come.
        let _ = server.reader().read_to_end(&mut plain);
    }
    plain
}

/// Two ends of TLS 1.3 in memory, as far as either has something to say to the other.
fn exchange(client: &mut tls::Tls, server: &mut ServerConnection) {
    loop {
        let flight = client.pending().to_vec();
        client.sent(flight.len());
        assert_eq!(read_by(server, &flight), b"");
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).expect("written to memory");
        }
        if flight.is_empty() && answer.is_empty() {
            return;
        }
        let mut plain = ReceiveBuffer::new();
        for piece in answer.chunks(1000) {
            client.space()[..piece.len()].copy_from_slice(piece);
            client
                .received(piece.len(), &mut plain)
                .expect("records the client takes");
        }
        assert!(plain.is_empty());
    }
}

/// A success that could be read is one, though an error came with it.
#[test]
fn what_comes_after_a_success_takes_nothing_from_it() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        for _ in 0..2 {
            server.next(Play::ending(Step::WriteThenGarbage(ok())));
        }
        let (extension, _roots) = trusting(&authority, &server);
        for count in 1..=2 {
            assert_eq!(extension.post("/ingest", b"body").status, 200);
            server.wait_answered(count);
        }
        end(extension, 2, 0);
        assert_eq!(server.requests().len(), 2, "each was sent once");
    }
}

/// A server that has said that it sends no more cannot answer another request, though TCP stays open.
#[test]
fn after_close_notify_the_next_profile_goes_out_on_another_connection() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        server.next(Play::ending(Step::WriteThenCloseNotify(ok())));
        let roots = authority.pem_file();
        let path = roots.path().to_str().expect("a path in UTF-8");
        let extension = Sandbox::relay_only(&server)
            .set("SSL_CERT_FILE", path)
            .set("PYROSCOPE_TIMEOUT", "1h")
            .listening();
        for count in 1..=2 {
            assert_eq!(extension.post("/ingest", b"body").status, 200);
            server.wait_answered(count);
        }
        end(extension, 2, 0);
        let connections: Vec<usize> = server.requests().iter().map(|one| one.connection).collect();
        assert_eq!(connections, [0, 1]);
    }
}

/// The connection is beyond use: the profile that waits must not go out on it, and what was answered is not sent again.
#[test]
fn after_garbage_or_an_alert_the_profile_that_waits_goes_out_on_another_connection() {
    for ending in [Step::WriteThenGarbage(ok()), Step::WriteThenAlert(ok())] {
        for version in [&TLS12, &TLS13] {
            let authority = Authority::new("Bench Root");
            let server = Pyroscope::https(Tls::by(&authority).only(version));
            let (answer, never) = (Gate::new(), Gate::new());
            server.next(Play(vec![
                Step::ReadHead,
                Step::ReadBody,
                Step::Hold(answer.clone()),
                ending.clone(),
                // TCP stays open: that is not what tells.
                Step::Hold(never.clone()),
            ]));
            let roots = authority.pem_file();
            let path = roots.path().to_str().expect("a path in UTF-8");
            let mut extension = Sandbox::relay_only(&server)
                .set("SSL_CERT_FILE", path)
                .set("PYROSCOPE_NUM_WORKERS", "1")
                .listening();
            assert_eq!(extension.post("/ingest", b"one").status, 200);
            server.wait_complete(1);
            assert_eq!(extension.post("/ingest", b"two").status, 200);
            answer.open();
            server.wait_answered(2);
            never.open();
            extension.signal(Signal::SIGTERM);
            extension.expect_exit(0);
            extension.totals().expect(2, 0);
            let requests = server.requests();
            let sent: Vec<_> = requests
                .iter()
                .map(|one| (one.connection, one.payload()))
                .collect();
            assert_eq!(sent, [(0, b"one".as_slice()), (1, b"two".as_slice())]);
            let errors = extension.log_with(&["level=error"]);
            assert_eq!(errors.len(), 0, "{errors:#?}");
        }
    }
}

/// A server that says with the last of its handshake that it sends no more, while TCP stays open.
#[test]
fn a_close_notify_with_the_handshakes_end_is_no_connection() {
    let authority = Authority::new("Bench Root");
    let leaf = authority.leaf(&OUR_NAMES);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .expect("TLS 1.2")
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key)
        .expect("a certificate and its key");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let address = listener.local_addr().expect("a bound socket has one");
    let roots = authority.pem_file();
    let mut extension = Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_REMOTE_ADDRESS", format!("https://{address}"))
        .set("SSL_CERT_FILE", roots.path().display().to_string())
        .set("PYROSCOPE_TIMEOUT", "1h")
        .listening();
    assert_eq!(extension.post("/ingest", b"body").status, 200);
    let mut open = Vec::new();
    for closes in [true, false] {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(GUARD)).expect("a timeout");
        let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a server");
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut stream).expect("it is read");
            }
            tls.read_tls(&mut stream).expect("a handshake");
            tls.process_new_packets().expect("a handshake");
        }
        if closes {
            tls.send_close_notify();
        }
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight).expect("written to memory");
        }
        stream.write_all(&flight).expect("it is read");
        open.push((stream, tls));
    }
    let (stream, tls) = open.last_mut().expect("two connections");
    // It may have come with the end of the handshake.
    while tls.reader().read(&mut [0; 4096]).is_err() {
        tls.read_tls(stream).expect("the request");
        tls.process_new_packets().expect("the request");
    }
    tls.writer().write_all(&ok()).expect("room");
    tls.write_tls(stream).expect("it is read");
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}

fn ok() -> Vec<u8> {
    response(200, &[], b"")
}

/// A server may ask for new keys at any time. The answer waits until there is data, and goes out before it: the room
/// for both has to be there, whatever there was room for until then.
#[test]
fn an_answer_to_a_key_update_has_room_beside_the_data() {
    for length in [1, 900, 1000, 16 * 1024, 16 * 1024 + 1, tls::SEAL_BYTES_MAX] {
        let authority = Authority::new("Bench Root");
        let leaf = authority.leaf(&OUR_NAMES);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key)
            .expect("a certificate and its key");
        let mut server = ServerConnection::new(Arc::new(config)).expect("a server");
        let mut roots = tls::Roots::mozilla();
        roots.add(authority.pem().as_bytes());
        let client = tls::Client::new("localhost", roots).expect("a client");
        let mut client = tls::Tls::new(&client).expect("a connection");
        exchange(&mut client, &mut server);
        assert!(client.may_send() && !server.is_handshaking());

        server.refresh_traffic_keys().expect("a KeyUpdate");
        exchange(&mut client, &mut server);
        let body = vec![7; length];
        assert_eq!(client.seal(&body), Ok(length), "{length} bytes");
        assert!(read_by(&mut server, client.pending()) == body);
    }
}

//! Is a relay whose server is this relay itself left alone? One upload would go round 50,000 times a second.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::sys::signal::Signal;
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, ReservedPort, Sandbox};

/// Where the relay listens, and a server address that leads there, without their ports.
fn spellings() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&str, String)> = [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.2"),
        ("0.0.0.0", "0.0.0.0"),
    ]
    .map(|(listen, server)| (listen, server.to_owned()))
    .into();
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        all.push(("[::1]", "[::]".to_owned()));
        all.push(("[::]", "127.0.0.1".to_owned()));
    }
    if let Some(ip) = own_address() {
        all.push(("0.0.0.0", ip.to_string()));
    }
    all
}

/// This machine's address in the network, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[test]
fn an_upload_is_never_relayed_to_the_relay_itself() {
    for (listen, server) in spellings() {
        let port = ReservedPort::new().number;
        let extension = Sandbox::new()
            .set("PYROSCOPE_DEV_MODE", "true")
            .set("PYROSCOPE_LISTEN_ADDRESS", format!("{listen}:{port}"))
            .set(
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://{server}:{port}"),
            )
            .set("PYROSCOPE_LOG_LEVEL", "info")
            .listening();
        expect_alone(extension, "PYROSCOPE_REMOTE_ADDRESS", &server);
    }
}

/// A proxy is connected to like a server.
#[test]
fn the_relay_is_not_its_own_proxy() {
    let port = ReservedPort::new().number;
    let extension = Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_LISTEN_ADDRESS", format!("127.0.0.1:{port}"))
        .set("PYROSCOPE_REMOTE_ADDRESS", "https://profiles.example")
        .set("HTTPS_PROXY", format!("http://0.0.0.0:{port}"))
        .set("PYROSCOPE_LOG_LEVEL", "info")
        .listening();
    expect_alone(extension, "HTTPS_PROXY", "a proxy");
}

#[track_caller]
fn expect_alone(mut extension: Extension, variable: &str, what: &str) {
    assert_eq!(extension.post("/ingest", b"round").status, 200);
    let line = [
        "level=error",
        "\"Unusable setting\"",
        "problem=\"is this relay itself\"",
        &format!("variable={variable}"),
    ];
    extension.wait_complaint(&line);
    assert_eq!(extension.post("/ingest", b"and round").status, 200);
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    let totals = extension.totals();
    totals.expect(0, 2);
    assert_eq!(totals.count("lost_unusable_address"), 2, "{}", totals.0);
    let errors = extension.log_with(&["level=error"]);
    assert_eq!(errors.len(), 1, "{what}: {errors:#?}");
}

/// Another program of this machine is a server like any, on another port or on another address.
#[test]
fn a_server_on_this_machine_is_not_the_relay() {
    let server = Pyroscope::http();
    let port = server.addr().port();
    let listen = SocketAddr::from(([127, 0, 0, 2], port));
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LISTEN_ADDRESS", listen.to_string())
        .listening();
    assert_eq!(extension.post("/ingest", b"there").status, 200);
    assert_eq!(server.wait_only().payload(), b"there");
}

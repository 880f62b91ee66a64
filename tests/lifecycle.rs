//! Does it live by Lambda's rules: there before it registers, never in the way, gone in time, nothing lost unsaid?

#![expect(
    clippy::disallowed_methods,
    reason = "how long things take is measured here"
)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::client::{Client, post};
use support::extensions_api::{ExtensionsApi, Fault, Kind};
use support::play::{Gate, Play};
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, ReservedPort, Sandbox};

const TWO_SECONDS: Duration = Duration::from_secs(2);

fn post_all(extension: &Extension, count: usize) {
    let mut client = extension.client();
    for _ in 0..count {
        client.send(post("/ingest", &[7; 65_536]));
        client.expect_ok();
    }
}

// Start.

#[test]
fn listens_before_it_registers() {
    let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    lambda.hold(Kind::Register, &gate);
    let port = ReservedPort::new();
    let address = format!("127.0.0.1:{}", port.number);
    let _extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address.as_str())
        .start();
    lambda.wait_calls(1);
    let mut client = Client::connect(address.parse().expect("an address"));
    client.send(post("/ingest", b"early"));
    client.expect_ok();
    server.wait_complete(1);
    gate.open();
    lambda.wait_registered();
    lambda.invoke_and_wait();
}

/// What Lambda sees, byte for byte where the contract says so, and nothing else before the first event.
#[test]
fn registers_and_polls_as_the_contract_says() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let _extension = Sandbox::with(&lambda, &server).start();
    lambda.wait_next();
    let calls = lambda.calls();
    let lines: Vec<String> = calls.iter().map(|call| call.head.start_line()).collect();
    assert_eq!(
        lines,
        [
            "POST /2020-01-01/extension/register HTTP/1.1",
            "GET /2020-01-01/extension/event/next HTTP/1.1"
        ]
    );
    assert_eq!(calls[0].head.header("Host"), Some(lambda.address()));
    assert_eq!(
        calls[0].connection, calls[1].connection,
        "one connection serves both"
    );
    assert!(
        server.connections().is_empty(),
        "the server waits for the first payload"
    );
}

#[test]
fn takes_lambdas_answers_in_pieces() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    lambda.answer_in_pieces(1);
    let mut extension = Sandbox::with(&lambda, &server).listening();
    lambda.invoke_and_wait();
    lambda.invoke_and_wait();
    post_all(&extension, 1);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}

#[test]
fn a_refused_registration_ends_it_with_a_line() {
    for (status, error) in [
        (403, "Extension.InvalidExtensionName"),
        (403, "Extension.RegistrationClosed"),
        (500, "Extension.ContainerError"),
    ] {
        let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
        lambda.fault(Kind::Register, Fault::Refuse(status, error));
        let mut extension = Sandbox::with(&lambda, &server).start();
        extension.expect_exit(1);
        let line = extension.wait_complaint(&["level=error", "regist"]);
        assert!(
            line.contains(&status.to_string()) || line.contains(error),
            "{line}"
        );
        assert_eq!(
            extension.complaints().len(),
            1,
            "{:#?}",
            extension.complaints()
        );
    }
}

/// Lambda Managed Instances have no INVOKE to offer.
#[test]
fn registers_for_shutdown_alone_where_invoke_is_refused() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    lambda.fault(
        Kind::Register,
        Fault::Refuse(403, "Extension.InvalidEventType"),
    );
    let mut extension = Sandbox::with(&lambda, &server).listening();
    assert_eq!(lambda.wait_registered().events, ["SHUTDOWN"]);
    post_all(&extension, 1);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}

#[test]
fn asks_again_when_the_poll_breaks() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    lambda.fault(Kind::Next, Fault::Close);
    let mut extension = Sandbox::with(&lambda, &server).start();
    lambda.wait_next();
    lambda.invoke_and_wait();
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
}

#[test]
fn survives_events_it_does_not_know() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server).listening();
    lambda.wait_next();
    for event in [
        r#"{"eventType":"NEWS","deadlineMs":1}"#,
        r#"{ "a":{"eventType":"x"}, "eventType" : "INVOKE" }"#,
        "{}",
    ] {
        lambda.event(event.to_owned());
        lambda.wait_next();
    }
    post_all(&extension, 1);
    // As the documentation prints it: the deadline in quotes, the reason in capitals.
    let deadline = std::time::SystemTime::now() + TWO_SECONDS;
    let ms = deadline
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_millis();
    lambda.event(format!(
        r#"{{"shutdownReason":"TIMEOUT","deadlineMs":"{ms}","eventType":"SHUTDOWN"}}"#
    ));
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}

// Settings that cannot work.

#[test]
fn an_unusable_server_address_costs_the_function_nothing() {
    for address in [
        "ftp://profiles.example",
        "not a url",
        "http://",
        "https://host:99999",
        "profiles.example:4040",
        "http://[::1",
    ] {
        let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
        let mut extension = Sandbox::with(&lambda, &server)
            .set("PYROSCOPE_REMOTE_ADDRESS", address)
            .listening();
        extension.wait_complaint(&["level=error", "PYROSCOPE_REMOTE_ADDRESS"]);
        lambda.invoke_and_wait();
        post_all(&extension, 2);
        lambda.invoke_and_wait();
        lambda.shutdown(TWO_SECONDS);
        extension.expect_exit(0);
        extension.totals().expect(0, 2);
        let errors: Vec<String> = extension
            .complaints()
            .into_iter()
            .filter(|line| line.contains("level=error"))
            .collect();
        assert_eq!(errors.len(), 1, "{address:?}: one line: {errors:#?}");
    }
}

/// No such name, as far as the resolver knows: as good as down, and no harm done.
#[test]
fn a_server_that_does_not_resolve() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server)
        .set(
            "PYROSCOPE_REMOTE_ADDRESS",
            "http://no-such-host.invalid:4040",
        )
        .listening();
    post_all(&extension, 2);
    extension.wait_complaint(&["no-such-host.invalid"]);
    lambda.invoke_and_wait();
    lambda.shutdown(Duration::from_millis(600));
    extension.expect_exit(0);
    extension.totals().expect(0, 2);
}

#[test]
fn a_taken_port_costs_the_function_nothing() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port to take");
    let address = taken
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address.as_str())
        .start();
    extension.wait_complaint(&["level=error", &address]);
    lambda.invoke_and_wait();
    lambda.invoke_and_wait();
    let lines = extension.log_with(&["Cannot listen"]);
    assert_eq!(lines.len(), 1, "once a minute: {lines:#?}");
    let lines = extension.log_with(&["Starting relay"]);
    assert!(lines.is_empty(), "it listens nowhere: {lines:#?}");
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
}

/// Lambda has no IPv6 everywhere.
#[test]
fn without_ipv6_one_address_of_localhost_is_enough() {
    let start = |address| {
        let alone = Sandbox::new().alone_without_ipv6();
        alone
            .set("PYROSCOPE_DEV_MODE", "true")
            .set("PYROSCOPE_LISTEN_ADDRESS", address)
            .start()
    };
    let mut extension = start("localhost:4040");
    let line = extension.wait_log("Starting relay");
    assert!(line.contains(" address=\"127.0.0.1:4040\" "), "{line}");
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    let lines = extension.log_with(&["Cannot listen"]);
    assert!(lines.is_empty(), "{lines:#?}");
    // But who asked for that one alone has none.
    let extension = start("[::1]:4040");
    extension.wait_complaint(&["level=error", "[::1]:4040", "address not available"]);
}

/// Who took the port may be gone later: a layer that comes with the same function, and ends.
#[test]
fn a_port_that_becomes_free_is_listened_on_from_the_next_invoke() {
    let (lambda, server, port) = (
        ExtensionsApi::start(),
        Pyroscope::http(),
        ReservedPort::new(),
    );
    let address = SocketAddr::from(([127, 0, 0, 1], port.number));
    let other = TcpListener::bind(address).expect("a port to take");
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address.to_string())
        .start();
    extension.wait_complaint(&["level=error", &address.to_string()]);
    lambda.invoke_and_wait();
    drop(other);
    lambda.invoke_and_wait();
    assert_eq!(extension.addr(), address);
    post_all(&extension, 2);
    server.wait_answered(2);
    lambda.invoke_and_wait();
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(2, 0);
    assert_eq!(extension.log_with(&["Starting relay"]).len(), 1);
}

// Invocations.

#[test]
fn asks_for_the_next_event_though_the_server_is_stuck() {
    let (lambda, server, never) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    server.always(Play::answer(200).unread_until(&never));
    let extension = Sandbox::with(&lambda, &server).listening();
    post_all(&extension, 10);
    for _ in 0..3 {
        lambda.invoke_and_wait();
        post_all(&extension, 1);
    }
}

/// While it waits for an event, which may take for ever, uploads are served.
#[test]
fn relays_while_it_waits_for_an_event() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let extension = Sandbox::with(&lambda, &server).listening();
    lambda.wait_next();
    post_all(&extension, 3);
    server.wait_answered(3);
    assert_eq!(lambda.calls().len(), 2);
}

// The end.

#[test]
fn shutdown_drains_what_waits_and_still_accepts() {
    let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    server.always(Play::answer(200).unanswered_until(&gate));
    let mut extension = Sandbox::with(&lambda, &server).listening();
    lambda.invoke_and_wait();
    post_all(&extension, 20);
    server.wait_complete(5);
    lambda.shutdown(TWO_SECONDS);
    // The event has been handed over; a function's last words are still taken.
    post_all(&extension, 1);
    gate.open();
    server.wait_answered(21);
    extension.expect_exit(0);
    extension.totals().expect(21, 0);
    assert_eq!(server.requests().len(), 21);
}

#[test]
fn shutdown_ends_in_time_though_the_server_is_stuck() {
    let (lambda, server, never) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    server.always(Play::answer(200).unanswered_until(&never));
    let mut extension = Sandbox::with(&lambda, &server).listening();
    lambda.invoke_and_wait();
    post_all(&extension, 8);
    server.wait_complete(5);
    let since = Instant::now();
    lambda.shutdown(Duration::from_millis(700));
    extension.expect_exit(0);
    let took = since.elapsed();
    assert!(
        took > Duration::from_millis(400),
        "left {took:?} after the event, with payloads in hand"
    );
    // 700 ms less its margin, and something for a busy machine.
    assert!(
        took < Duration::from_millis(900),
        "left {took:?} after the event"
    );
    extension.totals().expect(0, 8);
}

#[test]
fn shutdown_with_nothing_in_hand_is_immediate() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server).listening();
    post_all(&extension, 1);
    server.wait_answered(1);
    lambda.wait_next();
    let idle = extension.client();
    let since = Instant::now();
    lambda.shutdown(Duration::from_secs(20));
    extension.expect_exit(0);
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "waited for nothing"
    );
    drop(idle);
    extension.totals().expect(1, 0);
}

/// A deadline in the past, a clock that is wrong: gone at once, with everything counted.
#[test]
fn shutdown_with_no_time_left() {
    let (lambda, server, never) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    server.always(Play::answer(200).unanswered_until(&never));
    let mut extension = Sandbox::with(&lambda, &server).listening();
    post_all(&extension, 3);
    lambda.shutdown(Duration::ZERO);
    extension.expect_exit(0);
    extension.totals().expect(0, 3);
}

#[test]
fn a_signal_drains_like_a_shutdown() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
        server.always(Play::answer(200).unanswered_until(&gate));
        let mut extension = Sandbox::with(&lambda, &server).listening();
        lambda.wait_next();
        post_all(&extension, 20);
        server.wait_complete(5);
        extension.signal(signal);
        gate.open();
        server.wait_answered(20);
        extension.expect_exit(0);
        extension.totals().expect(20, 0);
    }
}

#[test]
fn dev_mode_asks_nothing_of_lambda() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_DEV_MODE", "1")
        .listening();
    post_all(&extension, 1);
    server.wait_answered(1);
    extension.signal(Signal::SIGINT);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
    assert!(lambda.calls().is_empty());
}

/// A healthy life says two things: where it listens, and what it did.
#[test]
fn a_healthy_life_says_next_to_nothing() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LOG_LEVEL", "")
        .listening();
    for _ in 0..3 {
        lambda.invoke_and_wait();
        post_all(&extension, 5);
    }
    server.wait_answered(15);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(15, 0);
    let log = extension.log();
    assert!(log.lines().count() <= 3, "{log}");
    assert!(
        log.lines()
            .all(|line| line.starts_with("time=\"") && line.contains(" level=info msg=")),
        "{log}"
    );
}

// Where it listens.

#[test]
fn listens_on_ipv6_where_there_is_any() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LISTEN_ADDRESS", "[::1]:0")
        .listening();
    assert!(extension.addr().is_ipv6());
    assert_eq!(extension.post("/ingest", b"by IPv6").status, 200);
    assert_eq!(server.wait_only().payload(), b"by IPv6");
}

/// `localhost`, the default, is both loopback addresses, on the same port.
#[test]
fn listens_on_both_loopback_addresses() {
    let (server, port) = (Pyroscope::http(), ReservedPort::new());
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let address = format!("localhost:{}", port.number);
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address)
        .listening();
    let addresses: [(&str, bool); 2] = [("127.0.0.1", true), ("[::1]", has_ipv6)];
    for (host, expected) in addresses {
        let addr: SocketAddr = format!("{host}:{}", port.number)
            .parse()
            .expect("an address");
        assert_eq!(TcpStream::connect(addr).is_ok(), expected, "{addr}");
    }
    drop(extension);
}

/// As many things have happened as are looked at in one turn, the wish to leave among them; and then one more.
#[test]
fn an_upload_that_comes_last_of_all_is_relayed_before_it_leaves() {
    const EVENTS_PER_TURN: usize = 64;
    let server = Pyroscope::http().quick();
    let mut extension = Sandbox::relay_only(&server).listening();
    let mut clients: Vec<Client> = (0..EVENTS_PER_TURN).map(|_| extension.client()).collect();
    for client in &mut clients {
        client.send(post("/ingest", b"early"));
        client.expect_ok();
    }
    server.wait_answered(clients.len());
    server.wait_read();
    extension.wait_asleep();
    extension.freeze();
    extension.signal(Signal::SIGTERM);
    let mut last = clients.pop().expect("a client");
    drop(clients);
    last.send(post("/ingest", b"last"));
    extension.thaw();
    last.expect_ok();
    extension.expect_exit(0);
    extension.totals().expect(1 + EVENTS_PER_TURN as u64, 0);
}

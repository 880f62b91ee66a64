//! Does it live by the rules of the sandboxes that are not the usual ones?
//!
//! Provisioned concurrency, where hours lie between init and the first INVOKE; sandboxes that see only SHUTDOWN;
//! SnapStart, where what was taken before the snapshot is taken once for many; and the reset after an invocation that
//! failed, with a new process in the same sandbox. Managed Instances are in `lifecycle` and in the end-to-end run.

mod support;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use nix::sys::signal::Signal;
use pyroscope_lambda_extension::contract::{ConnId, End, Peer};
use support::certificates::Authority;
use support::client::{Client, post};
use support::extensions_api::ExtensionsApi;
use support::name_server::{Mood, NameServer};
use support::play::{Gate, Play};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{ReservedPort, Sandbox};
use world::{OK, World};

const HOUR: Duration = Duration::from_hours(1);
const TWO_SECONDS: Duration = Duration::from_secs(2);
const NAMED_SERVER: (&str, &str) = ("PYROSCOPE_REMOTE_ADDRESS", "http://profiles.example:4040");

/// A world that has registered and waits for the first event, and its connection to Lambda's API.
fn initialized(vars: &[(&str, &str)]) -> (World, ConnId) {
    let lambda = [
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ];
    let mut world = World::new(&[vars, &lambda].concat());
    let api = world.connect();
    let answer =
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}";
    world.answer(api, answer);
    world.seen(api);
    (world, api)
}

/// An INVOKE, after which the next event must be asked for at once.
fn invoke(world: &mut World, api: ConnId) {
    send(world, api, r#"{"eventType":"INVOKE","requestId":"r"}"#);
    assert!(world.seen(api).starts_with("GET "), "asks for the next");
}

fn send(world: &mut World, api: ConnId, json: &str) {
    let length = json.len();
    world.answer(
        api,
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{json}"),
    );
}

/// The sandbox stands still, and the clocks go on as given.
fn stand_still(world: &mut World, monotonic: Duration, wall: Duration) {
    world.now.mono += monotonic;
    world.now.unix_ms += wall.as_millis() as u64;
}

/// The server's name is asked for, and found.
fn resolve(world: &mut World, address: &str) {
    let asked = world.resolving.pop().expect("the name is asked for");
    assert_eq!(asked, (Peer::Remote, "profiles.example:4040".to_owned()));
    let found = vec![address.parse().expect("an address")];
    world.relay.resolved(Peer::Remote, Ok(found), world.now);
    world.settle();
}

// Provisioned concurrency.

/// An upload in init, five hours, the first INVOKE: nothing of what was known then is trusted.
#[test]
fn hours_between_init_and_the_first_invoke() {
    let (mut world, api) = initialized(&[NAMED_SERVER]);
    world.post("in init");
    resolve(&mut world, "10.0.0.1:4040");
    let old = world.connect();
    world.answer(old, OK);
    while world.asleep_for().is_some() {
        world.pass_to_deadline();
    }

    stand_still(&mut world, 5 * HOUR, 5 * HOUR);
    invoke(&mut world, api);
    world.post("invoked");
    resolve(&mut world, "10.0.0.2:4040");
    assert!(
        !world.written.contains_key(&old),
        "an old connection is let go"
    );
    assert_eq!(world.connecting[0].1, "10.0.0.2:4040".parse().unwrap());
    let new = world.connect();
    assert!(world.seen(new).ends_with("invoked"));
    world.answer(new, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (2, 0));
    assert!(!world.log().contains("level=error"));
    assert_eq!(world.exit, None);
}

/// Some sandboxes are made ready and never used.
#[test]
fn a_sandbox_that_sees_only_shutdown() {
    let (mut world, api) = initialized(&[NAMED_SERVER]);
    stand_still(&mut world, 8 * HOUR, 8 * HOUR);
    send(
        &mut world,
        api,
        r#"{"eventType":"SHUTDOWN","shutdownReason":"spindown"}"#,
    );
    assert_eq!(world.exit, Some(0), "at once");
    assert!(world.resolving.is_empty() && world.connecting.is_empty());
    assert!(world.log().contains("Relay closed\" acknowledged=0 "));
}

/// And what could not be sent in init is tried once more at the end, though the server counted as down.
#[test]
fn a_sandbox_that_sees_only_shutdown_has_an_upload_left() {
    let (mut world, api) = initialized(&[]);
    world.post("in init");
    world.refuse();
    stand_still(&mut world, 8 * HOUR, 8 * HOUR);
    world.relay.thawed(8 * HOUR, world.now);
    let deadline = world.now.unix_ms + 2000;
    send(
        &mut world,
        api,
        &format!(
            r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}"#
        ),
    );
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
}

// SnapStart.

/// What a snapshot would copy is not taken before the first upload: no name, no connection, no TLS client.
#[test]
fn nothing_is_taken_that_a_snapshot_would_copy() {
    // The world cannot read roots, and would say so.
    let (mut world, api) = initialized(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://profiles.example"),
        ("SSL_CERT_FILE", "/roots.pem"),
    ]);
    stand_still(&mut world, Duration::ZERO, 72 * HOUR);
    world.relay.thawed(Duration::ZERO, world.now);
    world.settle();
    invoke(&mut world, api);
    assert!(world.resolving.is_empty() && world.connecting.is_empty());
    assert_eq!(world.asleep_for(), None, "nothing wakes it");
}

/// The copies of a snapshot draw a session each, at their first INVOKE and not again.
#[test]
fn each_copy_of_a_snapshot_has_a_session_of_its_own() {
    let (mut world, api) = initialized(&[]);
    let client = world.client();
    let mut server = None;
    let mut session = |world: &mut World| {
        let request = "POST /ingest?name=app HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\n\r\n";
        world.arrive(client, request.as_bytes(), usize::MAX);
        let id = *server.get_or_insert_with(|| world.connect());
        let seen = world.seen(id);
        world.answer(id, OK);
        let (_, rest) = seen.split_once("__session_id__%3D").expect("a session");
        rest[..16].to_owned()
    };
    let in_init = session(&mut world);
    assert_eq!(session(&mut world), in_init);
    invoke(&mut world, api);
    let invoked = session(&mut world);
    assert_ne!(invoked, in_init, "drawn anew");
    invoke(&mut world, api);
    assert_eq!(session(&mut world), invoked, "and kept");
}

/// A snapshot is taken while an upload of init is under way. The copy's connection is dead, its addresses are days
/// old, and its monotonic clock stood still or jumped.
#[test]
fn an_upload_under_way_in_a_snapshot_goes_on_in_the_copy() {
    for monotonic in [Duration::ZERO, 240 * HOUR] {
        let (mut world, api) = initialized(&[NAMED_SERVER]);
        world.post("in init");
        resolve(&mut world, "10.0.0.1:4040");
        let old = world.connect();
        stand_still(&mut world, monotonic, 72 * HOUR);
        world.relay.thawed(monotonic, world.now);
        world.close(old, End::Io(std::io::ErrorKind::ConnectionReset));
        invoke(&mut world, api);
        resolve(&mut world, "10.0.0.2:4040");
        let new = world.connect();
        world.answer(new, OK);
        assert_eq!((world.totals().relayed, world.totals().resent), (1, 1));
        assert!(!world.log().contains("level=error"));
    }
}

/// The same of the real program, as the kernel and the name server see it.
#[test]
fn the_program_takes_nothing_that_a_snapshot_would_copy() {
    let authority = Authority::new("Bench Root");
    let (lambda, names, file) = (
        ExtensionsApi::start(),
        NameServer::silent(),
        authority.pem_file(),
    );
    names.say(Mood::Answers);
    let server = Pyroscope::https(Tls::with(authority.leaf(&["server.bench.test"])));
    let address = format!("https://server.bench.test:{}", server.addr().port());
    let resolv_conf = names.resolv_conf();
    let extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_REMOTE_ADDRESS", address)
        .set("SSL_CERT_FILE", file.path().display().to_string())
        .resolving_by(resolv_conf.path())
        .listening();
    lambda.wait_next();
    extension.wait_asleep();
    assert_eq!(names.asked(), 0, "no name is looked up");
    assert_eq!(extension.status("Threads:"), "1");
    // The one it listens on, and Lambda's.
    assert_eq!(extension.sockets(), 2);
    lambda.invoke_and_wait();
    assert_eq!((names.asked(), server.connections().len()), (0, 0));
    assert_eq!(extension.post("/ingest", b"invoked").status, 200);
    assert_eq!(server.wait_only().payload(), b"invoked");
}

// Reset after an invocation that failed.

/// The function timed out or crashed: the process is told, and ends or is killed; the next one is started in the same
/// sandbox, where the port must be free, though the function's connections had not been closed.
#[test]
fn a_reset_leaves_the_port_and_a_right_account() {
    for ending in ["timeout", "failure", "killed"] {
        let port = ReservedPort::new();
        let address = format!("127.0.0.1:{}", port.number);
        let start = |lambda: &ExtensionsApi, server: &Pyroscope| {
            Sandbox::with(lambda, server)
                .set("PYROSCOPE_LISTEN_ADDRESS", address.as_str())
                .listening()
        };
        let (server, never) = (Pyroscope::http(), Gate::new());
        let lambda = ExtensionsApi::start();
        let mut first = start(&lambda, &server);
        lambda.invoke_and_wait();
        let mut sdk = Client::connect(first.addr());
        sdk.send(post("/ingest", b"arrives"));
        sdk.expect_ok();
        server.wait_answered(1);
        server.always(Play::answer(200).unanswered_until(&never));
        sdk.send(post("/ingest", b"is lost"));
        sdk.expect_ok();
        server.wait_complete(2);
        if ending == "killed" {
            first.signal(Signal::SIGKILL);
            first.wait_exit();
        } else {
            lambda.shutdown_because(ending, Duration::from_millis(300));
            first.expect_exit(0);
            first.totals().expect(1, 1);
        }

        let (server, lambda) = (Pyroscope::http(), ExtensionsApi::start());
        let mut second = start(&lambda, &server);
        lambda.invoke_and_wait();
        assert_eq!(second.post("/ingest", b"afresh").status, 200);
        assert_eq!(server.wait_only().payload(), b"afresh");
        server.wait_answered(1);
        lambda.shutdown(TWO_SECONDS);
        second.expect_exit(0);
        second.totals().expect(1, 0);
        assert!(second.complaints().is_empty(), "{ending}");
        drop(sdk);
    }
}

#[test]
fn an_answer_and_the_first_invoke_may_come_in_one_turn() {
    let snap = ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start");
    let (mut world, api) = initialized(&[NAMED_SERVER, snap]);
    world.post("in init");
    resolve(&mut world, "10.0.0.1:4040");
    let old = world.connect();
    world.seen(old);
    stand_still(&mut world, Duration::ZERO, 72 * HOUR);
    // Both were in the sockets' buffers, or came, before the shell's turn: no `step` between them.
    let json = r#"{"eventType":"INVOKE","requestId":"r"}"#;
    let event = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    for (id, bytes) in [(old, OK), (api, event.as_str())] {
        world.relay.space(id)[..bytes.len()].copy_from_slice(bytes.as_bytes());
        world.relay.received(id, bytes.len(), world.now);
    }
    world.settle();
    world.post("in the copy");
    assert!(
        !world.written.contains_key(&old),
        "used again: {:?}",
        world.seen(old)
    );
}

#[test]
fn the_next_address_is_tried_after_a_thaw_too() {
    let (mut world, _) = initialized(&[NAMED_SERVER]);
    world.post("x");
    let (peer, _) = world.resolving.pop().unwrap();
    let list = [
        "10.0.0.1:4040".parse().unwrap(),
        "10.0.0.2:4040".parse().unwrap(),
    ];
    world.relay.resolved(peer, Ok(list.to_vec()), world.now);
    world.settle();
    assert_eq!(world.connecting.pop().unwrap().1, list[0]);
    // The first is silent; a freeze comes before its five seconds are over.
    let frozen = Duration::from_secs(3);
    stand_still(&mut world, frozen, frozen);
    world.relay.thawed(frozen, world.now);
    world.settle();
    world.pass_to_deadline();
    assert_eq!(world.connecting.pop().map(|c| c.1), Some(list[1]));
}

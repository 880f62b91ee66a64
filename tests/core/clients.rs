//! The core: clients that are slow, silent, many, or ask for too much.

use std::time::Duration;

use pyroscope_lambda_extension::contract::ConnId;
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::world::{OK, World};

#[test]
fn a_body_that_never_fits_is_refused_whoever_else_is_there() {
    for other in [false, true] {
        let mut world = World::new(&[("PYROSCOPE_BUFFER_BYTES", "1000000")]);
        if other {
            world.post(&"y".repeat(300_000));
        }
        let client = world.client();
        world.arrive(
            client,
            b"POST / HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n",
            usize::MAX,
        );
        while world.written[&client].is_empty() {
            let chunk = [&b"1000\r\n"[..], &[b'x'; 0x1000], b"\r\n"].concat();
            world.offer(client, &chunk, usize::MAX);
        }
        assert!(world.seen(client).starts_with("HTTP/1.1 413 "));
        assert_eq!(world.half_closed, [client]);
        assert_eq!(world.totals().acknowledged, u64::from(other));
    }
}

#[test]
fn a_client_that_is_refused_again_and_again_is_logged_once() {
    let mut world = World::new(&[]);
    for _ in 0..10 {
        let client = world.client();
        world.arrive(client, b"POST / HTTP/3.0\r\n\r\n", usize::MAX);
        assert!(world.seen(client).starts_with("HTTP/1.1 505 "));
    }
    assert_eq!(world.log().matches("Request refused").count(), 1);
    world.pass(Duration::from_secs(60));
    let client = world.client();
    world.arrive(client, b"\0", usize::MAX);
    assert!(world.log().contains(" comp=controller count=10 "));
}

#[test]
fn the_idlest_client_gives_way() {
    let mut world = World::new(&[]);
    let busy = world.client();
    world.arrive(
        busy,
        b"POST / HTTP/1.1\r\nHost: l\r\nContent-Length: 2\r\n\r\nx",
        usize::MAX,
    );
    for _ in 0..200 {
        world.pass(Duration::from_millis(5));
        world.client();
    }
    world.settle();
    assert_eq!(world.written.len(), 64);
    world.arrive(busy, b"y", usize::MAX);
    assert_eq!(
        world.totals().acknowledged,
        1,
        "the oldest is in the middle of something"
    );
    assert_eq!(world.log().matches("Too many").count(), 1);
}

/// A client that began a body and says no more holds a connection; the room it took is others' when they need it.
#[test]
fn a_silent_client_does_not_keep_the_ring() {
    let mut world = World::new(&[("PYROSCOPE_BUFFER_BYTES", "1000000")]);
    let silent: Vec<ConnId> = (0..3).map(|_| world.client()).collect();
    let head = "POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 300000\r\n\r\n";
    for id in &silent {
        world.arrive(*id, head.as_bytes(), usize::MAX);
        world.arrive(*id, &vec![b'a'; 299_999], usize::MAX);
    }
    let body = "b".repeat(400_000);
    world.post(&body);
    assert_eq!(world.lost(LossReason::Full), 1, "they may be quick");

    // A freeze is nobody's fault.
    world.relay.thawed(Duration::from_secs(20), world.now);
    world.now.mono += Duration::from_secs(20);
    world.post(&body);
    assert_eq!(world.lost(LossReason::Full), 2);

    world.pass(Duration::from_secs(10));
    world.post(&body);
    assert_eq!(world.lost(LossReason::Full), 2, "they had their time");
    // The first two gave way to it. They are still served, and told nothing: the loss is counted.
    for id in &silent {
        world.arrive(*id, b"a", usize::MAX);
        assert_eq!(world.seen(*id), OK);
    }
    assert_eq!(world.lost(LossReason::Full), 4);
    assert_eq!(world.totals().acknowledged, 6);
    let server = world.connect();
    assert!(world.seen(server).ends_with("bbb"), "the oldest that waits");
}

#[test]
fn a_client_that_has_just_come_does_not_give_way() {
    let mut world = World::new(&[]);
    for _ in 0..64 {
        let id = world.client();
        world.arrive(id, b"POST /slow HT", usize::MAX);
    }
    let fresh = world.client();
    for _ in 0..63 {
        world.client();
    }
    world.arrive(
        fresh,
        b"POST /a HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nx",
        usize::MAX,
    );
    assert_eq!(world.seen(fresh), OK);
}

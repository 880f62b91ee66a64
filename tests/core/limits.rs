//! Limits of the core that only show when somebody is slow, or when much has happened before.

use std::io::ErrorKind;
use std::time::Duration;

use super::world::{OK, World};
use pyroscope_lambda_extension::contract::{ConnId, End};
use pyroscope_lambda_extension::relay::ring::LossReason;

const REQUEST: &str = "POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";

/// A relay asked to leave that has nothing in hand.
fn leave(world: &mut World) {
    assert_eq!(world.totals().acknowledged, world.totals().relayed);
    world.relay.terminated(world.now);
    world.settle();
}

/// What the last payloads took goes back to the system a second later.
#[test]
fn memory_is_given_back_a_second_after_the_last_payload() {
    let mut world = World::new(&[]);
    for _ in 0..2 {
        world.relay_another();
        assert_eq!(world.asleep_for(), Some(std::time::Duration::from_secs(1)));
        assert_eq!(world.pass_to_deadline(), std::time::Duration::from_secs(1));
        let next = world.asleep_for();
        assert!(next > Some(std::time::Duration::from_secs(2)), "{next:?}");
    }
}

#[test]
fn leaving_waits_for_an_upload_that_has_begun() {
    for begun in 1..REQUEST.len() {
        let mut world = World::new(&[]);
        let client = world.client();
        world.arrive(client, &REQUEST.as_bytes()[..begun], usize::MAX);
        leave(&mut world);
        assert_eq!(world.exit, None, "{begun} bytes had come");
        world.arrive(client, &REQUEST.as_bytes()[begun..], usize::MAX);
        assert_eq!(world.seen(client), OK);
        let server = world.connect();
        world.answer(server, OK);
        assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
    }
}

#[test]
fn leaving_waits_for_an_answer_to_be_written() {
    let mut world = World::new(&[]);
    let client = world.client();
    world.room.insert(client, 0);
    world.arrive(client, REQUEST.as_bytes(), usize::MAX);
    let server = world.connect();
    world.answer(server, OK);
    leave(&mut world);
    assert_eq!(world.exit, None, "the client does not know yet");
    world.room.remove(&client);
    world.settle();
    assert_eq!((world.seen(client).as_str(), world.exit), (OK, Some(0)));
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_any_further() {
    const COUNT: usize = 1000;
    let wire = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(COUNT);
    for step in [1, 100, usize::MAX] {
        let mut world = World::new(&[]);
        let client = world.client();
        world.room.insert(client, 0);
        let mut taken = world.offer(client, wire.as_bytes(), step);
        assert!(
            taken <= 8192,
            "{taken} bytes of requests in steps of {step}"
        );
        let waiting = world.relay.pending(client).concat().len();
        assert!(waiting <= 1024 + OK.len(), "{waiting} bytes of answers");
        assert!(!world.relay.wants(client));

        // As it reads on, so do we; and every request is answered.
        let mut read = 0;
        while read < COUNT * OK.len() {
            world.room.insert(client, 5000);
            world.settle();
            let seen = world.seen(client);
            assert!(!seen.is_empty(), "{read} bytes read, {taken} bytes taken");
            read += seen.len();
            taken += world.offer(client, &wire.as_bytes()[taken..], step);
        }
        assert_eq!(taken, wire.len());
        assert_eq!(read, COUNT * OK.len());
    }
}

/// Eleven answers to HTTP/1.0 and nine to HTTP/1.1 are 1024 bytes.
#[test]
fn a_client_may_leave_a_kilobyte_of_answers_unread_and_no_byte_more() {
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let new = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut world = World::new(&[]);
    let client = world.client();
    world.room.insert(client, 0);
    world.arrive(
        client,
        (old.repeat(11) + &new.repeat(9)).as_bytes(),
        usize::MAX,
    );
    assert_eq!(world.relay.pending(client).concat().len(), 1024);
    world.arrive(client, new.as_bytes(), usize::MAX);
    assert_eq!(world.relay.pending(client).concat().len(), 1024 + OK.len());
    assert!(!world.relay.wants(client));
}

#[test]
fn a_client_that_sends_no_more_gets_its_answer_and_one_that_breaks_off_is_let_go() {
    for (why, left) in [
        (End::Eof, OK.len()),
        (End::Io(ErrorKind::ConnectionReset), 0),
    ] {
        let mut world = World::new(&[]);
        let client = world.client();
        world.room.insert(client, 0);
        world.arrive(client, REQUEST.as_bytes(), usize::MAX);
        world.relay.ended(client, why, world.now);
        world.settle();
        assert_eq!(world.relay.pending(client).concat().len(), left);
        assert_eq!(world.written.contains_key(&client), left > 0);
        world.room.remove(&client);
        world.settle();
        assert!(!world.written.contains_key(&client), "closed");
        assert_eq!(world.totals().acknowledged, 1);
    }
}

/// Its request is on its way: for 250 ms it counts as busy.
#[test]
fn who_has_just_come_does_not_give_way_for_a_quarter_of_a_second() {
    for (age, is_new) in [(249, true), (250, false)] {
        let mut world = World::new(&[]);
        let busy = [(); 63].map(|()| {
            let client = world.client();
            world.arrive(client, &REQUEST.as_bytes()[..10], usize::MAX);
            client
        });
        world.pass(Duration::from_secs(1));
        let newcomer = world.client();
        world.pass(Duration::from_millis(age));
        world.client();
        world.settle();
        assert_eq!(world.written.contains_key(&newcomer), is_new, "{age}");
        assert_eq!(world.written.contains_key(&busy[0]), !is_new, "{age}");
    }
}

/// Of a longer one the rest would cost more than another connection.
#[test]
fn an_answer_of_more_than_64_kib_ends_its_connection() {
    const MOST: usize = 64 * 1024;
    for (length, taken, is_kept) in [(MOST, MOST, true), (MOST + 2, MOST + 1, false)] {
        let mut world = World::new(&[]);
        world.post("x");
        let server = world.connect();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        world.answer(server, &head);
        assert_eq!(world.totals().relayed, 0, "the rest may come");
        let step = 1;
        assert_eq!(world.offer(server, &vec![b'x'; length], step), taken);
        assert_eq!(world.totals().relayed, 1);
        assert_eq!(world.written.contains_key(&server), is_kept);
    }
}

const REFUSED: &[u8] = b"no HTTP \r\n\r\n";

/// A client that is refused while it still sends must see the answer, and not a reset (RFC 9112 section 9.6).
#[test]
fn after_its_last_answer_a_client_has_five_seconds_to_close() {
    let mut world = World::new(&[]);
    let client = world.client();
    world.room.insert(client, 0);
    world.offer(client, REFUSED, usize::MAX);
    assert_eq!(world.half_closed, [], "it has no answer yet");
    world.room.remove(&client);
    world.settle();
    assert!(world.seen(client).starts_with("HTTP/1.1 400 "));
    assert_eq!(world.half_closed, [client]);
    world.pass(Duration::from_millis(4999));
    world.arrive(client, b"more of it", usize::MAX);
    assert!(
        world.written.contains_key(&client),
        "the fifth second goes on"
    );
    assert_eq!(world.asleep_for(), Some(Duration::from_millis(1)));
    world.pass_to_deadline();
    assert!(!world.written.contains_key(&client));
}

#[test]
fn after_its_last_answer_256_mib_of_a_client_are_thrown_away() {
    let mut world = World::new(&[]);
    let client = world.client();
    world.offer(client, REFUSED, usize::MAX);
    let piece = vec![b'x'; 16 * 1024];
    assert_eq!(world.relay.space(client).len(), piece.len(), "at a time");
    for _ in 1..(256 << 20) / piece.len() {
        world.arrive(client, &piece, usize::MAX);
    }
    world.arrive(client, &piece[1..], usize::MAX);
    assert!(world.written.contains_key(&client), "a byte is left");
    world.offer(client, b"x", usize::MAX);
    assert!(!world.written.contains_key(&client));
}

/// What comes after a chunked body in the same read is copied; of other bodies a read takes all that there is room for.
#[test]
fn a_chunked_body_is_read_64_kib_at_a_time() {
    for (framing, is_bounded) in [
        ("Content-Length: 1000000\r\n\r\n", false),
        ("Transfer-Encoding: chunked\r\n\r\nF4240\r\n", true),
    ] {
        let mut world = World::new(&[]);
        let client = world.client();
        let head = format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{framing}");
        world.arrive(client, head.as_bytes(), usize::MAX);
        let (mut left, mut most) = (1_000_000, 0);
        while left > 0 {
            most = most.max(world.relay.space(client).len());
            let piece = vec![b'x'; left.min(10_000)];
            left -= world.offer(client, &piece, usize::MAX);
        }
        assert_eq!(most == 64 * 1024, is_bounded, "{most}");
        assert!(most >= 64 * 1024, "{most}");
    }
}

/// Nothing of a body that cannot be kept is read before the refusal, and no more than needed after it.
#[test]
fn a_body_larger_than_the_ring_is_refused_when_that_is_known() {
    const RING: (&str, &str) = ("PYROSCOPE_BUFFER_BYTES", "1048576");
    const TOO_LARGE: &str = "HTTP/1.1 413 ";
    let mut world = World::new(&[RING]);
    let client = world.client();
    world.arrive(
        client,
        b"POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n",
        usize::MAX,
    );
    assert!(world.seen(client).starts_with(TOO_LARGE));

    // A body whose length nobody knows, while another upload keeps it from finding room.
    let mut world = World::new(&[RING]);
    let slow = world.client();
    let head = b"POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n";
    world.arrive(slow, head, usize::MAX);
    let client = world.client();
    let head = b"POST /ingest HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n";
    world.arrive(client, head, usize::MAX);
    let mut taken = 0;
    while world.seen(client).is_empty() {
        taken += world.offer(client, &[b'x'; 1024], usize::MAX);
        assert!(taken < 1 << 21);
    }
    assert_eq!(taken, (1 << 20) + 1024, "all of the ring, and a piece more");
    assert_eq!(world.lost(LossReason::Full), 0, "it was not acknowledged");
}

/// A world with Lambda in it, to be asked to register.
fn sandbox() -> World {
    World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ])
}

/// Lambda's API breaks off one answer after another; the pauses before it is asked again.
fn pauses(world: &mut World, api: &mut ConnId, failures: usize) -> Vec<u128> {
    let mut pauses = Vec::new();
    for _ in 0..failures {
        world.answer(*api, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        assert!(!world.written.contains_key(api), "the connection is closed");
        pauses.push(world.pass_to_deadline().as_millis());
        *api = world.connect();
        world.seen(*api);
    }
    pauses
}

#[test]
fn lambdas_answer_ends_the_count_of_its_failures() {
    let growing = [100, 200, 400, 800, 1000, 1000];
    let mut world = sandbox();
    let mut api = world.connect();
    world.seen(api);
    assert_eq!(pauses(&mut world, &mut api, 6), growing);
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: i\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert!(world.seen(api).starts_with("GET "));
    assert_eq!(pauses(&mut world, &mut api, 6), growing, "once registered");
    let event = r#"{"eventType":"INVOKE","requestId":"r","deadlineMs":1}"#;
    let length = event.len();
    world.answer(
        api,
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{event}"),
    );
    assert!(world.seen(api).starts_with("GET "));
    assert_eq!(
        pauses(&mut world, &mut api, 3),
        growing[..3],
        "after an event"
    );
    assert_eq!(world.exit, None);
}

use std::time::Duration;

use super::*;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\n";

fn shape(length: Option<usize>) -> Shape {
    Shape {
        length,
        has_body: true,
        to_head_request: false,
        change: None,
    }
}

fn fill(ring: &mut Ring, body: &[u8], length: Option<usize>) -> Result<PayloadId, Full> {
    let id = ring.open(HEAD, shape(length))?;
    let mut rest = body;
    while !rest.is_empty() {
        let space = ring.space(id).unwrap();
        let n = space.len().min(rest.len()).min(1000);
        space[..n].copy_from_slice(&rest[..n]);
        ring.filled(id, n);
        rest = &rest[n..];
    }
    Ok(id)
}

fn put(ring: &mut Ring, body: &[u8]) -> PayloadId {
    let id = fill(ring, body, Some(body.len())).unwrap();
    ring.commit(id);
    id
}

#[test]
fn a_slow_payload_that_grows_may_have_to_give_way_itself() {
    let now = Instant::now();
    let mut ring = Ring::new(100 * 1024);
    ring.tick(now);
    let slow = ring.open(HEAD, shape(None)).unwrap();
    let n = ring.space(slow).unwrap().len();
    ring.filled(slow, n);
    put(&mut ring, &vec![0; 64 * 1024]);
    ring.tick(now + Duration::from_secs(11));
    assert_eq!(ring.space(slow), Err(NoSpace::Full));
    assert_eq!(ring.in_hand(), 1, "what was acknowledged stays");
    ring.lose_all(LossReason::Shutdown);
    assert_eq!(
        ring.buffers.bytes_used(),
        0,
        "and nothing is held for nobody"
    );
}

/// A pprof of that length with this time, in whole seconds.
fn pprof(length: usize, seconds: u64) -> Vec<u8> {
    let time = times::protobuf::time_field(seconds * 1_000_000_000);
    let padding = length - time.len() - 3;
    let mut body = vec![6 << 3 | 2, padding as u8 | 0x80, (padding >> 7) as u8];
    body.resize(3 + padding, b'x');
    body.extend_from_slice(&time);
    body
}

/// A body that fills its last page grows by one page if the byte limit allows it; no payload is dropped for it.
#[test]
fn a_body_grows_into_what_room_there_is() {
    let body = pprof(2 * PAGE - HEAD.len() - GAP, 1_800_000_000);
    let stamp = times::Stamp {
        session: 1,
        received_ms: 1_800_000_000_000,
        thaw: None,
    };
    for (room, grows) in [(3 * PAGE, true), (2 * PAGE, false)] {
        let mut ring = Ring::new(cost(PAGE) + cost(room));
        put(&mut ring, b"waits");
        let shape = Shape {
            change: Some((times::Form::Pprof, Some(stamp))),
            ..shape(Some(body.len()))
        };
        let id = ring.open(HEAD, shape).unwrap();
        ring.space(id).unwrap()[..body.len()].copy_from_slice(&body);
        ring.filled(id, body.len());
        ring.commit(id);
        for _ in 0..2 {
            ring.change_body(id, &Labels::new());
            let [head, sent] = ring.request(id);
            let length = format!("Content-Length: {}\r\n\r\n", sent.len());
            assert!(head.ends_with(length.as_bytes()));
            assert!(sent.starts_with(&body));
            assert_eq!(sent.len() - body.len(), if grows { 10 } else { 0 });
        }
        assert_eq!(ring.in_hand(), 2, "nothing gave way");
    }
}

#[test]
fn a_payload_comes_out_as_it_went_in() {
    let mut ring = Ring::new(16 << 20);
    let body: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    for length in [Some(body.len()), None] {
        let id = fill(&mut ring, &body, length).unwrap();
        ring.commit(id);
        let [head, sent] = ring.request(id);
        assert_eq!(head, b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n");
        assert!(sent == body);
        ring.start(id);
        ring.relayed(id);
    }
    assert_eq!(
        (ring.totals().relayed, ring.totals().relayed_bytes),
        (2, 600_000)
    );
    assert!(ring.is_empty());
}

#[test]
fn a_request_without_a_body_says_no_length() {
    let mut ring = Ring::new(1 << 20);
    let id = ring
        .open(
            HEAD,
            Shape {
                length: Some(0),
                has_body: false,
                to_head_request: true,
                change: None,
            },
        )
        .unwrap();
    ring.commit(id);
    assert_eq!(ring.request(id), [&b"POST / HTTP/1.1\r\n\r\n"[..], b""]);
    assert!(ring.to_head_request(id));
}

#[test]
fn the_oldest_queued_gives_way_when_slots_are_full() {
    let mut ring = Ring::new(16 << 20);
    let first = put(&mut ring, b"first");
    ring.start(first);
    for _ in 1..SLOTS {
        put(&mut ring, b"more");
    }
    let newest = put(&mut ring, b"newest");
    assert_eq!(ring.totals().lost[LossReason::Full as usize], 1);
    assert_eq!(ring.request(first)[1], b"first", "what is being sent stays");
    assert_eq!(ring.request(newest)[1], b"newest");
    assert_eq!(ring.in_hand(), SLOTS);
}

#[test]
fn the_oldest_queued_gives_way_when_bytes_are_full() {
    let mut ring = Ring::new(1 << 20);
    let body = vec![7; 200_000];
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(put(&mut ring, &body));
    }
    let lost = ring.totals().lost[LossReason::Full as usize];
    assert_eq!(ring.in_hand() as u64 + lost, 8);
    assert_eq!(ring.in_hand(), 5, "five of 200 KB fit a MiB");
    assert_eq!(
        ring.ready(Instant::now()),
        Some(ids[3]),
        "the three oldest are gone"
    );
}

#[test]
fn nothing_gives_way_to_what_cannot_fit() {
    let mut ring = Ring::new(100_000);
    assert!(!ring.could_hold(HEAD.len(), 100_000));
    assert!(!ring.could_hold(HEAD.len(), u64::MAX));
    assert!(ring.could_hold(HEAD.len(), 90_000));
    let id = ring.open(HEAD, shape(None)).unwrap();
    let refused = loop {
        match ring.space(id) {
            Ok(space) => {
                let n = space.len();
                ring.filled(id, n);
            }
            Err(full) => break full,
        }
    };
    assert_eq!(refused, NoSpace::TooLarge);
    ring.abandon(id);
    assert_eq!(
        *ring.totals(),
        Totals {
            high_water_bytes: ring.totals().high_water_bytes,
            ..Totals::default()
        }
    );
}

/// Two pages stay free: to round a buffer up, and for the allocator's start inside a page.
#[test]
fn a_body_that_could_be_held_is_held_and_two_pages_are_left() {
    const MAX: usize = 1 << 20;
    for head_bytes in [1, 100, 4000] {
        let head = vec![b'h'; head_bytes];
        let most = MAX - head.len() - GAP - 2 * PAGE;
        let mut ring = Ring::new(MAX);
        assert!(ring.could_hold(head.len(), most as u64));
        assert!(!ring.could_hold(head.len(), most as u64 + 1));
        assert!(!ring.could_hold(head.len(), u64::MAX));
        let id = ring.open(&head, shape(Some(most))).unwrap();
        let mut left = most;
        while left > 0 {
            let n = ring.space(id).unwrap().len();
            ring.filled(id, n);
            left -= n;
        }
        ring.commit(id);
        assert_eq!(ring.request(id)[1].len(), most);
    }
}

#[test]
fn who_announces_much_and_sends_little_holds_little() {
    for (length, first) in [
        (Some(1), 1),
        (Some(64 * 1024), 64 * 1024),
        (Some(8 << 20), 64 * 1024),
        (None, 16 * 1024),
    ] {
        let mut ring = Ring::new(16 << 20);
        ring.open(HEAD, shape(length)).unwrap();
        let used = ring.buffers.bytes_used();
        assert_eq!(used, cost(pages(HEAD.len() + GAP + first)), "{length:?}");
    }
}

#[test]
fn nothing_goes_in_vain_for_an_announced_length() {
    let mut ring = Ring::new(1 << 20);
    let sending = put(&mut ring, &vec![1; 700_000]);
    ring.start(sending);
    for _ in 0..10 {
        put(&mut ring, &vec![2; 10_000]);
    }
    assert_eq!(ring.open(HEAD, shape(Some(600_000))), Err(Full));
    assert_eq!(ring.totals().lost_sum(), 0);
}

#[test]
fn nothing_goes_in_vain() {
    let mut ring = Ring::new(1 << 20);
    let sending = put(&mut ring, &vec![1; 500_000]);
    ring.start(sending);
    put(&mut ring, &vec![2; 100_000]);
    assert_eq!(
        ring.open(HEAD, shape(None))
            .map(|id| ring.slots[id.slot].state),
        Ok(State::Filling { since: None })
    );
    let filling = PayloadId {
        sequence: 2,
        slot: 2,
    };
    let refused = loop {
        match ring.space(filling) {
            Ok(space) => {
                let n = space.len();
                ring.filled(filling, n);
            }
            Err(no) => break no,
        }
    };
    assert_eq!((refused, ring.totals().lost_sum()), (NoSpace::Full, 0));
}

#[test]
fn a_slow_payload_does_not_block_its_neighbours() {
    let mut ring = Ring::new(1 << 20);
    let slow = put(&mut ring, b"slow");
    ring.start(slow);
    for _ in 0..3 * SLOTS {
        let id = put(&mut ring, b"quick");
        ring.start(id);
        ring.relayed(id);
    }
    assert_eq!(ring.totals().relayed, 3 * SLOTS as u64);
    assert_eq!(ring.totals().lost_sum(), 0);
    assert_eq!(ring.request(slow)[1], b"slow");
}

#[test]
fn what_is_due_moves_or_is_filled_is_known_by_age_and_time() {
    let mut ring = Ring::new(1 << 20);
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let old = put(&mut ring, b"old");
    assert!(!ring.has_work_before(0, now), "it is no older than that");
    assert!(ring.has_work_before(ring.mark(), now));
    ring.start(old);
    ring.retry(old, Some(later));
    assert_eq!(
        (ring.next_due(now), ring.next_due(later)),
        (Some(later), None)
    );
    for (soon, moves) in [(now, false), (later, true)] {
        assert_eq!(ring.has_work_before(ring.mark(), soon), moves);
    }
    let mark = ring.mark();
    assert!(!ring.is_filling_before(mark), "it is full");
    let new = ring.open(HEAD, shape(Some(1))).unwrap();
    assert!(!ring.is_filling_before(mark), "it is no older than that");
    assert!(ring.is_filling_before(ring.mark()));
    ring.abandon(new);
    assert!(!ring.is_filling_before(ring.mark()));
}

#[test]
fn a_body_that_is_whole_needs_no_more_space() {
    let mut ring = Ring::new(1 << 20);
    // Also up to the end of its buffer.
    for length in [10, 2 * PAGE - HEAD.len() - GAP] {
        let id = fill(&mut ring, &vec![7; length], Some(length)).unwrap();
        assert_eq!(ring.space(id).map(|space| space.len()), Ok(0));
    }
}

#[test]
fn the_most_that_was_held_at_once_is_remembered() {
    let mut ring = Ring::new(1 << 20);
    put(&mut ring, &vec![1; 100_000]);
    let most = ring.totals().high_water_bytes;
    assert_eq!(most, ring.buffers.bytes_used());
    ring.lose_all(LossReason::Shutdown);
    put(&mut ring, &[1; 10]);
    assert_eq!(ring.totals().high_water_bytes, most);
}

#[test]
fn retries_wait_and_keep_their_age() {
    let mut ring = Ring::new(1 << 20);
    let now = Instant::now();
    let (old, new) = (put(&mut ring, b"old"), put(&mut ring, b"new"));
    ring.start(old);
    ring.retry(old, Some(now + Duration::from_secs(1)));
    assert_eq!(ring.ready(now), Some(new));
    assert_eq!(ring.next_due(now), Some(now + Duration::from_secs(1)));
    ring.thawed(Duration::from_secs(9));
    assert_eq!(ring.next_due(now), Some(now + Duration::from_secs(10)));
    assert_eq!(ring.ready(now + Duration::from_secs(10)), Some(old));
}

#[test]
fn a_failed_attempt_counts_only_if_another_payload_got_through_since() {
    let mut ring = Ring::new(1 << 20);
    let relay_one = |ring: &mut Ring| {
        let id = put(ring, b"other");
        ring.start(id);
        ring.relayed(id);
    };
    let failed = |tries, attempts| Failed { tries, attempts };
    relay_one(&mut ring);
    let id = put(&mut ring, b"body");
    ring.start(id);
    assert_eq!(ring.fail_attempt(id), failed(1, 0), "none since it came");
    ring.retry(id, None);
    relay_one(&mut ring);
    relay_one(&mut ring);
    ring.start(id);
    assert_eq!(ring.fail_attempt(id), failed(2, 1));
    assert_eq!(ring.fail_attempt(id), failed(3, 1), "none since the last");
    relay_one(&mut ring);
    assert_eq!(ring.fail_attempt(id), failed(4, 2));
    for _ in 0..300 {
        relay_one(&mut ring);
        ring.fail_attempt(id);
    }
    assert_eq!(ring.fail_attempt(id), failed(255, 255), "and no overflow");
}

#[test]
fn a_payload_has_one_free_resend() {
    let mut ring = Ring::new(1 << 20);
    for body in ["one", "in the same slot"] {
        let id = put(&mut ring, body.as_bytes());
        assert!(ring.has_free_resend(id));
        ring.start(id);
        ring.fail_attempt(id);
        assert!(ring.use_free_resend(id));
        ring.retry(id, None);
        assert!(!ring.has_free_resend(id) && !ring.use_free_resend(id));
        ring.start(id);
        ring.relayed(id);
    }
}

#[test]
fn a_probe_takes_what_failed_least_often_and_the_oldest_of_those() {
    let mut ring = Ring::new(1 << 20);
    let now = Instant::now();
    assert_eq!(ring.ready_for_probe(now), None);
    let ids = [(); 3].map(|()| put(&mut ring, b"body"));
    let mut probed = Vec::new();
    for _ in 0..7 {
        let id = ring.ready_for_probe(now).unwrap();
        probed.push(ids.iter().position(|other| *other == id).unwrap());
        ring.start(id);
        ring.fail_attempt(id);
        ring.retry(id, None);
        assert_eq!(ring.ready(now), Some(ids[0]), "not so while it is up");
    }
    assert_eq!(probed, [0, 1, 2, 0, 1, 2, 0]);
    ring.start(ids[1]);
    ring.retry(ids[2], Some(now + Duration::from_secs(1)));
    assert_eq!(ring.ready_for_probe(now), Some(ids[0]), "one, for want");
    let later = now + Duration::from_secs(1);
    assert_eq!(ring.ready_for_probe(later), Some(ids[2]));
}

#[test]
fn spare_buffers_are_reused_bounded_and_given_back() {
    let mut ring = Ring::new(1 << 20);
    let id = put(&mut ring, &[1; 2000]);
    ring.start(id);
    ring.relayed(id);
    assert!(ring.has_spares());
    put(&mut ring, &[2; 2000]);
    assert!(!ring.has_spares(), "the spare one was taken");
    ring.lose_all(LossReason::Shutdown);
    assert_eq!(ring.totals().lost[LossReason::Shutdown as usize], 1);
    ring.trim();
    assert!(!ring.has_spares());

    // A buffer of this size is then reused at once for the next payload of this size.
    let large = vec![3; 400_000];
    let id = put(&mut ring, &large);
    ring.start(id);
    ring.relayed(id);
    let shape = Shape {
        length: Some(large.len()),
        has_body: true,
        to_head_request: false,
        change: None,
    };
    let id = ring.open(b"POST / HTTP/1.1\r\n", shape).unwrap();
    assert_eq!(ring.space(id).map(|space| space.len()), Ok(large.len()));
}

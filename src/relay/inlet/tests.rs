//! States and transitions, one by one, with a ring and without a relay around them.

use super::*;
use crate::config::{Labels, Remote, Share};
use crate::contract::Now;
use crate::http1::write::CONTINUE;
use crate::log::{Level, Log};
use crate::relay::report::LogLimit;
use crate::relay::ring::{LossReason, Shape};

const RING_BYTES: usize = 1 << 20;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An inlet, and what it needs.
struct Bench {
    inlet: Inlet,
    ring: Ring,
    remote: Option<Remote>,
    refusals: LogLimit,
    log: Log,
    taking: bool,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::of(RING_BYTES)
    }

    /// With a ring of that size.
    fn of(ring_bytes: usize) -> Self {
        let now = Instant::now();
        Self {
            inlet: Inlet::new(now),
            ring: Ring::new(ring_bytes),
            remote: Remote::parse("http://server").ok(),
            refusals: LogLimit::default(),
            log: Log::new(Level::Warning),
            taking: true,
            now,
        }
    }

    /// Calls `act` with the inlet and its context.
    fn with(&mut self, act: impl FnOnce(&mut Inlet, &mut Context)) {
        let mut cx = Context {
            ring: &mut self.ring,
            remote: self.remote.as_ref(),
            session: &mut None,
            entropy: || 0,
            sample: Share::ALL,
            labels: &Labels::new(),
            unique_times: false,
            thaw: None,
            last_empty: &mut String::new(),
            head: &mut Vec::new(),
            taking: self.taking,
            refusals: &mut self.refusals,
            log: &mut self.log,
            now: Now {
                mono: self.now,
                unix_ms: 0,
            },
        };
        act(&mut self.inlet, &mut cx);
    }

    /// Reads at most `size` bytes at once, as long as bytes are wanted. Returns how many that were.
    fn offer(&mut self, bytes: &[u8], size: usize) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let space = self.inlet.space(&mut self.ring);
            let n = space.len().min(bytes.len() - taken).min(size);
            space[..n].copy_from_slice(&bytes[taken..taken + n]);
            assert_eq!(n > 0, self.inlet.wants(), "space while bytes are wanted");
            if n == 0 {
                break;
            }
            taken += n;
            self.with(|inlet, cx| inlet.received(n, cx));
        }
        taken
    }

    fn receive(&mut self, bytes: &[u8]) {
        assert_eq!(self.offer(bytes, usize::MAX), bytes.len());
    }

    /// Writes the answers. Returns them.
    fn write_answers(&mut self) -> String {
        let text = String::from_utf8(self.inlet.pending().to_vec()).unwrap();
        self.with(|inlet, cx| inlet.sent(inlet.pending().len(), cx));
        text
    }

    fn close_due(&mut self) -> Option<Close> {
        self.inlet.close_due(self.now)
    }

    /// The bodies in the ring, in their order. They are relayed.
    fn bodies(&mut self) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        while let Some(id) = self.ring.ready(self.now) {
            self.ring.start(id);
            bodies.push(self.ring.request(id)[1].to_vec());
            self.ring.relayed(id);
        }
        assert!(self.ring.is_empty(), "nothing else is held");
        bodies
    }

    /// Another client fills that much of the ring, and is not done.
    fn occupy(&mut self, bytes: usize) -> PayloadId {
        let shape = Shape {
            length: Some(bytes),
            has_body: true,
            to_head_request: false,
            change: None,
        };
        let id = self.ring.open(b"POST / HTTP/1.1\r\n", shape).unwrap();
        let mut left = bytes;
        while left > 0 {
            let n = self.ring.space(id).unwrap().len().min(left);
            self.ring.filled(id, n);
            left -= n;
        }
        id
    }

    fn lost(&self, why: LossReason) -> u64 {
        self.ring.totals().lost[why as usize]
    }

    /// Waits in `Last`: a final answer is written.
    fn refused() -> Self {
        let mut bench = Self::new();
        bench.receive(b"\0");
        assert!(bench.write_answers().starts_with("HTTP/1.1 400 "));
        bench
    }
}

fn with_length(head: &str, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn requests_are_taken_byte_for_byte_whatever_the_cuts() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\n";
    let chunked = CHUNKED.to_owned() + "2\r\nxy\r\n9;a=b\r\n012345678\r\n0\r\nA: b\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned();
    let requests = [
        with_length(head, "first"),
        chunked,
        get,
        with_length(head, "last"),
    ];
    let wire = requests.concat();
    let bodies: [&[u8]; 4] = [b"first", b"xy012345678", b"", b"last"];
    for cut in 1..wire.len() {
        for second in [cut, 1] {
            let mut bench = Bench::new();
            let (before, after) = wire.as_bytes().split_at(cut);
            assert_eq!(bench.offer(before, usize::MAX), cut);
            assert_eq!(bench.offer(after, second), wire.len() - cut);
            assert_eq!(bench.write_answers(), OK.repeat(4), "cut at {cut}");
            assert_eq!(bench.bodies(), bodies, "cut at {cut}");
            assert!(!bench.inlet.is_busy() && !bench.inlet.is_reading());
            assert_eq!(bench.close_due(), None);
        }
    }
}

/// Only the end of a chunked body says where the next request begins: its first bytes were read into the ring.
#[test]
fn requests_read_with_the_end_of_a_chunked_body_are_not_dropped() {
    for count in [1, 5, 100] {
        let mut bench = Bench::new();
        bench.receive(CHUNKED.as_bytes());
        assert!(
            bench.inlet.space(&mut bench.ring).len() >= 10_000,
            "the ring"
        );
        let rest = [b"1\r\nx\r\n0\r\n\r\n".as_slice(), &REQUEST.repeat(count)].concat();
        let (mut taken, mut answers) = (0, 0);
        // With a kilobyte of unread answers no more is read.
        while taken < rest.len() || !bench.inlet.pending().is_empty() {
            taken += bench.offer(&rest[taken..], usize::MAX);
            answers += bench.write_answers().len();
        }
        assert_eq!(answers, OK.len() * (1 + count));
        let bodies = bench.bodies();
        assert_eq!((bodies.len(), &*bodies[0]), (1 + count, &b"x"[..]));
        assert!(bodies[1..].iter().all(|body| body == b"body"));
    }
}

#[test]
fn a_body_goes_from_the_socket_into_the_ring() {
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut bench = Bench::new();
    bench.receive(
        format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    let start = bench.inlet.space(&mut bench.ring).as_ptr();
    bench.receive(&body[..1000]);
    let next = bench.inlet.space(&mut bench.ring).as_ptr();
    assert_eq!(next, start.wrapping_add(1000), "right after it");
    bench.receive(&body[1000..]);
    assert!(bench.inlet.is_busy() && !bench.inlet.is_reading());
    assert_eq!(bench.write_answers(), OK);
    assert_eq!(bench.bodies(), [body]);
}

#[test]
fn a_body_without_room_is_read_to_its_end_and_counted() {
    let body = "x".repeat(200_000);
    let announced = with_length("POST / HTTP/1.1\r\nHost: h\r\n", &body);
    let chunked = format!("{CHUNKED}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for wire in [announced, chunked] {
        for size in [1000, usize::MAX] {
            let mut bench = Bench::of(300_000);
            let other = bench.occupy(200_000);
            let wire = [wire.as_bytes(), REQUEST].concat();
            assert_eq!(bench.offer(&wire, size), wire.len());
            assert_eq!(bench.write_answers(), OK.repeat(2));
            assert_eq!(bench.lost(LossReason::Full), 1);
            assert_eq!(bench.ring.totals().acknowledged, 2, "the next one has room");
            assert_eq!(bench.close_due(), None, "the connection stays");
            bench.ring.abandon(other);
            assert_eq!(bench.bodies(), [b"body"], "nothing is left of the first");
        }
    }
}

#[test]
fn a_client_that_does_not_read_its_answers_is_given_no_space() {
    const COUNT: usize = 1000;
    let wire = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(COUNT);
    let mut bench = Bench::new();
    bench.remote = None;
    let (mut taken, mut answers) = (bench.offer(&wire, usize::MAX), 0);
    assert!(taken < wire.len() && bench.inlet.pending().len() < 2048);
    while taken < wire.len() || !bench.inlet.pending().is_empty() {
        answers += bench.write_answers().len();
        taken += bench.offer(&wire[taken..], usize::MAX);
    }
    assert_eq!(
        answers,
        COUNT * OK.len(),
        "as it reads on, all are answered"
    );
}

#[test]
fn without_a_usable_address_bodies_are_acknowledged_and_counted() {
    let mut bench = Bench::new();
    bench.remote = None;
    bench.receive(&REQUEST.repeat(2));
    assert_eq!(bench.write_answers(), OK.repeat(2));
    assert_eq!(bench.lost(LossReason::Unusable), 2);
    assert!(bench.ring.is_empty());
}

#[test]
fn a_body_larger_than_the_ring_is_refused_and_leaves_nothing_in_it() {
    let announced = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {RING_BYTES}\r\n\r\n");
    let waiting = announced.replace("Host", "Expect: 100-continue\r\nHost");
    for head in [announced, waiting] {
        let mut bench = Bench::new();
        bench.receive(head.as_bytes());
        assert!(
            bench.inlet.space(&mut bench.ring).is_empty(),
            "none of it is wanted"
        );
        assert!(
            bench.write_answers().starts_with("HTTP/1.1 413 "),
            "at once"
        );
        assert!(bench.ring.is_empty());
    }
    for beside in [0, 500_000] {
        for size in [1000, usize::MAX] {
            let mut bench = Bench::new();
            let other = bench.occupy(beside);
            let body = vec![b'x'; 2 * RING_BYTES];
            let wire = [CHUNKED.as_bytes(), b"200000\r\n", &body].concat();
            let taken = bench.offer(&wire, size);
            assert!((RING_BYTES / 2..wire.len()).contains(&taken), "{taken}");
            assert!(bench.write_answers().starts_with("HTTP/1.1 413 "));
            assert_eq!(bench.ring.totals().acknowledged, 0);
            assert_eq!(bench.close_due(), Some(Close::WriteSide));
            bench.ring.abandon(other);
            assert!(bench.ring.is_empty());
        }
    }
}

#[test]
fn a_client_that_waits_is_asked_once_to_go_on() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut bench = Bench::new();
    bench.receive(head.as_bytes());
    assert_eq!(bench.write_answers().as_bytes(), CONTINUE);
    bench.receive(b"bo");
    assert_eq!(bench.write_answers(), "", "once");
    bench.receive(b"dy");
    assert_eq!(bench.write_answers(), OK);
    bench.receive([head, "body"].concat().as_bytes());
    assert_eq!(bench.write_answers(), OK, "it did not wait");
    assert_eq!(bench.bodies(), [b"body", b"body"]);
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let chunked = CHUNKED.to_owned() + "4\r\nbody\r\n0\r\n\r\n";
    for (wire, head) in [
        (REQUEST, REQUEST.len() - b"body".len()),
        (chunked.as_bytes(), CHUNKED.len()),
    ] {
        for cut in 0..wire.len() {
            for orderly in [true, false] {
                let mut bench = Bench::new();
                bench.receive(&wire[..cut]);
                bench.inlet.ended(orderly, &mut bench.ring);
                assert_eq!(bench.close_due(), Some(Close::Both), "{cut} bytes");
                assert!(bench.ring.is_empty(), "{cut} bytes");
                assert_eq!(bench.ring.take_broken_off(), cut >= head, "{cut} bytes");
                assert_eq!(bench.ring.totals().acknowledged, 0);
                assert!(bench.inlet.space(&mut bench.ring).is_empty());
            }
        }
    }
}

#[test]
fn a_client_that_sends_no_more_gets_its_answers_and_one_that_broke_off_does_not() {
    for (orderly, due) in [(true, None), (false, Some(Close::Both))] {
        let mut bench = Bench::new();
        bench.receive(REQUEST);
        bench.inlet.ended(orderly, &mut bench.ring);
        assert_eq!(bench.close_due(), due);
        assert!(!bench.inlet.wants());
        let half = OK.len() / 2;
        bench.with(|inlet, cx| inlet.sent(half, cx));
        assert_eq!(bench.inlet.pending(), &OK.as_bytes()[half..]);
        assert_eq!(bench.close_due(), due, "the rest of it");
        bench.write_answers();
        assert_eq!(bench.close_due(), Some(Close::Both));
        assert_eq!(bench.bodies(), [b"body"], "it is acknowledged all the same");
    }
}

#[test]
fn the_version_and_the_client_say_whether_the_connection_stays() {
    for (version, field, answered, stays) in [
        ("1.1", "", "", true),
        (
            "1.1",
            "Connection: close\r\n",
            "Connection: close\r\n",
            false,
        ),
        ("1.0", "", "Connection: close\r\n", false),
        (
            "1.0",
            "Connection: keep-alive\r\n",
            "Connection: keep-alive\r\n",
            true,
        ),
    ] {
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{field}");
        let wire = with_length(&head, "body").repeat(2);
        let mut bench = Bench::new();
        let taken = bench.offer(wire.as_bytes(), usize::MAX);
        assert_eq!(taken, wire.len(), "read at once, needed or not");
        let answer = OK.replace("\r\n\r\n", &format!("\r\n{answered}\r\n"));
        let count = if stays { 2 } else { 1 };
        assert_eq!(bench.write_answers(), answer.repeat(count), "{head:?}");
        let due = (!stays).then_some(Close::WriteSide);
        assert_eq!(bench.close_due(), due, "{head:?}");
        assert_eq!(bench.bodies().len(), count, "the second is not read");
    }
}

/// Request lines with their fields, refused.
const BAD_HEADS: [(&str, u16, &str); 8] = [
    ("\u{16}\u{3}", 400, "not HTTP"),
    (
        "GET / HTTP/1.1\nHost: h\n",
        400,
        "bare line feed in the head",
    ),
    ("GET /\r\n", 400, "malformed head"),
    ("GET x HTTP/1.1\r\nHost: h\r\n", 400, "malformed target"),
    ("GET / HTTP/2.0\r\n", 505, "not HTTP/1.x"),
    (
        "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n",
        501,
        "CONNECT is not for a relay",
    ),
    ("POST / HTTP/1.1\r\n", 400, "needs one Host"),
    (
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        400,
        "Transfer-Encoding in HTTP/1.0",
    ),
];

/// Fields of a request that is otherwise good.
const BAD_FIELDS: [(&str, u16, &str); 7] = [
    ("Content-Length: x", 400, "bad Content-Length"),
    (
        "Content-Length: 1\r\nContent-Length: 2",
        400,
        "two different lengths",
    ),
    (
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        400,
        "Content-Length beside Transfer-Encoding",
    ),
    (
        "Transfer-Encoding: chunked, gzip",
        400,
        "chunked is not the last coding",
    ),
    (
        "Transfer-Encoding: gzip, chunked",
        501,
        "unknown transfer coding",
    ),
    ("Expect: x", 417, "unknown expectation"),
    (
        "Content-Length: 1000000000",
        413,
        "the body is larger than the ring",
    ),
];

#[test]
fn each_refusal_has_its_status_and_its_line() {
    let hosted = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
    let words = "x".repeat(HEAD_BYTES_MAX);
    let too_long = [
        (format!("GET /{words}"), 414, "the head is too long"),
        (
            format!("GET / HTTP/1.1\r\nX: {words}"),
            431,
            "the head is too long",
        ),
        (
            hosted(&format!("Connection: {}", &words[..2000])),
            431,
            "Connection is too long",
        ),
        (
            hosted(&"X: y\r\n".repeat(200)),
            431,
            "too many header fields",
        ),
        (CHUNKED.to_owned() + "1\r\nxy", 400, "malformed chunk"),
    ];
    let heads = BAD_HEADS.map(|(head, status, why)| (head.to_owned() + "\r\n", status, why));
    let fields = BAD_FIELDS.map(|(fields, status, why)| (hosted(fields), status, why));
    for (wire, status, reason) in heads.into_iter().chain(fields).chain(too_long) {
        for size in [1000, usize::MAX] {
            let mut bench = Bench::new();
            bench.offer(wire.as_bytes(), size);
            let answer = bench.write_answers();
            let start = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&start), "{reason}: {answer}");
            assert!(answer.ends_with("Content-Length: 0\r\nConnection: close\r\n\r\n"));
            let line = String::from_utf8(bench.log.take().clone()).unwrap();
            assert!(line.contains("msg=\"Request refused\" "), "{line}");
            let end = format!(" reason={reason:?} status={status} ");
            assert!(line.contains(&end), "{line}");
            assert!(!bench.inlet.is_busy(), "nothing waits to be read");
            assert_eq!(bench.close_due(), Some(Close::WriteSide), "{reason}");
            assert!(bench.ring.is_empty() && bench.ring.totals().acknowledged == 0);
        }
    }
}

#[test]
fn after_a_final_answer_what_arrives_is_discarded_until_the_client_closes_or_its_time_is_up() {
    let mut bench = Bench::new();
    bench.receive(b"\0");
    assert_eq!(bench.close_due(), None, "the answer first");
    assert!(!bench.inlet.wants());
    bench.write_answers();
    assert_eq!(bench.close_due(), Some(Close::WriteSide));
    assert_eq!(bench.close_due(), None, "once");
    bench.receive(REQUEST);
    assert_eq!(
        (bench.inlet.pending(), bench.ring.is_empty()),
        (&b""[..], true)
    );
    bench.inlet.ended(true, &mut bench.ring);
    assert_eq!(bench.close_due(), Some(Close::Both));

    let mut bench = Bench::refused();
    assert_eq!(bench.inlet.deadline(), None);
    bench.close_due();
    let until = bench.now + LINGER_TIME_MAX;
    let frozen = Duration::from_mins(1);
    bench.inlet.thawed(frozen);
    assert_eq!(bench.inlet.deadline(), Some(until + frozen));
    bench.inlet.expire(until);
    assert_eq!(bench.close_due(), None, "frozen time does not count");
    bench.inlet.expire(until + frozen);
    assert_eq!(bench.close_due(), Some(Close::Both));
}

#[test]
fn once_we_have_ended_nothing_is_answered() {
    let mut bench = Bench::new();
    bench.taking = false;
    bench.receive(REQUEST);
    assert_eq!(
        (bench.write_answers().as_str(), bench.bodies().len()),
        ("", 0)
    );
    assert!(bench.inlet.is_busy() && bench.inlet.is_reading());
}

#[test]
fn it_is_busy_from_the_first_byte_of_a_request_until_its_answer_is_written() {
    let mut bench = Bench::new();
    assert!(!bench.inlet.is_busy());
    for byte in REQUEST {
        bench.receive(&[*byte]);
        assert!(bench.inlet.is_busy());
    }
    for left in (0..OK.len()).rev() {
        bench.with(|inlet, cx| inlet.sent(1, cx));
        assert_eq!(bench.inlet.is_busy(), left > 0);
    }
}

#[test]
fn progress_is_every_byte_in_either_direction() {
    let mut bench = Bench::new();
    let start = bench.now;
    assert_eq!(bench.inlet.progressed(), start);
    for (seconds, reads) in [(1, true), (2, false)] {
        bench.now = start + Duration::from_secs(seconds);
        if reads {
            bench.receive(REQUEST);
        } else {
            bench.with(|inlet, cx| inlet.sent(1, cx));
        }
        assert_eq!(bench.inlet.progressed(), bench.now);
    }
    bench.inlet.thawed(Duration::from_secs(9));
    assert_eq!(bench.inlet.progressed(), start + Duration::from_secs(11));
}

#[test]
fn a_request_is_being_read_from_its_first_byte_to_its_last() {
    for end in 0..=REQUEST.len() {
        let mut bench = Bench::new();
        if end > 0 {
            bench.receive(&REQUEST[..end]);
        }
        let is_part = end > 0 && end < REQUEST.len();
        assert_eq!(bench.inlet.is_reading(), is_part, "{end} bytes");
        if is_part {
            bench.inlet.ended(true, &mut bench.ring);
            assert!(!bench.inlet.is_reading(), "{end} bytes, and no more");
            continue;
        }
        bench.write_answers();
        assert!(!bench.inlet.is_reading(), "answered");
    }
    let mut bench = Bench::new();
    bench.receive(b"\0not HTTP");
    assert!(!bench.inlet.is_reading(), "refused");
}

#[test]
fn a_client_is_new_until_it_says_something_or_some_time_is_over() {
    let mut bench = Bench::new();
    let until = bench.now + NEW_CLIENT_MAX;
    let just_before = until.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(bench.inlet.new_until(), Some(until));
    assert!(bench.inlet.is_new(bench.now) && bench.inlet.is_new(just_before));
    assert!(!bench.inlet.is_new(until));

    let frozen = Duration::from_mins(1);
    bench.inlet.thawed(frozen);
    assert!(bench.inlet.is_new(just_before + frozen), "frozen meanwhile");
    assert!(!bench.inlet.is_new(until + frozen));

    bench.receive(&REQUEST[..1]);
    bench.inlet.thawed(frozen);
    assert_eq!(bench.inlet.new_until(), None, "its request has begun");
    bench.receive(&REQUEST[1..]);
    bench.write_answers();
    assert_eq!(bench.inlet.new_until(), None, "it was served");

    let mut bench = Bench::new();
    bench.inlet.ended(true, &mut bench.ring);
    assert_eq!(bench.inlet.new_until(), None, "it left");
}

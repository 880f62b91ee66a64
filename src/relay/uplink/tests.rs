//! States and transitions, one by one, over a connection without TLS.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::relay::ring::Shape;
use crate::relay::wakes::Wake;

const TIMEOUT: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);
/// Of [`SUSPECT_MAX`] all but a [`MS`].
const NEARLY: Duration = Duration::from_millis(999);
const SECOND: Duration = Duration::from_secs(1);
const DIRECT: Path<'static> = Path {
    proxy: None,
    client: None,
};
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n";
const BODY: &[u8] = b"four";

/// One uplink, and what it needs.
struct Bench {
    uplink: Uplink,
    ring: Ring,
    id: ConnId,
    now: Now,
}

impl Bench {
    /// An uplink that waits for addresses.
    fn opening() -> Self {
        let mono = Instant::now();
        let mut ring = Ring::new(1 << 20);
        let payload = payload(&mut ring);
        Self {
            uplink: Uplink::new(payload, mono + TIMEOUT, Wakes::default()),
            ring,
            id: ConnId(1),
            now: Now { mono, unix_ms: 0 },
        }
    }

    /// An uplink that connects.
    fn connecting() -> Self {
        let mut bench = Self::opening();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        bench.uplink.resolved(vec![address], bench.now.mono);
        let to = bench.uplink.connecting(bench.id, bench.now.mono);
        assert_eq!(to, Some(address));
        bench
    }

    /// An uplink in an exchange of which nothing is sent.
    fn exchange() -> Self {
        let mut bench = Self::connecting();
        bench.connected();
        bench
    }

    /// An uplink in an exchange of which everything is sent.
    fn sent() -> Self {
        let mut bench = Self::exchange();
        bench.write(usize::MAX);
        bench
    }

    fn ready() -> Self {
        let mut bench = Self::sent();
        bench.arrive(OK);
        bench.outcome();
        bench
    }

    fn connected(&mut self) {
        self.uplink.connected(self.id, DIRECT, &self.ring, self.now);
    }

    /// Sends another payload.
    fn send(&mut self) {
        let payload = payload(&mut self.ring);
        let deadline = self.now.mono + TIMEOUT;
        self.uplink
            .send(payload, deadline, Wakes::default(), &self.ring);
    }

    fn pending(&mut self) -> usize {
        self.uplink
            .pending(&self.ring)
            .iter()
            .map(|part| part.len())
            .sum()
    }

    /// The system accepts as many bytes as there are, `most` at most.
    fn write(&mut self, most: usize) {
        let n = self.pending().min(most);
        self.uplink.sent(n, self.now);
    }

    fn arrive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.uplink.space()[..bytes.len()].copy_from_slice(bytes);
            let log = &mut Log::new(Level::Error);
            self.uplink
                .received(bytes.len(), DIRECT, &self.ring, log, self.now);
        }
    }

    fn close(&mut self) {
        self.uplink.ended(self.id, End::Eof, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.uplink.expire(self.now);
    }

    /// The attempt's end in short, once.
    fn outcome(&mut self) -> String {
        let Some(finished) = self.uplink.finished(self.now) else {
            return "none".to_owned();
        };
        let reused = if finished.reused { ", reused" } else { "" };
        match finished.outcome {
            Outcome::Answered(answer) => format!("{}{reused}", answer.status),
            Outcome::Died(death, cause) => format!("died {death:?}: {cause}{reused}"),
            Outcome::GivenUp(death, cause) => format!("given up {death:?}: {cause}{reused}"),
        }
    }

    fn state(&self) -> &'static str {
        match self.uplink.state {
            State::Opening(_) => "opening",
            State::Exchange(_) => "exchange",
            State::Finished(_) => "finished",
            State::Ready { .. } => "ready",
            State::Closed => "closed",
        }
    }
}

/// A payload that waits.
fn payload(ring: &mut Ring) -> PayloadId {
    let shape = Shape {
        length: Some(BODY.len()),
        has_body: true,
        to_head_request: false,
        change: None,
    };
    let id = ring.open(b"POST / HTTP/1.1\r\n", shape).unwrap();
    ring.space(id).unwrap().copy_from_slice(BODY);
    ring.filled(id, BODY.len());
    ring.commit(id);
    id
}

#[test]
fn one_connection_carries_one_exchange_after_the_other() {
    let mut bench = Bench::opening();
    assert!(bench.uplink.awaits_address() && bench.uplink.is_opening());
    bench = Bench::connecting();
    assert!(!bench.uplink.awaits_address() && bench.uplink.is_opening());
    assert_eq!(bench.pending(), 0, "nothing is said before it stands");
    bench.connected();
    for outcome in ["200", "200, reused", "200, reused"] {
        assert_eq!(bench.state(), "exchange");
        bench.write(usize::MAX);
        assert_eq!((bench.pending(), bench.state()), (0, "exchange"));
        bench.arrive(OK);
        assert_eq!(bench.state(), "finished");
        assert!(bench.uplink.is_busy() && !bench.uplink.wants());
        assert_eq!((bench.uplink.space().len(), bench.pending()), (0, 0));
        assert_eq!(bench.outcome(), outcome);
        assert_eq!((bench.state(), bench.outcome().as_str()), ("ready", "none"));
        assert!(!bench.uplink.is_busy() && bench.uplink.wants());
        bench.send();
    }
    bench.close();
    assert_eq!(bench.state(), "finished");
    bench.outcome();
    assert_eq!(bench.state(), "closed");
    assert_eq!(bench.uplink.next_to_close(), Some(bench.id));
}

#[test]
fn an_idle_connection_ends_for_each_of_these() {
    type Act = fn(&mut Bench);
    let acts: [(&str, Act, &str); 6] = [
        ("nothing", |_| {}, "ready"),
        ("the remote closes", Bench::close, "closed"),
        ("it speaks unasked", |bench| bench.arrive(b"H"), "closed"),
        ("a thaw", |bench| bench.uplink.thawed(SECOND), "closed"),
        (
            "not trusted",
            |bench| bench.uplink.close_if_idle(),
            "closed",
        ),
        ("a copy", |bench| bench.uplink.forget(), "closed"),
    ];
    for (why, act, state) in acts {
        let mut bench = Bench::ready();
        act(&mut bench);
        assert_eq!(
            (bench.state(), bench.outcome().as_str()),
            (state, "none"),
            "{why}"
        );
    }
}

#[test]
fn how_far_it_came_is_said_of_a_connection_that_died_and_of_one_given_up() {
    let all = usize::MAX;
    for (sent, heard, death) in [
        (0, &b""[..], "BeforeSending"),
        (1, b"", "Silent"),
        (all, b"", "Silent"),
        (0, b"H", "MidAnswer"),
        (all, b"HTTP/1.1 200 OK\r", "MidAnswer"),
        // An interim answer does not count.
        (all, b"HTTP/1.1 100 Continue\r\n\r\n", "MidAnswer"),
        (all, b"HTTP/1.1 503 X\r\n", "MidAnswer"),
        // A success before the whole request was sent does not count.
        (1, b"HTTP/1.1 200 OK\r\n", "MidAnswer"),
    ] {
        let begun = || {
            let mut bench = Bench::exchange();
            bench.write(sent);
            bench.arrive(heard);
            bench
        };
        let mut bench = begun();
        bench.close();
        let died = format!("died {death}: connection closed");
        assert_eq!(bench.outcome(), died, "{sent} {heard:?}");
        let mut bench = begun();
        bench.pass(TIMEOUT);
        let given_up = format!("given up {death}: timed out: answer");
        assert_eq!(bench.outcome(), given_up, "{sent} {heard:?}");
    }
}

#[test]
fn a_status_that_counts_outlives_its_connection_which_is_not_used_again() {
    for (heard, status) in [
        (&b"HTTP/1.1 200 OK\r\n"[..], "200"),
        (b"HTTP/1.1 204 X\r\nContent-Le", "204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "200"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\nhalf", "503"),
    ] {
        let mut bench = Bench::sent();
        bench.arrive(heard);
        assert_eq!(bench.state(), "exchange");
        bench.close();
        assert_eq!(
            (bench.outcome().as_str(), bench.state()),
            (status, "closed")
        );
    }
}

#[test]
fn before_an_exchange_all_that_fails_fails_before_sending() {
    type Act = fn(&mut Bench);
    let unresolved: Act = |bench| bench.uplink.unresolved("no such name");
    let refused: Act = |bench| {
        let why = End::Io(ErrorKind::ConnectionRefused);
        bench.uplink.ended(bench.id, why, bench.now);
    };
    let late: Act = |bench| bench.pass(TIMEOUT);
    let copied: Act = |bench| bench.uplink.forget();
    for (made, act, outcome) in [
        (
            Bench::opening as fn() -> Bench,
            unresolved,
            "given up BeforeSending: no such name",
        ),
        (
            Bench::opening,
            late,
            "given up BeforeSending: timed out: name lookup",
        ),
        // A name lookup is not a connection yet.
        (Bench::opening, copied, "none"),
        (Bench::connecting, unresolved, "none"),
        (
            Bench::connecting,
            refused,
            "died BeforeSending: connection refused",
        ),
        (
            Bench::connecting,
            late,
            "given up BeforeSending: timed out: connect",
        ),
        (
            Bench::connecting,
            copied,
            "died BeforeSending: part of a SnapStart snapshot",
        ),
    ] {
        let mut bench = made();
        act(&mut bench);
        assert_eq!(bench.outcome(), outcome);
        let state = if outcome == "none" {
            "opening"
        } else {
            "closed"
        };
        assert_eq!(bench.state(), state, "{outcome}");
    }
}

/// The server has not accepted what it has not read.
#[test]
fn an_early_answer_is_final_unless_it_is_a_success() {
    let early = "given up MidAnswer: success before the whole request was sent";
    for (unsent, answer, outcome, state) in [
        (0, OK, "200", "ready"),
        (0, TOO_LARGE, "413", "ready"),
        (1, OK, early, "closed"),
        (1, TOO_LARGE, "413", "closed"),
        (BODY.len() + 1, TOO_LARGE, "413", "closed"),
    ] {
        let mut bench = Bench::exchange();
        let all = bench.pending();
        bench.write(all - unsent);
        bench.arrive(answer);
        assert_eq!(bench.outcome(), outcome, "{unsent} bytes unsent");
        assert_eq!(bench.state(), state, "{unsent} bytes unsent: {outcome}");
    }
    // The head was early, and still is when the rest of the answer arrives.
    let mut bench = Bench::exchange();
    bench.write(1);
    bench.arrive(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(bench.state(), "exchange", "an interim answer ends nothing");
    bench.write(usize::MAX);
    bench.arrive(OK);
    assert_eq!((bench.outcome().as_str(), bench.state()), ("200", "ready"));
}

#[test]
fn what_comes_after_an_answer_ends_the_connection() {
    let mut bench = Bench::sent();
    bench.arrive(&[OK, b"H"].concat());
    assert_eq!((bench.outcome().as_str(), bench.state()), ("200", "closed"));
}

/// A monotonic clock may stop in a freeze, and a wall clock may be set back.
#[test]
fn an_idle_connection_retires_by_the_clock_that_ran_further() {
    let just_before = Duration::from_millis(49_999);
    for (mono, wall, state) in [
        (just_before, just_before, "ready"),
        (50 * SECOND, Duration::ZERO, "closed"),
        (Duration::ZERO, 50 * SECOND, "closed"),
    ] {
        for expire in [Uplink::expire, Uplink::retire] {
            let mut bench = Bench::ready();
            let deadline = bench.uplink.deadline(bench.now.mono);
            assert_eq!(deadline, Some(bench.now.mono + 50 * SECOND));
            bench.now.mono += mono;
            bench.now.unix_ms += wall.as_millis() as u64;
            expire(&mut bench.uplink, bench.now);
            assert_eq!(bench.state(), state, "{mono:?} {wall:?}");
        }
    }
}

#[test]
fn who_is_suspect_has_a_second_from_the_first_wake_on() {
    for (made, died) in [
        (Bench::connecting as fn() -> Bench, "died BeforeSending: "),
        (Bench::exchange, "died BeforeSending: "),
        (Bench::sent, "died Silent: "),
    ] {
        for wake in [Wake::Seen, Wake::Unseen] {
            let mut bench = made();
            bench.uplink.suspect(wake, bench.now.mono);
            let deadline = bench.uplink.deadline(bench.now.mono);
            assert_eq!(deadline, Some(bench.now.mono + SUSPECT_MAX));
            bench.pass(NEARLY / 2);
            // Frozen time does not count; another wake leaves no more time.
            bench.uplink.thawed(300 * SECOND);
            bench.now.mono += 300 * SECOND;
            bench.uplink.suspect(Wake::Seen, bench.now.mono);
            bench.pass(NEARLY / 2);
            assert_eq!(bench.outcome(), "none");
            bench.pass(MS);
            let died = died.to_owned() + "no answer since the sandbox was frozen";
            assert_eq!(bench.outcome(), died);
        }
    }
}

#[test]
fn who_carries_nothing_is_not_suspect() {
    for made in [Bench::opening, Bench::ready] {
        let mut bench = made();
        bench.uplink.suspect(Wake::Seen, bench.now.mono);
        assert!(!bench.uplink.is_suspect(), "{}", bench.state());
    }
}

/// Bytes read in the turn in which the clocks show a freeze may have arrived before it.
#[test]
fn a_sign_of_life_ends_the_suspicion_in_a_later_turn() {
    type Act = fn(&mut Bench);
    let byte: Act = |bench| bench.arrive(b"H");
    for (made, sign) in [
        (Bench::sent as fn() -> Bench, byte),
        (Bench::connecting, Bench::connected),
    ] {
        for (wake, later, is_suspect) in [
            (Wake::Seen, Duration::ZERO, true),
            (Wake::Seen, MS, false),
            (Wake::Unseen, Duration::ZERO, false),
        ] {
            let mut bench = made();
            bench.uplink.suspect(wake, bench.now.mono);
            bench.pass(later);
            sign(&mut bench);
            assert_eq!(bench.uplink.is_suspect(), is_suspect, "{wake:?} {later:?}");
        }
    }
}

/// The system accepts bytes for a dead peer too.
#[test]
fn bytes_written_put_the_suspicion_off_and_do_not_end_it() {
    let mut bench = Bench::exchange();
    bench.uplink.suspect(Wake::Seen, bench.now.mono);
    bench.pass(NEARLY);
    bench.write(1);
    bench.pass(NEARLY);
    assert_eq!(bench.outcome(), "none");
    assert!(bench.uplink.is_suspect());
    bench.pass(MS);
    let died = "died Silent: no answer since the sandbox was frozen";
    assert_eq!(bench.outcome(), died);
}

#[test]
fn who_is_suspect_still_when_the_answer_comes_is_not_used_again() {
    let mut bench = Bench::sent();
    bench.uplink.suspect(Wake::Seen, bench.now.mono);
    bench.arrive(OK);
    assert_eq!((bench.outcome().as_str(), bench.state()), ("200", "closed"));
    assert!(!bench.uplink.is_suspect());
}

#[test]
fn a_connection_that_is_let_go_ends_its_exchange_first() {
    let mut bench = Bench::sent();
    bench.uplink.close_if_idle();
    assert_eq!(bench.state(), "exchange", "it has a payload to carry");
    bench.arrive(OK);
    bench.uplink.close_if_idle();
    assert_eq!((bench.outcome().as_str(), bench.state()), ("200", "closed"));
}

#[test]
fn with_no_time_left_a_yes_is_enough_and_nothing_else_is() {
    for (heard, outcome) in [
        (&b""[..], "none"),
        (b"HTTP/1.1 200 OK\r\n", "none"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n", "none"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "200"),
    ] {
        let mut bench = Bench::sent();
        bench.arrive(heard);
        bench.uplink.settle();
        assert_eq!(bench.outcome(), outcome, "{heard:?}");
    }
}

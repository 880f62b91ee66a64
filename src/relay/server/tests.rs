use super::*;

fn now() -> Now {
    Now {
        mono: Instant::now(),
        unix_ms: 1_800_000_000_000,
    }
}

fn later(now: Now, time: Duration) -> Now {
    Now {
        mono: now.mono + time,
        unix_ms: now.unix_ms + time.as_millis() as u64,
    }
}

fn admits(server: &ServerHealth, busy: usize, opening: usize, now: Now) -> bool {
    let eager = false;
    server.admits(
        Load {
            busy,
            opening,
            eager,
        },
        now,
    )
}

#[test]
fn one_goes_ahead_until_the_first_success() {
    let now = now();
    let mut server = ServerHealth::default();
    assert!(admits(&server, 0, 0, now));
    assert!(!admits(&server, 1, 1, now));
    assert!(admits(&server, 1, 0, now), "it has reached the remote");
    server.reached(now);
    assert!(admits(&server, 4, 4, now));
}

#[test]
fn in_a_hurry_one_connection_that_stands_is_enough() {
    let server = ServerHealth::default();
    for eager in [false, true] {
        let load = Load {
            busy: 2,
            opening: 1,
            eager,
        };
        assert_eq!(server.admits(load, now()), eager);
    }
}

#[test]
fn frozen_time_does_not_bring_the_next_probe() {
    let now = now();
    let mut server = ServerHealth::default();
    server.unreached(now, 0);
    let frozen = Duration::from_mins(5);
    server.thawed(frozen);
    let thawed = later(now, frozen);
    assert!(!admits(&server, 0, 0, thawed));
    assert_eq!(server.probe_at(thawed), Some(thawed.mono + PAUSE_MIN));
}

#[test]
fn down_is_probed_with_growing_pauses() {
    let now = now();
    let mut server = ServerHealth::default();
    server.unreached(now, 0);
    assert!(!admits(&server, 0, 0, now));
    assert_eq!(server.probe_at(now), Some(now.mono + PAUSE_MIN));
    let probe = later(now, PAUSE_MIN);
    assert!(admits(&server, 0, 0, probe));
    assert!(!admits(&server, 1, 0, probe));
    server.unreached(now, 0);
    assert_eq!(
        server.probe_at(now),
        Some(probe.mono),
        "one that began before the probe changes nothing"
    );
    let mut last = probe;
    for _ in 0..10 {
        server.unreached(last, 1023);
        let pause = server.probe_at(last).unwrap() - last.mono;
        assert!(pause <= PAUSE_MAX, "{pause:?}");
        last = later(last, pause);
    }
    server.unreached(last, 1023);
    let pause = server.probe_at(last).unwrap() - last.mono;
    assert!(
        pause > PAUSE_MAX * 74 / 100 && pause < PAUSE_MAX,
        "{pause:?}"
    );
    assert!(server.reached(last));
    assert!(!server.is_down());
}

#[test]
fn three_failed_in_a_row_are_down() {
    let now = now();
    let mut server = ServerHealth::default();
    server.failed(now, 0);
    server.failed(now, 0);
    assert!(!server.is_down());
    server.failed(now, 0);
    assert!(server.is_down());
    server.reached(now);
    server.failed(now, 0);
    assert!(!server.is_down());
}

#[test]
fn a_wait_is_over_when_either_clock_says_so_and_not_before() {
    let now = now();
    let mut server = ServerHealth::default();
    let second = Duration::from_secs(1);
    server.asked_to_wait(second * 3, WaitReason::RetryAfter, now, 0);
    server.asked_to_wait(second, WaitReason::RetryAfter, now, 0);
    assert_eq!(server.probe_at(now), Some(now.mono + second * 3));
    // Results of attempts that were already running change nothing.
    server.reached(now);
    server.unreached(now, 0);
    server.thawed(second);
    assert!(!admits(&server, 0, 0, later(now, second * 2)));
    let over = Now {
        mono: now.mono,
        unix_ms: now.unix_ms + 3000,
    };
    assert!(admits(&server, 0, 0, over), "though one clock stood still");
    assert!(!admits(&server, 1, 0, over), "one goes ahead");
    assert!(server.reached(over));
    assert!(admits(&server, 9, 9, over));
}

#[test]
fn a_probe_that_fails_after_a_wait_is_followed_by_pauses() {
    let now = now();
    let mut server = ServerHealth::default();
    server.asked_to_wait(Duration::from_secs(1), WaitReason::RetryAfter, now, 0);
    let over = later(now, Duration::from_secs(1));
    assert!(admits(&server, 0, 0, over));
    server.unreached(over, 0);
    assert!(!admits(&server, 0, 0, over));
    assert_eq!(server.probe_at(over), Some(over.mono + PAUSE_MIN));
}

#[test]
fn leaving_waits_for_a_limit_and_not_for_a_longer_retry_after() {
    let now = now();
    for first in [WaitReason::RetryAfter, WaitReason::Limit] {
        let mut server = ServerHealth::default();
        for reason in [first, WaitReason::Limit, WaitReason::RetryAfter] {
            let seconds = if reason == WaitReason::Limit { 1 } else { 9 };
            server.asked_to_wait(Duration::from_secs(seconds), reason, now, 0);
        }
        let second = later(now, Duration::from_secs(1));
        assert!(!admits(&server, 0, 0, second), "{first:?}");
        server.leave(now.mono);
        assert!(!admits(&server, 0, 0, now), "{first:?}");
        assert!(admits(&server, 0, 0, second), "{first:?}");
    }
}

#[test]
fn a_wait_that_is_over_by_one_clock_does_not_hide_the_next() {
    let now = now();
    let mut server = ServerHealth::default();
    let second = Duration::from_secs(1);
    server.asked_to_wait(second * 30, WaitReason::RetryAfter, now, 0);
    // The monotonic clock did not move in a freeze of an hour.
    let thawed = Now {
        mono: now.mono,
        unix_ms: now.unix_ms + 3_600_000,
    };
    server.asked_to_wait(second * 3, WaitReason::RetryAfter, thawed, 0);
    assert!(!admits(&server, 0, 0, thawed));
    assert!(admits(&server, 0, 0, later(thawed, second * 3)));
}

#[test]
fn frozen_time_does_not_count_towards_a_pause() {
    let now = now();
    let mut server = ServerHealth::default();
    server.unreached(now, 0);
    server.thawed(Duration::from_secs(9));
    let at = now.mono + PAUSE_MIN + Duration::from_secs(9);
    assert_eq!(server.probe_at(now), Some(at));
}

#[test]
fn leaving_waits_for_a_limit_alone_and_pauses_do_not_grow() {
    let now = now();
    for (reason, waits) in [(WaitReason::RetryAfter, false), (WaitReason::Limit, true)] {
        let mut server = ServerHealth::default();
        server.asked_to_wait(Duration::from_secs(9), reason, now, 0);
        server.leave(now.mono);
        assert_eq!(admits(&server, 0, 0, now), !waits, "{reason:?}");
        server.asked_to_wait(Duration::from_secs(9), reason, now, 0);
        assert_eq!(
            admits(&server, 0, 0, later(now, PAUSE_MIN)),
            !waits,
            "{reason:?}"
        );
    }
    let mut server = ServerHealth::default();
    server.leave(now.mono);
    let mut last = now;
    for _ in 0..5 {
        server.unreached(last, 0);
        assert_eq!(server.probe_at(last), Some(last.mono + PAUSE_MIN));
        last = later(last, PAUSE_MIN);
    }
}

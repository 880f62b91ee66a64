use super::*;

/// Saturday, 2026-11-21, with all digits.
const NOW: u64 = 1_795_281_604_123_456_789;

fn stamp(session: u64) -> Stamp {
    Stamp {
        session,
        received_ms: NOW / MS,
        thaw: None,
    }
}

/// `NOW` with zeros below `unit`, and earlier by that much.
const fn at(unit: u64, earlier: u64) -> u64 {
    (NOW - earlier) / unit * unit
}

#[test]
fn digits_that_are_zero_are_filled_and_no_others() {
    let stamp = stamp(0xfeed_5eed_cafe_f00d);
    for (time, unit) in [
        (at(SECOND, 0), SECOND),
        (at(10 * SECOND, 0), SECOND),
        (at(MS, 0), MS),
        (at(1_000, 0), 1_000),
    ] {
        let filled = stamp.fill(time, NOW - time, SECOND).unwrap();
        assert!(
            filled > time && filled - time < unit,
            "{time} became {filled}"
        );
        assert_eq!(stamp.start(time, NOW), Some(filled));
    }
    let whole = at(SECOND, 0);
    assert_eq!(
        stamp.fill(whole, 0, MS),
        Some(whole + stamp.filling(MS, 0)),
        "it was written in milliseconds"
    );
    assert_eq!(stamp.fill(NOW, 0, SECOND), Some(NOW));
    assert_eq!(stamp.start(NOW, NOW), None, "nanoseconds stay");
}

#[test]
fn of_two_profiles_that_begin_together_the_longer_one_is_later() {
    let stamp = stamp(u64::MAX);
    for unit in [SECOND, MS] {
        let start = at(unit, 0);
        let starts = [0, 1, 2, 10, 999].map(|units| stamp.start(start, start + units * unit));
        assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
        let longest = stamp.start(start, start + 3600 * SECOND).unwrap();
        assert!(longest < start + unit, "{longest}");
    }
    let start = at(1_000, 0);
    assert_eq!(
        stamp.start(start, start),
        stamp.start(start, start + SECOND)
    );
}

#[test]
fn float_noise_around_a_millisecond_counts_as_a_millisecond() {
    let stamp = stamp(7);
    let exact = at(MS, 0);
    for noise in [0, 64, 128, NOISE] {
        assert_eq!(
            stamp.fill(exact + noise, 0, SECOND),
            Some(exact + 8),
            "{noise} more"
        );
        assert_eq!(
            stamp.fill(exact - noise, 0, SECOND),
            Some(exact + 8),
            "{noise} less"
        );
    }
    let odd = exact + NOISE + 1;
    assert_eq!(
        stamp.fill(odd, 0, SECOND),
        Some(odd),
        "a clock of nanoseconds"
    );
}

#[test]
fn the_order_within_a_sandbox_stays() {
    for session in [0, 1, 999_999_998, 999_999_999, u64::MAX] {
        let stamp = stamp(session);
        for unit in [SECOND, MS, 1_000] {
            let first = at(unit, 0);
            let [before, after] =
                [first, first + unit].map(|time| stamp.fill(time, 0, SECOND).unwrap());
            assert!(first < before, "never nothing: {session:#x}");
            assert!(before < first + unit, "within its unit: {session:#x}");
            assert_eq!(after - before, unit, "{session:#x}");
        }
    }
}

#[test]
fn a_time_far_from_now_stays() {
    let stamp = stamp(1);
    let day = |days: u64| days * DAY;
    for time in [
        0,
        1,
        at(SECOND, day(2)),
        at(SECOND, 0) + day(2),
        u64::MAX / SECOND * SECOND,
    ] {
        assert_eq!(stamp.fill(time, 0, SECOND), None, "{time}");
        assert_eq!(stamp.start(time, time), None, "{time}");
    }
    assert!(stamp.fill(at(SECOND, day(1) - SECOND), 0, SECOND).is_some());
    assert!(
        stamp
            .fill(at(SECOND, 0) + day(1) - SECOND, 0, SECOND)
            .is_some()
    );
}

#[test]
fn a_profile_that_spans_a_freeze_begins_at_its_end() {
    const MINUTE: u64 = 60 * SECOND;
    let thaw_at = NOW / MS - 1_500;
    let thawed = Stamp {
        thaw: Some(Thaw {
            at_ms: thaw_at,
            clock_lag_ms: 0,
        }),
        ..stamp(41)
    };
    for minutes in [56, 70, 180, 3 * 24 * 60] {
        let start = at(SECOND, minutes * MINUTE);
        assert_eq!(
            thawed.start(start, NOW),
            Some(thaw_at * MS + 42),
            "{minutes} minutes"
        );
        let unknown = stamp(41).start(start, NOW).unwrap();
        assert_eq!(unknown, at(MS, 10 * SECOND) + 42, "{minutes} minutes");
    }
    let young = at(SECOND, 54 * MINUTE);
    let accepted = thawed.start(young, young + 9 * SECOND);
    assert_eq!(accepted, Some(young + 42 + 9), "it is accepted");
    let old = at(SECOND, 70 * MINUTE);
    for earlier in [61, 600] {
        let end = NOW - earlier * SECOND;
        assert_eq!(
            thawed.start(old, end).map(|time| time / SECOND),
            Some(old / SECOND),
            "it was not made now, but {earlier} s ago"
        );
    }
}

#[test]
fn a_length_from_a_clock_that_stood_still_in_the_freeze_counts_with_the_freeze() {
    const HOUR_MS: u64 = 3600 * 1000;
    let (start, length) = (NOW - 2 * HOUR_MS * MS, 10 * SECOND);
    let thawed = |at_ms, clock_lag_ms| Stamp {
        thaw: Some(Thaw {
            at_ms,
            clock_lag_ms,
        }),
        ..stamp(1)
    };
    let just_now = NOW / MS - 100;
    let after = thawed(just_now, 2 * HOUR_MS);
    assert_eq!(after.start_of(start, length), Some(just_now * MS + 2));
    assert_eq!(
        after.start(start, start + length),
        None,
        "the wall clock went on, so it ended long ago"
    );
    assert_eq!(thawed(just_now, HOUR_MS).start_of(start, length), None);
    let before = thawed(start / MS, 2 * HOUR_MS);
    assert_eq!(before.start_of(start, length), None, "it began after that");
    let real = NOW - start;
    assert_eq!(after.start_of(start, real), Some(just_now * MS + 2));
}

#[test]
fn a_thaw_too_long_ago_is_no_start() {
    let thaw = Thaw {
        at_ms: (NOW - AGE_MAX) / MS,
        clock_lag_ms: 0,
    };
    let stamp = Stamp {
        thaw: Some(thaw),
        ..stamp(1)
    };
    let start = at(SECOND, 2 * 3600 * SECOND);
    assert_eq!(stamp.start(start, NOW), Some(at(MS, 10 * SECOND) + 2));
}

#[test]
fn path_format_and_content_type_say_where_the_times_are() {
    let of = |target: &str, kind: &str| {
        let field = httparse::Header {
            name: "Content-Type",
            value: kind.as_bytes(),
        };
        let headers = [field];
        let upload = Upload::of(&Request {
            method: "POST",
            target,
            http10: false,
            headers: &headers,
        });
        (upload.query.from.is_some(), upload.form)
    };
    let form = "multipart/form-data; boundary=b";
    let pprof = Some(Form::Pprof);
    let multipart = Some(Form::Multipart);
    for (target, kind, expected) in [
        ("/push.v1.PusherService/Push", "", (false, Some(Form::Push))),
        (
            "/a/push.v1.PusherService/Push",
            "",
            (false, Some(Form::Push)),
        ),
        ("/push.v1.PusherService/Pull", "", (false, None)),
        ("/ingest?from=1795281604&format=pprof", "", (true, pprof)),
        ("//ingest/?format=pprof", "a/b", (false, pprof)),
        (
            "/ingest?format=pprof&from=1795281604",
            form,
            (true, multipart),
        ),
        ("/ingest?name=x", form, (false, multipart)),
        ("/ingest", form, (false, multipart)),
        ("/ingest?from=1795281604&format=jfr", form, (true, None)),
        ("/ingest?format=folded", "", (false, None)),
        ("/ingest?from=1795281604123", "", (true, None)),
        ("/ingest?from=1795281604123456789", form, (true, None)),
        ("/v1development/profiles", "", (false, None)),
        (
            "/x?from=1795281604&format=pprof&x=/ingest",
            "",
            (false, None),
        ),
    ] {
        assert_eq!(of(target, kind), expected, "{target} {kind}");
    }
}

//! PYROSCOPE_TIMEOUT: as Go's `time.ParseDuration` reads it, which is transcribed here; and every duration that
//! Go prints is read back as it was.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::config::Config;

const DEFAULT: Duration = Duration::from_secs(10);

fuzz_target!(|text: &str| {
    let (read, notes) = timeout(text);
    match go(text) {
        _ if text.is_empty() => assert_eq!((read, notes), (DEFAULT, 0)),
        Some(0) => assert_eq!((read, notes), (DEFAULT, 0), "no limit in Go"),
        Some(ns @ 1..) => assert_eq!((read, notes), (Duration::from_nanos(ns as u64), 0)),
        _ => assert_eq!((read, notes), (DEFAULT, 1), "refused, and said so"),
    }
    if let Some(bytes) = text.as_bytes().first_chunk() {
        let ns = i64::from_le_bytes(*bytes).unsigned_abs() >> (bytes[0] % 64);
        if ns > 0 && i64::try_from(ns).is_ok() {
            let printed = printed(ns);
            assert_eq!(
                timeout(&printed),
                (Duration::from_nanos(ns), 0),
                "{printed}"
            );
        }
    }
});

/// The setting, and how many complaints there are.
fn timeout(text: &str) -> (Duration, usize) {
    let config = Config::read(|name| (name == "PYROSCOPE_TIMEOUT").then(|| text.to_owned()));
    (config.timeout, config.notes.len())
}

/// Go's `time.ParseDuration`, statement by statement.
fn go(text: &str) -> Option<i64> {
    let mut s = text.as_bytes();
    let mut negative = false;
    if let [sign @ (b'-' | b'+'), rest @ ..] = s {
        (negative, s) = (*sign == b'-', rest);
    }
    if s == b"0" {
        return Some(0);
    }
    if s.is_empty() {
        return None;
    }
    let mut d: u64 = 0;
    while !s.is_empty() {
        if !(s[0] == b'.' || s[0].is_ascii_digit()) {
            return None;
        }
        let before = s.len();
        let mut v = leading_int(&mut s)?;
        let pre = before != s.len();
        let (mut f, mut scale, mut post) = (0, 1.0, false);
        if s.first() == Some(&b'.') {
            s = &s[1..];
            let before = s.len();
            (f, scale) = leading_fraction(&mut s);
            post = before != s.len();
        }
        if !pre && !post {
            return None;
        }
        let i = s
            .iter()
            .take_while(|b| **b != b'.' && !b.is_ascii_digit())
            .count();
        if i == 0 {
            return None;
        }
        let unit: u64 = match str::from_utf8(&s[..i]).ok()? {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        s = &s[i..];
        if v > (1 << 63) / unit {
            return None;
        }
        v *= unit;
        if f > 0 {
            v += (f as f64 * (unit as f64 / scale)) as u64;
            if v > 1 << 63 {
                return None;
            }
        }
        d = d.checked_add(v)?; // both are at most 2^63: where Go wraps, it refuses next
        if d > 1 << 63 {
            return None;
        }
    }
    if negative {
        return Some((d as i64).wrapping_neg());
    }
    i64::try_from(d).ok()
}

fn leading_int(s: &mut &[u8]) -> Option<u64> {
    let mut x: u64 = 0;
    while let [c @ b'0'..=b'9', rest @ ..] = *s {
        if x > (1 << 63) / 10 {
            return None;
        }
        x = x * 10 + u64::from(c - b'0');
        if x > 1 << 63 {
            return None;
        }
        *s = rest;
    }
    Some(x)
}

fn leading_fraction(s: &mut &[u8]) -> (u64, f64) {
    let (mut x, mut scale, mut overflow): (u64, f64, bool) = (0, 1.0, false);
    while let [c @ b'0'..=b'9', rest @ ..] = *s {
        *s = rest;
        if overflow {
            continue;
        }
        if x > (i64::MAX as u64) / 10 {
            overflow = true;
            continue;
        }
        let y = x * 10 + u64::from(c - b'0');
        if y > 1 << 63 {
            overflow = true;
            continue;
        }
        x = y;
        scale *= 10.0;
    }
    (x, scale)
}

/// Go's `Duration.String`, of what is above zero.
fn printed(ns: u64) -> String {
    let decimal = |whole: u64, rest: u64, digits: usize| {
        let rest = format!("{rest:0digits$}");
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() {
            whole.to_string()
        } else {
            format!("{whole}.{rest}")
        }
    };
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => decimal(ns / 1_000, ns % 1_000, 3) + "\u{b5}s",
        1_000_000..1_000_000_000 => decimal(ns / 1_000_000, ns % 1_000_000, 6) + "ms",
        _ => {
            let seconds = ns / 1_000_000_000;
            let tail = decimal(seconds % 60, ns % 1_000_000_000, 9) + "s";
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => tail,
                (0, minutes) => format!("{minutes}m{tail}"),
                (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
            }
        }
    }
}

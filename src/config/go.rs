//! Reads values as Go's standard library does: the extension we replace is written in Go, and its users' settings must
//! keep their meaning.

/// Go's `strconv.ParseBool`. `None` for invalid text.
pub(super) fn boolean(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration`, in nanoseconds: `[-+]?([0-9]*(\.[0-9]*)?[a-zµ]+)+`, or `0` without a unit.
///
/// `None` for invalid text, including overflow.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_end = rest
            .bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            None => ("", tail),
            Some(tail) => tail.split_at(
                tail.bytes()
                    .position(|b| !b.is_ascii_digit())
                    .unwrap_or(tail.len()),
            ),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = tail
            .bytes()
            .position(|b| b == b'.' || b.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let part = whole
            .checked_mul(unit_ns)?
            .checked_add(fraction_ns(fraction, unit_ns))?;
        total = total.checked_add(part).filter(|&t| t <= 1 << 63)?;
        rest = next;
    }
    if negative {
        0_i64.checked_sub_unsigned(total)
    } else {
        i64::try_from(total).ok()
    }
}

/// A decimal fraction of a unit, truncated to whole nanoseconds. Digits that do not fit into a `u64` are ignored, as in
/// Go.
#[expect(clippy::cast_sign_loss, reason = "no factor is negative")]
fn fraction_ns(digits: &str, unit_ns: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes().map(|b| u64::from(b - b'0')) {
        match value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit))
            .filter(|&v| i64::try_from(v).is_ok())
        {
            Some(v) => (value, scale) = (v, scale * 10.0),
            None => break,
        }
    }
    (value as f64 * (unit_ns as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ns) in [
            ("0", 0),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            ("2h45m", 9_900_000_000_000),
            ("-1m30s", -90_000_000_000),
            ("+5us", 5_000),
            ("5µs", 5_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.000000000000000000000001s", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(go_duration(text), Some(ns), "{text}");
        }
        for text in [
            "",
            "3",
            "-",
            "s",
            ".s",
            "1x",
            "1 s",
            "1s ",
            "9223372036854775808ns",
            "1e3s",
            "++1s",
            "1S",
        ] {
            assert_eq!(go_duration(text), None, "{text:?}");
        }
    }
}

//! `PYROSCOPE_SAMPLE`: the share of profiles to keep.

use super::{Note, warn};

/// A share between 0 and 1, as a number of 2³² parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// All profiles.
    pub const ALL: Self = Self(1 << 32);

    /// A decimal fraction above 0 and at most 1, such as `0.25`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        let has_digit = text.bytes().any(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || !has_digit {
            return None;
        }
        // From the last digit to the first, with more digits than any user needs.
        let scale = 1_u64 << 56;
        let parts = fraction.bytes().rev().fold(0, |parts, digit| {
            (u64::from(digit - b'0') * scale + parts) / 10
        });
        let whole = whole.trim_start_matches('0');
        match (whole, parts >> 24) {
            ("1", _) if parts == 0 => Some(Self::ALL),
            ("", _) if parts == 0 => None,
            // A very small share is not zero.
            ("", parts) => Some(Self(parts.max(1))),
            _ => None,
        }
    }

    /// Whether uploads of a sandbox in that minute are kept. Each sandbox has some minutes in the share, so that even
    /// with few sandboxes each one is seen, and all profiles of one moment stay together.
    #[must_use]
    pub const fn has(self, session: u64, minute: u64) -> bool {
        // SplitMix64: similar inputs give independent results.
        let z = session.wrapping_add(minute.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z >> 32 < self.0
    }
}

pub(super) fn read(value: Option<String>, notes: &mut Vec<Note>) -> Share {
    let Some(value) = value else {
        return Share::ALL;
    };
    Share::parse(&value).unwrap_or_else(|| {
        let problem =
            format!("\"{value}\" is not a number above 0 and at most 1, using the default 1");
        warn(notes, "PYROSCOPE_SAMPLE", problem);
        Share::ALL
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_decimal_fraction() {
        for (text, share) in [
            ("1", 1.0),
            ("1.0", 1.0),
            ("01.000", 1.0),
            ("0.5", 0.5),
            (".25", 0.25),
            ("0.1", 0.1),
            ("0.000000001", 0.000_000_001),
            ("0.3333333333333333333333333333", 1.0 / 3.0),
            ("0.9999999999", 1.0),
        ] {
            let Share(parts) = Share::parse(text).unwrap();
            let read = parts as f64 / 4_294_967_296.0;
            assert!((read - share).abs() < 1e-9, "{text} is {read}");
        }
        for text in [
            "", ".", "0", "0.0", "00", "2", "1.1", "10", "-1", "+1", "x", "1x", "0.5 ", "1e-3",
            "0,5", "50%", "NaN", "٠.٥",
        ] {
            assert_eq!(Share::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ten_thousand_sandboxes_at_a_tenth_keep_a_tenth() {
        let share = Share::parse("0.1").unwrap();
        let sessions = (1..=10_000_u64).map(|n| n.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let minute = 29_921_360;
        let kept = sessions.clone().filter(|s| share.has(*s, minute)).count();
        // Three standard deviations: 3 * sqrt(10,000 * 0.1 * 0.9).
        assert!(kept.abs_diff(1_000) <= 90, "{kept}");
        // For a single sandbox, a tenth of its minutes are kept.
        let minutes = |session| (0..10_000).filter(move |m| share.has(session, minute + m));
        for session in sessions.take(20) {
            let kept = minutes(session).count();
            assert!(kept.abs_diff(1_000) <= 120, "{session:x}: {kept}");
        }
    }

    #[test]
    fn all_is_all() {
        assert!((0..10_000).all(|minute| Share::ALL.has(u64::MAX, minute)));
        assert!((0..10_000).all(|minute| Share::ALL.has(minute, 0)));
    }

    #[test]
    fn a_minute_is_drawn_by_splitmix64() {
        // The upper half of what another implementation gives for that session and minute.
        for (session, minute, drawn) in [
            (0, 1, 0xe220_a838),
            (1, 0, 0x5692_161d),
            (0x2545_f491_4f6c_dd1d, 29_921_360, 0x7273_ecde),
            (u64::MAX, 29_921_361, 0xf237_d930),
        ] {
            assert!(!Share(drawn).has(session, minute), "{session:#x}");
            assert!(Share(drawn + 1).has(session, minute), "{session:#x}");
        }
    }
}

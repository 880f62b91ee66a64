//! Times in the query of `/ingest`: `from` and `until`, which the server uses for formats without times.
//!
//! Ten digits are seconds, thirteen milliseconds, sixteen microseconds, nineteen nanoseconds (`attime.Parse`).

use std::ops::Range;

use super::{MS, SECOND, Stamp};
use crate::http1::write::decimal;

/// What a query says about the profile. If a parameter occurs twice, the first one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<'q> {
    /// When the profile begins; in nanoseconds since 1970.
    pub from: Option<u64>,
    /// When it ends.
    pub until: Option<u64>,
    /// The unit of the last digit of these, in nanoseconds. Seconds may be padded with zeros to nanoseconds.
    pub unit: u64,
    /// Whether `from` is written in nanoseconds: an SDK with such a clock uses it in its profiles too.
    pub is_fine: bool,
    /// The format of the body.
    pub format: Option<&'q [u8]>,
}

impl<'q> Query<'q> {
    /// Reads only the parameters that matter here.
    #[must_use]
    pub fn parse(query: &'q [u8]) -> Self {
        let mut read = Self::default();
        for (parameter, at) in parameters(query) {
            let value = query.get(at).unwrap_or_default();
            match parameter {
                Parameter::From if read.from.is_none() => {
                    read.from = nanoseconds(value);
                    read.unit = read.unit.max(coarsest(value));
                    read.is_fine = read.from.is_some() && value.len() == NANOSECONDS_DIGITS;
                }
                Parameter::Until if read.until.is_none() => {
                    read.until = nanoseconds(value);
                    read.unit = read.unit.max(coarsest(value));
                }
                Parameter::Format if read.format.is_none() => read.format = Some(value),
                _ => {}
            }
        }
        read
    }

    /// Whether the profile covers no time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.is_some() && self.from == self.until
    }

    /// The new times.
    #[must_use]
    pub fn unique(&self, stamp: &Stamp) -> Unique {
        let from = self.from;
        let until = self.until;
        let length = until.unwrap_or(0).saturating_sub(from.unwrap_or(0));
        let start =
            from.and_then(|from| stamp.start_within(from, until.unwrap_or(from), self.unit));
        // A profile that is moved to the end of a freeze may have ended before that, if its end is in whole seconds.
        let is_moved = |start: &u64| from.is_some_and(|from| from + SECOND < *start);
        let earliest = start
            .filter(|start| from <= until && is_moved(start))
            .unwrap_or(0);
        Unique {
            from: start,
            until: until
                .map(|until| {
                    stamp
                        .fill(until, length, self.unit)
                        .unwrap_or(until)
                        .max(earliest)
                })
                .filter(|unique| Some(*unique) != until),
        }
    }
}

/// The new times of a query, in nanoseconds since 1970; `None`: it keeps its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unique {
    /// When the profile begins.
    pub from: Option<u64>,
    /// When it ends.
    pub until: Option<u64>,
}

impl Unique {
    /// Passes the query with these times to `write`, in pieces.
    pub fn write(&self, query: &[u8], mut write: impl FnMut(&[u8])) {
        let mut written = 0;
        let replaces = self.from.is_some() || self.until.is_some();
        for (parameter, at) in parameters(query).filter(|_| replaces) {
            let unique = match parameter {
                Parameter::From => self.from,
                Parameter::Until => self.until,
                Parameter::Format => None,
            };
            let mut digits = [0; 20];
            if let Some(unique) = unique {
                write(query.get(written..at.start).unwrap_or_default());
                write(decimal(&mut digits, unique));
                written = at.end;
            }
        }
        write(query.get(written..).unwrap_or_default());
    }
}

#[derive(Clone, Copy)]
enum Parameter {
    From,
    Until,
    Format,
}

/// The parameters that matter here, and where their values are.
fn parameters(query: &[u8]) -> impl Iterator<Item = (Parameter, Range<usize>)> {
    let mut start = 0;
    let pairs = query.split(|b| *b == b'&');
    pairs.filter_map(move |pair| {
        let end = start + pair.len();
        let begin = std::mem::replace(&mut start, end + 1);
        let (parameter, key) = match pair {
            [b'f', b'r', b'o', b'm', b'=', ..] => (Parameter::From, 5),
            [b'u', b'n', b't', b'i', b'l', b'=', ..] => (Parameter::Until, 6),
            [b'f', b'o', b'r', b'm', b'a', b't', b'=', ..] => (Parameter::Format, 7),
            _ => return None,
        };
        Some((parameter, begin + key..end))
    })
}

const NANOSECONDS_DIGITS: usize = 19;

/// The unit of the last digit of a time, in nanoseconds; `None` for what the server does not read as a time.
const fn unit(text: &[u8]) -> Option<u64> {
    match text.len() {
        10 => Some(SECOND),
        13 => Some(MS),
        16 => Some(1_000),
        NANOSECONDS_DIGITS => Some(1),
        _ => None,
    }
}

/// The coarsest unit of the last digit: nanoseconds may be seconds padded with zeros.
fn coarsest(text: &[u8]) -> u64 {
    unit(text).filter(|unit| *unit > 1).unwrap_or(SECOND)
}

/// A time in nanoseconds since 1970; `None` if it is not a number, or not a time for the server.
fn nanoseconds(text: &[u8]) -> Option<u64> {
    let unit = unit(text)?;
    let mut number = 0_u64;
    for digit in text {
        // Nineteen digits fit into a `u64`.
        number = number * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::super::Thaw;
    use super::*;

    const STAMP: Stamp = Stamp {
        session: 41,
        received_ms: 1_795_281_604_123,
        thaw: None,
    };

    fn changed(query: &str) -> String {
        let (query, mut out) = (query.as_bytes(), Vec::new());
        let unique = Query::parse(query).unique(&STAMP);
        unique.write(query, |piece| out.extend_from_slice(piece));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_filled_and_all_else_stays() {
        for (query, expected) in [
            (
                "name=a&from=1795281600&until=1795281604&format=jfr",
                "name=a&from=1795281600000000046&until=1795281604000000046&format=jfr",
            ),
            (
                "until=1795281604001&from=1795281600001",
                "until=1795281604001001041&from=1795281600001001041",
            ),
            ("from=1795281600000001", "from=1795281600000001042"),
            ("from=1795281600000300001", "from=1795281600000300001"),
            ("from=1795281600000000000", "from=1795281600000000042"),
            (
                "from=1795281600000&until=1795281600010",
                "from=1795281600000000052&until=1795281600010000052",
            ),
            ("until=1795281600000", "until=1795281600000001041"),
        ] {
            assert_eq!(changed(query), expected);
        }
        for same in [
            "",
            "from",
            "from=",
            "from=now-1h",
            "from=20261121",
            "from=+795281600",
            "from=1795281600x",
            "from=99999999999999999999",
            "from=1495281600&until=1495281610",
            "from=9999999999999&until=9999999999999999999",
            "xfrom=1795281600&from%20=1795281600",
            "&&a=b&",
        ] {
            assert_eq!(changed(same), same);
        }
    }

    #[test]
    fn a_profile_that_spans_a_freeze_begins_where_the_server_takes_it() {
        assert_eq!(
            changed("from=1795270000&until=1795281604"),
            "from=1795281594123000042&until=1795281604000011646"
        );
        assert_eq!(
            changed("from=1795270000&until=1795271000"),
            "from=1795270000000001042&until=1795271000000001042",
            "it was not made just now"
        );
    }

    #[test]
    fn a_profile_that_is_moved_does_not_begin_after_its_end() {
        let stamp = Stamp {
            thaw: Some(Thaw {
                at_ms: 1_795_281_604_100,
                clock_lag_ms: 7_200_000,
            }),
            ..STAMP
        };
        let unique = |query: &str| {
            let Unique { from, until } = Query::parse(query.as_bytes()).unique(&stamp);
            (from.unwrap_or(0), until.unwrap_or(0))
        };
        let thaw = 1_795_281_604_100_000_042;
        let whole_seconds = "from=1795270000&until=1795281604";
        assert_eq!(unique(whole_seconds), (thaw, thaw));
        assert_eq!(
            unique("from=1795270000123&until=1795281604101"),
            (thaw, 1_795_281_604_101_001_041)
        );
        assert_eq!(
            unique("from=1795281605&until=1795281604"),
            (1_795_281_605_000_000_042, 1_795_281_604_000_000_042),
            "so it was before"
        );
    }

    #[test]
    fn an_upload_is_empty_if_it_ends_when_it_begins() {
        for empty in [
            "from=1795281600&until=1795281600",
            "until=1795281600000&from=1795281600",
        ] {
            assert!(Query::parse(empty.as_bytes()).is_empty(), "{empty}");
        }
        for full in [
            "",
            "from=&until=",
            "from=now&until=now",
            "from=1795281600",
            "until=1795281600",
            "from=1795281600&until=1795281601",
        ] {
            assert!(!Query::parse(full.as_bytes()).is_empty(), "{full}");
        }
    }
}

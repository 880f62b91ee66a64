//! PYROSCOPE_LOG_TIMESTAMP_FORMAT: what Go's `time.Format` prints, which is transcribed here for UTC; and any
//! layout leaves the log line a line, or an object with that time in it.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pyroscope_lambda_extension::log::{Format, Level, Log, time};

/// The last millisecond of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((moment, layout)) = input.split_first_chunk() else {
        return Corpus::Reject;
    };
    let Ok(layout) = str::from_utf8(layout) else {
        return Corpus::Reject;
    };
    let ms = u64::from_le_bytes(*moment) % (LAST_MS + 1);
    let expected = formatted(layout, ms);
    let mut out = Vec::new();
    time::write(&mut out, layout, ms);
    assert_eq!(
        String::from_utf8_lossy(&out),
        expected,
        "{layout:?} at {ms}"
    );

    for json in [true, false] {
        let format = Format {
            json,
            layout: layout.to_owned().into(),
            ..Format::DEFAULT
        };
        let mut log = Log::in_format(Level::Info, format);
        log.line(Level::Info, ms, "A message", &[("field", layout.into())]);
        let line = String::from_utf8(std::mem::take(log.take())).expect("a line is text");
        let line = line.strip_suffix('\n').expect("a line ends");
        assert!(!line.contains(['\n', '\r', '\0', '\u{1b}']), "{line:?}");
        if json {
            let read: serde_json::Value = serde_json::from_str(line).expect("an object");
            assert_eq!(read["time"], expected);
            assert_eq!(read["field"], layout[..layout.floor_char_boundary(2048)]);
        } else {
            assert!(line.contains(" level=info msg=\"A message\" field="));
        }
    }
    Corpus::Keep
});

/// Year, month, day, day of the year, counted on from 1970, a year and a month at a time.
fn date(mut days: u64) -> (u64, usize, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = days + 1;
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// Go's `Time.AppendFormat` and `nextStdChunk`, case by case.
fn formatted(layout: &str, ms: u64) -> String {
    let (days, of_day, nanos) = (ms / 86_400_000, ms / 1000 % 86_400, ms % 1000 * 1_000_000);
    let (year, month, day, day_of_year) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let half = if hour % 12 == 0 { 12 } else { hour % 12 };
    let weekday = DAYS[(days % 7) as usize];
    let mut out = Vec::new();
    let bytes = layout.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let has = |text: &str| rest.starts_with(text.as_bytes());
        let small_follows = rest.get(3).is_some_and(u8::is_ascii_lowercase);
        let (length, text): (usize, String) = match rest[0] {
            b'J' if has("January") => (7, MONTHS[month].to_owned()),
            b'J' if has("Jan") && !small_follows => (3, MONTHS[month][..3].to_owned()),
            b'M' if has("Monday") => (6, weekday.to_owned()),
            b'M' if has("Mon") && !small_follows => (3, weekday[..3].to_owned()),
            b'M' if has("MST") => (3, "UTC".to_owned()),
            b'0' if has("01") => (2, format!("{:02}", month + 1)),
            b'0' if has("02") => (2, format!("{day:02}")),
            b'0' if has("03") => (2, format!("{half:02}")),
            b'0' if has("04") => (2, format!("{minute:02}")),
            b'0' if has("05") => (2, format!("{second:02}")),
            b'0' if has("06") => (2, format!("{:02}", year % 100)),
            b'0' if has("002") => (3, format!("{day_of_year:03}")),
            b'1' if has("15") => (2, format!("{hour:02}")),
            b'1' => (1, (month + 1).to_string()),
            b'2' if has("2006") => (4, format!("{year:04}")),
            b'2' => (1, day.to_string()),
            b'_' if has("_2006") => (5, format!("_{year:04}")),
            b'_' if has("_2") => (2, format!("{day:2}")),
            b'_' if has("__2") => (3, format!("{day_of_year:3}")),
            b'3' => (1, half.to_string()),
            b'4' => (1, minute.to_string()),
            b'5' => (1, second.to_string()),
            b'P' if has("PM") => (2, if hour >= 12 { "PM" } else { "AM" }.to_owned()),
            b'p' if has("pm") => (2, if hour >= 12 { "pm" } else { "am" }.to_owned()),
            b'-' if has("-070000") => (7, "+000000".to_owned()),
            b'-' if has("-07:00:00") => (9, "+00:00:00".to_owned()),
            b'-' if has("-0700") => (5, "+0000".to_owned()),
            b'-' if has("-07:00") => (6, "+00:00".to_owned()),
            b'-' if has("-07") => (3, "+00".to_owned()),
            b'Z' if has("Z070000") => (7, "Z".to_owned()),
            b'Z' if has("Z07:00:00") => (9, "Z".to_owned()),
            b'Z' if has("Z0700") => (5, "Z".to_owned()),
            b'Z' if has("Z07:00") => (6, "Z".to_owned()),
            b'Z' if has("Z07") => (3, "Z".to_owned()),
            mark @ (b'.' | b',') if matches!(rest.get(1), Some(b'0' | b'9')) => {
                let digit = rest[1];
                let count = rest[1..].iter().take_while(|b| **b == digit).count();
                if rest.get(1 + count).is_some_and(u8::is_ascii_digit) {
                    (0, String::new())
                } else {
                    (1 + count, fraction(mark, digit, count, nanos))
                }
            }
            _ => (0, String::new()),
        };
        out.extend_from_slice(text.as_bytes());
        if length == 0 {
            out.push(rest[0]);
        }
        at += length.max(1);
    }
    String::from_utf8(out).expect("what is no element is copied")
}

/// Go's `appendNano`; the number of digits is kept in twelve bits.
fn fraction(mark: u8, digit: u8, count: usize, nanos: u64) -> String {
    let trim = digit == b'9';
    let n = count & 0xfff;
    if trim && (n == 0 || nanos == 0) {
        return String::new();
    }
    let digits = format!("{nanos:09}");
    let mut shown = &digits[..n.min(9)];
    if trim {
        shown = shown.trim_end_matches('0');
        if shown.is_empty() {
            return String::new();
        }
    }
    format!("{}{shown}", char::from(mark))
}

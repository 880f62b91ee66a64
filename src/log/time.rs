//! The timestamp: Go's time layouts, which spell the moment 2006-01-02 15:04:05 in some form.
//!
//! Text that is not an element of a layout is printed unchanged, as in Go. Lambda's clock is UTC.

/// RFC 3339, the default of logrus.
pub(super) const RFC3339: &str = "2006-01-02T15:04:05Z07:00";

/// Prints a time as Go's `time.Format` does.
pub fn write(out: &mut Vec<u8>, layout: &str, unix_ms: u64) {
    let moment = Moment::at(unix_ms);
    let mut rest = layout.as_bytes();
    while let Some(&first) = rest.first() {
        let taken = moment
            .element(out, rest)
            .or_else(|| moment.fraction(out, rest));
        let taken = taken.unwrap_or_else(|| {
            out.push(first);
            1
        });
        rest = &rest[taken..];
    }
}

/// What a number in a layout means; the index into [`Moment::parts`].
#[derive(Clone, Copy)]
enum Part {
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    HourOfHalf,
    Minute,
    Second,
}

use Part::{Day, DayOfYear, Hour, HourOfHalf, Minute, Month, Second, Year, YearOfCentury};

/// What is printed for an element.
#[derive(Clone, Copy)]
enum Element {
    /// A number with at least this many digits.
    Number(Part, u8),
    /// The same, padded with blanks instead of zeros.
    Blank(Part, u8),
    /// `_2006` is not an element, though `_2` and `2006` are: the underscore stays, and the year follows.
    UnderscoreYear,
    MonthName,
    WeekdayName,
    /// Three letters of it, if no lower-case letter follows: `Mon`, but not `Month`.
    ShortMonthName,
    ShortWeekdayName,
    /// Before or after noon: the letters in place of the `P` after noon and before it.
    Half(u8, u8),
    /// The zone's name.
    ZoneName,
    /// Hours from UTC, with minutes and seconds where the element has them.
    ZoneOffset,
    /// The same, but a letter for UTC itself.
    ZoneLetter,
}

use Element::{
    Blank, Half, MonthName, Number, ShortMonthName, ShortWeekdayName, UnderscoreYear, WeekdayName,
    ZoneLetter, ZoneName, ZoneOffset,
};

/// All elements except fractions. An element comes before any other that it begins with.
const ELEMENTS: [(&str, Element); 34] = [
    ("January", MonthName),
    ("Jan", ShortMonthName),
    ("Monday", WeekdayName),
    ("Mon", ShortWeekdayName),
    ("MST", ZoneName),
    ("01", Number(Month, 2)),
    ("02", Number(Day, 2)),
    ("03", Number(HourOfHalf, 2)),
    ("04", Number(Minute, 2)),
    ("05", Number(Second, 2)),
    ("06", Number(YearOfCentury, 2)),
    ("002", Number(DayOfYear, 3)),
    ("15", Number(Hour, 2)),
    ("1", Number(Month, 1)),
    ("2006", Number(Year, 4)),
    ("2", Number(Day, 1)),
    ("_2006", UnderscoreYear),
    ("_2", Blank(Day, 2)),
    ("__2", Blank(DayOfYear, 3)),
    ("3", Number(HourOfHalf, 1)),
    ("4", Number(Minute, 1)),
    ("5", Number(Second, 1)),
    ("PM", Half(b'P', b'A')),
    ("pm", Half(b'p', b'a')),
    ("-070000", ZoneOffset),
    ("-07:00:00", ZoneOffset),
    ("-0700", ZoneOffset),
    ("-07:00", ZoneOffset),
    ("-07", ZoneOffset),
    ("Z070000", ZoneLetter),
    ("Z07:00:00", ZoneLetter),
    ("Z0700", ZoneLetter),
    ("Z07:00", ZoneLetter),
    ("Z07", ZoneLetter),
];

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

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A time in UTC, split into parts.
struct Moment {
    parts: [u64; 9],
    /// Days since a Sunday, 0 to 6.
    weekday: usize,
    ms: u64,
}

impl Moment {
    const fn at(unix_ms: u64) -> Self {
        let seconds = unix_ms / 1000;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day, day_of_year) = civil(days);
        let hour = of_day / 3600;
        Self {
            parts: [
                year,
                year % 100,
                month,
                day,
                day_of_year,
                hour,
                (hour + 11) % 12 + 1,
                of_day / 60 % 60,
                of_day % 60,
            ],
            weekday: (days as usize + 4) % 7, // 1970 began on a Thursday
            ms: unix_ms % 1000,
        }
    }

    const fn part(&self, part: Part) -> u64 {
        self.parts[part as usize]
    }

    /// Prints the element that `rest` begins with, and returns its length in the layout.
    fn element(&self, out: &mut Vec<u8>, rest: &[u8]) -> Option<usize> {
        let &(spelling, element) = ELEMENTS.iter().find(|(spelling, element)| {
            rest.strip_prefix(spelling.as_bytes()).is_some_and(|after| {
                !matches!(element, ShortMonthName | ShortWeekdayName)
                    || !after.first().is_some_and(u8::is_ascii_lowercase)
            })
        })?;
        let month = MONTHS[self.part(Month) as usize - 1].as_bytes();
        let weekday = WEEKDAYS[self.weekday].as_bytes();
        match element {
            Number(part, width) => padded(out, self.part(part), width, b'0'),
            Blank(part, width) => padded(out, self.part(part), width, b' '),
            UnderscoreYear => {
                out.push(b'_');
                padded(out, self.part(Year), 4, b'0');
            }
            MonthName => out.extend_from_slice(month),
            ShortMonthName => out.extend_from_slice(&month[..3]),
            WeekdayName => out.extend_from_slice(weekday),
            ShortWeekdayName => out.extend_from_slice(&weekday[..3]),
            Half(after, before) => {
                let half = if self.part(Hour) < 12 { before } else { after };
                out.extend_from_slice(&[half, spelling.as_bytes()[1]]);
            }
            ZoneName => out.extend_from_slice(b"UTC"),
            ZoneLetter => out.push(b'Z'),
            ZoneOffset => out.extend(spelling.bytes().map(|b| match b {
                b'-' => b'+',
                b':' => b':',
                _ => b'0',
            })),
        }
        Some(spelling.len())
    }

    /// Prints the fraction of a second that `rest` begins with: a point or comma, then one zero per digit, or nines,
    /// which omit zeros at the end; no other digit may follow.
    fn fraction(&self, out: &mut Vec<u8>, rest: &[u8]) -> Option<usize> {
        let (&mark, digits) = rest.split_first()?;
        let &digit = digits.first()?;
        let count = digits.iter().take_while(|&&other| other == digit).count();
        if !matches!((mark, digit), (b'.' | b',', b'0' | b'9'))
            || digits.get(count).is_some_and(u8::is_ascii_digit)
        {
            return None;
        }
        // Go stores the number of digits in twelve bits, and has nanoseconds.
        let shown = (count & 0xfff).min(9);
        if digit == b'0' || (shown > 0 && self.ms > 0) {
            out.push(mark);
            let start = out.len();
            padded(out, self.ms * 1_000_000, 9, b'0');
            out.truncate(start + shown);
            if digit == b'9' {
                while out.pop_if(|last| *last == b'0').is_some() {}
                out.pop_if(|last| *last == mark);
            }
        }
        Some(1 + count)
    }
}

/// The date of a day since 1970-01-01, and its number in its year, from 1. It counts in periods of 400 years from
/// 0000-03-01, so that the leap day is the last day of a year.
const fn civil(days: u64) -> (u64, u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    if month_from_march < 10 {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        (year, month_from_march + 3, day, of_year + 60 + leap as u64)
    } else {
        (year + 1, month_from_march - 9, day, of_year - 305)
    }
}

/// Appends a number with at least `width` digits, padded with `fill` in front.
fn padded(out: &mut Vec<u8>, value: u64, width: u8, fill: u8) {
    let mut digits = [0; 20];
    let digits = crate::http1::write::decimal(&mut digits, value);
    let filled = out.len() + usize::from(width).saturating_sub(digits.len());
    out.resize(filled, fill);
    out.extend_from_slice(digits);
}

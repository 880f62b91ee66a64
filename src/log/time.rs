//! The timestamp: Go's time layouts, in which the moment to print is spelled as 2006-01-02 15:04:05 in some form.
//!
//! What is no element of a layout is printed as it stands, so rubbish is printed as Go prints it. Lambda's clock
//! is UTC.

/// RFC 3339, what logrus uses unless told otherwise.
pub(super) const RFC3339: &str = "2006-01-02T15:04:05Z07:00";

/// Prints a moment as Go's `time.Format` does.
pub fn write(out: &mut String, layout: &str, unix_ms: u64) {
    let moment = Moment::at(unix_ms);
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        let taken = moment
            .element(out, rest)
            .or_else(|| moment.fraction(out, rest));
        let taken = taken.unwrap_or_else(|| {
            out.push(first);
            first.len_utf8()
        });
        rest = &rest[taken..];
    }
}

/// What a number in a layout stands for; the index into [`Moment::parts`].
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
    /// A number of so many digits or more.
    Number(Part, usize),
    /// The same, filled up with blanks instead of zeros.
    Blank(Part, usize),
    /// `_2006` is no element, though `_2` and `2006` are.
    AfterUnderscore(Part, usize),
    MonthName,
    WeekdayName,
    /// Three letters of it, where no small letter follows: `Mon`, but not `Month`.
    ShortMonthName,
    ShortWeekdayName,
    /// Before or after noon.
    Half(&'static str),
    /// The zone, where 0 minutes from UTC may be a letter or must be digits.
    Zone(&'static str),
}

use Element::{
    AfterUnderscore, Blank, Half, MonthName, Number, ShortMonthName, ShortWeekdayName, WeekdayName,
    Zone,
};

/// All elements but fractions; one that begins like another stands before it.
const ELEMENTS: [(&str, Element); 34] = [
    ("January", MonthName),
    ("Jan", ShortMonthName),
    ("Monday", WeekdayName),
    ("Mon", ShortWeekdayName),
    ("MST", Zone("UTC")),
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
    ("_2006", AfterUnderscore(Year, 4)),
    ("_2", Blank(Day, 2)),
    ("__2", Blank(DayOfYear, 3)),
    ("3", Number(HourOfHalf, 1)),
    ("4", Number(Minute, 1)),
    ("5", Number(Second, 1)),
    ("PM", Half("AMPM")),
    ("pm", Half("ampm")),
    ("-070000", Zone("+000000")),
    ("-07:00:00", Zone("+00:00:00")),
    ("-0700", Zone("+0000")),
    ("-07:00", Zone("+00:00")),
    ("-07", Zone("+00")),
    ("Z070000", Zone("Z")),
    ("Z07:00:00", Zone("Z")),
    ("Z0700", Zone("Z")),
    ("Z07:00", Zone("Z")),
    ("Z07", Zone("Z")),
];

const MONTHS: &str =
    "January February March April May June July August September October November December";
const WEEKDAYS: &str = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday";

/// A moment in UTC, taken apart.
struct Moment {
    parts: [u64; 9],
    /// Days since a Sunday, 0 to 6.
    weekday: u64,
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
            weekday: (days + 4) % 7, // 1970 began on a Thursday
            ms: unix_ms % 1000,
        }
    }

    const fn part(&self, part: Part) -> u64 {
        self.parts[part as usize]
    }

    /// Prints the element that `rest` begins with, and gives its length in the layout.
    fn element(&self, out: &mut String, rest: &str) -> Option<usize> {
        let (spelling, element) = ELEMENTS.iter().find(|(spelling, element)| {
            rest.strip_prefix(spelling).is_some_and(|after| {
                !matches!(element, ShortMonthName | ShortWeekdayName)
                    || !after.starts_with(|c: char| c.is_ascii_lowercase())
            })
        })?;
        match *element {
            Number(part, width) => padded(out, self.part(part), width, '0'),
            Blank(part, width) => padded(out, self.part(part), width, ' '),
            AfterUnderscore(part, width) => {
                out.push('_');
                padded(out, self.part(part), width, '0');
            }
            MonthName => out.push_str(self.month()),
            ShortMonthName => out.push_str(&self.month()[..3]),
            WeekdayName => out.push_str(self.weekday()),
            ShortWeekdayName => out.push_str(&self.weekday()[..3]),
            Half(both) => {
                let (am, pm) = both.split_at(2);
                out.push_str(if self.part(Hour) < 12 { am } else { pm });
            }
            Zone(utc) => out.push_str(utc),
        }
        Some(spelling.len())
    }

    fn month(&self) -> &'static str {
        name(MONTHS, self.part(Month) - 1)
    }

    fn weekday(&self) -> &'static str {
        name(WEEKDAYS, self.weekday)
    }

    /// Prints the fraction of a second that `rest` begins with: a point or comma, then zeros for so many digits, or
    /// nines for as many without zeros at the end; no other digit may follow.
    fn fraction(&self, out: &mut String, rest: &str) -> Option<usize> {
        let (mark, digits) = rest.split_at_checked(1)?;
        let digit = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
        let after = digits.trim_start_matches(digit);
        if !matches!(mark, "." | ",") || after.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let taken = rest.len() - after.len();
        // Go keeps the number of digits in twelve bits.
        let count = (taken - 1) & 0xfff;
        if digit == '0' || (count > 0 && self.ms > 0) {
            out.push_str(mark);
            let start = out.len();
            padded(out, self.ms * 1_000_000, 9, '0');
            out.truncate(start + count.min(9));
            if digit == '9' {
                let kept = out.trim_end_matches('0').trim_end_matches(mark).len();
                out.truncate(kept);
            }
        }
        Some(taken)
    }
}

/// The name at `index` of a list.
fn name(names: &'static str, index: u64) -> &'static str {
    names.split(' ').nth(index as usize).unwrap_or_default()
}

/// The date of a day since 1970-01-01, and its number in its year, from 1. Counted in eras of 400 years from
/// 0000-03-01, so that the leap day is a year's last.
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

/// A number of at least `width` digits, filled up with `fill` in front.
fn padded(out: &mut String, value: u64, width: usize, fill: char) {
    let mut digits = [0; 20];
    let digits = crate::http1::write::decimal(&mut digits, value);
    for _ in digits.len()..width {
        out.push(fill);
    }
    out.extend(digits.iter().map(|&b| b as char));
}

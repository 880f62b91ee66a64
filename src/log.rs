//! Log lines, as logrus writes them to a file: `time="…" level=info msg="…" field=value`.
//!
//! Lines are gathered here and written by the shell, so the core logs without touching the world. `time`,
//! `level` and `msg` come first, then the fields sorted by name. A line never holds a secret: what could be
//! one is never given to it.

/// How much is logged. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// logrus' panic, fatal and error: what we could not do.
    Error,
    /// What we could do only in part, or did differently.
    Warning,
    /// Start and end.
    Info,
    /// One line per connection and attempt.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Reads `PYROSCOPE_LOG_LEVEL`; any letter case. `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let names = [
            ("panic", Self::Error),
            ("fatal", Self::Error),
            ("error", Self::Error),
            ("warn", Self::Warning),
            ("warning", Self::Warning),
            ("info", Self::Info),
            ("debug", Self::Debug),
            ("trace", Self::Trace),
        ];
        names
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|&(_, level)| level)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    /// Text, quoted where logrus would.
    Text(&'v str),
    /// A number.
    Number(u64),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Most bytes of lines kept for the shell between two turns; past it, lines are dropped and counted.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// Gathers lines of enough importance.
#[derive(Debug)]
pub struct Log {
    level: Level,
    lines: Vec<u8>,
    dropped: u64,
}

impl Log {
    /// A log that keeps lines of `level` and graver ones.
    #[must_use]
    pub const fn new(level: Level) -> Self {
        Self {
            level,
            lines: Vec::new(),
            dropped: 0,
        }
    }

    /// Whether lines of that level are kept, for those that cost something to make.
    #[must_use]
    pub fn keeps(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Adds a line. `unix_ms` is the time on it; `fields` must be sorted by name.
    pub fn line(&mut self, level: Level, unix_ms: u64, msg: &str, fields: &[(&str, Value)]) {
        debug_assert!(
            fields.is_sorted_by_key(|(name, _)| *name),
            "fields of {msg:?} are not sorted"
        );
        if !self.keeps(level) {
            return;
        }
        if self.lines.len() > PENDING_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let out = &mut self.lines;
        out.extend_from_slice(b"time=\"");
        rfc3339(out, unix_ms);
        out.extend_from_slice(b"\" level=");
        out.extend_from_slice(level.name().as_bytes());
        out.extend_from_slice(b" msg=");
        text(out, msg);
        for (name, value) in fields {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            match value {
                Value::Text(value) => text(out, value),
                Value::Number(value) => crate::http1::write::number(out, *value),
            }
        }
        out.push(b'\n');
    }

    /// The lines gathered so far, for the shell to write and clear.
    pub fn take(&mut self) -> &mut Vec<u8> {
        if self.dropped > 0 && !self.lines.is_empty() {
            let dropped = std::mem::take(&mut self.dropped);
            self.lines
                .extend_from_slice(b"level=warning msg=\"log lines dropped\" count=");
            crate::http1::write::number(&mut self.lines, dropped);
            self.lines.push(b'\n');
        }
        &mut self.lines
    }
}

/// A value as logrus' text formatter writes it: bare where every character is harmless, else quoted as Go's `%q` does.
fn text(out: &mut Vec<u8>, value: &str) {
    if value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b))
    {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    out.push(b'"');
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{7}' => out.extend_from_slice(b"\\a"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{b}' => out.extend_from_slice(b"\\v"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            c if c.is_ascii_control() => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let byte = c as usize;
                out.extend_from_slice(&[b'\\', b'x', HEX[byte >> 4], HEX[byte & 15]]);
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// `2026-11-20T18:46:00Z`. Lambda's clock is UTC.
fn rfc3339(out: &mut Vec<u8>, unix_ms: u64) {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    padded(out, year, 4);
    for (mark, part) in [
        (b'-', month),
        (b'-', day),
        (b'T', of_day / 3600),
        (b':', of_day / 60 % 60),
        (b':', of_day % 60),
    ] {
        out.push(mark);
        padded(out, part, 2);
    }
    out.push(b'Z');
}

/// The date of a day since 1970-01-01, counted in eras of 400 years from 0000-03-01, so that the leap day is a year's last.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

fn padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, msg: &str, fields: &[(&str, Value)]) -> String {
        let mut log = Log::new(Level::Info);
        log.line(level, 1_795_200_360_999, msg, fields);
        String::from_utf8(std::mem::take(log.take())).unwrap()
    }

    #[test]
    fn lines() {
        assert_eq!(
            line(
                Level::Info,
                "Starting relay",
                &[("n", 7.into()), ("svc", "main".into())]
            ),
            "time=\"2026-11-20T18:46:00Z\" level=info msg=\"Starting relay\" n=7 svc=main\n"
        );
        assert_eq!(line(Level::Debug, "no", &[]), "");
        assert!(
            line(Level::Error, "a\"\\\n\u{1}é b", &[("e", "".into())])
                .ends_with(" msg=\"a\\\"\\\\\\n\\x01é b\" e=\n")
        );
    }

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            let mut out = Vec::new();
            rfc3339(&mut out, seconds * 1000);
            assert_eq!(String::from_utf8(out).unwrap(), date);
        }
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut log = Log::new(Level::Info);
        for _ in 0..2000 {
            log.line(Level::Error, 0, "the same again and again", &[]);
        }
        assert!(log.take().len() < PENDING_BYTES_MAX + 200);
        assert!(String::from_utf8_lossy(log.take()).contains("log lines dropped"));
    }
}

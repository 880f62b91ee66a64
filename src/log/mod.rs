//! Log lines, byte for byte as logrus writes them: as text or as JSON, with renamed fields or not.
//!
//! The core collects lines here and the shell writes them, so the core logs without I/O. A line never holds a secret:
//! no value that could be one is passed to the log.

mod json;
mod text;
pub mod time;

use std::borrow::Cow;

/// The log level. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The panic and fatal levels of logrus. We log nothing at these levels, so a user who asks for them gets no lines.
    Fatal,
    /// Something that failed.
    Error,
    /// Something that worked only in part, or differently.
    Warning,
    /// Start and end.
    Info,
    /// One line per connection and attempt.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Parses `PYROSCOPE_LOG_LEVEL`, in any letter case. `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let names = [
            ("panic", Self::Fatal),
            ("fatal", Self::Fatal),
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
            Self::Fatal => "fatal",
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
    /// Text, quoted where logrus quotes it.
    Text(&'v str),
    /// A number.
    Number(u64),
}

impl Value<'_> {
    /// The part of it that is logged.
    fn clipped(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(&text[..text.floor_char_boundary(VALUE_BYTES_MAX)]),
            number @ Self::Number(_) => number,
        }
    }
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

/// The format of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Each line is one JSON object instead of text.
    pub json: bool,
    /// Whether a line begins with its time.
    pub timestamps: bool,
    /// The format of the time, a Go layout.
    pub layout: Cow<'static, str>,
    /// The names of the fields that every line has.
    pub names: Names,
}

/// The names of logrus' own fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the fields' default names")]
pub struct Names {
    pub time: Cow<'static, str>,
    pub level: Cow<'static, str>,
    pub msg: Cow<'static, str>,
    /// We never write it, but no other field may have its name.
    pub logrus_error: Cow<'static, str>,
}

impl Format {
    /// The format without any settings.
    pub const DEFAULT: Self = Self {
        json: false,
        timestamps: true,
        layout: Cow::Borrowed(time::RFC3339),
        names: Names {
            time: Cow::Borrowed("time"),
            level: Cow::Borrowed("level"),
            msg: Cow::Borrowed("msg"),
            logrus_error: Cow::Borrowed("logrus_error"),
        },
    };

    /// Appends a line.
    fn line(
        &self,
        out: &mut Vec<u8>,
        level: Level,
        unix_ms: u64,
        msg: &str,
        fields: &[(&str, Value)],
    ) {
        let mut time = Vec::new();
        time::write(&mut time, &self.layout, unix_ms);
        let entry = Entry {
            format: self,
            time: str::from_utf8(&time).unwrap_or_default(),
            level: level.name(),
            msg,
            data: self.without_clashes(fields),
        };
        if self.json {
            json::line(out, entry);
        } else {
            text::line(out, &entry);
        }
        out.push(b'\n');
    }

    /// The fields; those named like one of logrus' own get a prefix. The order is that of logrus, because a name with a
    /// prefix can clash again.
    fn without_clashes<'v>(
        &self,
        fields: &[(&'v str, Value<'v>)],
    ) -> Vec<(Cow<'v, str>, Value<'v>)> {
        let mut data: Vec<_> = fields
            .iter()
            .map(|&(name, value)| (Cow::Borrowed(name), value.clipped()))
            .collect();
        let names = &self.names;
        for own in [&names.time, &names.msg, &names.level, &names.logrus_error] {
            if let Ok(at) = find(&data, own) {
                let (_, value) = data.remove(at);
                set(&mut data, Cow::Owned(String::from("fields.") + own), value);
            }
        }
        data
    }
}

/// The content of a line.
struct Entry<'v> {
    format: &'v Format,
    time: &'v str,
    level: &'static str,
    msg: &'v str,
    /// Sorted by name, without duplicates.
    data: Vec<(Cow<'v, str>, Value<'v>)>,
}

fn find(data: &[(Cow<str>, Value)], name: &str) -> Result<usize, usize> {
    data.binary_search_by(|(other, _)| (**other).cmp(name))
}

/// Adds a field, or replaces the one of that name.
fn set<'v>(data: &mut Vec<(Cow<'v, str>, Value<'v>)>, name: Cow<'v, str>, value: Value<'v>) {
    match find(data, &name) {
        Ok(at) => data[at].1 = value,
        Err(at) => data.insert(at, (name, value)),
    }
}

/// Appends an escape with this many hexadecimal digits.
fn hex(out: &mut Vec<u8>, kind: u8, digits: u32, c: char) {
    out.extend_from_slice(&[b'\\', kind]);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(c as usize >> (4 * digit)) & 15]);
    }
}

/// Most bytes of a value that are logged. Some values are a peer's words, and Lambda bills log lines by the byte. Six
/// such values in one line, each byte escaped, stay under the `CloudWatch` limit of an event.
const VALUE_BYTES_MAX: usize = 2048;

/// Most bytes of lines kept for the shell, between two turns or while the log is not read. Beyond it, lines are dropped
/// and counted.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// The service name in our lines.
pub(crate) const SVC: (&str, Value) = ("svc", Value::Text("pyroscope-lambda-ext-main"));

/// Collects lines of sufficient level.
#[derive(Debug)]
pub struct Log {
    level: Level,
    format: Format,
    lines: Vec<u8>,
    /// Lines dropped since then. All lines are dropped until the kept ones are written, so that there is only one gap.
    dropped: u64,
    /// When the last line was dropped.
    dropped_ms: u64,
}

impl Log {
    /// A log that keeps lines of `level` and above.
    #[must_use]
    pub const fn new(level: Level) -> Self {
        Self::in_format(level, Format::DEFAULT)
    }

    /// The same, with lines in this `format`.
    #[must_use]
    pub const fn in_format(level: Level, format: Format) -> Self {
        Self {
            level,
            format,
            lines: Vec::new(),
            dropped: 0,
            dropped_ms: 0,
        }
    }

    /// Whether lines of that level are kept; for lines that are expensive to build.
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
        if self.lines.len() > PENDING_BYTES_MAX || self.dropped > 0 {
            self.dropped += 1;
            self.dropped_ms = unix_ms;
            return;
        }
        self.format
            .line(&mut self.lines, level, unix_ms, msg, fields);
    }

    /// The collected lines, for the shell to write and remove. Once all are removed, a line says how many are missing
    /// after them.
    pub fn take(&mut self) -> &mut Vec<u8> {
        if self.dropped > 0 && self.lines.is_empty() {
            let count = std::mem::take(&mut self.dropped).into();
            self.format.line(
                &mut self.lines,
                Level::Warning,
                self.dropped_ms,
                "Log lines dropped",
                &[("count", count), SVC],
            );
        }
        &mut self.lines
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
    fn levels_are_those_of_logrus() {
        for (word, errors, warnings) in [
            ("panic", false, false),
            ("FATAL", false, false),
            ("error", true, false),
            ("Warn", true, true),
            ("warning", true, true),
            ("trace", true, true),
        ] {
            let log = Log::new(Level::parse(word).unwrap());
            let keeps = (log.keeps(Level::Error), log.keeps(Level::Warning));
            assert_eq!(keeps, (errors, warnings), "{word}");
        }
        assert_eq!(Level::parse("verbose"), None);
    }

    #[test]
    fn a_value_is_cut_between_characters() {
        let long = "é".repeat(2000) + "end";
        let logged = line(Level::Error, "m", &[("cause", long.as_str().into())]);
        assert!(logged.ends_with(&("é".repeat(1024) + "\"\n")), "{logged}");
        let odd = line(
            Level::Error,
            "m",
            &[("cause", format!("x{long}").as_str().into())],
        );
        assert!(odd.ends_with(&("é".repeat(1023) + "\"\n")), "{odd}");
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut log = Log::new(Level::Info);
        let flood = |log: &mut Log| {
            for _ in 0..2000 {
                log.line(Level::Error, 0, "the same again and again", &[]);
            }
        };
        flood(&mut log);
        let kept = log.take().len();
        assert!(kept < PENDING_BYTES_MAX + 200);
        // Half of it is written, which makes room: but not for lines in the middle of the gap.
        log.take().drain(..kept / 2);
        flood(&mut log);
        assert_eq!(log.take().len(), kept - kept / 2);
        log.take().clear();
        let said = String::from_utf8(std::mem::take(log.take())).unwrap();
        let line_bytes =
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"the same again and again\"\n".len();
        let dropped = 4000 - kept / line_bytes;
        let end = format!(
            " level=warning msg=\"Log lines dropped\" count={dropped} svc=pyroscope-lambda-ext-main\n"
        );
        assert!(said.ends_with(&end), "{said}");
        assert_eq!(said.lines().count(), 1);
        log.line(Level::Error, 0, "after", &[]);
        assert!(String::from_utf8_lossy(log.take()).contains("after"));
    }
}

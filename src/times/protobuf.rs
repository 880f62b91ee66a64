//! Walks through a pprof, or a Push request with pprofs inside, and finds the times to change.
//!
//! The message is read as it comes, piece by piece, and nothing of it is kept. Only the lengths of what is inside one
//! another and the field numbers matter: all else is skipped.
//!
//! * `push.v1.PushRequest`: `series` = 1; in it `samples` = 2; in it `raw_profile` = 1
//! * `google.v1.Profile` (pprof): `time_nanos` = 9, `duration_nanos` = 10

use super::Stamp;
use super::gzip::{Change, Reader};

/// Length of a time of today, written as a varint: from 1972 to 2262.
const TIME_BYTES: u8 = 9;

/// Most times in one request. An SDK writes one or a few; what has more passes unchanged.
const CHANGES_MAX: usize = 1024;

/// Messages around a pprof: a Push request, a series, a sample.
const DEPTH_MAX: usize = 3;

const TIME_NANOS: u64 = 9;
const DURATION_NANOS: u64 = 10;

/// What the outermost message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A Push request.
    Push,
    /// A pprof.
    Pprof,
}

/// Messages on the way to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Push,
    Series,
    Sample,
    Pprof,
}

impl Message {
    /// What a field of that number is, if it is a message to walk into.
    const fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Push, 1) => Some(Self::Series),
            (Self::Series, 2) => Some(Self::Sample),
            (Self::Sample, 1) => Some(Self::Pprof),
            _ => None,
        }
    }
}

/// What the number that is being read is.
#[derive(Debug, Clone, Copy)]
enum Number {
    Tag,
    Value { field: u64 },
    Length { field: u64 },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Walk<'s> {
    stamp: &'s Stamp,
    /// The innermost message that is open, and where it ends.
    message: Message,
    end: usize,
    /// The same of those around it, the outermost first.
    around: [(Message, usize); DEPTH_MAX],
    depth: usize,
    /// Bytes read so far.
    at: usize,
    /// Bytes that matter to nobody.
    skip: usize,
    number: Number,
    value: u64,
    /// Bytes of that number so far.
    bytes: u8,
    /// A time that was read, and where; its duration may follow.
    time: Option<(usize, u64)>,
    duration: u64,
    changes: Vec<Change>,
    /// What the last time in the message becomes.
    last: Option<u64>,
}

impl<'s> Walk<'s> {
    /// At the beginning of such a message.
    #[must_use]
    pub const fn new(root: Root, stamp: &'s Stamp) -> Self {
        let root = match root {
            Root::Push => Message::Push,
            Root::Pprof => Message::Pprof,
        };
        Self {
            stamp,
            message: root,
            end: usize::MAX,
            around: [(root, usize::MAX); DEPTH_MAX],
            depth: 0,
            at: 0,
            skip: 0,
            number: Number::Tag,
            value: 0,
            bytes: 0,
            time: None,
            duration: 0,
            changes: Vec::new(),
            last: None,
        }
    }

    /// The message is over. Whether it ended where it should.
    pub fn finish(&mut self) -> bool {
        self.decide();
        self.is_between() && self.depth == 0
    }

    /// What the last time that was read is replaced by.
    #[must_use]
    pub const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Takes one byte of a number. `None`: this is no protobuf, or not of the form it should be.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.at += 1;
        let shift = 7 * u32::from(self.bytes);
        self.value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        self.bytes += 1;
        if byte & 0x80 != 0 {
            return Some(());
        }
        let value = std::mem::take(&mut self.value);
        let bytes = std::mem::take(&mut self.bytes);
        match std::mem::replace(&mut self.number, Number::Tag) {
            Number::Tag => self.take_tag(value),
            Number::Value { field } => {
                self.take_value(field, value, bytes);
                (self.at <= self.end).then_some(())
            }
            Number::Length { field } => self.take_length(field, value),
        }
    }

    fn take_tag(&mut self, tag: u64) -> Option<()> {
        let (field, wire_type) = (tag >> 3, tag & 7);
        if self.time.is_some() && field != DURATION_NANOS {
            self.decide();
        }
        match wire_type {
            0 => self.number = Number::Value { field },
            1 => self.skip = 8,
            2 => self.number = Number::Length { field },
            5 => self.skip = 4,
            // Groups are of another age.
            _ => return None,
        }
        (field > 0 && self.at + self.skip <= self.end).then_some(())
    }

    fn take_value(&mut self, field: u64, value: u64, bytes: u8) {
        if self.message != Message::Pprof {
            return;
        }
        match field {
            TIME_NANOS => {
                self.last = None;
                self.time =
                    (bytes == TIME_BYTES).then(|| (self.at - usize::from(TIME_BYTES), value));
            }
            DURATION_NANOS => {
                self.duration = value;
                self.decide();
            }
            _ => {}
        }
    }

    fn take_length(&mut self, field: u64, length: u64) -> Option<()> {
        let length = usize::try_from(length).ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
        match self.message.field(field) {
            Some(inner) => {
                self.duration = 0;
                *self.around.get_mut(self.depth)? = (self.message, self.end);
                self.depth += 1;
                (self.message, self.end) = (inner, end);
            }
            None => self.skip = length,
        }
        Some(())
    }

    /// Whether the next byte begins a field.
    const fn is_between(&self) -> bool {
        matches!(self.number, Number::Tag) && self.bytes == 0 && self.skip == 0
    }

    /// Leaves the messages that end here.
    fn close(&mut self) {
        while self.at == self.end && self.is_between() && self.depth > 0 {
            self.decide();
            self.depth -= 1;
            if let Some(around) = self.around.get(self.depth) {
                (self.message, self.end) = *around;
            }
        }
    }

    /// All is known about the time that was read last.
    fn decide(&mut self) {
        let Some((at, time)) = self.time.take() else {
            return;
        };
        let unique = self
            .stamp
            .start_of(time, self.duration)
            .filter(|unique| varint_bytes(*unique) == TIME_BYTES);
        self.last = unique;
        if let Some(unique) = unique {
            self.changes.push(Change {
                at,
                len: TIME_BYTES,
                bytes: varint(unique),
            });
        }
    }
}

impl Reader for Walk<'_> {
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                self.at += n;
                if self.at == self.end {
                    self.close();
                }
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            if self.take(*first).is_none() || self.changes.len() > CHANGES_MAX {
                return false;
            }
            if self.at == self.end {
                self.close();
            }
            bytes = rest;
        }
        true
    }

    fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// A field of a pprof that says when it began. Where it comes twice, the last one counts.
#[must_use]
pub fn time_field(time: u64) -> Vec<u8> {
    let tag = (TIME_NANOS << 3) as u8;
    let (bytes, len) = (varint(time), usize::from(varint_bytes(time)));
    [&[tag], &bytes[..len]].concat()
}

/// A number as a varint, and what lies after it.
fn varint(mut value: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    for byte in &mut bytes {
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    bytes
}

/// How many bytes that takes.
const fn varint_bytes(value: u64) -> u8 {
    ((70 - (value | 1).leading_zeros()) / 7) as u8
}

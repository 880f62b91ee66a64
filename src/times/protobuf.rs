//! Reads a pprof, or a Push request with pprofs inside, and finds the times to change, and the existing labels.
//!
//! The message is read in pieces, as it arrives, and is not stored. Only the lengths of nested messages and the field
//! numbers matter; everything else is skipped.
//!
//! * `push.v1.PushRequest`: `series` = 1; in it `labels` = 1, with `name` = 1, and `samples` = 2; in it `raw_profile` = 1
//! * `google.v1.Profile` (pprof): `time_nanos` = 9, `duration_nanos` = 10

use super::Stamp;
use super::change::{Change, Reader};
use crate::config::Labels;

/// The length of a current time as a varint: from 1972 to 2262.
const TIME_BYTES: u8 = 9;

/// Most times in one request. An SDK writes one or a few; a request with more passes unchanged.
const CHANGES_MAX: usize = 1024;

/// Number of messages around a pprof: a Push request, a series, a sample.
const DEPTH_MAX: usize = 3;

/// A longer name is not one of our labels.
const NAME_BYTES_MAX: usize = 2048;

const LABEL_NAME: u64 = 1;

/// The tag of a series, a message, in a Push request.
pub(super) const TAG_SERIES: u8 = 1 << 3 | 2;

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

/// The messages that lead to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Push,
    Series,
    Label,
    Sample,
    Pprof,
}

impl Message {
    /// The message in a field of that number, if it must be read.
    const fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Push, 1) => Some(Self::Series),
            (Self::Series, 1) => Some(Self::Label),
            (Self::Series, 2) => Some(Self::Sample),
            (Self::Sample, 1) => Some(Self::Pprof),
            _ => None,
        }
    }
}

/// The meaning of the number that is being read.
#[derive(Debug, Clone, Copy)]
enum Number {
    Tag,
    Value { field: u64 },
    Length { field: u64 },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Walk<'s> {
    /// The source of new times, if times are changed.
    stamp: Option<&'s Stamp>,
    /// The labels that each series must have, and which of them a series has: one bit for each.
    labels: &'s Labels,
    has: u32,
    /// Whether the bytes to skip are a label's name, and its bytes so far.
    is_name: bool,
    name: Vec<u8>,
    series: usize,
    /// The innermost open message, and where it ends.
    message: Message,
    end: usize,
    /// The same for the messages around it, the outermost first.
    around: [(Message, usize); DEPTH_MAX],
    depth: usize,
    /// Number of bytes read so far.
    at: usize,
    /// Number of bytes to skip.
    skip: usize,
    number: Number,
    value: u64,
    /// Number of bytes of that number so far.
    bytes: u8,
    /// The offset and value of a time; its duration may follow.
    time: Option<(usize, u64)>,
    duration: u64,
    changes: Vec<Change>,
    /// The new value of the last time in the message.
    last: Option<u64>,
}

impl<'s> Walk<'s> {
    /// At the start of such a message.
    #[must_use]
    pub const fn new(root: Root, stamp: Option<&'s Stamp>, labels: &'s Labels) -> Self {
        let root = match root {
            Root::Push => Message::Push,
            Root::Pprof => Message::Pprof,
        };
        Self {
            stamp,
            labels,
            has: 0,
            is_name: false,
            name: Vec::new(),
            series: 0,
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

    /// The message is complete. Returns whether it ended where it should.
    pub fn finish(&mut self) -> bool {
        self.decide();
        self.is_between() && self.depth == 0
    }

    /// If the message is exactly one series: the labels that it lacks.
    pub fn lacking(&self) -> impl Iterator<Item = &'s (String, String)> {
        let has = if self.series == 1 { self.has } else { u32::MAX };
        let own = self.labels.iter().zip(0..);
        own.filter(move |(_, bit)| has >> bit & 1 == 0)
            .map(|(label, _)| label)
    }

    /// The length of the message.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.at
    }

    /// The new value of the last time that was read.
    #[must_use]
    pub const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Reads one byte of a number. `None`: this is not protobuf, or not of the expected form.
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
        if self.message == Message::Push {
            // Adds two for any other field, so that the result is not one.
            self.series += if field == 1 { 1 } else { 2 };
        }
        match wire_type {
            0 => self.number = Number::Value { field },
            1 => self.skip = 8,
            2 => self.number = Number::Length { field },
            5 => self.skip = 4,
            // Groups are obsolete.
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
            Some(Message::Label) if self.labels.is_empty() => self.skip = length,
            Some(inner) => {
                self.duration = 0;
                *self.around.get_mut(self.depth)? = (self.message, self.end);
                self.depth += 1;
                (self.message, self.end) = (inner, end);
            }
            None => {
                self.is_name = length > 0 && self.message == Message::Label && field == LABEL_NAME;
                self.skip = length;
            }
        }
        Some(())
    }

    /// Skips the available part of a field; returns the rest.
    fn take_skipped<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
        self.skip -= skipped.len();
        self.at += skipped.len();
        if self.is_name {
            self.take_name(skipped);
        }
        rest
    }

    /// Reads the next part of a label's name.
    fn take_name(&mut self, bytes: &[u8]) {
        if self.name.len() <= NAME_BYTES_MAX {
            self.name.extend_from_slice(bytes);
        }
        if self.skip == 0 {
            let own = self.labels.iter().zip(0..);
            for (_, bit) in own.filter(|((own, _), _)| own.as_bytes() == self.name) {
                self.has |= 1 << bit;
            }
            self.name.clear();
            self.is_name = false;
        }
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

    /// The last time and its duration are complete.
    fn decide(&mut self) {
        let Some((at, time)) = self.time.take() else {
            return;
        };
        let unique = self
            .stamp
            .and_then(|stamp| stamp.start_of(time, self.duration))
            .filter(|unique| varint_bytes(*unique) == TIME_BYTES);
        self.last = unique;
        if let Some(unique) = unique {
            let mut bytes = [0; 10];
            for (i, byte) in bytes.iter_mut().take(TIME_BYTES.into()).enumerate() {
                *byte = (unique >> (7 * i)) as u8 | 0x80;
            }
            // The last byte has no continuation bit.
            bytes[usize::from(TIME_BYTES) - 1] &= 0x7f;
            self.changes.push(Change {
                at,
                len: TIME_BYTES,
                bytes,
            });
        }
    }
}

impl Reader for Walk<'_> {
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                bytes = self.take_skipped(bytes);
            } else if self.take(*first).is_none() || self.changes.len() > CHANGES_MAX {
                return false;
            } else {
                bytes = rest;
            }
            if self.at == self.end {
                self.close();
            }
        }
        true
    }

    fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// A pprof's field for its start time. If it occurs twice, the last one counts.
#[must_use]
pub fn time_field(time: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, TIME_NANOS << 3);
    varint(&mut out, time);
    out
}

/// Appends a field with bytes.
pub(super) fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number as a varint.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length of that varint.
const fn varint_bytes(value: u64) -> u8 {
    ((70 - (value | 1).leading_zeros()) / 7) as u8
}

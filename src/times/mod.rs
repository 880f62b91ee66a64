//! Makes the times of profiles unique, so that a server keeps the profiles of every sandbox.
//!
//! If profiles of one series have the same time, Pyroscope keeps only one of them when it compacts
//! (grafana/pyroscope#2483). Many SDKs write whole seconds, so most of a fleet's profiles would be lost. Here the
//! digits that an SDK left zero are filled from the sandbox's identity: less than a second, or less than a millisecond.
//! Times in nanoseconds stay unchanged. A payload is changed once, before it is first sent, so it has the same time in
//! each attempt.
//!
//! A second rule is for profiles that span a freeze: the server refuses profiles that began more than an hour ago.
//!
//! | where the time is | changed in |
//! |---|---|
//! | the query of `/ingest`: JFR and the text formats | `query` |
//! | a pprof as the body: one more field after it | this file |
//! | a pprof in a form: the same for that part | `multipart` |
//! | pprofs inside a Push request: in place | `protobuf`, compressed: `gzip` |
//!
//! A Push request gets its labels in the same pass: `labels`.
//!
//! A body of unknown form, a damaged body, or a time far from now stays unchanged: the server decides about it.

pub mod change;
mod crc;
mod deflate;
pub mod gzip;
mod huffman;
mod inflate;
mod labels;
pub mod multipart;
mod place;
pub mod protobuf;
pub mod query;
mod rewrite;

use crate::config::Labels;
use crate::http1::fields;
use crate::http1::head::Request;

use change::{Change, Reader, Rewritten};
pub use labels::PREFIX_MAX;
use protobuf::{Root, Walk};
use query::Query;

/// Nanoseconds in a millisecond, and in a second.
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// The server accepts profiles that began up to an hour ago. A profile may still wait here for some minutes.
const AGE_MAX: u64 = 55 * 60 * SECOND;

/// A profile that ended within this time before it arrived was made just now.
const JUST_NOW: u64 = 60 * SECOND;

/// The assumed length of a profile that was made just now, if nothing is known about a freeze: that of most SDKs.
const USUAL_LENGTH: u64 = 10 * SECOND;

/// A time further from now than this is not the profile's time.
const DAY: u64 = 24 * 3600 * SECOND;

/// The part of a unit that distinguishes profiles of one sandbox with the same start, by their length.
const LENGTHS: u64 = 1_000;

/// Node.js counts milliseconds in floating point, with steps of 256 ns for current times.
const NOISE: u64 = 256;

/// The end of the last freeze, by the wall clock, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thaw {
    /// When it was detected.
    pub at_ms: u64,
    /// For how long the monotonic clock stopped during it.
    pub clock_lag_ms: u64,
}

/// The input for a payload's new times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The sandbox's session id.
    pub session: u64,
    /// When the payload arrived; milliseconds since 1970.
    pub received_ms: u64,
    /// The last freeze, if any was detected.
    pub thaw: Option<Thaw>,
}

impl Stamp {
    /// The new time of a profile from `start` to `end`, both in nanoseconds since 1970. `None`: it stays.
    #[must_use]
    pub fn start(&self, start: u64, end: u64) -> Option<u64> {
        self.start_within(start, end, SECOND)
    }

    /// The same for a time that was written in `unit` nanoseconds, or finer.
    #[must_use]
    pub fn start_within(&self, start: u64, end: u64, unit: u64) -> Option<u64> {
        self.moved(start, end)
            .or_else(|| self.fill(start, end.saturating_sub(start), unit))
            .filter(|unique| *unique != start)
    }

    /// The same for a profile of that length. The SDK's clock, which measured the length, may have stopped during the
    /// last freeze.
    #[must_use]
    pub fn start_of(&self, start: u64, length: u64) -> Option<u64> {
        let end = start.saturating_add(length);
        let thaw = self
            .thaw
            .filter(|thaw| start < thaw.at_ms.saturating_mul(MS));
        let frozen = thaw.map_or(0, |thaw| thaw.clock_lag_ms.saturating_mul(MS));
        self.moved(start, end.saturating_add(frozen))
            .or_else(|| self.start(start, end))
    }

    /// The new start of a profile that began too long ago for the server, though it was made just now.
    fn moved(&self, start: u64, end: u64) -> Option<u64> {
        let received = self.received();
        if start >= received.saturating_sub(AGE_MAX) || !self.is_now(end) {
            return None;
        }
        let thawed = self.thaw.map(|thaw| thaw.at_ms.saturating_mul(MS));
        let start = thawed
            .filter(|at| received.saturating_sub(*at) < AGE_MAX)
            .unwrap_or_else(|| received.saturating_sub(USUAL_LENGTH));
        Some(start + self.filling(MS, 0))
    }

    /// A time whose zero digits below `unit` are filled, in a profile of that length; `None` if it is not a current
    /// time.
    #[must_use]
    pub fn fill(&self, time: u64, length: u64, unit: u64) -> Option<u64> {
        if self.received().abs_diff(time) > DAY {
            return None;
        }
        let (base, finest) = resolution(time);
        base.checked_add(self.filling(finest.min(unit), length))
    }

    /// The value with which this sandbox fills the digits below that unit. It is never zero, because sandboxes without
    /// a relay write zeros.
    ///
    /// After a thaw Java's SDK uploads two profiles that begin in the same second and differ in length: the longer one
    /// came later.
    fn filling(&self, unit: u64, length: u64) -> u64 {
        let most = unit / LENGTHS;
        if most == 0 {
            return 0;
        }
        let longer = (length / unit).min(most - 1);
        1 + self.session % (unit - most) + longer
    }

    /// Whether a profile that ended then was made just now.
    const fn is_now(&self, end: u64) -> bool {
        end.abs_diff(self.received()) <= JUST_NOW
    }

    const fn received(&self) -> u64 {
        self.received_ms.saturating_mul(MS)
    }
}

/// The intended time, and the unit of its last digit, both in nanoseconds.
const fn resolution(time: u64) -> (u64, u64) {
    if time.is_multiple_of(SECOND) {
        return (time, SECOND);
    }
    let ms = time.saturating_add(MS / 2) / MS * MS;
    if ms.abs_diff(time) <= NOISE {
        return (ms, MS);
    }
    if time.is_multiple_of(1_000) {
        return (time, 1_000);
    }
    (time, 1)
}

/// The form of a body with times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A Push request (`push.v1.PusherService/Push`), compressed or not.
    Push,
    /// A pprof, compressed or not.
    Pprof,
    /// `multipart/form-data` with a pprof as one part.
    Multipart,
}

/// The places of an upload's times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upload<'r> {
    /// In the query; empty except for `/ingest`.
    pub query: Query<'r>,
    /// In the body; `None` if no time in it counts.
    pub form: Option<Form>,
}

impl<'r> Upload<'r> {
    /// The upload of that request.
    #[must_use]
    pub fn of(request: &Request<'r>) -> Self {
        let target = request.target;
        if target.ends_with("/push.v1.PusherService/Push") {
            return Self {
                form: Some(Form::Push),
                ..Self::default()
            };
        }
        let path = target.split('?').next().unwrap_or_default();
        if !path.trim_end_matches('/').ends_with("/ingest") {
            return Self::default();
        }
        let query = Query::parse(target.as_bytes().get(path.len() + 1..).unwrap_or_default());
        let is_form = || {
            fields::value(request.headers, "content-type")
                .is_some_and(|kind| kind.starts_with(b"multipart/form-data"))
        };
        let form = match query.format {
            _ if query.is_fine => None,
            Some(b"pprof") if !is_form() => Some(Form::Pprof),
            None | Some(b"pprof") => is_form().then_some(Form::Multipart),
            Some(_) => None,
        };
        Self { query, form }
    }
}

/// The change of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Bytes before it, at most [`PREFIX_MAX`].
    pub prefix: Vec<u8>,
    /// The number of its first bytes that stay.
    pub keep: usize,
    /// Except for this one, if any: its offset and its value.
    pub patch: Option<(usize, u8)>,
    /// Everything after them.
    pub tail: Vec<u8>,
    /// The number of bytes at its end that belong to the labels.
    pub suffix: usize,
}

/// How that body changes: its times by the stamp, and a Push request also gets these labels. `None` if it stays, or
/// does not have that form.
#[must_use]
pub fn edit(form: Form, stamp: Option<&Stamp>, labels: &Labels, body: &[u8]) -> Option<Edit> {
    match (form, stamp) {
        (Form::Push, _) => push(stamp, labels, body),
        (_, None) => None,
        (Form::Pprof, Some(stamp)) => pprof(stamp, body).map(|tail| Edit {
            keep: body.len(),
            tail,
            ..Edit::default()
        }),
        (Form::Multipart, Some(stamp)) => {
            let part = multipart::part(body, b"profile")?;
            let mut tail = pprof(stamp, &body[part.clone()])?;
            tail.extend_from_slice(&body[part.end..]);
            Some(Edit {
                keep: part.end,
                tail,
                ..Edit::default()
            })
        }
    }
}

/// A Push request: the times are deep inside, so they are changed in place.
fn push(stamp: Option<&Stamp>, labels: &Labels, body: &[u8]) -> Option<Edit> {
    let mut walk = Walk::new(Root::Push, stamp, labels);
    let rewritten = if gzip::is_gzip(body) {
        gzip::rewrite(body, &mut walk)?
    } else if walk.read(body) {
        overwritten(body, walk.changes())?
    } else {
        return None;
    };
    if !walk.finish() {
        return None;
    }
    let mut edit = Edit {
        keep: rewritten.keep,
        patch: rewritten.patch,
        tail: rewritten.tail,
        ..Edit::default()
    };
    if let Some((prefix, suffix)) = labels::around(body, walk.length(), walk.lacking()) {
        edit.prefix = prefix;
        edit.suffix = suffix.len();
        edit.tail.extend_from_slice(&suffix);
    }
    let stays = edit.keep == body.len() && edit.tail.is_empty();
    (!stays).then_some(edit)
}

/// The same for an uncompressed body.
fn overwritten(body: &[u8], changes: &[Change]) -> Option<Rewritten> {
    let keep = changes.first().map_or(body.len(), |change| change.at);
    let mut tail = body.get(keep..)?.to_vec();
    for change in changes {
        let at = change.at - keep;
        let bytes = change.bytes.get(..usize::from(change.len))?;
        tail.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    }
    Some(Rewritten {
        keep,
        patch: None,
        tail,
    })
}

/// The bytes that follow a whole pprof. If a field occurs twice, the last one counts, and consecutive gzip members are
/// one stream (RFC 1952 section 2.2).
fn pprof(stamp: &Stamp, body: &[u8]) -> Option<Vec<u8>> {
    let none = Labels::new();
    let mut walk = Walk::new(Root::Pprof, Some(stamp), &none);
    let is_gzip = gzip::is_gzip(body);
    let was_read = if is_gzip {
        gzip::read(body, &mut walk).is_some()
    } else {
        walk.read(body)
    };
    let field = (was_read && walk.finish())
        .then(|| walk.last())?
        .map(protobuf::time_field)?;
    Some(if is_gzip { gzip::member(&field) } else { field })
}

#[cfg(test)]
mod tests;

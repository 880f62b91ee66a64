//! Reads what a gzip body holds, and changes some bytes of it without compressing it again.
//!
//! The body is inflated once, for a [`Reader`] and for its checksum. When the reader has found the first thing to
//! change, a place shortly before that is remembered. Only when the whole body has proved right is it written from
//! there on, symbol by symbol: see `rewrite.rs`.

use super::crc::Crc;
use super::inflate::{DISTANCE_MAX, Inflate, PIECE, Place, State};
use super::rewrite::Rewrite;

/// Bytes to put in the place of as many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The first byte's offset in what is inflated.
    pub at: usize,
    /// How many there are.
    pub len: u8,
    /// What they shall be; no more of it counts than `len`.
    pub bytes: [u8; 10],
}

impl Change {
    /// What they shall be.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// Sees everything that a body holds, in order, piece by piece.
pub trait Reader {
    /// What comes next. `false`: it is of no known form, and of no more interest.
    fn read(&mut self, bytes: &[u8]) -> bool;

    /// What is to be changed as far as it is known, in order, none touching another; only grows. The first one may
    /// begin up to [`CONTEXT`] bytes before the piece that made it known.
    fn changes(&self) -> &[Change];
}

/// How far before a piece the first change may begin.
pub const CONTEXT: usize = 1 << 10;

/// What replaces a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// So many of its first bytes stay.
    pub keep: usize,
    /// But for this one, if any: its offset and its value. It says that a block is not the last one any more.
    pub patch: Option<(usize, u8)>,
    /// Everything after them.
    pub tail: Vec<u8>,
}

/// Lets the reader see all that the body holds.
///
/// `None` if the body is not gzip, damaged, too large, followed by something else, or if the reader gave up. What was
/// read until then means nothing.
pub fn read(body: &[u8], reader: &mut dyn Reader) -> Option<()> {
    scan(&mut Inflate::new(body), reader)?;
    Some(())
}

/// The same, and then makes the reader's changes. `None` also if there are none, or if they would take too much room.
pub fn rewrite(body: &[u8], reader: &mut dyn Reader) -> Option<Rewritten> {
    let mut inflate = Inflate::new(body);
    let (place, window) = scan(&mut inflate, reader)??;
    let inflated = inflate.place.inflated;
    inflate.rewind(place, &window)?;
    Rewrite::new(&mut inflate, window, reader.changes(), inflated)?.run()
}

/// Where to go on from to make the changes, and what was inflated last before it.
type Start = (Place, Vec<u8>);

fn scan(inflate: &mut Inflate, reader: &mut dyn Reader) -> Option<Option<Start>> {
    let (mut older, mut newer) = (inflate.place, inflate.place);
    let mut start = None;
    loop {
        let ended = inflate.place.state == State::Trailer;
        if inflate.piece >= PIECE || ended {
            let window = inflate.window();
            let piece = window.get(window.len() - inflate.piece..)?;
            if !reader.read(piece) {
                return None;
            }
            inflate.taken(inflate.crc.add(inflate.place.crc, piece))?;
            if let (None, Some(change)) = (&start, reader.changes().first()) {
                let place = if change.at < newer.inflated {
                    older
                } else {
                    newer
                };
                start = Some(remember(inflate, place, change.at)?);
            }
            if inflate.place.inflated - newer.inflated >= CONTEXT {
                (older, newer) = (newer, inflate.place);
            }
            inflate.forget();
        }
        if ended {
            let (crc, size) = (inflate.place.crc, inflate.place.member_size());
            if inflate.trailer()? != (crc, size) {
                return None;
            }
            if inflate.place.bit == inflate.body.len() * 8 {
                return Some(start);
            }
        } else {
            inflate.step(PIECE)?;
        }
    }
}

/// A place, and what distances can reach from it. `None` if the change is before it.
fn remember(inflate: &Inflate, place: Place, change: usize) -> Option<Start> {
    if change < place.inflated {
        return None;
    }
    let window = inflate.window();
    let end = window.len() - (inflate.place.inflated - place.inflated);
    let window = window.get(end.saturating_sub(DISTANCE_MAX)..end)?;
    Some((place, window.to_vec()))
}

/// Whether a body says that it is gzip.
#[must_use]
pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// A member that holds these few bytes as they are (RFC 1952 section 2.3, RFC 1951 section 3.2.4).
#[must_use]
pub fn member(bytes: &[u8]) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    const LAST_STORED: u8 = 1;
    let length = bytes.len() as u16;
    let mut out = HEADER.to_vec();
    out.push(LAST_STORED);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&Crc::new().add(0, bytes).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

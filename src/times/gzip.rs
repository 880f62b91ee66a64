//! Reads the content of a gzip body, and changes some bytes of it without compressing it again.
//!
//! The body is inflated once, for a [`Reader`] and for its checksum. When the reader finds the first thing to change, a
//! place shortly before it is stored. Only after the whole body has been checked is it written again from that place,
//! symbol by symbol: see `rewrite.rs`.

use super::change::{CONTEXT, Reader, Rewritten};
use super::crc::Crc;
use super::inflate::{Inflate, PIECE};
use super::place::{Place, State};
use super::rewrite::Rewrite;

/// Passes the whole content of the body to the reader.
///
/// `None` if the body is not gzip with a plain header, is damaged, too large or followed by other bytes, or if the
/// reader stopped. Everything read before that is invalid.
pub fn read(body: &[u8], reader: &mut dyn Reader) -> Option<()> {
    Scan::new(body).run(reader)
}

/// The same, and then makes the reader's changes. Also `None` if they would take too much space.
pub fn rewrite(body: &[u8], reader: &mut dyn Reader) -> Option<Rewritten> {
    let mut scan = Scan::new(body);
    scan.run(reader)?;
    let Some(window) = scan.window else {
        return Some(Rewritten {
            keep: body.len(),
            patch: None,
            tail: Vec::new(),
        });
    };
    let inflated = scan.inflate.place.inflated;
    scan.inflate.rewind(scan.older, &window)?;
    Rewrite::new(&mut scan.inflate, reader.changes(), inflated)?.run()
}

struct Scan<'a> {
    inflate: Inflate<'a>,
    /// Two places in the part already read, [`CONTEXT`] apart or at the start. Once there is something to change, the
    /// first is where rewriting begins.
    older: Place,
    newer: Place,
    /// The bytes before that place which distances can reach.
    window: Option<Vec<u8>>,
}

impl<'a> Scan<'a> {
    fn new(body: &'a [u8]) -> Self {
        let inflate = Inflate::new(body);
        Self {
            older: inflate.place,
            newer: inflate.place,
            inflate,
            window: None,
        }
    }

    fn run(&mut self, reader: &mut dyn Reader) -> Option<()> {
        loop {
            let ended = self.inflate.place.state == State::Trailer;
            if self.inflate.piece >= PIECE || ended {
                self.read_piece(reader)?;
            }
            if !ended {
                self.inflate.step(PIECE)?;
                continue;
            }
            let place = &self.inflate.place;
            let expected = (place.crc, place.member_size());
            if self.inflate.trailer()? != expected {
                return None;
            }
            if self.inflate.place.bit == self.inflate.body.len() * 8 {
                return Some(());
            }
        }
    }

    fn read_piece(&mut self, reader: &mut dyn Reader) -> Option<()> {
        let inflate = &mut self.inflate;
        let piece = inflate.last(inflate.piece)?;
        if !reader.read(piece) {
            return None;
        }
        inflate.taken(inflate.crc.add(inflate.place.crc, piece))?;
        let inflated = inflate.place.inflated;
        if self.window.is_some() {
        } else if let Some(change) = reader.changes().first() {
            if change.at >= self.newer.inflated {
                self.older = self.newer;
            }
            if change.at < self.older.inflated {
                return None;
            }
            self.window = Some(inflate.reach(inflated - self.older.inflated)?.to_vec());
        } else if inflated - self.newer.inflated >= CONTEXT {
            self.older = self.newer;
            self.newer = inflate.place;
        }
        inflate.forget();
        Some(())
    }
}

/// Whether a body has the signature of gzip.
#[must_use]
pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// A gzip member that stores these few bytes uncompressed (RFC 1952 section 2.3, RFC 1951 section 3.2.4).
#[must_use]
pub fn member(bytes: &[u8]) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    const LAST_STORED: u8 = 1;
    let length = bytes.len() as u16;
    let crc = Crc::new().add(0, bytes);
    [
        &HEADER[..],
        &[LAST_STORED],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        bytes,
        &crc.to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

//! Inflates the members of a gzip body (RFC 1951 and 1952), in steps that may be taken again.
//!
//! ```text
//!   Member ──▶ Block ──▶ Stored(left) ──┐
//!     ▲          ▲ └───▶ Codes ─────────┤ the block ends
//!     │          └──────────────────────┤
//!     └──────────────────── Trailer ◀───┘ it was the last one
//! ```
//!
//! What is refused is what zlib refuses: then a server would not read it either.

use super::crc::Crc;
use super::deflate::{
    CODES, DISTANCE_SYMBOLS, DISTANCES, END, LENGTH_MAX, LENGTHS, LONGEST, ORDER, first_value,
    fixed_lengths,
};
use super::huffman::{Huffman, NONE, SYMBOLS};
use super::place::{Place, State, Symbol};

#[derive(Debug)]
pub(super) struct Inflate<'a> {
    pub(super) body: &'a [u8],
    pub(super) place: Place,
    /// What was inflated last: what a distance can reach, and then the piece that was not taken yet.
    window: Vec<u8>,
    /// So much of the window is in use, the rest is room.
    end: usize,
    /// Bytes at its end that belong to the next piece.
    pub(super) piece: usize,
    /// The block whose codes these are; [`FIXED`] for those that no block brings with it.
    block: usize,
    pub(super) literals: Huffman,
    distances: Huffman,
    /// What tables were made for counts as inflated, or blocks of no content would cost without limit.
    tables: usize,
    pub(super) crc: Crc,
}

/// How far back a distance reaches.
const DISTANCE_MAX: usize = 32 << 10;

/// What is inflated between two looks at it, and what one step may add to that.
pub(super) const PIECE: usize = 1 << 10;

/// How much of a body is inflated: a server takes 4 MiB for a profile by default, and Push carries several. Whoever
/// sends more than that has its time as it was, and the loop does not stand still for longer than some 50 ms.
pub(super) const LIMIT: usize = 16 << 20;

/// What making tables counts for in [`LIMIT`], by the time it takes.
const TABLES: usize = 1 << 10;

/// What stays in the window: what a distance reaches from the older of two places that are looked back to.
const KEPT: usize = DISTANCE_MAX + 8 * PIECE;

/// The window is so large that an allocator takes it from the kernel: what of it no body uses is no memory at all.
const WINDOW: usize = 128 << 10;

/// Then there is no room for another piece.
const FULL: usize = WINDOW - 4 * PIECE;

const FIXED: usize = usize::MAX;

/// How many bits are looked at together, and how many of them the longest symbol takes, a match of two codes with
/// further bits.
const PEEKED: usize = 57;
const SYMBOL_MAX: usize = 15 + 5 + 15 + 13;

impl<'a> Inflate<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            place: Place {
                state: State::Member,
                last: false,
                bit: 0,
                block: 0,
                codes: 0,
                member: 0,
                inflated: 0,
                crc: 0,
            },
            window: vec![0; WINDOW],
            end: 0,
            piece: 0,
            block: 0,
            literals: Huffman::new(),
            distances: Huffman::new(),
            tables: 0,
            crc: Crc::new(),
        }
    }

    /// Returns to `place`, before which `window` was inflated.
    pub(super) fn rewind(&mut self, place: Place, window: &[u8]) -> Option<()> {
        self.end = window.len();
        self.window.get_mut(..self.end)?.copy_from_slice(window);
        self.piece = 0;
        if place.state == State::Codes && self.block != place.block {
            self.place.bit = place.block;
            self.block_header()?;
        }
        self.place = place;
        Some(())
    }

    /// Takes one step, or if that is of symbols, so many that the window grows by `least` or the block ends.
    pub(super) fn step(&mut self, least: usize) -> Option<Symbol> {
        match self.place.state {
            State::Member => self.member()?,
            State::Block => self.block_header()?,
            State::Stored(left) => self.stored(left)?,
            State::Codes => return self.symbols(least),
            State::Trailer => return None,
        }
        Some(Symbol::default())
    }

    /// The piece was taken, and `bytes` is what counts for the checksum. `None` if that was too much.
    pub(super) fn taken(&mut self, crc: u32) -> Option<()> {
        self.place.inflated += self.piece;
        self.place.crc = crc;
        self.piece = 0;
        (self.place.inflated + self.tables <= LIMIT).then_some(())
    }

    /// What was inflated last, as far as it was not forgotten.
    pub(super) fn window(&self) -> &[u8] {
        self.window.get(..self.end).unwrap_or(&[])
    }

    /// The last bytes of it.
    pub(super) fn last(&self, count: usize) -> Option<&[u8]> {
        self.window.get(self.end.checked_sub(count)?..self.end)
    }

    /// What distances could reach when there were so many fewer.
    pub(super) fn reach(&self, fewer: usize) -> Option<&[u8]> {
        let end = self.end.checked_sub(fewer)?;
        self.window.get(end.saturating_sub(DISTANCE_MAX)..end)
    }

    /// Makes room: forgets what nobody needs any more, much at a time or nothing. How much that was.
    pub(super) fn forget(&mut self) -> usize {
        if self.end < FULL {
            return 0;
        }
        let forgotten = self.end - KEPT;
        self.window.copy_within(forgotten..self.end, 0);
        self.end = KEPT;
        forgotten
    }

    /// [`PEEKED`] bits or more, from this one on. After the last bit of a block come a checksum and a size, or the body
    /// is cut.
    #[inline]
    pub(super) fn peek(&self, bit: usize) -> Option<u64> {
        let bytes = self.body.get(bit / 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes) >> (bit % 8))
    }

    fn take(&mut self, count: usize) -> Option<usize> {
        let bits = self.peek(self.place.bit)?;
        self.place.bit += count;
        Some(bits as usize & ((1 << count) - 1))
    }

    /// The rest of the body, from the next whole byte on.
    fn rest(&self) -> Option<&'a [u8]> {
        self.body.get(self.place.bit.div_ceil(8)..)
    }

    /// Goes on where only this is left.
    const fn skip_to(&mut self, rest: &[u8]) {
        self.place.bit = (self.body.len() - rest.len()) * 8;
    }

    /// A header with a name, a comment or whatever else is optional is none of an SDK's, and refused.
    fn member(&mut self) -> Option<()> {
        let [0x1f, 0x8b, 8, 0, _, _, _, _, _, _, rest @ ..] = self.rest()? else {
            return None;
        };
        self.skip_to(rest);
        self.place.state = State::Block;
        self.place.member = self.place.inflated;
        self.place.crc = 0;
        Some(())
    }

    /// Checksum and size at the end of a member. The next one is awaited.
    pub(super) fn trailer(&mut self) -> Option<(u32, u32)> {
        let (crc, rest) = self.rest()?.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        self.skip_to(rest);
        self.place.state = State::Member;
        Some((u32::from_le_bytes(*crc), u32::from_le_bytes(*size)))
    }

    fn block_header(&mut self) -> Option<()> {
        self.place.block = self.place.bit;
        self.place.last = self.take(1)? == 1;
        self.place.state = State::Codes;
        match self.take(2)? {
            0 => {
                let (length, rest) = self.rest()?.split_first_chunk()?;
                let (inverse, rest) = rest.split_first_chunk()?;
                let length = u16::from_le_bytes(*length);
                if length != !u16::from_le_bytes(*inverse) {
                    return None;
                }
                self.skip_to(rest);
                self.place.state = State::Stored(length);
            }
            1 => {
                if self.block != FIXED {
                    self.block = FIXED;
                    self.build(&fixed_lengths(), SYMBOLS)?;
                }
            }
            2 => {
                self.block = self.place.block;
                self.codes()?;
            }
            _ => return None,
        }
        self.place.codes = self.place.bit;
        Some(())
    }

    /// Makes both tables, of the lengths of all codes, of which so many are for literals.
    fn build(&mut self, lengths: &[u8], literals: usize) -> Option<()> {
        self.tables += TABLES;
        let (literals, distances) = lengths.split_at_checked(literals)?;
        self.literals.build(literals, true)?;
        self.distances.build(distances, true)
    }

    /// Reads a block's own codes.
    fn codes(&mut self) -> Option<()> {
        let literals = 257 + self.take(5)?;
        let distances = 1 + self.take(5)?;
        let count = 4 + self.take(4)?;
        if literals > 286 || distances > 30 {
            return None;
        }
        let mut lengths = [0; ORDER.len()];
        for &symbol in ORDER.get(..count)? {
            *lengths.get_mut(usize::from(symbol))? = self.take(3)? as u8;
        }
        // Its turn comes later.
        self.distances.build(&lengths, false)?;
        let mut lengths = [0; CODES];
        let (mut at, all) = (0, literals + distances);
        while at < all {
            let entry = self.distances.find(self.peek(self.place.bit)?);
            if entry == NONE {
                return None;
            }
            self.place.bit += usize::from(entry & 15);
            let (length, repeated) = match entry >> 4 {
                16 => (*lengths.get(at.checked_sub(1)?)?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length as u8, 1),
            };
            lengths.get_mut(at..at + repeated)?.fill(length);
            at += repeated;
        }
        // A run may not go on after the last one, and a block must have an end.
        if at > all || lengths[END] == 0 {
            return None;
        }
        self.build(lengths.get(..all)?, literals)
    }

    fn stored(&mut self, left: u16) -> Option<()> {
        let count = left.min(PIECE as u16);
        let bytes = self.rest()?.get(..usize::from(count))?;
        let room = self.window.get_mut(self.end..)?;
        room.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.end += bytes.len();
        self.piece += bytes.len();
        self.place.bit += 8 * bytes.len();
        self.place.state = State::Stored(left - count);
        if left == count {
            self.end_block();
        }
        Some(())
    }

    const fn end_block(&mut self) {
        self.place.state = if self.place.last {
            State::Trailer
        } else {
            State::Block
        };
    }

    fn symbols(&mut self, wanted: usize) -> Option<Symbol> {
        let begin = self.end;
        // How far back the member reaches, seen from there.
        let before = self.place.inflated - self.place.member + self.piece;
        let (mut bit, mut end) = (self.place.bit, begin);
        let (mut bits, mut count) = (0, 0);
        let mut last = Symbol::default();
        while end < begin + wanted {
            if count < SYMBOL_MAX {
                (bits, count) = (self.peek(bit)?, PEEKED);
            }
            let entry = self.literals.find(bits);
            if entry == NONE {
                return None;
            }
            let mut used = usize::from(entry & 15);
            let symbol = usize::from(entry >> 4);
            if symbol == END {
                self.end_block();
                bit += used;
                break;
            }
            if symbol < END {
                *self.window.get_mut(end)? = symbol as u8;
                end += 1;
                last.distance = 0;
            } else {
                let (first, extra) = first_value(symbol - LENGTHS.0, LENGTHS.2);
                let mut length = first + LENGTHS.1 + ((bits >> used) as usize & ((1 << extra) - 1));
                used += extra;
                // The longest one has a symbol of its own, and no further bits.
                if symbol >= LONGEST {
                    if symbol > LONGEST {
                        return None;
                    }
                    used -= extra;
                    length = LENGTH_MAX;
                }
                last.distance_at = bit + used;
                let entry = self.distances.find(bits >> used);
                if entry == NONE || entry >> 4 >= DISTANCE_SYMBOLS {
                    return None;
                }
                used += usize::from(entry & 15);
                let (first, extra) = first_value(usize::from(entry >> 4), DISTANCES.2);
                last.distance =
                    first + DISTANCES.1 + ((bits >> used) as usize & ((1 << extra) - 1));
                used += extra;
                if last.distance > before + end - begin {
                    return None;
                }
                // What is copied may be what it begins with.
                let from = end.checked_sub(last.distance)?;
                for i in from..from + length {
                    *self.window.get_mut(end)? = *self.window.get(i)?;
                    end += 1;
                }
            }
            bits >>= used;
            count -= used;
            bit += used;
        }
        self.end = end;
        self.place.bit = bit;
        self.piece += end - begin;
        Some(last)
    }
}

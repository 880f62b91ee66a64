//! Inflates the members of a gzip body (RFC 1951 and 1952), in steps that can be repeated.
//!
//! ```text
//!   Member ──▶ Block ──▶ Stored(left) ──┐
//!     ▲          ▲ └───▶ Codes ─────────┤ the block ends
//!     │          └──────────────────────┤
//!     └──────────────────── Trailer ◀───┘ it was the last one
//! ```
//!
//! It refuses what zlib refuses, because a server could not read that either.

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
    /// The last inflated bytes: those that a distance can reach, and then the current piece.
    window: Vec<u8>,
    /// The part of the window in use; the rest is free.
    end: usize,
    /// Number of bytes at its end that belong to the current piece.
    pub(super) piece: usize,
    /// The block that these codes belong to; [`FIXED`] for the fixed codes.
    block: usize,
    pub(super) literals: Huffman,
    distances: Huffman,
    /// Making tables counts as inflated bytes, otherwise empty blocks would cost time without limit.
    tables: usize,
    pub(super) crc: Crc,
}

/// The longest distance.
const DISTANCE_MAX: usize = 32 << 10;

/// Number of bytes inflated between two calls of the reader, and the most that one step may add to it.
pub(super) const PIECE: usize = 1 << 10;

/// Most bytes of a body that are inflated: a server accepts 4 MiB for a profile by default, and Push carries several.
/// Larger bodies keep their times, so that the loop never stops for more than about 50 ms.
pub(super) const LIMIT: usize = 16 << 20;

/// What making tables counts for in [`LIMIT`], by the time it takes.
const TABLES: usize = 1 << 10;

/// Bytes that stay in the window: those that a distance reaches from the older of the two stored places.
const KEPT: usize = DISTANCE_MAX + 8 * PIECE;

/// The window is so large that an allocator maps it from the kernel: pages that are not touched take no memory.
const WINDOW: usize = 128 << 10;

/// Above this there is no space for another piece.
const FULL: usize = WINDOW - 4 * PIECE;

const FIXED: usize = usize::MAX;

/// Number of bytes of a match that are copied together.
const COPIED: usize = 8;

/// Number of bits that are read together; and how many of them the longest symbol takes, a match of two codes with
/// extra bits.
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

    /// Takes one step. A step of symbols continues until the window has grown by `least` or the block ends.
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

    /// The piece was read, and `crc` is the checksum so far. `None` if that exceeds the limit.
    pub(super) fn taken(&mut self, crc: u32) -> Option<()> {
        self.place.inflated += self.piece;
        self.place.crc = crc;
        self.piece = 0;
        (self.place.inflated + self.tables <= LIMIT).then_some(())
    }

    /// How much was inflated.
    pub(super) const fn inflated(&self) -> usize {
        self.place.inflated + self.piece
    }

    /// What was inflated from this offset on, if it is still kept.
    pub(super) fn since(&self, at: usize) -> Option<&[u8]> {
        self.last(self.inflated().checked_sub(at)?)
    }

    /// The last `count` bytes of it.
    pub(super) fn last(&self, count: usize) -> Option<&[u8]> {
        self.window.get(self.end.checked_sub(count)?..self.end)
    }

    /// The bytes that distances could reach when there were `fewer` bytes less.
    pub(super) fn reach(&self, fewer: usize) -> Option<&[u8]> {
        let end = self.end.checked_sub(fewer)?;
        self.window.get(end.saturating_sub(DISTANCE_MAX)..end)
    }

    /// Makes space: drops bytes that are no longer needed, many at a time or none.
    pub(super) fn forget(&mut self) {
        if self.end >= FULL {
            self.window.copy_within(self.end - KEPT..self.end, 0);
            self.end = KEPT;
        }
    }

    /// At least [`PEEKED`] bits, from this one on. A checksum and a size follow the last bit of a block; otherwise the
    /// body is cut off.
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

    /// Continues where only `rest` is left.
    const fn skip_to(&mut self, rest: &[u8]) {
        self.place.bit = (self.body.len() - rest.len()) * 8;
    }

    /// Reads a header. SDKs use no optional parts, such as a name or a comment, so these are refused.
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

    /// Reads checksum and size at the end of a member. The next member follows.
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

    /// Builds both tables from the lengths of all codes, of which the first `literals` are for literals.
    fn build(&mut self, lengths: &[u8], literals: usize) -> Option<()> {
        self.tables += TABLES;
        let (literals, distances) = lengths.split_at_checked(literals)?;
        self.literals.build(literals, true)?;
        self.distances.build(distances, true)
    }

    /// Reads the codes that a block defines.
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
        // The table is free for this use: distances are read later.
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
        // A run may not exceed the last one, and a block must have an end symbol.
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
        // How far back the member reaches from here.
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
                // The longest length has its own symbol, without extra bits.
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
                // Eight bytes at a time, of which only as many are right as the source is away from the target. What is
                // too much is in the free part.
                let mut target = end;
                end += length;
                while target < end {
                    let source = target.checked_sub(last.distance)?;
                    let bytes: [u8; COPIED] = *self.window.get(source..)?.first_chunk()?;
                    *self.window.get_mut(target..)?.first_chunk_mut()? = bytes;
                    target += last.distance.min(COPIED);
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

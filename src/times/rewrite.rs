//! Writes a gzip body again from one place on, with some bytes changed and nothing compressed again.
//!
//! The bits of each symbol are copied, unless they would now give wrong bytes: a literal that changes, or a match whose
//! source or target changes. (A match that copies a changed time over an equal one stays right.) In these cases it
//! writes a shorter match, at the same distance, and literals in the block's own code.
//!
//! A literal may have no code in its block. Then the block ends there, and the rest is written in deflate's fixed code,
//! which has codes for all literals. Near the end of the block the fixed code is kept; elsewhere, where it would cost
//! more, a block with the same codes as before is opened.

use std::ops::Range;

use super::change::{Change, Rewritten};
use super::deflate::{self, DISTANCES, END, LENGTH_MAX, LENGTHS, LONGEST, fixed_code};
use super::inflate::{Inflate, PIECE};
use super::place::{State, Symbol};

pub(super) struct Rewrite<'a, 'b> {
    /// The old body: its window has the old bytes. The new ones differ only where a change is.
    inflate: &'a mut Inflate<'b>,
    changes: &'a [Change],
    /// Number of bytes inflated in total.
    inflated: usize,
    out: Bits,
    keep: usize,
    patch: Option<(usize, u8)>,
    /// The position, in the new body, of the bit that says whether the current block is the last one.
    last_at: usize,
    /// Whether the fixed code replaces the block's own.
    fixed: bool,
    /// How many more bits the fixed code took.
    excess: usize,
}

/// Bits that are collected into bytes.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// The bits of the next byte, and their number.
    begun: u64,
    count: usize,
}

/// The limit for the growth of a body, and for the work. SDKs send no body in which every byte refers to a changed one.
const GROWTH_MAX: usize = 64 << 10;

/// If the next change is this near, the fixed code is kept.
const NEAR: usize = 128;

/// At this distance from the end, the fixed code is left as soon as possible.
const FAR: usize = 1 << 10;

/// Number of bits copied at a time.
const COPIED: usize = 48;

impl<'a, 'b> Rewrite<'a, 'b> {
    /// Continues at the position of `inflate`. The changes are in order.
    pub(super) fn new(
        inflate: &'a mut Inflate<'b>,
        changes: &'a [Change],
        inflated: usize,
    ) -> Option<Self> {
        let (keep, used) = (inflate.place.bit / 8, inflate.place.bit % 8);
        let mut out = Bits::default();
        if used > 0 {
            let begun = usize::from(*inflate.body.get(keep)?);
            out.put_lowest(begun, used);
        }
        Some(Self {
            changes,
            inflated,
            out,
            keep,
            patch: None,
            last_at: inflate.place.block,
            fixed: false,
            excess: 0,
            inflate,
        })
    }

    /// Writes everything.
    #[inline(never)]
    pub(super) fn run(mut self) -> Option<Rewritten> {
        loop {
            let ended = self.inflate.place.state == State::Trailer;
            if self.inflate.piece >= PIECE || ended {
                self.take_piece()?;
            }
            if ended {
                self.trailer()?;
                let place = self.inflate.place;
                if self.changes_after(place.inflated).is_empty() {
                    let rest = self.inflate.body.get(place.bit / 8..)?;
                    self.out.bytes.extend_from_slice(rest);
                    return Some(Rewritten {
                        keep: self.keep,
                        patch: self.patch,
                        tail: self.out.bytes,
                    });
                }
            } else {
                self.step()?;
            }
        }
    }

    fn take_piece(&mut self) -> Option<()> {
        let end = self.inflate.inflated();
        let mut crc = self.inflate.place.crc;
        self.pieces(end - self.inflate.piece, &mut |bytes| {
            crc = self.inflate.crc.add(crc, bytes);
        })?;
        self.inflate.taken(crc)?;
        self.inflate.forget();
        let read = self.inflate.place.bit / 8 - self.keep;
        (self.out.bytes.len() <= read + GROWTH_MAX).then_some(())
    }

    fn trailer(&mut self) -> Option<()> {
        let place = self.inflate.place;
        self.inflate.trailer()?;
        self.out.align();
        self.out.put(u64::from(place.crc), 32);
        self.out.put(u64::from(place.member_size()), 32);
        Some(())
    }

    fn step(&mut self) -> Option<()> {
        let (before, begin) = (self.inflate.place, self.inflate.inflated());
        let symbol = self.inflate.step(1)?;
        let (from, to) = (before.bit, self.inflate.place.bit);
        match before.state {
            State::Codes => self.symbol(symbol, from, begin)?,
            State::Stored(_) => {
                let mut bytes = std::mem::take(&mut self.out.bytes);
                self.pieces(begin, &mut |piece| bytes.extend_from_slice(piece))?;
                self.out.bytes = bytes;
            }
            State::Block => {
                self.last_at = self.position();
                if let State::Stored(_) = self.inflate.place.state {
                    self.copy(from, from + 3)?;
                    self.out.align();
                    self.copy(to - 32, to)?;
                } else {
                    self.copy(from, to)?;
                }
            }
            State::Member | State::Trailer => self.copy(from, to)?,
        }
        Some(())
    }

    /// The changes that end after this offset.
    fn changes_after(&self, at: usize) -> &'a [Change] {
        let ended = |change: &Change| change.at + usize::from(change.len) <= at;
        let before = self.changes.partition_point(ended);
        self.changes.get(before..).unwrap_or_default()
    }

    /// Whether a byte changes from the first offset up to the second.
    fn is_changed(&self, from: usize, to: usize) -> bool {
        let next = self.changes_after(from).first();
        next.is_some_and(|change| change.at < to)
    }

    /// The longest run of new bytes from this offset on: a change, or the old bytes up to the next one.
    fn piece(&self, at: usize) -> Option<&[u8]> {
        let next = self.changes_after(at).first();
        match next {
            Some(change) if change.at <= at => change.bytes.get(at - change.at..change.len.into()),
            _ => {
                let old = self.inflate.since(at)?;
                let kept = next.map_or(old.len(), |change| change.at - at);
                Some(old.get(..kept).unwrap_or(old))
            }
        }
    }

    /// Passes the new bytes from this offset on to `take`, in pieces.
    fn pieces(&self, mut at: usize, take: &mut dyn FnMut(&[u8])) -> Option<()> {
        let end = self.inflate.inflated();
        while at < end {
            let piece = self.piece(at)?;
            let piece = piece.get(..end - at).unwrap_or(piece);
            take(piece);
            at += piece.len();
        }
        Some(())
    }

    /// Writes a symbol whose bytes begin at this offset.
    fn symbol(&mut self, symbol: Symbol, from: usize, begin: usize) -> Option<()> {
        let (to, written) = (self.inflate.place.bit, self.position());
        let end = self.inflate.inflated();
        if begin == end && self.fixed {
            self.put(END)?;
            self.fixed = false;
            return Some(());
        }
        let source = begin.checked_sub(symbol.distance)?;
        let is_right = begin == end
            || !self.is_changed(begin, end) && !self.is_changed(source, end - symbol.distance);
        if is_right && !self.fixed {
            return self.copy(from, to);
        }
        let mut at = begin;
        while at < end {
            at += self.token(symbol, at..end, to)?;
        }
        if self.fixed {
            let bits = self.excess + self.position() - written;
            self.excess = bits.saturating_sub(to - from);
            self.leave_fixed()?;
        }
        Some(())
    }

    /// Writes a match or a literal for these bytes; returns how many bytes of them it gives.
    fn token(&mut self, symbol: Symbol, bytes: Range<usize>, to: usize) -> Option<usize> {
        let new = |at: usize| self.piece(at)?.first().copied();
        let literal = usize::from(new(bytes.start)?);
        let mut run = 0;
        if symbol.distance > 0 {
            // All bytes before are right, so this also holds for a match that overlaps itself.
            let is_equal = |at: &usize| new(*at) == new(*at - symbol.distance);
            run = bytes.take_while(is_equal).count();
        }
        while run >= 3 {
            let value = run - LENGTHS.1;
            let (code, extra) = match run {
                LENGTH_MAX => (LONGEST - LENGTHS.0, 0),
                _ => deflate::symbol(value, LENGTHS.2),
            };
            if self.put(LENGTHS.0 + code).is_some() {
                self.out.put_lowest(value, extra);
                if self.fixed {
                    let value = symbol.distance - DISTANCES.1;
                    let (code, extra) = deflate::symbol(value, DISTANCES.2);
                    self.out.put(u64::from((code as u8).reverse_bits() >> 3), 5);
                    self.out.put_lowest(value, extra);
                } else {
                    self.copy(symbol.distance_at, to)?;
                }
                return Some(run);
            }
            run -= 1;
        }
        if self.put(literal).is_none() {
            self.enter_fixed()?;
            self.put(literal)?;
        }
        Some(1)
    }

    /// Writes the current code of a symbol. `None` if it has none.
    fn put(&mut self, symbol: usize) -> Option<()> {
        let (code, length) = if self.fixed {
            fixed_code(symbol)
        } else {
            self.inflate.literals.code(symbol as u16)?
        };
        self.out.put(u64::from(code), length);
        Some(())
    }

    fn enter_fixed(&mut self) -> Option<()> {
        self.end_block()?;
        self.out.put(u64::from(self.inflate.place.last) | 2, 3);
        self.fixed = true;
        self.excess = 0;
        Some(())
    }

    /// Opens a block like the one before, if the fixed code has cost as many extra bits as a header, or will.
    fn leave_fixed(&mut self) -> Option<()> {
        let place = self.inflate.place;
        let now = self.inflate.inflated();
        let next = self.changes_after(now).first();
        let header = if self.inflated - now > FAR {
            0
        } else {
            place.codes - place.block
        };
        if self.excess >= header && next.is_none_or(|change| change.at > now + NEAR) {
            self.end_block()?;
            self.copy(place.block, place.codes)?;
            self.fixed = false;
        }
        Some(())
    }

    /// Ends the block early, so it is not the last one. The next block begins here.
    fn end_block(&mut self) -> Option<()> {
        self.put(END)?;
        let (byte, bit) = (self.last_at / 8, 1 << (self.last_at % 8));
        if byte >= self.keep {
            *self.out.bytes.get_mut(byte - self.keep)? &= !bit;
        } else if self.inflate.place.last {
            self.patch = Some((byte, self.inflate.body.get(byte)? & !bit));
        }
        self.last_at = self.position();
        Some(())
    }

    /// The next bit of the new body.
    const fn position(&self) -> usize {
        (self.keep + self.out.bytes.len()) * 8 + self.out.count
    }

    /// Copies these bits of the old body.
    fn copy(&mut self, mut from: usize, to: usize) -> Option<()> {
        while from < to {
            let count = (to - from).min(COPIED);
            let bits = self.inflate.peek(from)?;
            self.out.put_lowest(bits as usize, count);
            from += count;
        }
        Some(())
    }
}

impl Bits {
    /// Writes at most [`COPIED`] bits.
    fn put(&mut self, bits: u64, count: usize) {
        self.begun |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.begun as u8);
            self.begun >>= 8;
            self.count -= 8;
        }
    }

    fn put_lowest(&mut self, value: usize, count: usize) {
        self.put(value as u64 & ((1 << count) - 1), count);
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }
}

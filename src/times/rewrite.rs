//! Writes a gzip body again from one place on, with some bytes changed and nothing compressed again.
//!
//! The bits of each symbol are copied, unless they would now give wrong bytes: a literal that changes, or a match whose
//! source or target changes. (A match that copies a changed time over an equal one stays right.) In these cases it
//! writes a shorter match, at the same distance, and literals in the block's own code.
//!
//! A literal may have no code in its block. Then the block ends there, and the rest is written in deflate's fixed code,
//! which has codes for all literals. Near the end of the block the fixed code is kept; elsewhere, where it would cost
//! more, a block with the same codes as before is opened.

use super::deflate::{self, DISTANCES, END, LENGTH_MAX, LENGTHS, LONGEST, fixed_lengths};
use super::gzip::{Change, Rewritten};
use super::huffman::{Huffman, SYMBOLS};
use super::inflate::{Inflate, PIECE};
use super::place::{State, Symbol};

pub(super) struct Rewrite<'a, 'b> {
    /// The old body: its window has the old bytes.
    inflate: &'a mut Inflate<'b>,
    /// The window of a reader of the new body.
    wanted: Vec<u8>,
    changes: &'a [Change],
    /// Number of bytes inflated in total.
    inflated: usize,
    out: Bits,
    keep: usize,
    patch: Option<(usize, u8)>,
    /// The position, in the new body, of the bit that says whether the current block is the last one.
    last_at: usize,
    /// Whether the fixed code replaces the block's own; and that code.
    fixed: bool,
    fixed_codes: Huffman,
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
    /// Continues at the position of `inflate`, before which it has inflated `window`.
    pub(super) fn new(
        inflate: &'a mut Inflate<'b>,
        window: Vec<u8>,
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
            wanted: window,
            changes,
            inflated,
            out,
            keep,
            patch: None,
            last_at: inflate.place.block,
            fixed: false,
            fixed_codes: Huffman::new(),
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
                if self.changes.is_empty() {
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
        let piece = self.wanted.len() - self.inflate.piece;
        let crc = self.inflate.place.crc;
        self.inflate
            .taken(self.inflate.crc.add(crc, self.wanted.get(piece..)?))?;
        self.wanted.drain(..self.inflate.forget());
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
        let (before, old) = (self.inflate.place, self.inflate.window().len());
        let symbol = self.inflate.step(1)?;
        self.want(old)?;
        let (from, to) = (before.bit, self.inflate.place.bit);
        match before.state {
            State::Codes => self.symbol(symbol, from, old)?,
            State::Stored(_) => self.out.bytes.extend_from_slice(self.wanted.get(old..)?),
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

    /// Puts the new bytes from here on into the window. `None` if the changes are not in order.
    fn want(&mut self, from: usize) -> Option<()> {
        let old = self.inflate.window().get(from..)?;
        let begin = self.inflate.place.inflated + self.inflate.piece - old.len();
        for (at, &byte) in (begin..).zip(old) {
            let mut byte = byte;
            if let Some((change, others)) = self.changes.split_first()
                && change.at <= at
            {
                let (place, len) = (at - change.at, usize::from(change.len));
                byte = *change.bytes.get(..len)?.get(place)?;
                if place + 1 == len {
                    self.changes = others;
                }
            }
            self.wanted.push(byte);
        }
        Some(())
    }

    /// Writes a symbol whose bytes are in the window `at` this index.
    fn symbol(&mut self, symbol: Symbol, from: usize, at: usize) -> Option<()> {
        let (to, begin) = (self.inflate.place.bit, self.position());
        let mut wanted = self.wanted.get(at..)?;
        if wanted.is_empty() && self.fixed {
            self.put(END)?;
            self.fixed = false;
            return Some(());
        }
        // The bytes it would give. This also holds for a match that overlaps itself, since all bytes before it are
        // right.
        let source = match symbol.distance {
            0 => self.inflate.window().get(at..)?,
            distance => self.wanted.get(at.checked_sub(distance)?..)?,
        };
        if source.starts_with(wanted) && !self.fixed {
            return self.copy(from, to);
        }
        let mut at = at;
        while !wanted.is_empty() {
            at += self.token(symbol, at, to)?;
            wanted = self.wanted.get(at..)?;
        }
        if self.fixed {
            let bits = self.excess + self.position() - begin;
            self.excess = bits.saturating_sub(to - from);
            self.leave_fixed()?;
        }
        Some(())
    }

    /// Writes a match or a literal for the bytes from here on; returns how many bytes that is.
    fn token(&mut self, symbol: Symbol, at: usize, to: usize) -> Option<usize> {
        let wanted = self.wanted.get(at..)?;
        let mut run = 0;
        if symbol.distance > 0 {
            let source = self.wanted.get(at.checked_sub(symbol.distance)?..)?;
            run = wanted
                .iter()
                .zip(source)
                .take_while(|(a, b)| a == b)
                .count();
        }
        let literal = usize::from(*wanted.first()?);
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
        let codes = if self.fixed {
            &self.fixed_codes
        } else {
            &self.inflate.literals
        };
        let (code, length) = codes.code(symbol as u16)?;
        self.out.put(u64::from(code), length);
        Some(())
    }

    fn enter_fixed(&mut self) -> Option<()> {
        self.end_block()?;
        self.out.put(u64::from(self.inflate.place.last) | 2, 3);
        self.fixed_codes
            .build(fixed_lengths().get(..SYMBOLS)?, false)?;
        self.fixed = true;
        self.excess = 0;
        Some(())
    }

    /// Opens a block like the one before, if the fixed code has cost as many extra bits as a header, or will.
    fn leave_fixed(&mut self) -> Option<()> {
        let place = self.inflate.place;
        let now = place.inflated + self.inflate.piece;
        let next = self.changes.first();
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

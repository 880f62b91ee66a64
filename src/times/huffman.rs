//! A canonical Huffman code of deflate (RFC 1951, section 3.2.2), to read and to write by.

/// Short codes are found in a table by the bits that come next, long ones among the numbers of their length.
#[derive(Debug)]
pub(super) struct Huffman {
    /// What comes if the next [`FAST`] bits are the index; [`NONE`] where that takes more bits or is no code.
    fast: [Entry; 1 << FAST],
    /// By length, the first code beyond those that are as long or shorter, its first bit the topmost of sixteen.
    limit: [u32; LENGTHS],
    /// By length: what makes of a code its symbol's place in `symbols`.
    offset: [u16; LENGTHS],
    /// Those that have a code, in the order of their codes; then none.
    symbols: [u16; SYMBOLS],
}

/// A symbol, and in the lowest four bits how long its code is.
pub(super) type Entry = u16;

/// No code at all.
pub(super) const NONE: Entry = 0;

/// The symbols of the largest code, of literals and lengths.
pub(super) const SYMBOLS: usize = 288;

/// Bits that are looked up at once. Real codes are seldom longer, and a table is filled for each block.
const FAST: usize = 9;

/// Codes are shorter than this.
const LENGTHS: usize = 16;

impl Huffman {
    pub(super) const fn new() -> Self {
        Self {
            fast: [NONE; 1 << FAST],
            limit: [0; LENGTHS],
            offset: [0; LENGTHS],
            symbols: [0; SYMBOLS],
        }
    }

    /// Takes the code in which symbol `i` has `lengths[i]` bits; none if that is 0. As zlib: `None` if there are
    /// too many codes, or fewer than would fit, except for no code, or but one of one bit where that is `lone`.
    pub(super) fn build(&mut self, lengths: &[u8], lone: bool) -> Option<()> {
        let mut counts = [0; LENGTHS];
        for &length in lengths {
            counts[usize::from(length & 15)] += 1;
        }
        let (mut code, mut place) = (0_u32, 0);
        let mut places = [0_u16; LENGTHS];
        for length in 1..LENGTHS {
            code <<= 1;
            places[length] = place;
            self.offset[length] = place.wrapping_sub(code as u16);
            code += u32::from(counts[length]);
            place += counts[length];
            if code > 1 << length {
                return None;
            }
            self.limit[length] = code << (16 - length);
        }
        let few = place == 0 || (lone && place == 1 && counts[1] == 1);
        if code != 1 << (LENGTHS - 1) && !few {
            return None;
        }
        self.fast.fill(NONE);
        self.symbols.fill(u16::MAX);
        for (symbol, &length) in (0_u16..).zip(lengths) {
            let length = usize::from(length & 15);
            if length > 0 {
                let place = places[length];
                places[length] += 1;
                *self.symbols.get_mut(usize::from(place))? = symbol;
                self.fill(symbol, length, self.reversed(place, length));
            }
        }
        Some(())
    }

    /// A short code's entries: whatever the bits after it.
    fn fill(&mut self, symbol: u16, length: usize, code: u16) {
        if length <= FAST {
            let mut bits = usize::from(code);
            while let Some(entry) = self.fast.get_mut(bits) {
                *entry = symbol << 4 | length as u16;
                bits += 1 << length;
            }
        }
    }

    /// What comes first in these bits, of which the lowest is the first.
    #[expect(
        clippy::inline_always,
        reason = "a call would take longer than this, and it is made for each symbol"
    )]
    #[inline(always)]
    pub(super) fn find(&self, bits: u64) -> Entry {
        let entry = self.fast[bits as usize % (1 << FAST)];
        if entry == NONE {
            self.long(bits)
        } else {
            entry
        }
    }

    #[cold]
    #[inline(never)]
    fn long(&self, bits: u64) -> Entry {
        let code = (bits as u16).reverse_bits();
        for length in FAST + 1..LENGTHS {
            if u32::from(code) < self.limit[length] {
                let place = self.offset[length].wrapping_add(code >> (16 - length));
                let symbol = self.symbols.get(usize::from(place)).copied();
                return symbol.unwrap_or(0) << 4 | length as u16;
            }
        }
        NONE
    }

    /// A symbol's code, its first bit the lowest, and how long it is.
    pub(super) fn code(&self, symbol: u16) -> Option<(u16, usize)> {
        let place = self.symbols.iter().position(|own| *own == symbol)? as u16;
        // The shortest length that has not ended before its place.
        for length in 1..LENGTHS {
            let codes = (self.limit[length] >> (16 - length)) as u16;
            if place < self.offset[length].wrapping_add(codes) {
                return Some((self.reversed(place, length), length));
            }
        }
        None
    }

    /// The code of the symbol at this place.
    const fn reversed(&self, place: u16, length: usize) -> u16 {
        let code = place.wrapping_sub(self.offset[length]);
        code.reverse_bits() >> ((16 - length) & 15)
    }
}

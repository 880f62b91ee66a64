//! A canonical Huffman code of deflate (RFC 1951, section 3.2.2), for reading and writing.

/// Short codes are looked up in a table by the next bits, long ones in the range of their length.
#[derive(Debug)]
pub(super) struct Huffman {
    /// The entry for each value of the next [`FAST`] bits; [`NONE`] if the code is longer or invalid.
    fast: [Entry; 1 << FAST],
    /// For each length, the first code after those of this length or shorter, left-aligned in sixteen bits.
    limit: [u32; LENGTHS],
    /// For each length: the difference between a code and its symbol's index in `symbols`.
    offset: [u16; LENGTHS],
    /// The symbols that have a code, in the order of their codes; then unused entries.
    symbols: [u16; SYMBOLS],
}

/// A symbol, with the length of its code in the lowest four bits.
pub(super) type Entry = u16;

/// No code.
pub(super) const NONE: Entry = 0;

/// The number of symbols of the largest code, that of literals and lengths.
pub(super) const SYMBOLS: usize = 288;

/// Number of bits that are looked up at once. Real codes are rarely longer, and a table is filled for each block.
const FAST: usize = 9;

/// All codes are shorter than this.
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

    /// Sets the code in which symbol `i` has `lengths[i]` bits; 0 means no code. Like zlib, returns `None` if the code
    /// is over-subscribed or incomplete, except for an empty code, or a single code of one bit if `lone` is set.
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

    /// Fills the table entries of a short code, for all values of the bits after it.
    fn fill(&mut self, symbol: u16, length: usize, code: u16) {
        if length <= FAST {
            let mut bits = usize::from(code);
            while let Some(entry) = self.fast.get_mut(bits) {
                *entry = symbol << 4 | length as u16;
                bits += 1 << length;
            }
        }
    }

    /// The first entry in these bits, of which the lowest is the first.
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

    /// A symbol's code, with its first bit lowest, and its length.
    pub(super) fn code(&self, symbol: u16) -> Option<(u16, usize)> {
        let place = self.symbols.iter().position(|own| *own == symbol)? as u16;
        // The shortest length whose range includes this index.
        for length in 1..LENGTHS {
            let codes = (self.limit[length] >> (16 - length)) as u16;
            if place < self.offset[length].wrapping_add(codes) {
                return Some((self.reversed(place, length), length));
            }
        }
        None
    }

    /// The code of the symbol at this index, with reversed bits.
    const fn reversed(&self, place: u16, length: usize) -> u16 {
        let code = place.wrapping_sub(self.offset[length]);
        code.reverse_bits() >> ((16 - length) & 15)
    }
}

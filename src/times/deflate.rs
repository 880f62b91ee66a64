//! The codes of deflate (RFC 1951).

use super::huffman::SYMBOLS;

/// Number of symbols of both codes together, as a header may define them.
pub(super) const CODES: usize = SYMBOLS + 32;

/// For lengths and for distances: the first symbol, its value, and the number of steps for [`first_value`].
pub(super) const LENGTHS: (usize, usize, usize) = (257, 3, 2);

pub(super) const DISTANCES: (usize, usize, usize) = (0, 1, 1);

/// The symbol that ends a block.
pub(super) const END: usize = 256;

/// The longest match, and its symbol, which is the last one.
pub(super) const LENGTH_MAX: usize = 258;

pub(super) const LONGEST: usize = 285;

/// The number of distance symbols. The fixed code has two more, without a meaning.
pub(super) const DISTANCE_SYMBOLS: u16 = 30;

/// The order of the lengths of the code length code (RFC 1951, section 3.2.7).
pub(super) const ORDER: [u8; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// The lengths of the fixed code. All distances have five bits.
pub(super) fn fixed_lengths() -> [u8; CODES] {
    std::array::from_fn(|symbol| {
        if symbol < SYMBOLS {
            fixed_code(symbol).1 as u8
        } else {
            5
        }
    })
}

/// The fixed code of a literal or a length (RFC 1951, section 3.2.6), with its first bit lowest, and its length.
#[inline(never)]
pub(super) const fn fixed_code(symbol: usize) -> (u16, usize) {
    let (code, length) = match symbol {
        0..144 => (symbol + 0b0011_0000, 8),
        144..256 => (symbol + 0b1_1001_0000 - 144, 9),
        256..280 => (symbol - 256, 7),
        _ => (symbol + 0b1100_0000 - 280, 8),
    };
    ((code as u16).reverse_bits() >> (16 - length), length)
}

/// The smallest value of such a symbol, and how many extra bits follow. The number of extra bits grows by one after
/// every 2 to the power of `steps` symbols.
pub(super) const fn first_value(symbol: usize, steps: usize) -> (usize, usize) {
    if symbol < 2 << steps {
        return (symbol, 0);
    }
    let extra = (symbol >> steps) - 1;
    (((1 << steps) + symbol % (1 << steps)) << extra, extra)
}

/// The symbol of such a value, and its number of extra bits: the value's lowest bits.
pub(super) const fn symbol(value: usize, steps: usize) -> (usize, usize) {
    if value < 2 << steps {
        return (value, 0);
    }
    let extra = value.ilog2() as usize - steps;
    ((extra << steps) + (value >> extra), extra)
}

#[cfg(test)]
mod tests {
    use super::super::huffman::{Huffman, SYMBOLS};
    use super::{DISTANCES, LENGTH_MAX, LENGTHS, first_value, fixed_code, fixed_lengths, symbol};

    #[test]
    fn the_fixed_code_is_that_of_its_lengths() {
        let mut codes = Huffman::new();
        codes.build(&fixed_lengths()[..SYMBOLS], false).unwrap();
        for symbol in 0..SYMBOLS {
            let code = codes.code(symbol as u16);
            assert_eq!(Some(fixed_code(symbol)), code, "{symbol}");
        }
    }

    #[test]
    fn lengths_and_distances_are_those_of_the_table_in_rfc_1951() {
        // Rows of the table that have the same number of extra bits, with the value of the first symbol.
        let lengths = [
            (257, 0, 3),
            (265, 1, 11),
            (269, 2, 19),
            (273, 3, 35),
            (277, 4, 67),
            (281, 5, 131),
        ];
        for (code, extra, first) in lengths {
            assert_eq!(
                first_value(code - LENGTHS.0, LENGTHS.2),
                (first - LENGTHS.1, extra)
            );
        }
        let distances = [
            (0, 0, 1),
            (4, 1, 5),
            (10, 4, 33),
            (16, 7, 257),
            (22, 10, 2049),
            (29, 13, 24577),
        ];
        for (code, extra, first) in distances {
            assert_eq!(
                first_value(code - DISTANCES.0, DISTANCES.2),
                (first - DISTANCES.1, extra)
            );
        }
    }

    #[test]
    fn a_symbol_with_its_bits_gives_the_value_again() {
        for steps in [LENGTHS.2, DISTANCES.2] {
            for value in 0..32768 {
                let (code, extra) = symbol(value, steps);
                let (first, count) = first_value(code, steps);
                assert_eq!((first + value % (1 << extra), count), (value, extra));
            }
        }
        assert_eq!(
            symbol(LENGTH_MAX - 1 - LENGTHS.1, LENGTHS.2),
            (284 - LENGTHS.0, 5)
        );
        assert_eq!(symbol(32768 - DISTANCES.1, DISTANCES.2), (29, 13));
    }
}

//! Deflate's codes, as RFC 1951 has them.

use super::huffman::SYMBOLS;

/// Of both codes together, as a header may give them.
pub(super) const CODES: usize = SYMBOLS + 32;

/// Of lengths and of distances: the first symbol, its value, and how [`first_value`] goes on from there.
pub(super) const LENGTHS: (usize, usize, usize) = (257, 3, 2);

pub(super) const DISTANCES: (usize, usize, usize) = (0, 1, 1);

/// Ends a block.
pub(super) const END: usize = 256;

/// The longest match, and its symbol, which is the last one.
pub(super) const LENGTH_MAX: usize = 258;

pub(super) const LONGEST: usize = 285;

/// The fixed code has two more, which mean nothing.
pub(super) const DISTANCE_SYMBOLS: u16 = 30;

/// Lengths and distances of codes (RFC 1951, section 3.2.7).
pub(super) const ORDER: [u8; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// The lengths of the fixed code (RFC 1951, section 3.2.6).
pub(super) fn fixed_lengths() -> [u8; CODES] {
    std::array::from_fn(|symbol| match symbol {
        0..144 | 280..SYMBOLS => 8,
        144..256 => 9,
        256..280 => 7,
        _ => 5,
    })
}

/// The least that such a symbol stands for, and how many bits follow that add to it. Each time that there is one bit
/// more, it stays so for 2 to the power of `steps` symbols.
pub(super) const fn first_value(symbol: usize, steps: usize) -> (usize, usize) {
    if symbol < 2 << steps {
        return (symbol, 0);
    }
    let extra = (symbol >> steps) - 1;
    (((1 << steps) + symbol % (1 << steps)) << extra, extra)
}

/// The symbol of such a value, and how many bits follow: the value's lowest.
pub(super) const fn symbol(value: usize, steps: usize) -> (usize, usize) {
    if value < 2 << steps {
        return (value, 0);
    }
    let extra = value.ilog2() as usize - steps;
    ((extra << steps) + (value >> extra), extra)
}

#[cfg(test)]
mod tests {
    use super::{DISTANCES, LENGTH_MAX, LENGTHS, first_value, symbol};

    #[test]
    fn lengths_and_distances_are_those_of_the_table_in_rfc_1951() {
        // Symbols in a row of the table that share the number of further bits, and the first one's value.
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

//! Writes deflate as no compressor would: any blocks, any codes, any matches.

use crate::bodies::Dice;

/// Bits on their way to be bytes.
#[derive(Default)]
pub struct Bits {
    pub bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    pub fn put(&mut self, value: usize, count: usize) {
        for i in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().expect("just pushed") |=
                ((value >> i & 1) << (self.used % 8)) as u8;
            self.used += 1;
        }
    }

    /// A Huffman code: its first bit is its highest.
    fn code(&mut self, (code, length): (usize, usize)) {
        for i in (0..length).rev() {
            self.put(code >> i & 1, 1);
        }
    }

    fn align(&mut self) {
        self.used = self.bytes.len() * 8;
    }
}

#[derive(Clone, Copy)]
pub enum Token {
    Literal(u8),
    /// Length and distance.
    Match(usize, usize),
}

/// A gzip member around a deflate stream.
pub fn wrap(deflate: &[u8], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    out.extend_from_slice(deflate);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out
}

/// The data in blocks of all kinds.
pub fn member(dice: &mut Dice, data: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    let mut at = 0;
    loop {
        let end = if dice.one_in(3) {
            data.len()
        } else {
            at + dice.skewed(data.len() - at + 1)
        };
        let last = end == data.len() && !dice.one_in(4);
        match dice.below(4) {
            0 if end - at < 65536 => stored(&mut bits, last, &data[at..end]),
            1 => fixed(&mut bits, last, &tokens(dice, data, at, end)),
            _ => {
                let tokens = tokens(dice, data, at, end);
                dynamic(dice, &mut bits, last, &tokens);
            }
        }
        at = end;
        if last {
            return wrap(&bits.bytes, data);
        }
    }
}

/// Matches where there are some nearby, now and then the longest one, else literals.
fn tokens(dice: &mut Dice, data: &[u8], mut at: usize, end: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    let eager = 1 + dice.below(4);
    let mut recent = 1;
    while at < end {
        let mut token = Token::Literal(data[at]);
        if at > 0 && dice.one_in(eager) {
            let any = 1 + dice.skewed(at.min(32768));
            for distance in [recent, 1, any, at.min(32768)] {
                let Some(source) = at.checked_sub(distance) else {
                    continue;
                };
                let run = (0..258.min(end - at))
                    .take_while(|i| data[source + i] == data[at + i])
                    .count();
                if run >= 3 {
                    let length = if dice.one_in(3) {
                        3 + dice.below(run - 2)
                    } else {
                        run
                    };
                    token = Token::Match(length, distance);
                    break;
                }
            }
            if let Token::Literal(byte) = token
                && let Some(source) = data[..at]
                    .iter()
                    .rev()
                    .take(2000)
                    .position(|old| *old == byte)
            {
                recent = source + 1;
            }
        }
        at += match token {
            Token::Literal(_) => 1,
            Token::Match(length, _) => length,
        };
        tokens.push(token);
    }
    tokens
}

pub fn stored(bits: &mut Bits, last: bool, data: &[u8]) {
    bits.put(usize::from(last), 3);
    bits.align();
    bits.put(data.len(), 16);
    bits.put(!data.len() & 0xffff, 16);
    bits.bytes.extend_from_slice(data);
    bits.align();
}

pub fn fixed(bits: &mut Bits, last: bool, tokens: &[Token]) {
    let mut literals = [8; 288];
    literals[144..256].fill(9);
    literals[256..280].fill(7);
    bits.put(usize::from(last) | 2, 3);
    write(bits, tokens, &literals, &[5; 32]);
}

/// A code for all that comes, and for some that does not, short or long as chance has it.
fn dynamic(dice: &mut Dice, bits: &mut Bits, last: bool, tokens: &[Token]) {
    let (mut literals, mut distances) = ([0; 286], [0; 30]);
    literals[256] = 1;
    for &token in tokens {
        match token {
            Token::Literal(byte) => literals[usize::from(byte)] = 1,
            Token::Match(length, distance) => {
                literals[length_code(length).0] = 1;
                distances[distance_code(distance).0] = 1;
            }
        }
    }
    for _ in 0..dice.skewed(100) {
        literals[dice.below(286)] = 1;
        distances[dice.below(30)] = 1;
    }
    give_lengths(dice, &mut literals);
    give_lengths(dice, &mut distances);
    header(bits, last, &literals, &distances);
    write(bits, tokens, &literals, &distances);
}

/// A complete code: one leaf after the other is split, any that is not too deep.
fn give_lengths(dice: &mut Dice, lengths: &mut [usize]) {
    let used: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i] > 0).collect();
    let mut leaves = vec![if used.len() < 2 { 1 } else { 0 }];
    let deep = dice.one_in(3);
    while leaves.len() < used.len() {
        let left = used.len() - leaves.len();
        let mut leaf = if deep {
            leaves.len() - 1
        } else {
            dice.below(leaves.len())
        };
        // What may still come must fit below the others.
        if leaves[leaf] >= 15 || (leaves[leaf] > 6 && left > 1 && dice.one_in(2)) {
            leaf = (0..leaves.len()).min_by_key(|i| leaves[*i]).expect("one");
        }
        leaves[leaf] += 1;
        leaves.push(leaves[leaf]);
    }
    for symbol in used {
        lengths[symbol] = leaves.swap_remove(dice.below(leaves.len()));
    }
}

/// Each length as it is, in a code of four bits for 0 to 15; runs of zeros with symbol 18 would be shorter.
pub fn header(bits: &mut Bits, last: bool, literals: &[usize], distances: &[usize]) {
    bits.put(usize::from(last) | 4, 3);
    bits.put(literals.len() - 257, 5);
    bits.put(distances.len() - 1, 5);
    bits.put(19 - 4, 4);
    for symbol in [
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    ] {
        bits.put(if symbol < 16 { 4 } else { 0 }, 3);
    }
    for &length in literals.iter().chain(distances) {
        bits.code((length, 4));
    }
}

/// The tokens and the end of the block.
pub fn write(bits: &mut Bits, tokens: &[Token], literals: &[usize], distances: &[usize]) {
    let (literals, distances) = (codes(literals), codes(distances));
    for &token in tokens {
        match token {
            Token::Literal(byte) => bits.code(literals[usize::from(byte)]),
            Token::Match(length, distance) => {
                let (code, extra, count) = length_code(length);
                bits.code(literals[code]);
                bits.put(extra, count);
                let (code, extra, count) = distance_code(distance);
                bits.code(distances[code]);
                bits.put(extra, count);
            }
        }
    }
    bits.code(literals[256]);
}

/// RFC 1951, section 3.2.2.
fn codes(lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut next = [0; 17];
    for length in 1..16 {
        next[length + 1] = (next[length] + lengths.iter().filter(|l| **l == length).count()) << 1;
    }
    let mut codes = Vec::new();
    for &length in lengths {
        codes.push((next[length], length));
        if length > 0 {
            next[length] += 1;
        }
    }
    codes
}

/// Symbol, further bits and their count: the tables of RFC 1951, section 3.2.5.
fn length_code(length: usize) -> (usize, usize, usize) {
    const BASES: [usize; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
        131, 163, 195, 227, 258,
    ];
    let code = BASES
        .iter()
        .rposition(|base| *base <= length)
        .expect("at least 3");
    let extra = if code < 8 || code == 28 {
        0
    } else {
        code / 4 - 1
    };
    (257 + code, length - BASES[code], extra)
}

fn distance_code(distance: usize) -> (usize, usize, usize) {
    const BASES: [usize; 30] = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
        2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
    ];
    let code = BASES
        .iter()
        .rposition(|base| *base <= distance)
        .expect("at least 1");
    (
        code,
        distance - BASES[code],
        if code < 4 { 0 } else { code / 2 - 1 },
    )
}

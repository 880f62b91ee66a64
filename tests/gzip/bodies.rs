//! What is compressed, and how: much that SDKs would send, and some that only another implementation would.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::deflate;

/// Splitmix64: the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Mostly small, seldom nearly `end`.
    pub fn skewed(&mut self, end: usize) -> usize {
        let bits = 1 + self.below(end.max(2).ilog2() as usize + 1);
        self.below(end.min(1 << bits))
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, number: u64, value: u64) {
    varint(out, number << 3);
    varint(out, value);
}

/// A pprof of so many functions, and where in it the bytes of its time are.
pub fn pprof(dice: &mut Dice, functions: usize, time: u64) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut inner = Vec::new();
    number(&mut inner, 1, 1);
    number(&mut inner, 2, 2);
    field(&mut out, 1, &inner);
    for _ in 0..functions {
        let mut stack = Vec::new();
        for _ in 0..2 + dice.below(20) {
            varint(&mut stack, 1 + dice.skewed(functions) as u64);
        }
        inner.clear();
        field(&mut inner, 1, &stack);
        let mut value = Vec::new();
        varint(&mut value, 10_000_000 * (1 + dice.skewed(50) as u64));
        field(&mut inner, 2, &value);
        field(&mut out, 2, &inner);
    }
    for id in 1..=functions as u64 {
        inner.clear();
        number(&mut inner, 1, id);
        number(&mut inner, 2, 1);
        let mut line = Vec::new();
        number(&mut line, 1, id);
        number(&mut line, 2, dice.skewed(2000) as u64);
        field(&mut inner, 4, &line);
        field(&mut out, 4, &inner);
        inner.clear();
        number(&mut inner, 1, id);
        number(&mut inner, 2, 4 + id);
        number(&mut inner, 4, 5 + dice.below(functions) as u64);
        field(&mut out, 5, &inner);
    }
    for text in ["", "cpu", "nanoseconds", "main"] {
        field(&mut out, 6, text.as_bytes());
    }
    for _ in 0..functions {
        field(&mut out, 6, name(dice).as_bytes());
    }
    number(&mut out, 9, time);
    let at = out.len() - 9;
    number(&mut out, 10, 10_000_000_000);
    inner.clear();
    number(&mut inner, 1, 1);
    number(&mut inner, 2, 2);
    field(&mut out, 11, &inner);
    number(&mut out, 12, 10_000_000);
    (out, at)
}

fn name(dice: &mut Dice) -> String {
    const PARTS: [&str; 16] = [
        "handler",
        "request",
        "json",
        "/var/task/",
        "decode",
        "_",
        "::",
        "core",
        "read",
        "<impl ",
        "site-packages/",
        "botocore",
        ".py",
        "poll",
        "Future",
        "serialize",
    ];
    let mut name = String::new();
    for _ in 0..2 + dice.below(6) {
        name += dice.pick(&PARTS);
        if dice.one_in(3) {
            name += &dice.below(1000).to_string();
        }
    }
    name
}

/// A time as SDKs send it that fold.
pub fn time(dice: &mut Dice) -> u64 {
    (1_790_000_000 + 10 * dice.below(10_000_000) as u64) * 1_000_000_000
}

/// A Push body of so many samples, and where their times are.
pub fn push(dice: &mut Dice, samples: usize, functions: usize) -> (Vec<u8>, Vec<usize>) {
    let time = time(dice);
    let (mut body, mut times) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let (profile, at) = pprof(dice, functions, time);
        let (mut sample, mut series) = (Vec::new(), Vec::new());
        field(&mut sample, 1, &profile);
        let after = profile.len() - at;
        let id: String = (0..36)
            .map(|_| dice.pick(&['0', '1', '2', '7', '9', 'a', 'c', 'd', 'f', '-']))
            .collect();
        field(&mut sample, 2, id.as_bytes());
        let after = after + 38;
        for (key, value) in [
            ("__name__", "process_cpu"),
            ("service_name", "shop"),
            ("region", "eu-west-1"),
        ] {
            let mut label = Vec::new();
            field(&mut label, 1, key.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut series, 1, &label);
        }
        field(&mut series, 2, &sample);
        field(&mut body, 1, &series);
        times.push(body.len() - after);
    }
    (body, times)
}

/// Bytes of many kinds, fewer than `end`.
pub fn bytes(dice: &mut Dice, end: usize) -> Vec<u8> {
    let length = dice.skewed(end);
    let mut out = Vec::new();
    let alphabet = 1 + dice.skewed(256);
    while out.len() < length {
        match dice.below(5) {
            0 if !out.is_empty() => {
                let distance = 1 + dice.skewed(out.len());
                for _ in 0..dice.skewed(400) {
                    out.push(out[out.len() - distance]);
                }
            }
            1 => out.extend_from_slice(name(dice).as_bytes()),
            _ => {
                for _ in 0..1 + dice.skewed(200) {
                    out.push(dice.skewed(alphabet) as u8);
                }
            }
        }
    }
    out.truncate(length);
    out
}

/// A body in one or more members, each of one or more blocks.
pub fn compress(dice: &mut Dice, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut rest = data;
    loop {
        let end = if dice.one_in(8) {
            dice.below(rest.len() + 1)
        } else {
            rest.len()
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        if dice.one_in(3) {
            body.extend_from_slice(&deflate::member(dice, part));
        } else {
            body.extend_from_slice(&member(dice, part));
        }
        if rest.is_empty() {
            return body;
        }
    }
}

fn member(dice: &mut Dice, data: &[u8]) -> Vec<u8> {
    let level = dice.pick(&[0, 1, 6, 6, 9]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    let mut rest = data;
    while dice.one_in(4) {
        let (part, after) = rest.split_at(dice.below(rest.len() + 1));
        encoder.write_all(part).expect("into a Vec");
        encoder.flush().expect("into a Vec");
        rest = after;
    }
    encoder.write_all(rest).expect("into a Vec");
    encoder.finish().expect("into a Vec")
}

//! Bytes changed within a gzip body, as another implementation of gzip reads it.

use std::io::Read as _;

use bodies::{Dice, bytes, compress, push, varint};
use flate2::read::MultiGzDecoder;
use pyroscope_lambda_extension::times::change::{CONTEXT, Change, Reader, Rewritten};
use pyroscope_lambda_extension::times::gzip;

mod bodies;
mod deflate;
mod vectors;

/// Finds what is known beforehand.
struct Known {
    changes: Vec<Change>,
    /// What is to be read in all, if changes are named only when they must be.
    late: Option<usize>,
    named: usize,
    seen: Vec<u8>,
}

impl Known {
    fn new(changes: Vec<Change>, late: Option<usize>) -> Self {
        Self {
            changes,
            late,
            named: 0,
            seen: Vec::new(),
        }
    }
}

impl Reader for Known {
    fn read(&mut self, bytes: &[u8]) -> bool {
        self.seen.extend_from_slice(bytes);
        let end = self.seen.len();
        self.named = match self.late {
            Some(whole) if end < whole => usize::from(
                self.changes
                    .first()
                    .is_some_and(|first| first.at + CONTEXT < end),
            ),
            _ => self
                .changes
                .partition_point(|change| change.at + usize::from(change.len) <= end),
        };
        true
    }

    fn changes(&self) -> &[Change] {
        &self.changes[..self.named]
    }
}

fn inflated(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut out).ok()?;
    Some(out)
}

fn put_together(body: &[u8], rewritten: &Rewritten) -> Vec<u8> {
    let mut new = body[..rewritten.keep].to_vec();
    if let Some((at, byte)) = rewritten.patch {
        new[at] = byte;
    }
    new.extend_from_slice(&rewritten.tail);
    new
}

fn with(data: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut data = data.to_vec();
    for change in changes {
        let len = usize::from(change.len);
        data[change.at..change.at + len].copy_from_slice(&change.bytes[..len]);
    }
    data
}

/// Another time in the place of that at `at`.
fn time_at(at: usize, time: u64) -> Change {
    let mut bytes = Vec::new();
    varint(&mut bytes, time);
    assert_eq!(bytes.len(), 9, "a time of today");
    let mut change = Change {
        at,
        len: 9,
        bytes: [0; 10],
    };
    change.bytes[..9].copy_from_slice(&bytes);
    change
}

/// Up to so many changes anywhere.
fn changes(dice: &mut Dice, data: &[u8], most: usize) -> Vec<Change> {
    let mut at: Vec<usize> = (0..dice.skewed(most + 1))
        .map(|_| dice.below(data.len() + 1))
        .collect();
    at.sort_unstable();
    let mut end = 0;
    let mut changes = Vec::new();
    for at in at {
        let len = dice.below(11).min(data.len() - at);
        if at < end || len == 0 {
            continue;
        }
        end = at + len;
        let mut bytes = [0; 10];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = match dice.below(3) {
                0 => data.get(at + i).copied().unwrap_or(0),
                1 => data[dice.below(data.len())],
                _ => dice.next() as u8,
            };
        }
        changes.push(Change {
            at,
            len: len as u8,
            bytes,
        });
    }
    changes
}

/// Rewrites it, has it read by the other implementation, and says by how much it grew.
fn check(what: &str, body: &[u8], data: &[u8], changes: &[Change], late: bool) -> Option<isize> {
    let mut reader = Known::new(changes.to_vec(), late.then_some(data.len()));
    let rewritten = gzip::rewrite(body, &mut reader);
    assert!(reader.seen == data, "{what}: read as something else");
    let Some(rewritten) = rewritten else {
        assert!(changes.is_empty(), "{what}: not rewritten");
        return None;
    };
    let new = put_together(body, &rewritten);
    let read = inflated(&new).unwrap_or_else(|| panic!("{what}: damaged"));
    assert!(read == with(data, changes), "{what}: not what is wanted");
    Some(new.len() as isize - body.len() as isize)
}

/// How many random bodies; `GZIP_CASES=100000` for a long run.
#[expect(clippy::disallowed_methods, reason = "how long to test")]
fn cases() -> u64 {
    std::env::var("GZIP_CASES").map_or(3_000, |cases| cases.parse().expect("a number"))
}

#[test]
fn any_bytes_are_changed_in_any_body() {
    for seed in 0..cases() {
        let mut dice = Dice(seed);
        let data = bytes(&mut dice, if seed % 16 == 0 { 100_000 } else { 4_000 });
        let body = compress(&mut dice, &data);
        let changes = changes(&mut dice, &data, 20);
        check(
            &format!("seed {seed}"),
            &body,
            &data,
            &changes,
            dice.one_in(2),
        );
    }
}

#[test]
fn times_are_changed_in_what_sdks_push() {
    let mut growth = Vec::new();
    for seed in 0..cases() / 4 {
        let mut dice = Dice(seed);
        let samples = if dice.one_in(4) {
            1 + dice.skewed(12)
        } else {
            1
        };
        let functions = 1 + dice.skewed(200);
        let (data, times) = push(&mut dice, samples, functions);
        let body = compress(&mut dice, &data);
        let time = bodies::time(&mut dice) + 123_456_789;
        let changes: Vec<Change> = times.iter().map(|at| time_at(*at, time)).collect();
        growth.extend(check(
            &format!("seed {seed}"),
            &body,
            &data,
            &changes,
            dice.one_in(2),
        ));
    }
    growth.sort_unstable();
    let at = |percent: usize| growth[(growth.len() - 1) * percent / 100];
    println!(
        "growth: {} / {} / {} / {} / {}",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

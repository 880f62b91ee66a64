//! Gzip: arbitrary bytes are read as flate2 reads them, or refused; and bytes that are changed in a body are those that
//! flate2 reads from the new one.
#![no_main]

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::times::change::{Change, Reader, Rewritten};
use pyroscope_lambda_extension::times::gzip;

/// Changes known beforehand, named as soon as they were read.
#[derive(Default)]
struct Known {
    changes: Vec<Change>,
    named: usize,
    seen: Vec<u8>,
}

impl Reader for Known {
    fn read(&mut self, bytes: &[u8]) -> bool {
        self.seen.extend_from_slice(bytes);
        let seen = |change: &Change| change.at + usize::from(change.len) <= self.seen.len();
        self.named = self.changes.partition_point(seen);
        true
    }

    fn changes(&self) -> &[Change] {
        &self.changes[..self.named]
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, edits, level, seed], rest)) = input.split_first_chunk() else {
        return;
    };
    let edits = usize::from(edits % 24);
    let body = match kind % 4 {
        0 => rest.to_vec(),
        // Deflate as it comes, with the right checksum if flate2 can read it.
        1 => deflated(rest),
        _ => compressed(rest, level, edits % 5 == 0),
    };
    let mut reader = Known::default();
    let read = gzip::read(&body, &mut reader);
    let reference = inflated(&body);
    match (&read, &reference) {
        (Some(()), Some(reference)) => assert!(reader.seen == *reference, "read as something else"),
        (Some(()), None) => panic!("taken, but flate2 refuses it"),
        // It is less strict than zlib, and reads nothing after garbage or in an empty body.
        (None, Some(_)) => assert!(kind % 4 == 0, "refused"),
        (None, None) => {}
    }
    let (Some(()), Some(data)) = (read, reference) else {
        return;
    };
    let changes = changes(&data, edits, seed);
    let mut wanted = data.clone();
    for change in &changes {
        let len = usize::from(change.len);
        wanted[change.at..change.at + len].copy_from_slice(&change.bytes[..len]);
    }
    let mut reader = Known {
        changes,
        ..Known::default()
    };
    match gzip::rewrite(&body, &mut reader) {
        Some(rewritten) => {
            let new = put_together(&body, &rewritten);
            assert!(
                inflated(&new).as_ref() == Some(&wanted),
                "not what is wanted"
            );
        }
        None => assert!(
            reader.changes.is_empty() || reader.seen.len() > 64 << 10,
            "not rewritten"
        ),
    }
});

fn inflated(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // One more than is inflated by us.
    MultiGzDecoder::new(body)
        .take((16 << 20) + 1)
        .read_to_end(&mut out)
        .ok()?;
    Some(out)
}

fn compressed(mut data: &[u8], level: u8, cut: bool) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let (part, rest) = data.split_at(if cut {
            data.len().div_ceil(2)
        } else {
            data.len()
        });
        let mut encoder = GzEncoder::new(body, Compression::new(u32::from(level % 10)));
        encoder.write_all(part).expect("into a Vec");
        if level >= 128 {
            encoder.flush().expect("into a Vec");
            encoder.write_all(part).expect("into a Vec");
        }
        body = encoder.finish().expect("into a Vec");
        data = rest;
        if data.is_empty() {
            return body;
        }
    }
}

fn deflated(deflate: &[u8]) -> Vec<u8> {
    let mut inflate = flate2::Decompress::new(false);
    let mut data = Vec::with_capacity(1 << 17);
    let _ = inflate.decompress_vec(deflate, &mut data, flate2::FlushDecompress::Finish);
    let mut crc = flate2::Crc::new();
    crc.update(&data);
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    body.extend_from_slice(&deflate[..inflate.total_in() as usize]);
    body.extend_from_slice(&crc.sum().to_le_bytes());
    body.extend_from_slice(&(data.len() as u32).to_le_bytes());
    body
}

/// So many at most: where and what, both by the seed.
fn changes(data: &[u8], count: usize, seed: u8) -> Vec<Change> {
    let mut dice = u64::from(seed) + 1;
    let mut roll = || {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize
    };
    let mut at: Vec<usize> = (0..count).map(|_| roll() % (data.len() + 1)).collect();
    at.sort_unstable();
    let (mut end, mut changes) = (0, Vec::new());
    for at in at {
        let len = (roll() % 11).min(data.len() - at);
        if at >= end && len > 0 {
            end = at + len;
            let bytes = std::array::from_fn(|_| match roll() % 2 {
                0 => data[roll() % data.len()],
                _ => roll() as u8,
            });
            changes.push(Change {
                at,
                len: len as u8,
                bytes,
            });
        }
    }
    changes
}

fn put_together(body: &[u8], rewritten: &Rewritten) -> Vec<u8> {
    let mut new = body[..rewritten.keep].to_vec();
    if let Some((at, byte)) = rewritten.patch {
        new[at] = byte;
    }
    new.extend_from_slice(&rewritten.tail);
    new
}

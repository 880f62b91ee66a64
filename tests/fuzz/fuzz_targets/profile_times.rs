//! Times in bodies of every form: nothing crashes, and what prost and flate2 read afterwards differs in the times only,
//! which are those that the rules give.
#![no_main]

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use libfuzzer_sys::{Corpus, fuzz_target};
use prost::Message as _;
use pyroscope_lambda_extension::config::Labels;
use pyroscope_lambda_extension::times::{self, Form, Stamp, Thaw};
use schema::{Profile, PushRequest};

#[path = "../../support/decode/schema.rs"]
mod schema;

const RECEIVED_MS: u64 = 1_800_000_000_000;

fuzz_target!(|input: (u8, u64, &[u8])| -> Corpus {
    let (choice, session, data) = input;
    let stamp = Stamp {
        session,
        received_ms: RECEIVED_MS,
        thaw: (choice & 1 != 0).then_some(Thaw {
            at_ms: RECEIVED_MS - 1000,
            clock_lag_ms: 7_200_000,
        }),
    };
    let packed = match choice >> 1 & 3 {
        0 => data.to_vec(),
        level => gzipped(data, [1, 6, 9][usize::from(level) - 1]),
    };
    let (form, body) = match choice >> 3 & 3 {
        0 => (Form::Push, packed),
        1 => (Form::Pprof, packed),
        2 => (Form::Multipart, packed),
        _ => (Form::Multipart, in_a_form(&packed)),
    };
    let Some(edit) = times::edit(form, Some(&stamp), &Labels::new(), &body) else {
        return Corpus::Keep;
    };
    let mut edited = body[..edit.keep].to_vec();
    edited.extend_from_slice(&edit.tail);
    if let Some((at, byte)) = edit.patch {
        edited[at] = byte;
    }
    assert_ne!(body, edited, "an edit that changes nothing");
    match form {
        Form::Push => {
            let (before, after) = (inflated(&body), inflated(&edited));
            assert_eq!(before.len(), after.len());
            if let Ok(before) = PushRequest::decode(&*before) {
                let after = PushRequest::decode(&*after).expect("as readable as before");
                compare_pushes(&stamp, before, after);
            }
        }
        Form::Pprof => compare_appended(&stamp, &body, &edited),
        Form::Multipart => {
            // What is put in stands before the next delimiter.
            let grown = edited.len() - body.len();
            let at = edit.keep + grown;
            assert_eq!(body[edit.keep..], edited[at..]);
            let content = |body: &[u8], end: usize| {
                let start = body[..end].windows(4).rposition(|w| w == b"\r\n\r\n");
                body[start.expect("a part") + 4..end].to_vec()
            };
            if choice >> 3 & 3 == 3 && !data.windows(4).any(|w| w == b"\r\n\r\n") {
                let before = content(&body, edit.keep);
                compare_appended(&stamp, &before, &content(&edited, at));
            }
        }
    }
    Corpus::Keep
});

fn compare_pushes(stamp: &Stamp, mut before: PushRequest, mut after: PushRequest) {
    let samples = |push: &mut PushRequest| -> Vec<Vec<u8>> {
        let samples = push.series.iter_mut().flat_map(|s| &mut s.samples);
        samples
            .map(|sample| std::mem::take(&mut sample.raw_profile))
            .collect()
    };
    let (old, new) = (samples(&mut before), samples(&mut after));
    assert_eq!(before, after);
    for (old, new) in old.iter().zip(&new) {
        compare_pprofs(stamp, old, new);
    }
}

/// After a pprof comes its time once more, and nothing else.
fn compare_appended(stamp: &Stamp, before: &[u8], after: &[u8]) {
    assert!(after.starts_with(before));
    let (before, after) = (inflated(before), inflated(after));
    assert_eq!(after.len(), before.len() + 10);
    assert!(after.starts_with(&before));
    compare_pprofs(stamp, &before, &after);
}

fn compare_pprofs(stamp: &Stamp, before: &[u8], after: &[u8]) {
    let Ok(before) = Profile::decode(before) else {
        return;
    };
    let mut after = Profile::decode(after).expect("as readable as before");
    let [old, new] = [&before, &after].map(|profile| profile.time_nanos.cast_unsigned());
    // A length may stand where it comes too late, or twice.
    let lengths = [0, before.duration_nanos.cast_unsigned()];
    let ruled = lengths.map(|length| stamp.start_of(old, length).unwrap_or(old));
    let in_between = new.abs_diff(RECEIVED_MS * 1_000_000) <= 24 * 3600 * 1_000_000_000;
    assert!(ruled.contains(&new) || in_between, "{old} became {new}");
    after.time_nanos = before.time_nanos;
    assert_eq!(before, after);
}

fn gzipped(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn inflated(body: &[u8]) -> Vec<u8> {
    if !body.starts_with(&[0x1f, 0x8b]) {
        return body.to_vec();
    }
    let mut out = Vec::new();
    let mut decoder = MultiGzDecoder::new(body);
    decoder.read_to_end(&mut out).expect("a gzip stream");
    out
}

fn in_a_form(part: &[u8]) -> Vec<u8> {
    [
        b"--b\r\nContent-Disposition: form-data; name=\"profile\"\r\n\r\n",
        part,
        b"\r\n--b--\r\n",
    ]
    .concat()
}

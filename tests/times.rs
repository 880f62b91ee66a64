//! Are times made unique, and is nothing else changed? For bodies that real SDKs sent (tests/times/), and for thousands
//! that prost and flate2 wrote at random: `TIMES_CASES=100000` takes more of them.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use prost::Message as _;
use pyroscope_lambda_extension::config::Labels;
use pyroscope_lambda_extension::http1::head;
use pyroscope_lambda_extension::http1::header_slots;
use pyroscope_lambda_extension::times::{self, Form, Stamp, Upload};
use schema::{Function, Label, Line, Location, Profile, PushRequest, RawProfileSeries};
use schema::{RawSample, Sample, ValueType};

#[path = "support/decode/schema.rs"]
mod schema;

/// When the real bodies were captured: 2026-11-21, 17:20.
const CAPTURED_MS: u64 = 1_795_281_600_000;

/// What a body may grow by, whose time stands near its end: so all SDKs write it.
const GROWTH_MAX: usize = 40;

/// The same for each of several times, or for one in the middle. A byte that has no code in its block takes a header more.
const GROWTH_MAX_INSIDE: usize = 320;

/// A request that an SDK sent.
struct Captured {
    form: Option<Form>,
    body: Vec<u8>,
}

fn captured(name: &str) -> Captured {
    let path = format!("{}/tests/times/{name}.http", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("a captured request");
    let end = 4 + position(&bytes, b"\r\n\r\n").expect("a whole head");
    let mut slots = header_slots();
    let request = head::request(&bytes[..end], &mut slots).expect("a request");
    Captured {
        form: Upload::of(&request).form,
        body: bytes[end..].to_vec(),
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn stamp(session: u64) -> Stamp {
    Stamp {
        session,
        received_ms: CAPTURED_MS,
        thaw: None,
    }
}

/// The body after its times were made unique; `None` if it stays.
fn unique(form: Form, stamp: &Stamp, body: &[u8]) -> Option<Vec<u8>> {
    let edit = times::edit(form, Some(stamp), &Labels::new(), body)?;
    let mut edited = body[..edit.keep].to_vec();
    edited.extend_from_slice(&edit.tail);
    if let Some((at, byte)) = edit.patch {
        edited[at] = byte;
    }
    Some(edited)
}

/// What a gzip stream holds, or the bytes themselves.
fn inflated(body: &[u8]) -> Vec<u8> {
    if !body.starts_with(&[0x1f, 0x8b]) {
        return body.to_vec();
    }
    let mut out = Vec::new();
    let mut decoder = MultiGzDecoder::new(body);
    decoder.read_to_end(&mut out).expect("a gzip stream");
    out
}

fn gzipped(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("written to memory")
}

/// The pprofs in a body, as the server reads them, and the body without its times.
fn profiles(form: Form, body: &[u8]) -> (Vec<Profile>, PushRequest) {
    let read = |bytes: &[u8]| Profile::decode(&*inflated(bytes)).expect("a pprof");
    match form {
        Form::Push => {
            let mut push = PushRequest::decode(&*inflated(body)).expect("a push");
            let samples = push.series.iter_mut().flat_map(|s| &mut s.samples);
            let raw = samples.map(|sample| std::mem::take(&mut sample.raw_profile));
            (
                raw.collect::<Vec<_>>()
                    .iter()
                    .map(|raw| read(raw))
                    .collect(),
                push,
            )
        }
        Form::Pprof => (vec![read(body)], PushRequest::default()),
        Form::Multipart => {
            let start = 4 + position(body, b"\r\n\r\n").expect("a part");
            let end = body.len() - body.iter().rev().skip(2).position(|b| *b == b'\r').unwrap() - 3;
            (vec![read(&body[start..end])], PushRequest::default())
        }
    }
}

/// Both bodies hold the same but for the times, which are those that the stamp gives. How much longer the second is.
#[track_caller]
fn assert_differs_in_time_only(form: Form, stamp: &Stamp, body: &[u8], edited: &[u8]) -> usize {
    let (mut before, rest_before) = profiles(form, body);
    let (after, rest_after) = profiles(form, edited);
    for profile in &mut before {
        let start = profile.time_nanos.cast_unsigned();
        let length = profile.duration_nanos.cast_unsigned();
        let start = stamp.start_of(start, length).unwrap_or(start);
        profile.time_nanos = start.cast_signed();
    }
    assert_eq!(before, after);
    assert_eq!(rest_before, rest_after);
    edited.len().saturating_sub(body.len())
}

#[test]
fn bodies_of_real_sdks_change_in_their_times_only() {
    for (name, form, resolution) in [
        ("rust-2.1.5", Form::Push, 1_000_000_000),
        ("python-0.8.16", Form::Pprof, 1_000_000_000),
        ("nodejs-0.6.4", Form::Pprof, 1_000_000),
        ("nodejs-0.4.13", Form::Multipart, 1_000_000),
    ] {
        let captured = captured(name);
        assert_eq!(captured.form, Some(form), "{name}");
        let stamp = stamp(0x0123_4567_89ab_cdef);
        let edited = unique(form, &stamp, &captured.body).expect(name);
        let growth = assert_differs_in_time_only(form, &stamp, &captured.body, &edited);
        assert!(growth <= GROWTH_MAX, "{name} grew by {growth}");
        let time = |body: &[u8]| profiles(form, body).0[0].time_nanos;
        let filled = time(&edited) - time(&captured.body);
        assert!(
            filled > 0 && filled < resolution,
            "{name}: {filled} ns later"
        );
    }
    let captured = captured("python-1.4.0");
    assert_eq!(captured.form, Some(Form::Push));
    let edited = unique(Form::Push, &stamp(1), &captured.body);
    assert_eq!(edited, None, "its times are in nanoseconds");
}

#[test]
fn ten_thousand_sandboxes_have_ten_thousand_times_in_one_second() {
    let captured = captured("rust-2.1.5");
    let mut random = Random(1);
    let mut times = HashSet::new();
    for _ in 0..10_000 {
        let edited = unique(Form::Push, &stamp(random.next()), &captured.body).unwrap();
        let profile = &profiles(Form::Push, &edited).0[0];
        assert_eq!(profile.time_nanos / 1_000_000_000, 1_795_281_500);
        times.insert(profile.time_nanos);
    }
    assert_eq!(times.len(), 10_000);
}

#[test]
fn a_body_that_is_damaged_stays_as_it_is() {
    for name in ["rust-2.1.5", "python-0.8.16"] {
        let Captured { form, body } = captured(name);
        let edited = |body: &[u8]| unique(form.unwrap(), &stamp(1), body);
        assert!(edited(&body).is_some());
        for end in 0..body.len() {
            assert_eq!(
                edited(&body[..end]),
                None,
                "the first {end} bytes of {name}"
            );
        }
        for at in body.len() - 8..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 1;
            assert_eq!(edited(&damaged), None, "checksum or length of {name}");
        }
        assert_eq!(edited(&[&body[..], b"x"].concat()), None, "more after it");
    }
}

#[test]
fn what_is_of_another_form_stays_as_it_is() {
    let pprof = captured("nodejs-0.6.4").body;
    let push = captured("rust-2.1.5").body;
    let form = captured("nodejs-0.4.13").body;
    let twice = gzipped(&captured("python-0.8.16").body, 6);
    for (wrong, body) in [
        (Form::Push, &pprof),
        (Form::Push, &form),
        (Form::Pprof, &form),
        (Form::Pprof, &twice),
        (Form::Multipart, &pprof),
        (Form::Multipart, &push),
    ] {
        assert_eq!(unique(wrong, &stamp(1), body), None, "{wrong:?}");
    }
    for form in [Form::Push, Form::Pprof, Form::Multipart] {
        assert_eq!(unique(form, &stamp(1), b""), None);
        assert_eq!(unique(form, &stamp(1), &gzipped(b"", 6)), None);
    }
}

/// Labels are added to each Push request of one series, and to none of several; all else stays.
#[test]
fn random_push_bodies_get_the_labels_that_they_lack() {
    let mut random = Random(7);
    let labels: Labels = [("env_1", "prod"), ("env_2", "x"), ("env_3", "${é}")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let mut labelled = 0;
    for _ in 0..300 {
        let is_plain = random.below(4) > 0;
        let mut push = PushRequest::decode(&*random.push(is_plain)).unwrap();
        let has = random.below(4) as usize;
        for series in &mut push.series {
            series
                .labels
                .extend(labels[..has].iter().map(|(name, _)| Label {
                    name: name.clone(),
                    value: "the SDK's".to_owned(),
                }));
        }
        let body = random.compressed(push.encode_to_vec());
        let edit = times::edit(Form::Push, None, &labels, &body);
        if !is_plain || has == 3 {
            assert_eq!(edit, None);
            continue;
        }
        let edit = edit.expect("it lacks some");
        let mut edited = edit.prefix.clone();
        edited.extend_from_slice(&body[..edit.keep]);
        edited.extend_from_slice(&edit.tail);
        let added = labels[has..].iter().map(|(name, value)| Label {
            name: name.clone(),
            value: value.clone(),
        });
        push.series[0].labels.extend(added);
        assert_eq!(PushRequest::decode(&*inflated(&edited)).unwrap(), push);
        let whole = edited.len() - edit.suffix;
        assert_eq!(edited[edit.prefix.len()..whole], body, "to be had again");
        labelled += 1;
    }
    assert!(labelled > 100, "{labelled}");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Some number of things; mostly few, seldom many.
    fn some<T>(&mut self, few: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let most = if self.below(20) == 0 { 40 * few } else { few };
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn small(&mut self) -> i64 {
        let bits = self.below(40);
        (self.next() >> (63 - bits)).cast_signed()
    }

    fn word(&mut self) -> String {
        let letters = self.below(24);
        (0..letters)
            .map(|_| (b'a' + self.below(26) as u8) as char)
            .collect()
    }

    fn value_type(&mut self) -> ValueType {
        ValueType {
            r#type: self.small(),
            unit: self.small(),
        }
    }

    fn time(&mut self) -> u64 {
        const DAY: u64 = 24 * 3600 * 1_000_000_000;
        let now = CAPTURED_MS * 1_000_000;
        let near = now - self.below(3600 * 1_000_000_000);
        let unit = self.pick(&[1, 1_000, 1_000_000, 1_000_000_000, 10_000_000_000]);
        let noise = self.pick(&[0, 64, 128]);
        let odd = [
            0,
            1,
            near / 3,
            now - 3 * DAY,
            now + 3 * DAY,
            now - 2 * 3600 * 1_000_000_000,
        ];
        if self.below(8) == 0 {
            self.pick(&odd)
        } else {
            near / unit * unit + noise
        }
    }

    /// With the time at the end, or as Go's runtime writes it: first.
    fn pprof(&mut self, time: u64, is_first: bool) -> Vec<u8> {
        let profile = Profile {
            sample_type: self.some(3, Self::value_type),
            sample: self.some(30, |random| Sample {
                location_id: random.some(8, |random| random.below(300)),
                value: random.some(3, Self::small),
            }),
            location: self.some(20, |random| Location {
                id: random.below(300),
                line: random.some(2, |random| Line {
                    function_id: random.below(300),
                }),
            }),
            function: self.some(20, |random| Function {
                id: random.below(300),
                name: random.small(),
                filename: random.small(),
            }),
            string_table: self.some(40, Self::word),
            time_nanos: time.cast_signed(),
            duration_nanos: self.pick(&[0, 10_000_000_000, 7_199_000_000_000]),
            period_type: (self.below(2) == 0).then(|| self.value_type()),
            period: self.small(),
        };
        let mut out = Vec::new();
        if is_first {
            let first = Profile {
                time_nanos: time.cast_signed(),
                ..Profile::default()
            };
            out = first.encode_to_vec();
        }
        profile.encode(&mut out).expect("written to memory");
        out
    }

    /// Of one series with its time at the end, or of several with times anywhere.
    fn push(&mut self, is_plain: bool) -> Vec<u8> {
        let time = self.time();
        let several = if is_plain { 1 } else { 4 };
        let series = (0..several).map(|_| RawProfileSeries {
            labels: self.some(5, |random| Label {
                name: random.word(),
                value: random.word(),
            }),
            samples: (0..=self.below(several))
                .map(|_| {
                    // The series of one report have one time.
                    let time = if is_plain || self.below(2) == 0 {
                        time
                    } else {
                        self.time()
                    };
                    let is_first = !is_plain && self.below(4) == 0;
                    RawSample {
                        raw_profile: self.pprof(time, is_first),
                        id: self.word(),
                    }
                })
                .collect(),
        });
        let series = series.collect();
        PushRequest { series }.encode_to_vec()
    }

    /// As it is, or compressed in one of the ways there are.
    fn compressed(&mut self, body: Vec<u8>) -> Vec<u8> {
        match self.below(6) {
            0 => body,
            1 => {
                let (a, b) = body.split_at(self.below(body.len() as u64 + 1) as usize);
                [gzipped(a, 1), gzipped(b, 9)].concat()
            }
            2 => gzipped(&body, 0),
            3 => gzipped(&body, 1),
            4 => gzipped(&body, 6),
            _ => gzipped(&body, 9),
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how many it takes is for who runs it"
)]
fn random_bodies_of_real_encoders_change_in_their_times_only() {
    let cases = std::env::var("TIMES_CASES").map_or(600, |cases| cases.parse().unwrap());
    let mut random = Random(20_261_121);
    let mut changed = [0; 3];
    for case in 0..cases {
        let form = random.pick(&[Form::Push, Form::Pprof, Form::Multipart]);
        let is_plain = form != Form::Push || random.below(2) == 0;
        let mut body = if form == Form::Push {
            random.push(is_plain)
        } else {
            let (time, is_first) = (random.time(), random.below(4) == 0);
            random.pprof(time, is_first)
        };
        body = random.compressed(body);
        if form == Form::Multipart {
            body = [
                b"--b\r\nContent-Disposition: form-data; name=\"profile\"\r\n\r\n",
                &body[..],
                b"\r\n--b--\r\n",
            ]
            .concat();
        }
        let stamp = stamp(random.next());
        if let Some(edited) = unique(form, &stamp, &body) {
            let growth = assert_differs_in_time_only(form, &stamp, &body, &edited);
            let most = if is_plain {
                GROWTH_MAX
            } else {
                GROWTH_MAX_INSIDE * profiles(form, &body).0.len()
            };
            assert!(growth <= most, "{} bytes grew by {growth}", body.len());
            changed[form as usize] += 1;
        } else {
            assert_differs_in_time_only(form, &stamp, &body, &body);
        }
        assert!(case == 0 || body.len() < 8 << 20);
    }
    assert!(changed.iter().all(|n| *n > cases / 8), "{changed:?}");
}

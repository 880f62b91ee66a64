//! What SDKs upload that has times in it: made up here, and read again as the server reads it.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::chance::Chance;
use super::schema::{Profile, PushRequest, RawProfileSeries, RawSample};
use super::times::Thaw;

/// Nanoseconds.
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;
pub const MINUTE: u64 = 60 * SECOND;
pub const DAY: u64 = 24 * 60 * MINUTE;

/// Where an upload has its times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Nowhere.
    #[default]
    Bytes,
    /// In the query.
    Query,
    Pprof,
    Push,
}

/// One upload of an SDK.
pub struct Upload {
    pub form: Form,
    pub target: String,
    pub body: Vec<u8>,
}

/// What an SDK's clock shows, and what it writes of that.
pub struct Sdk {
    /// What the last digit that it writes counts.
    pub unit: u64,
    pub now: u64,
    pub thaw: Option<Thaw>,
    /// Most bytes of a large body.
    pub large: u64,
}

/// When a profile began, how long it was, and how long its SDK says.
struct Span {
    start: u64,
    end: u64,
    length: u64,
}

impl Sdk {
    fn rounds(&self, time: u64) -> u64 {
        // In nanoseconds each digit is there: not even a microsecond comes out even.
        if self.unit == 1 {
            return time / 1000 * 1000 - time % MS / 1000 * 1000 + 123_000 + 1 + time % 998;
        }
        time / self.unit * self.unit
    }

    /// Near now, but for the old and the odd.
    fn span(&self, chance: &mut Chance) -> Span {
        let now = self.now;
        let gathered = chance.between(0, 20_000) * MS + chance.below(MS);
        let (start, end) = match chance.below(12) {
            0 => (now - 70 * MINUTE, now),
            1 => (now - 180 * MINUTE, now),
            2 => match chance.below(6) {
                0 => (now - 2 * DAY, now - 2 * DAY + gathered),
                1 => (now + 2 * DAY, now + 2 * DAY + gathered),
                2 => (now - 70 * MINUTE, now - 69 * MINUTE),
                3 => (now - 50 * MINUTE, now),
                4 => (now - 2 * DAY, now),
                _ => (now + MINUTE, now + MINUTE + gathered),
            },
            // As the sandbox was frozen, that was being made.
            3..5 if self.thaw.is_some() => {
                let thaw = self.thaw.unwrap_or_default();
                (thaw.at_ms * MS - thaw.frozen_ms * MS - gathered, now)
            }
            _ => (now - gathered, now),
        };
        let (start, end) = (self.rounds(start), self.rounds(end));
        let end = end.max(start + self.unit);
        let frozen = self.thaw.map_or(0, |thaw| thaw.frozen_ms * MS);
        let length = match chance.below(6) {
            0 => 0,
            1 | 2 => (end - start).saturating_sub(frozen),
            _ => end - start,
        };
        Span { start, end, length }
    }

    fn digits(&self, time: u64) -> String {
        (time / self.unit).to_string()
    }

    /// The next upload, of any kind.
    pub fn uploads(&self, chance: &mut Chance, number: usize) -> Upload {
        let path = format!("/p{number}");
        let name = chance.pick(&["", "&name=app"]);
        match chance.below(3) {
            0 => {
                let span = self.span(chance);
                let (from, until) = (self.digits(span.start), self.digits(span.end));
                let until = match chance.below(10) {
                    0 => String::new(),
                    1 => "&until=now".to_owned(),
                    _ => format!("&until={until}"),
                };
                Upload {
                    form: Form::Query,
                    target: format!("{path}/ingest?format=jfr&from={from}{name}{until}"),
                    body: text(chance, self.large).into_bytes(),
                }
            }
            1 => {
                let span = self.span(chance);
                let pprof = self.pprof(chance, &span);
                let times = match chance.below(3) {
                    0 => "",
                    _ => &format!("&from={}", self.digits(span.start)),
                };
                Upload {
                    form: Form::Pprof,
                    target: format!("{path}/ingest?format=pprof{times}{name}"),
                    body: packed(chance, pprof),
                }
            }
            _ => {
                let samples = (0..chance.pick(&[1, 1, 1, 2, 3])).map(|_| {
                    let span = self.span(chance);
                    RawSample {
                        raw_profile: self.pprof(chance, &span),
                        id: text(chance, 10),
                    }
                });
                let series = RawProfileSeries {
                    labels: Vec::new(),
                    samples: samples.collect(),
                };
                let push = PushRequest {
                    series: vec![series],
                };
                Upload {
                    form: Form::Push,
                    target: format!("{path}/push.v1.PusherService/Push"),
                    body: packed(chance, push.encode_to_vec()),
                }
            }
        }
    }

    fn pprof(&self, chance: &mut Chance, span: &Span) -> Vec<u8> {
        let profile = Profile {
            string_table: vec![String::new(), text(chance, self.large)],
            time_nanos: span.start.cast_signed(),
            duration_nanos: span.length.cast_signed(),
            ..Profile::default()
        };
        profile.encode_to_vec()
    }
}

/// Some text, with more of what is common, as in a profile.
fn text(chance: &mut Chance, large: u64) -> String {
    let length = if chance.one_in(12) {
        chance.any_scale(large)
    } else {
        chance.any_scale(1000)
    };
    let mut contents = Chance::new(chance.draw());
    let letter = |_| char::from(b'a' + contents.any_scale(25) as u8);
    (0..length).map(letter).collect()
}

/// The body as it is sent: some are compressed, and a few damaged.
fn packed(chance: &mut Chance, body: Vec<u8>) -> Vec<u8> {
    let mut body = if chance.one_in(2) {
        gzipped(chance.between(1, 9) as u32, &body)
    } else {
        body
    };
    if chance.one_in(12) {
        body.pop();
    }
    body
}

fn gzipped(level: u32, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// What a body holds: the pprofs, as the server reads them, and what is around them. None if it is damaged.
pub fn read(form: Form, body: &[u8]) -> Option<(Vec<Profile>, PushRequest)> {
    let mut inflated = Vec::new();
    let mut body = body;
    if is_gzip(body) {
        MultiGzDecoder::new(body).read_to_end(&mut inflated).ok()?;
        body = &inflated;
    }
    if form == Form::Pprof {
        return Some((vec![Profile::decode(body).ok()?], PushRequest::default()));
    }
    let mut push = PushRequest::decode(body).ok()?;
    let samples = push.series.iter_mut().flat_map(|own| &mut own.samples);
    let pprof = |sample: &mut RawSample| {
        let pprof = std::mem::take(&mut sample.raw_profile);
        Profile::decode(&*pprof).ok()
    };
    let pprofs = samples.map(pprof).collect::<Option<Vec<_>>>()?;
    Some((pprofs, push))
}

/// A time in a query, in nanoseconds; none if it is none.
pub fn nanoseconds(digits: &str) -> Option<u64> {
    let unit = match digits.len() {
        10 => SECOND,
        13 => MS,
        16 => 1000,
        19 => 1,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * unit)
}

//! The time of a profile: where it stands in a request, how fine it is, and another one in its place.
//!
//! | request | its time |
//! |---|---|
//! | `/push.v1.PusherService/Push` | `time_nanos` of the pprof in each sample |
//! | `/ingest`, a pprof | its `time_nanos`; `from` when it has none |
//! | `/ingest`, a JFR | `from` |

use std::io::{Read, Write};
use std::ops::Range;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::tap::Request;
use crate::support::message::{Body, Head, find};

/// The times of a request's profiles, in nanoseconds since 1970.
pub fn times(request: &Request) -> Result<Vec<i64>, String> {
    let from = || {
        let from = parameter(&request.target(), "from").ok_or("neither a time nor from")?;
        nanoseconds(&from).ok_or_else(|| format!("from is {from}"))
    };
    if is_jfr(request) {
        return Ok(vec![from()?]);
    }
    let message = Message::of(request)?;
    let found = message.times()?.into_iter();
    let times: Vec<i64> = found.map(|at| number(&message.plain[at])).collect();
    if times.is_empty() {
        return Ok(vec![from()?]);
    }
    Ok(times)
}

/// When what a request holds began and ended, as the SDK has it.
pub fn span(request: &Request) -> Result<(i64, i64), String> {
    let begin = *times(request)?.first().ok_or("no time")?;
    if is_jfr(request) {
        let until = parameter(&request.target(), "until").ok_or("no until")?;
        let end = nanoseconds(&until).ok_or_else(|| format!("until is {until}"))?;
        return Ok((begin, end));
    }
    let message = Message::of(request)?;
    let durations = message.all(DURATION_NANOS)?;
    let duration = durations
        .first()
        .map_or(0, |at| number(&message.plain[at.clone()]));
    Ok((begin, begin + duration))
}

/// The same request with its profiles at another time, and from and until moved by as much.
pub fn moved_to(request: &Request, time: i64) -> Result<Request, String> {
    let before = *times(request)?.first().ok_or("no time")?;
    let mut moved = request.clone();
    let target = request.target();
    let mut line = target.clone();
    for name in ["from", "until"] {
        if let Some(text) = parameter(&target, name) {
            let old = nanoseconds(&text).ok_or_else(|| format!("{name} is {text}"))?;
            let digits = (old + time - before).to_string();
            let new = &digits[..text.len()];
            line = line.replace(&format!("{name}={text}"), &format!("{name}={new}"));
        }
    }
    if !is_jfr(request) {
        let mut message = Message::of(request)?;
        for at in message.times()? {
            let written = varint(time);
            if written.len() != at.len() {
                return Err(format!("{time} takes another length"));
            }
            message.plain[at].copy_from_slice(&written);
        }
        moved.body = message.packed(request)?;
    }
    let length = format!("content-length: {}", moved.body.raw.len());
    let lines = request.head.text();
    let lines = lines.split("\r\n").map(|header| {
        if header.to_ascii_lowercase().starts_with("content-length:") {
            length.clone()
        } else {
            header.replace(&target, &line)
        }
    });
    moved.head = Head {
        raw: lines.collect::<Vec<_>>().join("\r\n").into_bytes(),
    };
    Ok(moved)
}

/// The coarsest step that all times are multiples of, in words, and whether it is a second or more.
pub fn resolution(times: &[i64]) -> (String, bool) {
    let steps: [(i64, &str); 4] = [
        (10_000_000_000, "10 s"),
        (1_000_000_000, "1 s"),
        (1_000_000, "1 ms"),
        (1, "1 ns"),
    ];
    let is_step = |step: i64| {
        times.iter().all(|time| {
            let off = time.rem_euclid(step);
            off.min(step - off) <= FLOAT_NOISE_NS
        })
    };
    let (step, words) = *steps
        .iter()
        .find(|(step, _)| is_step(*step))
        .unwrap_or(&steps[3]);
    (words.to_owned(), step >= 1_000_000_000)
}

fn is_jfr(request: &Request) -> bool {
    parameter(&request.target(), "format").as_deref() == Some("jfr")
}

/// A protobuf message in a body, unpacked.
struct Message {
    /// Where it is in the body.
    at: Range<usize>,
    is_push: bool,
    is_gzipped: bool,
    plain: Vec<u8>,
}

impl Message {
    fn of(request: &Request) -> Result<Self, String> {
        let body = &request.body.decoded;
        let at = profile_part(request)?.unwrap_or(0..body.len());
        let bytes = &body[at.clone()];
        let is_gzipped = bytes.starts_with(&[0x1f, 0x8b]);
        let mut plain = Vec::new();
        if is_gzipped {
            MultiGzDecoder::new(bytes)
                .read_to_end(&mut plain)
                .map_err(|error| format!("not gzip: {error}"))?;
        } else {
            plain.extend_from_slice(bytes);
        }
        Ok(Self {
            at,
            is_push: request.target().ends_with("/push.v1.PusherService/Push"),
            is_gzipped,
            plain,
        })
    }

    /// Where the times are, as varints.
    fn times(&self) -> Result<Vec<Range<usize>>, String> {
        self.all(TIME_NANOS)
    }

    /// Where the numbers of this field are, one for each pprof that has it.
    fn all(&self, wanted: u64) -> Result<Vec<Range<usize>>, String> {
        let whole = 0..self.plain.len();
        let mut pprofs = vec![whole];
        if self.is_push {
            // PushRequest.series.samples.raw_profile
            for number in [1, 2, 1] {
                let mut within = Vec::new();
                for message in pprofs {
                    within.extend(self.fields(message, number)?);
                }
                pprofs = within;
            }
        }
        let mut found = Vec::new();
        for pprof in pprofs {
            found.extend(self.fields(pprof, wanted)?.pop());
        }
        Ok(found)
    }

    /// The contents of all fields of this number in the message that is at `at`.
    fn fields(&self, at: Range<usize>, wanted: u64) -> Result<Vec<Range<usize>>, String> {
        let mut found = Vec::new();
        let mut next = at.start;
        while next < at.end {
            let (key, begin) = self.varint_at(next)?;
            let (begin, end) = match key & 7 {
                0 => (begin, self.varint_at(begin)?.1),
                1 => (begin, begin + 8),
                2 => {
                    let (length, begin) = self.varint_at(begin)?;
                    let length = usize::try_from(length).map_err(|error| error.to_string())?;
                    (begin, begin + length)
                }
                5 => (begin, begin + 4),
                other => return Err(format!("wire type {other}")),
            };
            if end > at.end {
                return Err("a field that does not end".to_owned());
            }
            if key >> 3 == wanted {
                found.push(begin..end);
            }
            next = end;
        }
        Ok(found)
    }

    fn varint_at(&self, at: usize) -> Result<(u64, usize), String> {
        let mut value = 0;
        for (shift, byte) in (0..64).step_by(7).zip(self.plain.iter().skip(at)) {
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value, at + shift / 7 + 1));
            }
        }
        Err("a number that does not end".to_owned())
    }

    fn packed(self, request: &Request) -> Result<Body, String> {
        let mut bytes = self.plain;
        if self.is_gzipped {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
            bytes = packed.map_err(|error| error.to_string())?;
        }
        let body = &request.body.decoded;
        let raw = [&body[..self.at.start], &bytes, &body[self.at.end..]].concat();
        Ok(Body {
            decoded: raw.clone(),
            raw,
        })
    }
}

/// Where in a multipart body its profile is.
fn profile_part(request: &Request) -> Result<Option<Range<usize>>, String> {
    let kind = request.head.all("Content-Type").concat();
    let Some((_, boundary)) = kind.split_once("boundary=") else {
        return Ok(None);
    };
    let body = &request.body.decoded;
    let name = find(body, b"name=\"profile\"").ok_or("no part called profile")?;
    let head = find(&body[name..], b"\r\n\r\n").ok_or("a part without a head")?;
    let begin = name + head + 4;
    let delimiter = format!("\r\n--{}", boundary.trim_matches('"'));
    let length = find(&body[begin..], delimiter.as_bytes()).ok_or("a part that does not end")?;
    Ok(Some(begin..begin + length))
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// As the server reads it: 10 digits are seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds.
fn nanoseconds(digits: &str) -> Option<i64> {
    let scale = match digits.len() {
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return None,
    };
    Some(digits.parse::<i64>().ok()? * scale)
}

fn number(varint: &[u8]) -> i64 {
    let bits = varint.iter().rev();
    bits.fold(0, |value, byte| value << 7 | i64::from(byte & 0x7f))
}

fn varint(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.cast_unsigned();
    while rest > 0x7f {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// In google's profile.proto.
const TIME_NANOS: u64 = 9;
const DURATION_NANOS: u64 = 10;

/// Node.js has times of whole milliseconds in numbers that can hold every 256th nanosecond.
const FLOAT_NOISE_NS: i64 = 512;

//! Uploads as the SDKs make them: a gzipped pprof in the Go SDK's multipart form, or in the Python SDK's PushRequest.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::decode::schema::{
    Function, Label, Line, Location, Profile, PushRequest, RawProfileSeries, RawSample, Sample,
    ValueType,
};
use super::profiler::Profiler;

/// One request of an SDK: all before its Content-Length, and its body.
pub struct Upload {
    pub sdk: &'static str,
    pub head: String,
    pub body: Vec<u8>,
}

/// What the Go SDK sends for a CPU profile.
pub fn by_go(app: &str, profiler: &Profiler) -> Upload {
    let boundary = "8d2b44aa1f8de5f2a9f1b0c7d3e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0";
    let (until, nanos) = (unix_nanos(), profiler.total().as_nanos());
    let from = u128::from(until) - nanos;
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"profile\"; filename=\"profile.pprof\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(gzipped(&pprof(profiler).encode_to_vec()));
    body.extend(format!("\r\n--{boundary}--\r\n").bytes());
    let name = format!("{app}%7Benv%3Ddemo%2Cprocess.runtime.name%3Dgo%7D");
    let head = format!(
        "POST /ingest?aggregationType=sum&from={from}&name={name}&sampleRate=100&spyName=gospy&units=samples&until={until} HTTP/1.1\r\nHost: localhost:4040\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: multipart/form-data; boundary={boundary}\r\nAccept-Encoding: gzip\r\n"
    );
    Upload {
        sdk: "Go",
        head,
        body,
    }
}

/// What the Python SDK sends: everything in one gzipped message, the pprof inside not gzipped again.
pub fn by_python(app: &str, profiler: &Profiler) -> Upload {
    let label = |name: &str, value: &str| Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let labels = vec![
        label("__name__", "process_cpu"),
        label("service_name", app),
        label("env", "demo"),
        label("process.runtime.name", "cpython"),
    ];
    let sample = RawSample {
        raw_profile: pprof(profiler).encode_to_vec(),
        id: unix_nanos().to_string(),
    };
    let request = PushRequest {
        series: vec![RawProfileSeries {
            labels,
            samples: vec![sample],
        }],
    };
    let head = "POST /push.v1.PusherService/Push HTTP/1.1\r\nuser-agent: pyroscope-rs/pyspy/1.0.7 reqwest\r\ncontent-type: application/proto\r\ncontent-encoding: gzip\r\naccept: */*\r\nhost: localhost:4040\r\n";
    Upload {
        sdk: "Python",
        head: head.to_owned(),
        body: gzipped(&request.encode_to_vec()),
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory to write to");
    encoder.finish().expect("memory to write to")
}

/// The time, never a whole microsecond or near a millisecond: a clock of nanoseconds reads so once in a thousand times,
/// and then the extension would fill the zeros, so that what arrives is not what was sent.
fn unix_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let nanos = u64::try_from(since.as_nanos()).expect("a year before 2554");
    nanos / 1000 * 1000 + 501
}

/// The measurement as a pprof: one sample for each call stack, in nanoseconds of CPU.
fn pprof(profiler: &Profiler) -> Profile {
    let mut strings = Strings(vec![String::new()]);
    let cpu = ValueType {
        r#type: strings.index("cpu"),
        unit: strings.index("nanoseconds"),
    };
    let mut ids = BTreeMap::new();
    for name in profiler.own_time.keys().flatten() {
        let next = ids.len() as u64 + 1;
        ids.entry(*name).or_insert(next);
    }
    let samples = profiler.own_time.iter().map(|(stack, burned)| Sample {
        // A pprof's stacks begin with the innermost function.
        location_id: stack.iter().rev().map(|name| ids[name]).collect(),
        value: vec![i64::try_from(burned.as_nanos()).expect("less than 292 years")],
    });
    let sample = samples.collect();
    let functions = ids.iter().map(|(name, &id)| Function {
        id,
        name: strings.index(short(name)),
        filename: strings.index("shop.rs"),
    });
    let function = functions.collect();
    let location = ids
        .values()
        .map(|&id| Location {
            id,
            line: vec![Line { function_id: id }],
        })
        .collect();
    Profile {
        sample_type: vec![cpu],
        sample,
        location,
        function,
        string_table: strings.0,
        time_nanos: unix_nanos() as i64,
        duration_nanos: profiler.total().as_nanos() as i64,
        period_type: Some(cpu),
        period: 1,
    }
}

/// `demo::shop::price_cart` is `shop::price_cart` to its readers.
fn short(name: &str) -> &str {
    name.strip_prefix("demo::").unwrap_or(name)
}

/// A pprof's string table: every text once, named by its place.
struct Strings(Vec<String>);

impl Strings {
    fn index(&mut self, text: &str) -> i64 {
        let place = self
            .0
            .iter()
            .position(|other| other == text)
            .unwrap_or_else(|| {
                self.0.push(text.to_owned());
                self.0.len() - 1
            });
        place as i64
    }
}

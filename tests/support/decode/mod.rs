//! Reads the profiles out of what a Pyroscope server is sent, as far as a test wants to know them.
//!
//! | request | where the profile is | where its name and labels are |
//! |---|---|---|
//! | `/push.v1.PusherService/Push` | a `PushRequest`, the whole of it gzipped or not | in the series |
//! | `/ingest`, multipart | the part named `profile`, or `jfr` | in the query's `name` |
//! | `/ingest`, anything else | the body | in the query's `name` |
//! | `/v1development/profiles` | an [`ExportProfilesServiceRequest`], the whole of it gzipped or not | in the resource |
//!
//! The profile itself is a [`pprof`], or with `format=jfr` a [`jfr`], gzipped or not. Of protobuf's schemas only the
//! fields that are read are written down, and those the demo writes. What is not understood is an error, never skipped: a test must not pass because
//! a profile was unreadable.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::MultiGzDecoder;
use otlp::ExportProfilesServiceRequest;
use prost::Message;
use schema::PushRequest;

mod jfr;
mod otlp;
mod pprof;
pub mod schema;

/// One profile as it would be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The service it belongs to: `service_name`, or the name before the braces.
    pub app: String,
    pub labels: BTreeMap<String, String>,
    /// Type and unit of each value of a sample, such as `cpu:nanoseconds`.
    pub sample_types: Vec<String>,
    /// What each of these adds up to, over all samples.
    pub totals: Vec<i64>,
    /// Each function with the sum of the first value over all samples that have it on their stack, largest first.
    pub functions: Vec<(String, i64)>,
    /// Each call stack, outermost function first, with the sum of the first value over its samples.
    pub stacks: BTreeMap<Vec<String>, i64>,
}

impl Decoded {
    /// What the functions whose name contains `part` add up to; `None` when there is none.
    pub fn value_of(&self, part: &str) -> Option<i64> {
        let mut found = self
            .functions
            .iter()
            .filter(|(name, _)| name.contains(part))
            .peekable();
        found.peek()?;
        Some(found.map(|(_, value)| value).sum())
    }
}

/// Sums up samples by function and by stack.
#[derive(Default)]
struct Tally {
    of_functions: BTreeMap<String, i64>,
    of_stacks: BTreeMap<Vec<String>, i64>,
    total: i64,
}

impl Tally {
    /// One sample: its functions, innermost first.
    fn add(&mut self, mut on_stack: Vec<String>, value: i64) {
        self.total += value;
        // A function that calls itself is on the stack twice and counts once.
        for &name in &on_stack.iter().collect::<BTreeSet<_>>() {
            *self.of_functions.entry(name.clone()).or_default() += value;
        }
        on_stack.reverse();
        *self.of_stacks.entry(on_stack).or_default() += value;
    }

    /// The functions, largest first.
    fn functions(&self) -> Vec<(String, i64)> {
        let mut functions: Vec<(String, i64)> = self.of_functions.clone().into_iter().collect();
        functions.sort_by_key(|(_, value)| std::cmp::Reverse(*value));
        functions
    }
}

/// The profiles in one request: `target` is its path and query, `body` has no transfer coding any more.
pub fn profiles(
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<Vec<Decoded>, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.ends_with("/push.v1.PusherService/Push") {
        pushed(&without_content_coding(headers, body)?)
    } else if path.ends_with("/v1development/profiles") {
        let message = without_content_coding(headers, body)?;
        ExportProfilesServiceRequest::read(&message)?.profiles()
    } else if path.ends_with("/ingest") {
        ingested(query, headers, body)
    } else {
        Err(format!("{path} is not where profiles are sent to"))
    }
}

fn without_content_coding<'b>(
    headers: &[(String, String)],
    body: &'b [u8],
) -> Result<Cow<'b, [u8]>, String> {
    match header(headers, "content-encoding") {
        None | Some("identity") => Ok(body.into()),
        Some("gzip") => Ok(gunzipped(body)?.into()),
        Some(other) => Err(format!("Content-Encoding {other} is not known here")),
    }
}

fn pushed(message: &[u8]) -> Result<Vec<Decoded>, String> {
    let request =
        PushRequest::decode(message).map_err(|error| format!("not a PushRequest: {error}"))?;
    let mut found = Vec::new();
    for series in request.series {
        let labels: BTreeMap<String, String> = series
            .labels
            .into_iter()
            .map(|label| (label.name, label.value))
            .collect();
        let app = labels
            .get("service_name")
            .or_else(|| labels.get("__name__"))
            .ok_or("a series without a name")?
            .clone();
        for sample in series.samples {
            found.push(one_pprof(app.clone(), labels.clone(), &sample.raw_profile)?);
        }
    }
    Ok(found)
}

fn ingested(
    query: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<Vec<Decoded>, String> {
    let name = parameter(query, "name").ok_or("a query without a name")?;
    let (app, labels) = labelled(&name);
    let content_type = header(headers, "content-type").unwrap_or_default();
    let content = |name: &str| {
        if content_type.starts_with("multipart/form-data") {
            part(content_type, body, name)
        } else {
            Ok(body)
        }
    };
    match parameter(query, "format").as_deref() {
        None | Some("pprof") => Ok(vec![one_pprof(app, labels, content("profile")?)?]),
        Some("jfr") => each_in_jfr(&app, &labels, content("jfr")?),
        Some(other) => Err(format!("format {other} is not decoded here")),
    }
}

fn one_pprof(
    app: String,
    labels: BTreeMap<String, String>,
    bytes: &[u8],
) -> Result<Decoded, String> {
    let profile = schema::Profile::read(&gunzipped_if_gzip(bytes)?)?;
    let tally = profile.tally()?;
    Ok(Decoded {
        app,
        labels,
        sample_types: profile.sample_types()?,
        totals: profile.totals()?,
        functions: tally.functions(),
        stacks: tally.of_stacks,
    })
}

/// A recording holds a profile for each kind of event that was sampled, and none when nothing was.
fn each_in_jfr(
    app: &str,
    labels: &BTreeMap<String, String>,
    bytes: &[u8],
) -> Result<Vec<Decoded>, String> {
    let samples = jfr::samples(&gunzipped_if_gzip(bytes)?)?.into_iter();
    let decoded = samples.map(|(event, tally)| Decoded {
        app: app.to_owned(),
        labels: labels.clone(),
        sample_types: vec![format!("{event}:count")],
        totals: vec![tally.total],
        functions: tally.functions(),
        stacks: tally.of_stacks,
    });
    Ok(decoded.collect())
}

/// `app{key=value,…}` taken apart.
fn labelled(name: &str) -> (String, BTreeMap<String, String>) {
    let (app, rest) = name.split_once('{').unwrap_or((name, ""));
    let labels = rest
        .trim_end_matches('}')
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    (app.trim().to_owned(), labels)
}

/// The content of the part called `wanted` in a multipart body.
fn part<'b>(content_type: &str, body: &'b [u8], wanted: &str) -> Result<&'b [u8], String> {
    let boundary = content_type
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))
        .ok_or("multipart without a boundary")?
        .trim_matches('"');
    let mut rest = body;
    let opening = format!("--{boundary}");
    let delimiter = format!("\r\n--{boundary}");
    rest = rest
        .strip_prefix(opening.as_bytes())
        .ok_or("the body does not begin with its boundary")?;
    while !rest.starts_with(b"--") {
        let head_end = find(rest, b"\r\n\r\n").ok_or("a part without a head")?;
        let content_begin = head_end + 4;
        let length =
            find(&rest[content_begin..], delimiter.as_bytes()).ok_or("a part that does not end")?;
        let content = &rest[content_begin..content_begin + length];
        let head = String::from_utf8_lossy(&rest[..head_end]);
        if head.contains(&format!(" name=\"{wanted}\"")) {
            return Ok(content);
        }
        rest = &rest[content_begin + length + delimiter.len()..];
    }
    Err(format!("no part called {wanted}"))
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A query parameter, its form encoding undone.
fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| unescaped(value))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match escaped {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// No header says whether a profile is gzipped: readers look at its first two bytes.
fn gunzipped_if_gzip(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if bytes.starts_with(&GZIP_MAGIC) {
        Ok(gunzipped(bytes)?.into())
    } else {
        Ok(bytes.into())
    }
}

fn gunzipped(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(UNPACKED_BYTES_MAX)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("not gzip: {error}"))?;
    if unpacked.len() as u64 == UNPACKED_BYTES_MAX {
        return Err(format!("more than {UNPACKED_BYTES_MAX} bytes unpacked"));
    }
    Ok(unpacked)
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Far above any profile of a test; keeps a damaged length from taking all memory.
const UNPACKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::pprof::tests::main_and_burn;
    use super::schema::{Label, RawProfileSeries, RawSample};
    use super::*;

    #[test]
    fn push_plain_and_gzipped() {
        let request = push(main_and_burn()).encode_to_vec();
        let target = "/base/push.v1.PusherService/Push";
        let plain = profiles(target, &[], &request).expect("plain");
        let headers = headers(&[("Content-Encoding", "gzip")]);
        let gzipped = profiles(target, &headers, &gzipped(&request)).expect("gzipped");
        assert_eq!(plain, gzipped);
        assert_eq!(plain.len(), 1);
        assert_eq!(plain[0].app, "shop");
        assert_eq!(plain[0].labels["__name__"], "process_cpu");
        expect_profile(&plain[0]);
    }

    #[test]
    fn push_with_a_gzipped_profile_inside() {
        let request = push(gzipped(&main_and_burn())).encode_to_vec();
        let found = profiles("/push.v1.PusherService/Push", &[], &request).expect("a profile");
        expect_profile(&found[0]);
    }

    #[test]
    fn ingest_with_the_profile_as_its_body() {
        for body in [main_and_burn(), gzipped(&main_and_burn())] {
            for format in ["", "&format=pprof"] {
                let target = format!("/ingest?from=1&name=shop%7Bteam%3Da+b%2Cempty%3D%7D{format}");
                let found = profiles(&target, &[], &body).expect("a profile");
                assert_eq!(found[0].app, "shop");
                assert_eq!(found[0].labels["team"], "a b");
                assert_eq!(found[0].labels["empty"], "");
                expect_profile(&found[0]);
            }
        }
    }

    #[test]
    fn ingest_multipart() {
        // A boundary may begin with dashes, and the profile need not be the first part.
        let boundary = "----formdata-1";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"sample_type_config\"\r\n\r\n{{}}\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"profile\"; filename=\"profile\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend(gzipped(&main_and_burn()));
        body.extend(format!("\r\n--{boundary}--\r\n").bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        let found = profiles(
            "//ingest?name=shop",
            &headers(&[("content-type", &kind)]),
            &body,
        );
        expect_profile(&found.expect("a profile")[0]);
        body.truncate(body.len() - boundary.len() - 8);
        let cut = profiles(
            "/ingest?name=shop",
            &headers(&[("content-type", &kind)]),
            &body,
        );
        assert_eq!(cut, Err("a part that does not end".to_owned()));
    }

    #[test]
    fn ingest_jfr() {
        let mut body =
            b"--b\r\nContent-Disposition: form-data; name=\"jfr\"; filename=\"jfr\"\r\n\r\n"
                .to_vec();
        body.extend(BURNED_JFR);
        body.extend(b"\r\n--b--\r\n");
        let kind = headers(&[("Content-Type", "multipart/form-data; boundary=b")]);
        let target = "/ingest?name=shop%7Bteam%3Da%20b%7D&units=samples&format=jfr";
        let found = profiles(target, &kind, &body).expect("a recording");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].app, "shop");
        assert_eq!(found[0].labels["team"], "a b");
        assert_eq!(found[0].sample_types, ["jdk.ExecutionSample:count"]);
        assert_eq!(found[0].totals, [24]);
        // As the JDK's own `jfr print` has it.
        let function = |name: &str| (name.to_owned(), 24);
        assert_eq!(
            found[0].functions,
            [function("Function.burnJavaCpu"), function("Function.main")]
        );
    }

    #[test]
    fn jfr_of_several_chunks_and_pieces_of_chunks() {
        let chunk = gunzipped(BURNED_JFR).expect("gzip");
        let read = |recording: &[u8]| profiles("/ingest?name=shop&format=jfr", &[], recording);
        let twice = read(&[chunk.clone(), chunk.clone()].concat()).expect("two chunks");
        assert_eq!(twice[0].value_of("burnJavaCpu"), Some(48));
        for length in (0..chunk.len()).step_by(67) {
            assert!(read(&chunk[..length]).is_err(), "{length} bytes");
            assert!(read(&[&chunk, &chunk[..length.max(1)]].concat()).is_err());
        }
    }

    #[test]
    fn otlp_plain_and_gzipped() {
        let target = "/base/v1development/profiles";
        let coding = headers(&[("Content-Encoding", "gzip")]);
        let found = profiles(target, &coding, BURNED_OTLP).expect("gzipped");
        let unpacked = gunzipped(BURNED_OTLP).expect("gzip");
        assert_eq!(profiles(target, &[], &unpacked), Ok(found.clone()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].app, "unknown_service");
        assert_eq!(found[0].sample_types, ["itimer:ns"]);
        assert_eq!(found[0].totals, [540_000_000]);
        let function = |name: &str, value| (name.to_owned(), value);
        assert_eq!(
            found[0].functions,
            [
                function("Function.burnJavaCpu", 540_000_000),
                function("Function.main", 540_000_000)
            ]
        );
    }

    #[test]
    fn a_function_that_calls_itself_counts_once_per_sample() {
        let found = profiles("/ingest?name=shop", &[], &main_and_burn()).expect("a profile");
        assert_eq!(found[0].value_of("burn"), Some(7));
        assert_eq!(found[0].value_of("main"), Some(12));
        assert_eq!(found[0].value_of("absent"), None);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let wrong = [
            profiles("/elsewhere", &[], b""),
            profiles("/ingest", &[], b""),
            profiles("/ingest?name=shop", &[], b"\xff\xff\xff"),
            profiles("/ingest?name=shop&format=jfr", &[], b""),
            profiles("/ingest?name=shop&format=jfr", &[], &main_and_burn()),
            profiles("/ingest?name=shop&format=folded", &[], b"main;burn 7"),
            profiles("/ingest?name=shop", &[], BURNED_JFR),
            profiles("/v1development/profiles", &[], b""),
            profiles("/v1development/profiles", &[], &main_and_burn()),
            profiles("/v1development/profiles", &[], BURNED_OTLP),
            profiles("/ingest?name=shop", &[], &gzipped(&main_and_burn())[..20]),
            profiles(
                "/push.v1.PusherService/Push",
                &headers(&[("content-encoding", "zstd")]),
                b"",
            ),
        ];
        for (number, result) in wrong.into_iter().enumerate() {
            assert!(result.is_err(), "request {number}: {result:?}");
        }
    }

    fn expect_profile(found: &Decoded) {
        assert_eq!(found.sample_types, ["samples:count", "cpu:nanoseconds"]);
        assert_eq!(found.totals, [12, 120_000_000]);
        assert_eq!(
            found.functions,
            [("main".to_owned(), 12), ("burn".to_owned(), 7)]
        );
        let stack = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let stacks = [(stack(&["main"]), 5), (stack(&["main", "burn", "burn"]), 7)];
        assert_eq!(found.stacks, BTreeMap::from(stacks));
    }

    fn push(raw_profile: Vec<u8>) -> PushRequest {
        let label = |name: &str, value: &str| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        PushRequest {
            series: vec![RawProfileSeries {
                labels: vec![
                    label("__name__", "process_cpu"),
                    label("service_name", "shop"),
                ],
                samples: vec![RawSample {
                    raw_profile,
                    ..RawSample::default()
                }],
            }],
        }
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// What io.pyroscope:agent 2.9.2 sent of a program that burns CPU; of the recording only what is about that.
    const BURNED_JFR: &[u8] = include_bytes!("burned.jfr.gz");
    const BURNED_OTLP: &[u8] = include_bytes!("burned.otlp.gz");

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

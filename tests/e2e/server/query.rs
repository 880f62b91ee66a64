//! What one asks a Pyroscope server, and what it answers: its query API, as its own pages and Grafana use it.
//!
//! Connect calls with protobuf over https, one connection each: `POST /querier.v1.QuerierService/` and the call's
//! name. Of the messages only the fields used here are written down.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::process::ADDRESS;
use crate::decode::schema::Label;
use crate::support::certificates::Authority;
use crate::support::message::{Body, Messages};
use crate::support::monitor::GUARD;

/// Asks on behalf of one tenant, or of none.
pub struct Asker {
    config: Arc<ClientConfig>,
    tenant: Option<&'static str>,
}

/// One set of labels under which profiles are stored.
pub type Labels = Vec<(String, String)>;

/// What it stores profiles in.
pub struct Block {
    pub id: String,
    /// 0 for a segment, in which all is as it came; more for what it has compacted.
    pub level: u32,
}

impl Block {
    /// A line of its table: id, begin, end, duration, level, shard, size.
    fn read(row: &str) -> Result<Self, String> {
        let mut cells = row.split("<td").skip(1);
        let text = |cell: &str| {
            let begin = cell.find('>').map_or(0, |at| at + 1);
            // The id is a link within its cell.
            let inner = cell[begin..].trim();
            let inner = match inner.strip_prefix("<a ") {
                Some(link) => link.split_once('>').map_or("", |(_, rest)| rest),
                None => inner,
            };
            inner
                .split('<')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let id = cells.next().map(text).unwrap_or_default();
        let level = cells.nth(3).map(text).unwrap_or_default();
        let level = level
            .parse()
            .map_err(|_| format!("block {id:?} has level {level:?}"))?;
        Ok(Self { id, level })
    }
}

impl Asker {
    pub fn new(authority: &Authority, tenant: Option<&'static str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        CertificateDer::from_pem_slice(authority.pem().as_bytes())
            .map_err(|error| format!("the root: {error}"))
            .and_then(|root| {
                roots
                    .add(root)
                    .map_err(|error| format!("the root: {error}"))
            })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            tenant,
        })
    }

    /// The services it knows, each with its types of profile, such as `process_cpu:cpu:nanoseconds:cpu:nanoseconds`.
    pub fn services(&self) -> Result<BTreeMap<String, Vec<String>>, String> {
        // Asked so, it looks into its list of what it stored last; all else it lists only when it has compacted.
        let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for labels in self.select_series(Vec::new(), &["__profile_type__", "service_name"])? {
            let value = |wanted: &str| {
                let mut labels = labels.iter();
                let found = labels.find(|(name, _)| name == wanted);
                found.map_or_else(String::new, |(_, value)| value.clone())
            };
            let types = services.entry(value("service_name")).or_default();
            types.push(value("__profile_type__"));
        }
        Ok(services)
    }

    /// All labels that it keeps of a service.
    pub fn series(&self, service: &str) -> Result<Vec<Labels>, String> {
        self.select_series(vec![selector(service)], &[])
    }

    /// The same of all profiles of the service but those that have a label.
    pub fn flame_graph_without(
        &self,
        service: &str,
        profile_type: &str,
        (name, value): (&str, &str),
    ) -> Result<FlameGraph, String> {
        let selector = format!("{{service_name=\"{service}\", {name}!=\"{value}\"}}");
        self.merge(selector, profile_type)
    }

    /// All blocks in which it has something of the tenant.
    pub fn blocks(&self) -> Result<Vec<Block>, String> {
        let tenant = self.tenant.unwrap_or_default();
        // It is a page for people: a table with a line for each block.
        let start_line = format!("GET /ops/object-store/tenants/{tenant}/blocks");
        let page = self.exchange(&start_line, b"");
        let (status, page) = page.map_err(|error| format!("the server's blocks: {error}"))?;
        let page = String::from_utf8_lossy(&page);
        if status != 200 || !page.contains("block groups found") {
            return Err(format!("the server's blocks are {status} {page}"));
        }
        let rows = page.split("<tr>").filter(|row| row.contains("<td"));
        rows.map(Block::read).collect()
    }

    /// Has profiles stored: a PushRequest.
    pub fn push(&self, request: &[u8]) -> Result<(), String> {
        let answer = self.exchange("POST /push.v1.PusherService/Push", request);
        match answer.map_err(|error| format!("a push: {error}"))? {
            (200, _) => Ok(()),
            (status, body) => {
                let body = String::from_utf8_lossy(&body);
                Err(format!("a push is answered with {status} {body}"))
            }
        }
    }

    fn select_series(&self, matchers: Vec<String>, names: &[&str]) -> Result<Vec<Labels>, String> {
        let (start, end) = span();
        let question = SeriesRequest {
            matchers,
            label_names: names.iter().map(|&name| name.to_owned()).collect(),
            start,
            end,
        };
        let answer: SeriesResponse = self.ask("Series", &question)?;
        let pairs = |labels: LabelSet| {
            let labels = labels.labels.into_iter();
            labels.map(|label| (label.name, label.value)).collect()
        };
        Ok(answer.labels_set.into_iter().map(pairs).collect())
    }

    /// All stack traces of a service's profiles of one type, merged.
    pub fn flame_graph(&self, service: &str, profile_type: &str) -> Result<FlameGraph, String> {
        self.merge(selector(service), profile_type)
    }

    /// The same of those of its profiles that have a label.
    pub fn flame_graph_with(
        &self,
        service: &str,
        profile_type: &str,
        (name, value): (&str, &str),
    ) -> Result<FlameGraph, String> {
        let selector = format!("{{service_name=\"{service}\", {name}=\"{value}\"}}");
        self.merge(selector, profile_type)
    }

    fn merge(&self, label_selector: String, profile_type: &str) -> Result<FlameGraph, String> {
        let (start, end) = span();
        let question = SelectMergeStacktracesRequest {
            profile_type: profile_type.to_owned(),
            label_selector,
            start,
            end,
        };
        let answer: SelectMergeStacktracesResponse =
            self.ask("SelectMergeStacktraces", &question)?;
        Ok(answer.flamegraph.unwrap_or_default())
    }

    /// Waits until what is sent can be stored: its parts run a moment before they have found each other, and a profile
    /// that comes in between is refused, and so are others for seconds.
    pub fn wait_until_storing(&self) -> Result<(), String> {
        let until = Instant::now() + GUARD;
        loop {
            // Nothing tells but this page of its.
            let page = self.exchange("GET /ring-segment-writer", b"");
            let (_, page) = page.map_err(|error| format!("the server's ring: {error}"))?;
            if String::from_utf8_lossy(&page).contains("ACTIVE") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the server stores nothing within {GUARD:?}"));
            }
            thread::yield_now();
        }
    }

    fn ask<A: Message + Default>(&self, call: &str, question: &impl Message) -> Result<A, String> {
        let start_line = format!("POST /querier.v1.QuerierService/{call}");
        let (status, body) = self
            .exchange(&start_line, &question.encode_to_vec())
            .map_err(|error| format!("{call}: {error}"))?;
        if status != 200 {
            // Errors are JSON, whatever was asked in.
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{call} is answered with {status} {body}"));
        }
        A::decode(body.as_slice()).map_err(|error| format!("{call}: {error}"))
    }

    fn exchange(&self, start_line: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let socket = TcpStream::connect_timeout(&ADDRESS, GUARD)?;
        socket.set_read_timeout(Some(GUARD))?;
        let name = ServerName::from(ADDRESS.ip());
        let connection = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| std::io::Error::new(ErrorKind::InvalidInput, error))?;
        let mut stream = StreamOwned::new(connection, socket);
        let tenant = self
            .tenant
            .map_or_else(String::new, |tenant| format!("X-Scope-OrgID: {tenant}\r\n"));
        let head = format!(
            "{start_line} HTTP/1.1\r\nHost: {ADDRESS}\r\n{tenant}\
             Content-Type: application/proto\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut messages = Messages::new(stream);
        let head = messages.head()?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut body = Body::default();
        messages.body(head.response_framing(), &mut body)?;
        Ok((head.status(), body.decoded))
    }
}

fn selector(service: &str) -> String {
    format!("{{service_name=\"{service}\"}}")
}

/// What is asked for, in milliseconds.
fn span() -> (i64, i64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or_default();
    (ms(now.saturating_sub(SPAN)), ms(now))
}

/// Of new profiles it takes those of the last hour. None that a run has uploaded is older than this.
const SPAN: Duration = Duration::from_hours(4);

#[derive(Clone, PartialEq, Message)]
struct SeriesRequest {
    #[prost(string, repeated, tag = "1")]
    matchers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    label_names: Vec<String>,
    #[prost(int64, tag = "3")]
    start: i64,
    #[prost(int64, tag = "4")]
    end: i64,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesResponse {
    #[prost(message, repeated, tag = "2")]
    labels_set: Vec<LabelSet>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelSet {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct SelectMergeStacktracesRequest {
    #[prost(string, tag = "1")]
    profile_type: String,
    #[prost(string, tag = "2")]
    label_selector: String,
    #[prost(int64, tag = "3")]
    start: i64,
    #[prost(int64, tag = "4")]
    end: i64,
}

#[derive(Clone, PartialEq, Message)]
struct SelectMergeStacktracesResponse {
    #[prost(message, optional, tag = "1")]
    flamegraph: Option<FlameGraph>,
}

/// A flame graph as the server gives it; `flame` reads it.
#[derive(Clone, PartialEq, Message)]
pub struct FlameGraph {
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub levels: Vec<Level>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Level {
    /// Four for each frame: how far it begins behind the end of the one before it, its value, what of that is not
    /// its callees', and the number of its name.
    #[prost(int64, repeated, tag = "1")]
    pub values: Vec<i64>,
}

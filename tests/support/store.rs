//! The stand-in for AWS's Secrets Manager and Parameter Store, and for the endpoint that gives keys after a snapshot.
//!
//! It keeps what a test puts in ([`Store::keep`]) and answers as AWS does: `ResourceNotFoundException` for what is not
//! there, `AccessDeniedException` for what may not be read, and what else a test says ([`Store::always`]). It is strict: a
//! request that AWS would not understand, or whose signature is wrong, gets AWS's error, and fails the test at its end.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use pyroscope_lambda_extension::aws::sigv4::{self, Keys, Scope};
use pyroscope_lambda_extension::{json, log};
use rustls::server::{ServerConfig, ServerConnection};
use rustls::{ALL_VERSIONS, StreamOwned};

use super::certificates::Leaf;
use super::message::{Body, Head, Messages};
use super::monitor::Monitor;
use super::play::{Gate, response};

/// The keys that requests must be signed with.
pub const ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE//////////token==";

/// What must be sent to the endpoint that gives those keys.
pub const CONTAINER_TOKEN: &str = "container-authorization-EXAMPLE";

/// How much a request's time may differ from ours.
const SKEW_MAX_SECONDS: u64 = 300;

/// What it does with a request instead of answering it.
#[derive(Clone)]
pub enum Mood {
    /// Answers with this status, error code and message.
    Error(u16, &'static str, &'static str),
    /// Answers when the gate is opened.
    Slow(Gate),
    /// Closes the connection.
    Dead,
}

/// One request, in the order in which they came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GetSecretValue`, `GetParameter`, or `keys`.
    pub what: String,
    /// The members of its body.
    pub members: BTreeMap<String, String>,
    /// The Host it was sent to.
    pub host: String,
}

pub struct Store {
    addr: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    state: Monitor<State>,
}

#[derive(Default)]
struct State {
    /// What is kept under a name, and perhaps a version stage.
    kept: BTreeMap<(String, String), String>,
    mood: Option<Mood>,
    asked: Vec<Asked>,
    violations: Vec<String>,
    over: bool,
}

impl Store {
    pub fn http() -> Self {
        Self::start(None)
    }

    pub fn https(leaf: Leaf) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(ALL_VERSIONS)
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key)
            .expect("a certificate that fits its key");
        Self::start(Some(Arc::new(config)))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        let addr = listener.local_addr().expect("an address");
        let is_tls = tls.is_some();
        let shared = Arc::new(Shared {
            tls,
            state: Monitor::new(State::default()),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if serving.state.look(|state| state.over) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // What breaks is either end's doing, and shows there.
                thread::spawn(move || serving.serve(stream).ok());
            }
        });
        Self {
            addr,
            tls: is_tls,
            shared,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}", self.addr.port()),
            false => format!("http://{}", self.addr),
        }
    }

    /// Keeps that secret, or parameter, under its ARN.
    pub fn keep(&self, arn: &str, value: &str) {
        self.keep_version(arn, "AWSCURRENT", value);
    }

    pub fn keep_version(&self, arn: &str, stage: &str, value: &str) {
        let name = (arn.to_owned(), stage.to_owned());
        self.shared
            .state
            .change(|state| state.kept.insert(name, value.to_owned()));
    }

    /// From now on does this with each request.
    pub fn always(&self, mood: Mood) {
        self.shared.state.change(|state| state.mood = Some(mood));
    }

    /// Answers again.
    pub fn recover(&self) {
        self.shared.state.change(|state| state.mood = None);
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state.look(|state| state.asked.clone())
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn wait_asked(&self, count: usize) -> Vec<Asked> {
        let what = format!("{count} requests at the store");
        self.shared.state.wait(&what, |state| {
            (state.asked.len() >= count).then(|| state.asked.clone())
        })
    }

    /// What it found wrong, which the test expects.
    pub fn forgive(&self) -> Vec<String> {
        self.shared
            .state
            .change(|state| std::mem::take(&mut state.violations))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.state.change(|state| state.over = true);
        let _ = TcpStream::connect(self.addr);
        let violations = self.forgive();
        if !violations.is_empty() && !thread::panicking() {
            panic!("the store would refuse: {violations:?}");
        }
    }
}

/// A connection's byte stream.
trait Line: Read + Write {}
impl<S: Read + Write> Line for S {}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let line: Box<dyn Line> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, stream))
            }
        };
        let mut messages = Messages::new(line);
        while let Some(head) = messages.head()? {
            let mut body = Body::default();
            messages.body(head.request_framing(), &mut body)?;
            let Some(answer) = self.answer(&head, &body.decoded) else {
                return Ok(());
            };
            messages.stream.write_all(&answer)?;
            messages.stream.flush()?;
        }
        Ok(())
    }

    /// The answer, if there is to be one.
    fn answer(&self, head: &Head, body: &[u8]) -> Option<Vec<u8>> {
        let text = str::from_utf8(body).unwrap_or_default();
        let members = members(text);
        let target = head.header("x-amz-target").unwrap_or_default();
        let what = target.rsplit('.').next().filter(|what| !what.is_empty());
        let asked = Asked {
            what: what.unwrap_or("keys").to_owned(),
            members: members.clone(),
            host: head.header("host").unwrap_or_default(),
        };
        let mood = self.state.change(|state| {
            state.asked.push(asked);
            state.mood.clone()
        });
        match mood {
            Some(Mood::Dead) => return None,
            Some(Mood::Error(status, code, message)) => return Some(error(status, code, message)),
            Some(Mood::Slow(gate)) if !gate.pass(0) => return None,
            Some(Mood::Slow(_)) | None => {}
        }
        let checked = match target.as_str() {
            "" => check_container(head),
            _ => check_signed(head, body),
        };
        if let Err(violation) = checked {
            let words = format!("{violation}: {}", head.text());
            self.state.change(|state| state.violations.push(words));
            return Some(error(400, "InvalidSignatureException", &violation));
        }
        Some(self.look_up(&target, &members))
    }

    fn look_up(&self, target: &str, members: &BTreeMap<String, String>) -> Vec<u8> {
        let member = |name: &str| members.get(name).cloned().unwrap_or_default();
        let stage = match member("VersionStage") {
            stage if stage.is_empty() => "AWSCURRENT".to_owned(),
            stage => stage,
        };
        let find = |name: String| {
            let key = (name, stage.clone());
            self.state.look(|state| state.kept.get(&key).cloned())
        };
        match target {
            "" => ok(&format!(
                r#"{{"AccessKeyId":"{ID}","SecretAccessKey":"{SECRET}","Token":"{TOKEN}","Expiration":"2099-01-01T00:00:00Z"}}"#
            )),
            "secretsmanager.GetSecretValue" => match find(member("SecretId")) {
                Some(value) => ok(&format!(
                    r#"{{"ARN":"{}","Name":"n","CreatedDate":1.7e9,"SecretString":{},"VersionStages":["{stage}"]}}"#,
                    member("SecretId"),
                    quoted(&value)
                )),
                None => error(
                    400,
                    "ResourceNotFoundException",
                    "Secrets Manager can't find the specified secret.",
                ),
            },
            "AmazonSSM.GetParameter" => match find(member("Name")) {
                Some(value) if members.contains_key("WithDecryption") => ok(&format!(
                    r#"{{"Parameter":{{"ARN":"a","DataType":"text","Type":"SecureString","Value":{},"Version":1}}}}"#,
                    quoted(&value)
                )),
                Some(_) => ok(r#"{"Parameter":{"Value":"AQICAHh-ciphertext"}}"#),
                None => error(400, "ParameterNotFound", ""),
            },
            _ => error(400, "UnknownOperationException", ""),
        }
    }
}

fn check_container(head: &Head) -> Result<(), String> {
    if head.start_line() != "GET /2021-04-23/credentials HTTP/1.1" {
        return Err("not a request for keys".to_owned());
    }
    match head.header("authorization") {
        Some(token) if token == CONTAINER_TOKEN => Ok(()),
        _ => Err("no authorization for keys".to_owned()),
    }
}

/// Checks a signed request, as AWS does.
fn check_signed(head: &Head, body: &[u8]) -> Result<(), String> {
    let must = |name: &str| head.header(name).ok_or(format!("no {name}"));
    if head.start_line() != "POST / HTTP/1.1" {
        return Err("not a request to the service".to_owned());
    }
    if must("content-type")? != "application/x-amz-json-1.1" {
        return Err("another content type".to_owned());
    }
    if must("x-amz-security-token")? != TOKEN {
        return Err("another token".to_owned());
    }
    let (authorization, time) = (must("authorization")?, must("x-amz-date")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let is_now = |second: u64| {
        let mut text = Vec::new();
        log::time::write(&mut text, sigv4::TIME_LAYOUT, second * 1000);
        text == time.as_bytes()
    };
    if !(now - SKEW_MAX_SECONDS..=now).rev().any(is_now) {
        return Err(format!("Signature expired: {time}"));
    }
    let between = |from: &str, to: &str| {
        let (_, rest) = authorization.split_once(from)?;
        rest.split(to).next().map(str::to_owned)
    };
    let scope = between("Credential=", ",").ok_or("no credential")?;
    let parts: Vec<&str> = scope.split('/').collect();
    let names = between("SignedHeaders=", ",").ok_or("no signed fields")?;
    for name in ["host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
        if !names.split(';').any(|signed| signed == name) {
            return Err(format!("{name} is not signed"));
        }
    }
    let values: Vec<(String, String)> = names
        .split(';')
        .map(|name| must(name).map(|value| (name.to_owned(), value)))
        .collect::<Result<_, _>>()?;
    let fields: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = sigv4::authorization(
        &sigv4::Request {
            method: "POST",
            path: "/",
            query: "",
            fields: &fields,
            body,
        },
        Scope {
            time: &time,
            region: parts.get(2).copied().unwrap_or_default(),
            service: parts.get(3).copied().unwrap_or_default(),
        },
        &Keys {
            id: ID.to_owned(),
            secret: SECRET.to_owned(),
            token: TOKEN.to_owned(),
        },
    );
    if expected == authorization {
        Ok(())
    } else {
        Err("the signature does not match".to_owned())
    }
}

fn members(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let _ = json::object(text, |name, value| {
        let text = match value {
            json::Value::String(text) => text.into_owned(),
            other => format!("{other:?}"),
        };
        all.insert(name.into_owned(), text);
    });
    all
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn ok(body: &str) -> Vec<u8> {
    answer(200, body)
}

fn error(status: u16, code: &str, message: &str) -> Vec<u8> {
    let body = format!(r#"{{"__type":"{code}","Message":{}}}"#, quoted(message));
    answer(status, &body)
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let fields = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-RequestId", "00000000-0000-0000-0000-000000000000"),
    ];
    response(status, &fields, body.as_bytes())
}

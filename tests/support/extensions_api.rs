//! The stand-in for Lambda's Extensions API: registration, the long poll for events, the two error reports.
//!
//! The test is Lambda: it waits until the extension has parked in `GET /event/next` and then says what
//! happens ([`ExtensionsApi::invoke`], [`ExtensionsApi::shutdown`]).
//!
//! ```text
//!   Nobody ──register──▶ Registered ──next──▶ Parked ──event──▶ Busy ──next──▶ Parked …
//!                                                          └─SHUTDOWN──▶ Leaving (no call is right any more)
//! ```
//!
//! With [`ExtensionsApi::with_telemetry`] it takes one subscription for platform events, and the test says when
//! which is delivered ([`ExtensionsApi::deliver`]); without, it has no telemetry, as AWS's emulator has none.
//!
//! Strict about the contract: a call Lambda would refuse is refused as Lambda refuses it (403 and a JSON body)
//! and noted as a violation, and dropping the stand-in with a violation noted fails the test.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Client, Response};
use super::message::{Body, Head, Messages, find};
use super::monitor::Monitor;
use super::pieces::write_in_pieces;
use super::play::Gate;

/// The identifier handed out at registration.
pub const IDENTIFIER: &str = "2f1c2a34-7c1e-4f1b-9a56-0b8d6a1e9c77";

/// One call as received.
#[derive(Clone, Debug)]
pub struct Call {
    pub connection: usize,
    pub head: Head,
    pub body: Vec<u8>,
    pub at: Instant,
}

/// A registration that was granted.
#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub events: Vec<String>,
    pub at: Instant,
}

/// An answer out of the ordinary to the next call of a kind.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with an error of this type in a JSON body.
    Refuse(u16, &'static str),
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// No answer: the connection is closed.
    Close,
}

/// Faults are queued per kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Register,
    Next,
    InitError,
    ExitError,
    Telemetry,
}

pub struct ExtensionsApi {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Monitor<State>,
}

impl Default for Monitor<State> {
    fn default() -> Self {
        Self::new(State::default())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Nobody,
    Registered,
    Parked,
    Busy,
    Leaving,
}

#[derive(Default)]
struct State {
    phase: Phase,
    registration: Option<Registration>,
    events: VecDeque<Event>,
    /// How many events were to be handed over, how many have been read, and how often one was asked for.
    announced: usize,
    delivered: usize,
    polls: usize,
    calls: Vec<Call>,
    connections: usize,
    faults: Vec<(Kind, Fault)>,
    held: Vec<(Kind, Gate)>,
    /// Answers are written in pieces of this many bytes.
    piece: Option<usize>,
    violations: Vec<String>,
    /// Whether there is a Telemetry API, and the port it delivers to.
    telemetry: bool,
    subscriber: Option<u16>,
    batches: usize,
    over: bool,
}

struct Event {
    json: String,
    shutdown: bool,
}

impl ExtensionsApi {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        thread::spawn(move || serving.accept_all(&listener));
        Self { addr, shared }
    }

    /// One that has telemetry.
    pub fn with_telemetry() -> Self {
        let api = Self::start();
        api.shared.state.change(|state| state.telemetry = true);
        api
    }

    /// Delivers one platform event, such as `runtimeDone`, about a request, as Lambda does: a batch posted to the
    /// subscriber's port. Waits first for the subscription.
    #[track_caller]
    pub fn deliver(&self, kind: &str, request_id: &str) -> Response {
        let status = if kind == "runtimeDone" {
            r#","status":"success""#
        } else {
            ""
        };
        self.deliver_batch(&format!(
            r#"[{{"time":"2026-11-20T18:46:00.000Z","type":"platform.{kind}","record":{{"requestId":"{request_id}"{status},"metrics":{{"durationMs":1.5}}}}}}]"#
        ))
    }

    /// Delivers a batch, whatever is in it.
    #[track_caller]
    pub fn deliver_batch(&self, batch: &str) -> Response {
        let (port, number) = self.shared.state.wait("a subscription", |state| {
            state.batches += usize::from(state.subscriber.is_some());
            state.subscriber.map(|port| (port, state.batches))
        });
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
        let length = batch.len();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: sandbox.localdomain:{port}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {length}\r\nContent-Type: application/json\r\nSequence-Id: {number}\r\n\
             Accept-Encoding: gzip\r\n\r\n{batch}"
        ));
        client.response()
    }

    /// What AWS_LAMBDA_RUNTIME_API says.
    pub fn address(&self) -> String {
        self.addr.to_string()
    }

    /// Answers the next call of this kind differently; several queue up.
    pub fn fault(&self, kind: Kind, fault: Fault) {
        self.shared
            .state
            .change(|state| state.faults.push((kind, fault)));
    }

    /// Answers the next call of this kind when the gate is opened.
    pub fn hold(&self, kind: Kind, gate: &Gate) {
        self.shared
            .state
            .change(|state| state.held.push((kind, gate.clone())));
    }

    /// Writes every answer in pieces of `size` bytes, each read by the extension before the next.
    pub fn answer_in_pieces(&self, size: usize) {
        self.shared.state.change(|state| state.piece = Some(size));
    }

    /// Waits for the registration.
    #[track_caller]
    pub fn wait_registered(&self) -> Registration {
        self.shared
            .state
            .wait("the extension to register", |state| {
                state.registration.clone()
            })
    }

    /// Waits until the extension has taken every event and asks for the next: Lambda may freeze it now.
    #[track_caller]
    pub fn wait_next(&self) {
        self.shared
            .state
            .wait("the extension to ask for the next event", |state| {
                (state.phase == Phase::Parked && state.events.is_empty()).then_some(())
            });
    }

    /// Hands over an INVOKE and returns its request id. Waits first until the extension asks.
    #[track_caller]
    pub fn invoke(&self) -> String {
        self.wait_next();
        let (request_id, json) = self.next_invoke();
        self.event(json);
        request_id
    }

    /// Has an INVOKE ready for an extension that asks for it and is frozen.
    pub fn invoke_frozen(&self) {
        let (_, json) = self.next_invoke();
        self.announce(json);
    }

    fn next_invoke(&self) -> (String, String) {
        let number = self.shared.state.look(|state| state.announced) + 1;
        let request_id = format!("8476a536-e9f4-11e8-9739-{number:012}");
        let deadline = epoch_ms(Duration::from_secs(3));
        let arn = "arn:aws:lambda:eu-central-1:123456789012:function:bench";
        let json = format!(
            r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"{request_id}","invokedFunctionArn":"{arn}","tracing":{{"type":"X-Amzn-Trace-Id","value":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"}}}}"#
        );
        (request_id, json)
    }

    /// An INVOKE, and back when the extension asks for the next event. Returns how long that took.
    #[track_caller]
    pub fn invoke_and_wait(&self) -> Duration {
        self.wait_next();
        let since = Instant::now();
        self.invoke();
        self.wait_next();
        since.elapsed()
    }

    /// Hands over a SHUTDOWN with this much time left. Waits first until the extension asks.
    #[track_caller]
    pub fn shutdown(&self, left: Duration) {
        self.shutdown_because("spindown", left);
    }

    /// A SHUTDOWN with this reason; Lambda has `spindown`, `timeout` and `failure`.
    #[track_caller]
    pub fn shutdown_because(&self, reason: &str, left: Duration) {
        self.wait_next();
        let deadline = epoch_ms(left);
        self.event(format!(
            r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline},"shutdownReason":"{reason}"}}"#
        ));
    }

    /// Hands over any event, now or when the extension asks, and returns when the extension has read it.
    #[track_caller]
    pub fn event(&self, json: String) {
        let place = self.announce(json);
        self.shared.state.wait("an event to be taken", |state| {
            (state.delivered >= place).then_some(())
        });
    }

    /// Gives the event's place among all.
    fn announce(&self, json: String) -> usize {
        let shutdown = json.contains("SHUTDOWN");
        self.shared.state.change(|state| {
            state.events.push_back(Event { json, shutdown });
            state.announced += 1;
            state.announced
        })
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state.look(|state| state.calls.clone())
    }

    /// Waits until `count` calls have come.
    #[track_caller]
    pub fn wait_calls(&self, count: usize) -> Vec<Call> {
        let what = format!("{count} calls of the Extensions API");
        self.shared.state.wait(&what, |state| {
            (state.calls.len() >= count).then(|| state.calls.clone())
        })
    }

    /// What Lambda would not have accepted, so far.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state.look(|state| state.violations.clone())
    }

    /// Takes note of the violations: the test expected them.
    pub fn forgive(&self) -> Vec<String> {
        self.shared
            .state
            .change(|state| std::mem::take(&mut state.violations))
    }
}

impl Drop for ExtensionsApi {
    fn drop(&mut self) {
        let violations = self.shared.state.change(|state| {
            state.over = true;
            std::mem::take(&mut state.violations)
        });
        // Wakes the thread that accepts, which then sees that it is over.
        let _ = TcpStream::connect(self.addr);
        assert!(
            violations.is_empty() || thread::panicking(),
            "the extension broke the contract: {violations:#?}"
        );
    }
}

/// What a call is answered with.
enum Answer {
    Now(Vec<u8>),
    NextEvent,
    Close,
}

impl Shared {
    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let connection = self.state.change(|state| {
                state.connections += 1;
                (!state.over).then_some(state.connections - 1)
            });
            let Some(connection) = connection else { return };
            let shared = Arc::clone(self);
            // A connection that breaks is the extension's end; what it was asked and said is on record.
            thread::spawn(move || shared.serve(connection, stream).ok());
        }
    }

    fn serve(&self, connection: usize, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut messages = Messages::new(stream.try_clone()?);
        while let Some(head) = messages.head()? {
            let mut body = Body::default();
            messages.body(head.request_framing(), &mut body)?;
            let call = Call {
                connection,
                head,
                body: body.decoded,
                at: Instant::now(),
            };
            let kind = kind_of(&call);
            if let Some(gate) = self.state.change(|state| state.note(&call, kind)) {
                gate.pass(connection);
            }
            let (answer, piece) = self
                .state
                .change(|state| (state.take(&call, kind), state.piece));
            let (bytes, is_event) = match answer {
                Answer::Now(bytes) => (bytes, false),
                Answer::Close => return Ok(()),
                Answer::NextEvent => match self.next_event() {
                    Some(bytes) => (bytes, true),
                    None => return Ok(()),
                },
            };
            write_in_pieces(&stream, &bytes, piece.unwrap_or(bytes.len()))?;
            if is_event {
                self.state.change(|state| state.delivered += 1);
            }
        }
        Ok(())
    }

    /// Waits, as long as it takes, for an event to hand over; `None` when the bench is taken down.
    fn next_event(&self) -> Option<Vec<u8>> {
        loop {
            let found = self.state.wait_within(Duration::from_secs(3600), |state| {
                if state.over {
                    return Some(None);
                }
                let event = state.events.pop_front()?;
                state.phase = if event.shutdown {
                    Phase::Leaving
                } else {
                    Phase::Busy
                };
                Some(Some(event))
            });
            if let Some(event) = found {
                return event.map(|event| event.response());
            }
        }
    }
}

impl Event {
    /// As Lambda writes it: a SHUTDOWN comes as plain text and without the event's identifier.
    fn response(&self) -> Vec<u8> {
        let headers = if self.shutdown {
            "Content-Type: text/plain; charset=utf-8\r\n".to_owned()
        } else {
            "Content-Type: application/json\r\nLambda-Extension-Event-Identifier: 1f1b7c3e-0a3d-4f6e-8a49-6f1f4f0a2f11\r\n"
                .to_owned()
        };
        http(200, &headers, &self.json)
    }
}

impl State {
    /// Keeps the call; returns the gate before its answer, if there is one.
    fn note(&mut self, call: &Call, kind: Option<Kind>) -> Option<Gate> {
        self.calls.push(call.clone());
        let line = call.head.start_line();
        if !line.ends_with(" HTTP/1.1") || call.head.header("Host").is_none() {
            self.violations
                .push(format!("not HTTP/1.1 with a Host: {line}"));
        }
        let at = self.held.iter().position(|(held, _)| Some(*held) == kind)?;
        Some(self.held.remove(at).1)
    }

    fn take(&mut self, call: &Call, kind: Option<Kind>) -> Answer {
        let line = call.head.start_line();
        let Some(kind) = kind else {
            return self.refuse(404, "Extension.UnknownPath", &line);
        };
        if let Some(at) = self.faults.iter().position(|(faulty, _)| *faulty == kind) {
            return match self.faults.remove(at).1 {
                Fault::Refuse(status, error) => Answer::Now(error_response(status, error)),
                Fault::Raw(bytes) => Answer::Now(bytes),
                Fault::Close => Answer::Close,
            };
        }
        match kind {
            Kind::Register => self.register(call),
            _ if call.head.header("Lambda-Extension-Identifier").is_none() => {
                self.refuse(403, "Extension.MissingExtensionIdentifier", &line)
            }
            _ if call.head.header("Lambda-Extension-Identifier").as_deref() != Some(IDENTIFIER) => {
                self.refuse(403, "Extension.UnknownExtensionIdentifier", &line)
            }
            Kind::Next => self.park(&line),
            Kind::InitError | Kind::ExitError => self.report(kind, call),
            Kind::Telemetry if self.telemetry => self.subscribe(call),
            // As the emulator answers: it has no telemetry.
            Kind::Telemetry => Answer::Now(error_response(202, "Telemetry.NotSupported")),
        }
    }

    fn register(&mut self, call: &Call) -> Answer {
        let line = call.head.start_line();
        let name = call
            .head
            .header("Lambda-Extension-Name")
            .unwrap_or_default();
        if name.is_empty() {
            return self.refuse(403, "Extension.InvalidExtensionName", &line);
        }
        if self.phase != Phase::Nobody {
            return self.refuse(403, "Extension.InvalidExtensionState", "registered twice");
        }
        let Some(events) = events_of(&call.body) else {
            return self.refuse(
                403,
                "InvalidRequestFormat",
                &String::from_utf8_lossy(&call.body),
            );
        };
        if let Some(unknown) = events
            .iter()
            .find(|event| !["INVOKE", "SHUTDOWN"].contains(&event.as_str()))
        {
            return self.refuse(403, "Extension.InvalidEventType", &unknown.clone());
        }
        self.phase = Phase::Registered;
        self.registration = Some(Registration {
            name,
            events,
            at: call.at,
        });
        let headers = format!(
            "Content-Type: application/json\r\nLambda-Extension-Identifier: {IDENTIFIER}\r\n"
        );
        Answer::Now(http(
            200,
            &headers,
            r#"{"functionName":"bench","functionVersion":"$LATEST","handler":"index.handler"}"#,
        ))
    }

    fn park(&mut self, line: &str) -> Answer {
        match self.phase {
            Phase::Registered | Phase::Busy => {
                self.phase = Phase::Parked;
                self.polls += 1;
                Answer::NextEvent
            }
            Phase::Nobody => self.refuse(403, "Extension.UnknownExtensionIdentifier", line),
            // A poll whose connection broke may be made again; another beside it may not, but the two look
            // the same from here. So it is let through, and `polls` tells.
            Phase::Parked => {
                self.polls += 1;
                Answer::NextEvent
            }
            Phase::Leaving => self.refuse(
                403,
                "Extension.InvalidExtensionState",
                "next after SHUTDOWN",
            ),
        }
    }

    /// The limits are those of AWS's "Lambda Telemetry API reference".
    fn subscribe(&mut self, call: &Call) -> Answer {
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let number = |name: &str| {
            let after = body.split_once(&format!("\"{name}\":"))?.1;
            let digits = after.find(|c: char| !c.is_ascii_digit())?;
            after[..digits].parse::<u64>().ok()
        };
        let within = |name: &str, low: u64, high: u64| {
            number(name).is_some_and(|number| (low..=high).contains(&number))
        };
        let uri = body.split_once(r#""URI":"http://sandbox.localdomain:"#);
        let port = uri.and_then(|(_, rest)| rest.split(['"', '/']).next()?.parse().ok());
        let right = body.contains(r#""schemaVersion":"2022-12-13""#)
            && body.contains(r#""types":["platform"]"#)
            && body.contains(r#""protocol":"HTTP""#)
            && within("maxItems", 1_000, 10_000)
            && within("maxBytes", 262_144, 1_048_576)
            && within("timeoutMs", 25, 30_000)
            && call.head.header("Content-Type").as_deref() == Some("application/json");
        if !right || port.is_none_or(|port| port == 9001) {
            return self.refuse(400, "ValidationError", &body);
        }
        if self.subscriber.is_some() {
            return self.refuse(400, "ValidationError", "subscribed twice");
        }
        self.subscriber = port;
        Answer::Now(http(200, "", "\"OK\""))
    }

    fn report(&mut self, kind: Kind, call: &Call) -> Answer {
        let line = call.head.start_line();
        if call
            .head
            .header("Lambda-Extension-Function-Error-Type")
            .is_none_or(|error| error.is_empty())
        {
            return self.refuse(403, "Extension.MissingHeader", &line);
        }
        if kind == Kind::InitError && self.phase != Phase::Registered {
            return self.refuse(403, "Extension.InvalidExtensionState", &line);
        }
        Answer::Now(http(
            202,
            "Content-Type: application/json\r\n",
            r#"{"status":"OK"}"#,
        ))
    }

    fn refuse(&mut self, status: u16, error: &'static str, detail: &str) -> Answer {
        self.violations.push(format!("{error}: {detail}"));
        Answer::Now(error_response(status, error))
    }
}

/// Which call this is, by its request line.
fn kind_of(call: &Call) -> Option<Kind> {
    match call.head.start_line().trim_end_matches(" HTTP/1.1") {
        "POST /2020-01-01/extension/register" => Some(Kind::Register),
        "GET /2020-01-01/extension/event/next" => Some(Kind::Next),
        "POST /2020-01-01/extension/init/error" => Some(Kind::InitError),
        "POST /2020-01-01/extension/exit/error" => Some(Kind::ExitError),
        "PUT /2022-07-01/telemetry" => Some(Kind::Telemetry),
        _ => None,
    }
}

/// The strings of the `events` array of a registration's body.
fn events_of(body: &[u8]) -> Option<Vec<String>> {
    let after = &body[find(body, b"\"events\"")? + 8..];
    let list = &after[find(after, b"[")? + 1..find(after, b"]")?];
    let list = std::str::from_utf8(list).ok()?;
    Some(
        list.split(',')
            .map(|event| event.trim().trim_matches('"').to_owned())
            .filter(|event| !event.is_empty())
            .collect(),
    )
}

fn error_response(status: u16, error: &str) -> Vec<u8> {
    let body = format!(r#"{{"errorMessage":"as the test wants it","errorType":"{error}"}}"#);
    http(status, "Content-Type: application/json\r\n", &body)
}

fn http(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Whatever\r\n{headers}Date: Fri, 20 Nov 2026 18:46:00 GMT\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Milliseconds since 1970, `from_now` from now.
fn epoch_ms(from_now: Duration) -> u128 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    (now + from_now).as_millis()
}

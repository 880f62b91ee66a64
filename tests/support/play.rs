//! What the stand-in for Pyroscope does with one request: a short list of steps, played in order.

use std::sync::Arc;
use std::time::Duration;

use super::monitor::Monitor;

/// The steps for one request. The usual ones have a constructor; `Play(vec![…])` says any other.
#[derive(Clone)]
pub struct Play(pub Vec<Step>);

#[derive(Clone)]
pub enum Step {
    /// Read up to the end of the head.
    ReadHead,
    /// Read the rest of the request, as its head frames it.
    ReadBody,
    /// Take the time that the server takes for a request: [`LATENCY`](super::pyroscope::LATENCY), unless it is quick.
    Work,
    /// Go on when the gate is opened.
    Hold(Gate),
    /// Write these bytes at once.
    Write(Vec<u8>),
    /// Write these bytes one at a time, each read by the other end before the next.
    WriteBytewise(Vec<u8>),
    /// Write these bytes, and what is not TLS after them in the same write.
    WriteThenGarbage(Vec<u8>),
    /// Write these bytes, and a fatal alert after them in the same write.
    WriteThenAlert(Vec<u8>),
    /// Write these bytes and close_notify with them, and leave the connection as it is.
    WriteThenCloseNotify(Vec<u8>),
    /// End the connection with a FIN (after close_notify when it is TLS).
    Close,
    /// End the connection with a RST.
    Reset,
}

impl Play {
    /// Reads the whole request and answers, after the server's latency, with this status and no body.
    pub fn answer(status: u16) -> Self {
        Self::raw(response(status, &[], b""))
    }

    /// Reads the whole request and answers, after the server's latency, with exactly these bytes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![
            Step::ReadHead,
            Step::ReadBody,
            Step::Work,
            Step::Write(bytes.into()),
        ])
    }

    /// Like [`Play::raw`], one byte at a time.
    pub fn bytewise(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![
            Step::ReadHead,
            Step::ReadBody,
            Step::Work,
            Step::WriteBytewise(bytes.into()),
        ])
    }

    /// Answers when it has read the head, reads no body, and closes.
    pub fn early(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::ReadHead, Step::Write(bytes.into()), Step::Close])
    }

    /// Reads the whole request, and answers with this last step.
    pub fn ending(step: Step) -> Self {
        Self(vec![Step::ReadHead, Step::ReadBody, step])
    }

    /// Reads the whole request and ends the connection with a FIN, without a byte of an answer.
    pub fn close_unanswered() -> Self {
        Self(vec![Step::ReadHead, Step::ReadBody, Step::Close])
    }

    /// Reads the whole request and ends the connection with a RST, without a byte of an answer.
    pub fn reset_unanswered() -> Self {
        Self(vec![Step::ReadHead, Step::ReadBody, Step::Reset])
    }

    /// Reads the head and ends the connection with a RST in the middle of the body.
    pub fn reset_in_body() -> Self {
        Self(vec![Step::ReadHead, Step::Reset])
    }

    /// Reads nothing until the gate opens.
    pub fn unread_until(mut self, gate: &Gate) -> Self {
        self.0.insert(0, Step::Hold(gate.clone()));
        self
    }

    /// Answers without the server's latency.
    pub fn at_once(mut self) -> Self {
        self.0.retain(|step| !matches!(step, Step::Work));
        self
    }

    /// Reads the request, and begins the answer when the gate opens: then, and no latency later.
    pub fn unanswered_until(self, gate: &Gate) -> Self {
        let mut held = self.at_once();
        let writes = |step: &Step| {
            matches!(
                step,
                Step::Write(_) | Step::WriteBytewise(_) | Step::Close | Step::Reset
            )
        };
        let at = held.0.iter().position(writes).unwrap_or(held.0.len());
        held.0.insert(at, Step::Hold(gate.clone()));
        held
    }

    /// Ends the connection with a FIN afterwards.
    pub fn then_close(mut self) -> Self {
        self.0.push(Step::Close);
        self
    }
}

/// A response with a Content-Length, as bytes.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Whatever",
    }
}

/// Holds whoever waits before it until it is opened; stays open from then on.
#[derive(Clone)]
pub struct Gate(Arc<Monitor<GateState>>);

#[derive(Default)]
struct GateState {
    open: bool,
    /// Connections that will never pass: their stand-in has ended them.
    doomed: Vec<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Monitor::new(GateState::default())))
    }

    pub fn open(&self) {
        self.0.change(|state| state.open = true);
    }

    /// `false` when the connection was ended while it waited, which at the latest is when its stand-in goes.
    pub(super) fn pass(&self, connection: usize) -> bool {
        self.0
            .wait_within(Duration::from_hours(1), |state| {
                if state.doomed.contains(&connection) {
                    Some(false)
                } else {
                    state.open.then_some(true)
                }
            })
            .unwrap_or(false)
    }

    pub(super) fn doom(&self, connection: usize) {
        self.0.change(|state| state.doomed.push(connection));
    }
}

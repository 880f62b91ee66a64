//! One connection to Lambda's API, and the request on it.
//!
//! ```text
//! None ── connecting ──▶ Connecting ── connected ──▶ Idle ── put ──▶ Asking ── answer ──▶ Idle or None
//! ```

use crate::contract::{ConnId, End};
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::fields;
use crate::http1::response::ResponseReader;

/// Largest answer accepted. An INVOKE event is under 2 KB; the largest seen from RIE is 700 bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// First size of the buffer for answers.
const INBOX_START: usize = 2048;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Wire {
    state: State,
    /// Whether the connection has already carried an answer.
    served: bool,
    /// The request, of which `sent` bytes are written. Its buffer and those of the answer are reused: allocating and
    /// freeing takes longer than reading an event.
    request: Vec<u8>,
    sent: usize,
    reading: Reading,
}

#[derive(Debug, Clone, Copy)]
enum State {
    None,
    Connecting(ConnId),
    Idle(ConnId),
    Asking(ConnId),
}

/// The API's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Lambda-Extension-Identifier`, empty if there is none.
    pub(super) identifier: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn clear(&mut self) {
        self.status = 0;
        self.identifier.clear();
        self.body.clear();
    }

    /// As text for the log.
    pub(super) fn words(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("status {}: {body}", self.status)
    }
}

/// What the end of the connection means for the request on it.
#[derive(Debug)]
pub(super) enum Ended {
    /// There was no request.
    Nothing,
    /// The end of the connection completes its answer.
    Answered,
    /// The connection was already dead before the request: it may be sent again on a new one.
    Stale,
    /// It failed, and why.
    Broke(&'static str),
}

impl Wire {
    pub(super) const fn new() -> Self {
        Self {
            state: State::None,
            served: false,
            request: Vec::new(),
            sent: 0,
            reading: Reading::new(),
        }
    }

    /// Whether there is no connection, and none is being made.
    pub(super) const fn is_cut(&self) -> bool {
        matches!(self.state, State::None)
    }

    /// Whether the request, if there is one, is written.
    pub(super) fn is_written(&self) -> bool {
        !matches!(self.state, State::None | State::Connecting(_)) && self.pending().is_empty()
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        match &self.state {
            State::None => false,
            State::Connecting(own) | State::Idle(own) | State::Asking(own) => *own == id,
        }
    }

    /// The owner starts a connection under that id.
    pub(super) const fn connecting(&mut self, id: ConnId) {
        self.state = State::Connecting(id);
        self.served = false;
    }

    pub(super) const fn connected(&mut self, id: ConnId) {
        self.state = State::Idle(id);
    }

    /// Writes a request, with `write`, on an idle connection.
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let State::Idle(id) = self.state {
            self.state = State::Asking(id);
            self.request.clear();
            write(&mut self.request);
            self.sent = 0;
            self.reading.begin();
        }
    }

    /// Forgets the connection; returns it, to be closed.
    pub(super) const fn cut(&mut self) -> Option<ConnId> {
        match std::mem::replace(&mut self.state, State::None) {
            State::None => None,
            State::Connecting(id) | State::Idle(id) | State::Asking(id) => Some(id),
        }
    }

    pub(super) const fn wants(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        match self.state {
            State::Asking(_) => self.reading.space(),
            _ => &mut [],
        }
    }

    /// `n` bytes of [`Wire::space`] have been read. Returns whether the answer is complete.
    pub(super) fn received(&mut self, n: usize) -> Result<bool, &'static str> {
        let State::Asking(id) = self.state else {
            return Ok(false);
        };
        self.reading.received(n)?;
        let Some(keep_alive) = self.reading.reader.done() else {
            return Ok(false);
        };
        self.served = true;
        // Bytes after the answer belong to no request: the connection is not trusted any further.
        self.state = if keep_alive && self.reading.inbox.is_empty() {
            State::Idle(id)
        } else {
            State::None
        };
        Ok(true)
    }

    pub(super) const fn ended(&mut self, why: End) -> Ended {
        match std::mem::replace(&mut self.state, State::None) {
            State::None | State::Idle(_) => Ended::Nothing,
            State::Asking(_) if self.reading.reader.is_whole_at_close() => Ended::Answered,
            State::Asking(_) if self.served && self.reading.is_untouched() => Ended::Stale,
            State::Connecting(_) | State::Asking(_) => Ended::Broke(why.words()),
        }
    }

    /// The complete answer. The caller gives it back after reading, because its buffers are reused.
    pub(super) fn take_answer(&mut self) -> Answer {
        std::mem::take(&mut self.reading.answer)
    }

    pub(super) fn give_back(&mut self, mut answer: Answer) {
        answer.clear();
        self.reading.answer = answer;
    }

    pub(super) fn pending(&self) -> &[u8] {
        match self.state {
            State::Asking(_) => &self.request[self.sent..],
            _ => &[],
        }
    }

    pub(super) const fn sent(&mut self, n: usize) {
        self.sent += n;
    }
}

#[derive(Debug)]
struct Reading {
    reader: ResponseReader,
    inbox: ReceiveBuffer,
    answer: Answer,
}

impl Reading {
    const fn new() -> Self {
        Self {
            reader: ResponseReader::new(false),
            inbox: ReceiveBuffer::new(),
            answer: Answer {
                status: 0,
                identifier: Vec::new(),
                body: Vec::new(),
            },
        }
    }

    /// Prepares to read the next answer.
    fn begin(&mut self) {
        self.reader = ResponseReader::new(false);
        self.inbox.clear();
        self.answer.clear();
    }

    const fn is_untouched(&self) -> bool {
        self.inbox.is_empty() && !self.reader.has_head()
    }

    fn space(&mut self) -> &mut [u8] {
        self.inbox.space(INBOX_START, ANSWER_BYTES_MAX)
    }

    fn received(&mut self, n: usize) -> Result<(), &'static str> {
        self.inbox.received(n);
        let Answer {
            status,
            identifier,
            body,
        } = &mut self.answer;
        self.reader.read(
            &mut self.inbox,
            |response| {
                *status = response.status;
                let value = fields::value(response.headers, "lambda-extension-identifier");
                identifier.extend_from_slice(value.unwrap_or_default());
            },
            |piece| body.extend_from_slice(piece),
        )?;
        if body.len() > ANSWER_BYTES_MAX {
            Err("the answer is too long")
        } else {
            Ok(())
        }
    }
}

//! One connection to Lambda's API, and the request on it.
//!
//! ```text
//! None ── connecting ──▶ Connecting ── connected ──▶ Idle ── put ──▶ Asking ── answer ──▶ Idle or None
//! ```

use crate::contract::{ConnId, End};
use crate::http1::head;
use crate::http1::response::ResponseReader;

/// Largest answer taken. An INVOKE event is under 2 KB; RIE's largest seen is 700 bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// First size of the buffer for answers.
const INBOX_START: usize = 2048;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Wire {
    state: State,
    /// Whether the connection has carried an answer.
    served: bool,
}

#[derive(Debug)]
enum State {
    None,
    Connecting(ConnId),
    Idle(ConnId),
    Asking {
        id: ConnId,
        request: Vec<u8>,
        sent: usize,
        reading: Box<Reading>,
    },
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Lambda-Extension-Identifier`, empty where there is none.
    pub(super) identifier: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// For the log.
    pub(super) fn words(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("status {}: {body}", self.status)
    }
}

/// What the end of the connection means for the request on it.
#[derive(Debug)]
pub(super) enum Ended {
    /// There was none.
    Nothing,
    /// The end of the connection was the end of its answer.
    Answered(Answer),
    /// The connection had died before the request: it may be asked again on a new one.
    Stale,
    /// It failed, and why.
    Broke(&'static str),
}

impl Wire {
    pub(super) const fn new() -> Self {
        Self {
            state: State::None,
            served: false,
        }
    }

    /// Whether there is no connection, and none on the way.
    pub(super) const fn is_cut(&self) -> bool {
        matches!(self.state, State::None)
    }

    /// Whether a request can be put on it.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    /// Whether the request, if there is one, is written.
    pub(super) fn is_written(&self) -> bool {
        !matches!(self.state, State::None | State::Connecting(_)) && self.pending().is_empty()
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        match &self.state {
            State::None => false,
            State::Connecting(own) | State::Idle(own) | State::Asking { id: own, .. } => *own == id,
        }
    }

    /// The owner makes a connection under that name.
    pub(super) fn connecting(&mut self, id: ConnId) {
        self.state = State::Connecting(id);
        self.served = false;
    }

    pub(super) fn connected(&mut self, id: ConnId) {
        self.state = State::Idle(id);
    }

    /// Puts a request on an idle connection.
    pub(super) fn put(&mut self, request: Vec<u8>) {
        if let State::Idle(id) = self.state {
            self.state = State::Asking {
                id,
                request,
                sent: 0,
                reading: Box::new(Reading::new()),
            };
        }
    }

    /// Forgets the connection, and gives it to be closed.
    pub(super) fn cut(&mut self) -> Option<ConnId> {
        match std::mem::replace(&mut self.state, State::None) {
            State::None => None,
            State::Connecting(id) | State::Idle(id) | State::Asking { id, .. } => Some(id),
        }
    }

    pub(super) const fn wants(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        match &mut self.state {
            State::Asking { reading, .. } => reading.space(),
            _ => &mut [],
        }
    }

    /// `n` bytes of [`Wire::space`] have been read. Gives the answer once it is whole.
    pub(super) fn received(&mut self, n: usize) -> Result<Option<Answer>, &'static str> {
        let State::Asking { id, reading, .. } = &mut self.state else {
            return Ok(None);
        };
        let id = *id;
        reading.received(n)?;
        let Some(keep_alive) = reading.reader.done() else {
            return Ok(None);
        };
        self.served = true;
        // What is behind the answer answers nothing we asked: the connection is not trusted any further.
        let next = if keep_alive && reading.end == 0 {
            State::Idle(id)
        } else {
            State::None
        };
        Ok(self.take_answer(next))
    }

    pub(super) fn ended(&mut self, why: End) -> Ended {
        match &self.state {
            State::None | State::Idle(_) => {
                self.state = State::None;
                Ended::Nothing
            }
            State::Asking { reading, .. } if reading.reader.is_whole_at_close() => self
                .take_answer(State::None)
                .map_or(Ended::Nothing, Ended::Answered),
            State::Asking { reading, .. } if self.served && reading.is_unheard() => {
                self.state = State::None;
                Ended::Stale
            }
            State::Connecting(_) | State::Asking { .. } => {
                self.state = State::None;
                Ended::Broke(why.words())
            }
        }
    }

    pub(super) fn pending(&self) -> &[u8] {
        match &self.state {
            State::Asking { request, sent, .. } => &request[*sent..],
            _ => &[],
        }
    }

    pub(super) const fn sent(&mut self, n: usize) {
        if let State::Asking { sent, .. } = &mut self.state {
            *sent += n;
        }
    }

    fn take_answer(&mut self, next: State) -> Option<Answer> {
        match std::mem::replace(&mut self.state, next) {
            State::Asking { reading, .. } => Some(reading.answer),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Reading {
    reader: ResponseReader,
    /// Bytes not used yet are `inbox[..end]`.
    inbox: Vec<u8>,
    end: usize,
    answer: Answer,
}

impl Reading {
    const fn new() -> Self {
        Self {
            reader: ResponseReader::new(false),
            inbox: Vec::new(),
            end: 0,
            answer: Answer {
                status: 0,
                identifier: Vec::new(),
                body: Vec::new(),
            },
        }
    }

    const fn is_unheard(&self) -> bool {
        self.end == 0 && !self.reader.has_head()
    }

    fn space(&mut self) -> &mut [u8] {
        if self.end == self.inbox.len() {
            self.inbox.resize(
                (self.inbox.len() * 2).clamp(INBOX_START, ANSWER_BYTES_MAX),
                0,
            );
        }
        &mut self.inbox[self.end..]
    }

    fn received(&mut self, n: usize) -> Result<(), &'static str> {
        self.end += n;
        let mut used = 0;
        loop {
            let answer = &mut self.answer;
            let bytes = &mut self.inbox[used..self.end];
            let at = self.reader.advance(bytes, |response| {
                answer.status = response.status;
                let value = head::value(response.headers, "lambda-extension-identifier");
                answer
                    .identifier
                    .extend_from_slice(value.unwrap_or_default());
            })?;
            if answer.body.len() + at.body > ANSWER_BYTES_MAX {
                return Err("the answer is too long");
            }
            answer.body.extend_from_slice(&bytes[..at.body]);
            used += at.used;
            if at.used == 0 || used == self.end || self.reader.done().is_some() {
                break;
            }
        }
        self.inbox.copy_within(used..self.end, 0);
        self.end -= used;
        if self.end == ANSWER_BYTES_MAX {
            Err("the answer is too long")
        } else {
            Ok(())
        }
    }
}

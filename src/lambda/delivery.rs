//! One connection on which Lambda delivers telemetry: takes batches, answers each.
//!
//! ```text
//!      ┌────── keep-alive ──────┐
//!      ▼                        │
//! ──▶ Head ──▶ Body ── whole, answered ──▶ Last ── written ──▶ closed
//!      └── refused, answered ────────────────▲
//! ```

use crate::http1::body::BodyReader;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::head::{self, Refusal};
use crate::http1::{HEAD_BYTES_MAX, header_slots, write};

/// First size of the buffer: a batch of one invocation's platform events is about 1 KB.
const INBOX_START: usize = 2048;

/// Largest batch taken. AWS says to expect twice the subscription's `maxBytes` of 256 KiB, and metadata.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    state: State,
    inbox: ReceiveBuffer,
    /// As much of the batch as has come.
    batch: Vec<u8>,
    answers: Vec<u8>,
    sent: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body {
        reader: BodyReader,
        keep_alive: bool,
    },
    Last,
}

const TOO_LARGE: Refusal = Refusal {
    status: 413,
    reason: "the batch is too large",
};

impl Delivery {
    /// Whether bytes are wanted: not before the last answer is written.
    pub(super) const fn wants(&self) -> bool {
        self.answers.is_empty() && !matches!(self.state, State::Last)
    }

    /// Where the next bytes go.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if !self.wants() {
            return &mut [];
        }
        self.inbox.space(INBOX_START, HEAD_BYTES_MAX)
    }

    /// `n` bytes of [`Delivery::space`] have been read. Each batch that is whole by now is given to `take`.
    ///
    /// # Errors
    /// What is wrong with what came, in words. It has been refused.
    pub(super) fn received(
        &mut self,
        n: usize,
        mut take: impl FnMut(&str) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        self.inbox.received(n);
        loop {
            let before = self.inbox.len();
            match self.advance(&mut take) {
                Ok(goes_on) if goes_on || self.inbox.len() < before => {}
                Ok(_) => return Ok(()),
                Err(refusal) => {
                    write::reply(&mut self.answers, refusal.status, false, false);
                    self.state = State::Last;
                    self.inbox.clear();
                    return Err(refusal.reason);
                }
            }
        }
    }

    /// Answers to be written.
    pub(super) fn pending(&self) -> &[u8] {
        &self.answers[self.sent..]
    }

    /// `n` bytes of [`Delivery::pending`] have been written. Whether the connection is to be closed.
    pub(super) fn sent(&mut self, n: usize) -> bool {
        self.sent += n;
        if self.sent == self.answers.len() {
            self.answers.clear();
            self.sent = 0;
        }
        self.answers.is_empty() && matches!(self.state, State::Last)
    }

    /// Reads a head, or a piece of a batch. Whether it came to the end of one.
    fn advance(
        &mut self,
        take: &mut impl FnMut(&str) -> Result<(), &'static str>,
    ) -> Result<bool, Refusal> {
        match &mut self.state {
            State::Head => {
                let Some(len) = self.inbox.head_end() else {
                    return if self.inbox.is_full(HEAD_BYTES_MAX) {
                        refuse(431, "the head is too long")
                    } else {
                        Ok(false)
                    };
                };
                let (reader, keep_alive) = begin(&self.inbox.bytes()[..len], &mut self.answers)?;
                self.inbox.consume(len);
                self.state = State::Body { reader, keep_alive };
            }
            State::Body { reader, keep_alive } => {
                let Ok(at) = reader.decode(self.inbox.bytes_mut()) else {
                    return refuse(400, "malformed chunk");
                };
                if self.batch.len() + at.body > BATCH_BYTES_MAX {
                    return Err(TOO_LARGE);
                }
                self.batch.extend_from_slice(&self.inbox.bytes()[..at.body]);
                self.inbox.consume(at.used);
                if !reader.is_done() {
                    return Ok(false);
                }
                let batch = std::mem::take(&mut self.batch);
                if let Err(reason) = take(&String::from_utf8_lossy(&batch)) {
                    return refuse(400, reason);
                }
                write::reply(&mut self.answers, 200, *keep_alive, false);
                self.state = if *keep_alive {
                    State::Head
                } else {
                    State::Last
                };
            }
            State::Last => {
                self.inbox.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const fn refuse<T>(status: u16, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, reason })
}

/// Judges a head: how to read the batch, and whether more may follow.
fn begin(head: &[u8], answers: &mut Vec<u8>) -> Result<(BodyReader, bool), Refusal> {
    let mut slots = header_slots();
    let request = head::request(head, &mut slots)?;
    if request.method != "POST" {
        return refuse(405, "telemetry comes by POST");
    }
    let framing = request.framing()?;
    if matches!(framing.body, BodyReader::Length(length) if length > BATCH_BYTES_MAX as u64) {
        return Err(TOO_LARGE);
    }
    if framing.expects_continue {
        answers.extend_from_slice(write::CONTINUE);
    }
    Ok((framing.body, framing.keep_alive))
}

//! One connection on which Lambda delivers telemetry: takes batches, answers each.
//!
//! ```text
//!      ┌────── keep-alive ──────┐
//!      ▼                        │
//! ──▶ Head ──▶ Body ── whole, answered ──▶ Last ── written ──▶ closed
//!      └── refused, answered ────────────────▲
//! ```

use crate::http1::body::BodyReader;
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
    /// Bytes not used yet are `inbox[..end]`.
    inbox: Vec<u8>,
    end: usize,
    searched: usize,
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
        if self.end == self.inbox.len() {
            let len = (self.inbox.len() * 2).clamp(INBOX_START, HEAD_BYTES_MAX);
            self.inbox.resize(len, 0);
        }
        &mut self.inbox[self.end..]
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
        self.end += n;
        let mut used = 0;
        let result = loop {
            let before = used;
            match self.advance(&mut used, &mut take) {
                Ok(goes_on) if goes_on || used > before => {}
                Ok(_) => break Ok(()),
                Err(refusal) => {
                    write::reply(&mut self.answers, refusal.status, false, false);
                    self.state = State::Last;
                    used = self.end;
                    break Err(refusal.reason);
                }
            }
        };
        self.inbox.copy_within(used..self.end, 0);
        self.end -= used;
        result
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
        used: &mut usize,
        take: &mut impl FnMut(&str) -> Result<(), &'static str>,
    ) -> Result<bool, Refusal> {
        let bytes = &mut self.inbox[*used..self.end];
        match &mut self.state {
            State::Head => {
                let Some(len) = head::end(bytes, &mut self.searched) else {
                    return if head::too_long(bytes.len()) {
                        refuse(431, "the head is too long")
                    } else {
                        Ok(false)
                    };
                };
                self.searched = 0;
                *used += len;
                let (reader, keep_alive) = begin(&bytes[..len], &mut self.answers)?;
                self.state = State::Body { reader, keep_alive };
            }
            State::Body { reader, keep_alive } => {
                let Ok(at) = reader.decode(bytes) else {
                    return refuse(400, "malformed chunk");
                };
                *used += at.used;
                if self.batch.len() + at.body > BATCH_BYTES_MAX {
                    return Err(TOO_LARGE);
                }
                self.batch.extend_from_slice(&bytes[..at.body]);
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
                *used = self.end;
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

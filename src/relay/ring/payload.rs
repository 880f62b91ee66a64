//! One payload: the request as it is sent, in one buffer.
//!
//! ```text
//! ├── head ──┤── Content-Length, empty line, gap ──┤── body ──▶ ┤── room ──┤
//! 0       head_end                             body_start   body_end
//! ```

use crate::http1::write;
use crate::times::{Edit, Form, PREFIX_MAX, Stamp};

/// Room between head and body: `Content-Length: `, 20 digits, and two line ends; and what may come before the body.
pub(super) const GAP: usize = END_MAX + PREFIX_MAX;
const END_MAX: usize = 16 + 20 + 2 + 2;

/// What the request is like, beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// The announced length of the body; `None` where it comes in chunks.
    pub length: Option<usize>,
    /// Whether the outgoing head says a length at all.
    pub has_body: bool,
    /// Whether the method is HEAD, whose answer has no body.
    pub to_head_request: bool,
    /// What is to be changed in the body; with a stamp, its times.
    pub change: Option<(Form, Option<Stamp>)>,
}

/// One request, ready to be sent but for its length.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// As long as its capacity, so that a socket can be read into it.
    pub(super) buffer: Vec<u8>,
    /// Where the head ends without its length.
    fields_end: usize,
    head_end: usize,
    body_start: usize,
    body_end: usize,
    /// Where the body ends when the announced length is there.
    body_limit: usize,
    pub(super) shape: Shape,
    /// The target without the settings' labels, if it has them.
    pub(super) plain_target: Vec<u8>,
    /// What the body has before and after it for the same reason.
    around: (usize, usize),
    /// Whether it may have reached the remote before.
    pub(super) was_sent: bool,
    pub(super) tries: Tries,
}

/// What was tried with a payload so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tries {
    /// Failed attempts, all of them.
    failed: Failed,
    /// Payloads relayed in all when the last attempt failed, or when this one was committed.
    relayed_then: u64,
    free_resend_used: bool,
}

/// How often a payload's attempts failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    /// All failed attempts.
    pub tries: u8,
    /// Those that count: where no payload got through in between, nothing is said against this one.
    pub attempts: u8,
}

impl Tries {
    /// None so far; `relayed` payloads got through before.
    pub(super) const fn new(relayed: u64) -> Self {
        Self {
            failed: Failed {
                tries: 0,
                attempts: 0,
            },
            relayed_then: relayed,
            free_resend_used: false,
        }
    }

    /// An attempt failed; `relayed` payloads have got through by now.
    pub(super) const fn fail(&mut self, relayed: u64) -> Failed {
        let Failed { tries, attempts } = &mut self.failed;
        *tries = tries.saturating_add(1);
        if relayed > self.relayed_then {
            *attempts = attempts.saturating_add(1);
        }
        self.relayed_then = relayed;
        self.failed
    }

    /// How often attempts failed so far.
    pub(super) const fn failed(&self) -> Failed {
        self.failed
    }

    /// Whether the free resend is still there.
    pub(super) const fn has_free_resend(&self) -> bool {
        !self.free_resend_used
    }

    /// Uses the free resend up. Whether it was there.
    pub(super) const fn use_free_resend(&mut self) -> bool {
        !std::mem::replace(&mut self.free_resend_used, true)
    }
}

impl Payload {
    /// A request with this head, in a buffer that has room for it and the gap.
    pub(super) fn new(mut buffer: Vec<u8>, head: &[u8], shape: Shape) -> Self {
        buffer[..head.len()].copy_from_slice(head);
        let body_start = head.len() + GAP;
        Self {
            buffer,
            fields_end: head.len(),
            head_end: head.len(),
            body_start,
            body_end: body_start,
            body_limit: shape
                .length
                .map_or(usize::MAX, |length| body_start.saturating_add(length)),
            shape,
            plain_target: Vec::new(),
            around: (0, 0),
            was_sent: false,
            tries: Tries::new(0),
        }
    }

    /// Head and body.
    pub(super) fn request(&self) -> [&[u8]; 2] {
        [
            &self.buffer[..self.head_end],
            &self.buffer[self.body_start..self.body_end],
        ]
    }

    /// Where the buffer has to grow to, if it is full and the body is not.
    pub(super) const fn grows_to(&self) -> Option<usize> {
        if self.body_end == self.buffer.len() && self.body_end < self.body_limit {
            Some(self.body_limit)
        } else {
            None
        }
    }

    /// Where the next bytes of body go.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let limit = self.buffer.len().min(self.body_limit);
        &mut self.buffer[self.body_end..limit]
    }

    /// `n` bytes of [`Payload::space`] are body now.
    pub(super) const fn filled(&mut self, n: usize) {
        self.body_end += n;
    }

    /// How long the body is.
    pub(super) const fn body_bytes(&self) -> usize {
        self.body_end - self.body_start
    }

    /// The body.
    pub(super) fn body(&self) -> &[u8] {
        &self.buffer[self.body_start..self.body_end]
    }

    /// How long the buffer is to be for a body that is so changed.
    pub(super) const fn edited_end(&self, edit: &Edit) -> usize {
        self.body_start + edit.keep + edit.tail.len()
    }

    /// Changes the body, for which the buffer has room.
    pub(super) fn edit(&mut self, edit: &Edit) {
        let end = self.edited_end(edit);
        if let Some((at, byte)) = edit.patch {
            self.buffer[self.body_start + at] = byte;
        }
        self.buffer[self.body_start + edit.keep..end].copy_from_slice(&edit.tail);
        self.body_end = end;
        let start = self.body_start;
        self.body_start -= edit.prefix.len();
        self.buffer[self.body_start..start].copy_from_slice(&edit.prefix);
        self.around = (edit.prefix.len(), edit.suffix);
        self.end_head();
    }

    /// Takes the settings' labels away again. Whether there were any.
    pub(super) fn take_labels_away(&mut self) -> bool {
        let (before, after) = std::mem::take(&mut self.around);
        self.body_start += before;
        self.body_end -= after;
        let plain = std::mem::take(&mut self.plain_target);
        let has_any = after > 0 || !plain.is_empty();
        if !plain.is_empty() {
            self.replace_target(&plain);
        }
        if has_any {
            self.end_head();
        }
        has_any
    }

    /// Puts a shorter target into the head.
    fn replace_target(&mut self, target: &[u8]) {
        let head = &mut self.buffer[..self.fields_end];
        let mut spaces = (0..head.len()).filter(|at| head[*at] == b' ');
        if let (Some(start), Some(end)) = (spaces.next(), spaces.next())
            && let Some(less) = (end - start - 1).checked_sub(target.len())
        {
            head[start + 1..end - less].copy_from_slice(target);
            head.copy_within(end.., end - less);
            self.fields_end -= less;
        }
    }

    /// Writes the length, now known, and the empty line into the gap after the head.
    pub(super) fn end_head(&mut self) {
        let mut end = ArrayWriter {
            bytes: [0; END_MAX],
            len: 0,
        };
        if self.shape.has_body {
            end.push(b"Content-Length: ");
            end.push(write::decimal(&mut [0; 20], self.body_bytes() as u64));
            end.push(b"\r\n");
        }
        end.push(b"\r\n");
        self.head_end = self.fields_end + end.len;
        self.buffer[self.fields_end..self.head_end].copy_from_slice(&end.bytes[..end.len]);
    }
}

/// The gap's content, put together without an allocation.
struct ArrayWriter {
    bytes: [u8; END_MAX],
    len: usize,
}

impl ArrayWriter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

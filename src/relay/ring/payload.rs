//! One payload: the request as it is sent, in one buffer.
//!
//! ```text
//! ├── head ──┤── Content-Length, empty line, gap ──┤── body ──▶ ┤── room ──┤
//! 0       head_end                             body_start   body_end
//! ```

use crate::http1::write;
use crate::times::{Edit, Form, PREFIX_MAX, Stamp};

/// Space between head and body: for the end of the head, and a prefix of the body.
pub(super) const GAP: usize = END_MAX + PREFIX_MAX;
/// The longest end of a head, which says how long the body is.
const END_MAX: usize = b"Content-Length: 18446744073709551615\r\n\r\n".len();

/// What the ring must know about a request, apart from its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// The announced length of the body; `None` where it comes in chunks.
    pub length: Option<usize>,
    /// Whether the outgoing head states a length at all.
    pub has_body: bool,
    /// Whether the method is HEAD, whose answer has no body.
    pub to_head_request: bool,
    /// What must be changed in the body; its times only with a stamp.
    pub change: Option<(Form, Option<Stamp>)>,
}

/// One request, complete except for its length.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// Its length is its capacity, so that a socket can be read into it.
    pub(super) buffer: Vec<u8>,
    /// Where the head ends without its length.
    fields_end: usize,
    head_end: usize,
    body_start: usize,
    body_end: usize,
    /// Where the body ends once the announced length has arrived.
    body_limit: usize,
    pub(super) shape: Shape,
    /// The target without the settings' labels, if it has any.
    pub(super) plain_target: Vec<u8>,
    /// How many bytes were added before and after the body for the labels.
    around: (usize, usize),
    /// Whether it may have reached the server before.
    pub(super) was_sent: bool,
    pub(super) tries: Tries,
}

/// The attempts made for a payload so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tries {
    /// All failed attempts.
    failed: Failed,
    /// Payloads relayed in total when the last attempt failed, or when this payload was committed.
    relayed_then: u64,
    free_resend_used: bool,
}

/// How often a payload's attempts failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    /// All failed attempts.
    pub tries: u8,
    /// Those that count: if no payload got through in between, this one is not the cause.
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

    /// An attempt failed; `relayed` payloads have been relayed by now.
    pub(super) const fn fail(&mut self, relayed: u64) -> Failed {
        let Failed { tries, attempts } = &mut self.failed;
        *tries = tries.saturating_add(1);
        if relayed > self.relayed_then {
            *attempts = attempts.saturating_add(1);
        }
        self.relayed_then = relayed;
        self.failed
    }

    /// How many attempts failed so far.
    pub(super) const fn failed(&self) -> Failed {
        self.failed
    }

    /// Whether the free resend is unused.
    pub(super) const fn has_free_resend(&self) -> bool {
        !self.free_resend_used
    }

    /// Uses the free resend. Returns whether it was unused.
    pub(super) const fn use_free_resend(&mut self) -> bool {
        !std::mem::replace(&mut self.free_resend_used, true)
    }
}

impl Payload {
    /// A request with this head, in a buffer with room for it and the gap.
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

    /// The size the buffer must grow to, if it is full and the body is not complete.
    pub(super) const fn grows_to(&self) -> Option<usize> {
        if self.body_end == self.buffer.len() && self.body_end < self.body_limit {
            Some(self.body_limit)
        } else {
            None
        }
    }

    /// Where the next bytes of body are written.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let limit = self.buffer.len().min(self.body_limit);
        &mut self.buffer[self.body_end..limit]
    }

    /// `n` bytes of [`Payload::space`] are now body.
    pub(super) const fn filled(&mut self, n: usize) {
        self.body_end += n;
    }

    /// The length of the body.
    pub(super) const fn body_bytes(&self) -> usize {
        self.body_end - self.body_start
    }

    /// The body.
    pub(super) fn body(&self) -> &[u8] {
        &self.buffer[self.body_start..self.body_end]
    }

    /// How long the buffer must be after this edit.
    pub(super) const fn edited_end(&self, edit: &Edit) -> usize {
        self.body_start + edit.keep + edit.tail.len()
    }

    /// Edits the body. The buffer must have room for it.
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

    /// Removes the settings' labels again. Returns whether there were any.
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

    /// Replaces the target in the head with a shorter one.
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

    /// Writes the length, which is now known, and the empty line into the gap after the head.
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

/// Builds the gap's content without an allocation.
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

//! One payload: the request as it is sent, in one buffer.
//!
//! ```text
//! ├── head ──┤── Content-Length, empty line, gap ──┤── body ──▶ ┤── room ──┤
//! 0       head_end                             body_start   body_end
//! ```

use crate::http1::write;

/// Room between head and body: `Content-Length: `, 20 digits, and two line ends.
pub(super) const GAP: usize = 16 + 20 + 2 + 2;

/// What the request is like, beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// The announced length of the body; `None` where it comes in chunks.
    pub length: Option<usize>,
    /// Whether the outgoing head says a length at all.
    pub has_body: bool,
    /// Whether the method is HEAD, whose answer has no body.
    pub to_head_request: bool,
}

/// One request, ready to be sent but for its length.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// As long as its capacity, so that a socket can be read into it.
    pub(super) buffer: Vec<u8>,
    head_end: usize,
    body_start: usize,
    body_end: usize,
    /// Where the body ends when the announced length is there.
    body_limit: usize,
    pub(super) shape: Shape,
    /// Whether it may have reached the remote before.
    pub(super) was_sent: bool,
}

impl Payload {
    /// A request with this head, in a buffer that has room for it and the gap.
    pub(super) fn new(mut buffer: Vec<u8>, head: &[u8], shape: Shape) -> Self {
        buffer[..head.len()].copy_from_slice(head);
        let body_start = head.len() + GAP;
        Self {
            buffer,
            head_end: head.len(),
            body_start,
            body_end: body_start,
            body_limit: shape
                .length
                .map_or(usize::MAX, |length| body_start.saturating_add(length)),
            shape,
            was_sent: false,
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

    /// Writes the length, now known, and the empty line into the gap after the head.
    pub(super) fn end_head(&mut self) {
        let mut end = ArrayWriter {
            bytes: [0; GAP],
            len: 0,
        };
        if self.shape.has_body {
            end.push(b"Content-Length: ");
            end.push(write::decimal(&mut [0; 20], self.body_bytes() as u64));
            end.push(b"\r\n");
        }
        end.push(b"\r\n");
        self.buffer[self.head_end..self.head_end + end.len].copy_from_slice(&end.bytes[..end.len]);
        self.head_end += end.len;
    }
}

/// The gap's content, put together without an allocation.
struct ArrayWriter {
    bytes: [u8; GAP],
    len: usize,
}

impl ArrayWriter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

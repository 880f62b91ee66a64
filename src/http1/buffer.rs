//! The receive buffer: it grows as bytes arrive, and releases them from the front.
//!
//! ```text
//!            consume ─▶           received ─▶
//! ├── used ──┤── bytes() ─────────┤── space() ──────┤
//! 0        start                 end          memory.len()
//! ```
//!
//! A socket is read into [`ReceiveBuffer::space`]; received bytes are parsed in [`ReceiveBuffer::bytes`]. Bytes are not
//! moved as long as there is space after them. A move is never longer than the used part before it, except in a full
//! buffer.

use super::head;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct ReceiveBuffer {
    /// Its length is the largest that was needed, so that a socket can be read into it.
    ///
    /// Invariant: it never shrinks, but is freed as a whole.
    memory: Vec<u8>,
    /// The bytes not yet used are `memory[start..end]`.
    ///
    /// Invariant: `start <= end`, and both are 0 if the buffer is empty.
    start: usize,
    /// Invariant: `end <= memory.len()`.
    end: usize,
    /// How many of the bytes were searched for the end of a head, so that a head that arrives byte by byte costs no
    /// more.
    ///
    /// Invariant: `searched <= end - start`.
    searched: usize,
}

impl ReceiveBuffer {
    /// An empty buffer. Takes no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
        }
    }

    /// The bytes not yet used.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The same, to decode in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // The caller may write an end of a head where there was none.
        self.searched = 0;
        &mut self.memory[self.start..self.end]
    }

    /// The number of bytes not yet used.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether every byte is used.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether there is no space left with that maximum: the message is too long for its reader.
    #[must_use]
    pub const fn is_full(&self, max: usize) -> bool {
        self.len() >= max
    }

    /// Where the next bytes are written. It has `first` bytes at first and doubles as it fills; it is empty only if
    /// [`ReceiveBuffer::is_full`] with that `max`.
    pub fn space(&mut self, first: usize, max: usize) -> &mut [u8] {
        debug_assert!(0 < first && first <= max);
        let is_at_end = self.end == self.memory.len();
        if is_at_end || self.start >= self.len() {
            self.compact();
        }
        // If half of it became free by that, it is large enough.
        if is_at_end && 2 * self.end > self.memory.len() || self.memory.len() < first {
            let len = (self.memory.len() * 2).clamp(first, max);
            self.memory.resize(len.max(self.memory.len()), 0);
        }
        self.check();
        &mut self.memory[self.end..]
    }

    /// `n` bytes of [`ReceiveBuffer::space`] have been read.
    pub fn received(&mut self, n: usize) {
        self.end += n;
        self.check();
    }

    /// Adds bytes from another source; there is no maximum.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.memory.len() - self.end < bytes.len() {
            self.compact();
        }
        let room = self.memory.len() - self.end;
        let (fit, rest) = bytes.split_at(room.min(bytes.len()));
        self.memory[self.end..self.end + fit.len()].copy_from_slice(fit);
        self.memory.extend_from_slice(rest);
        self.end += bytes.len();
        self.check();
    }

    /// The first `n` bytes are used.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        self.searched = self.searched.saturating_sub(n);
        if self.is_empty() {
            self.clear();
        }
        self.check();
    }

    /// Drops all bytes; the memory stays.
    pub const fn clear(&mut self) {
        (self.start, self.end, self.searched) = (0, 0, 0);
    }

    /// Frees the memory, unless it holds bytes.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.memory = Vec::new();
        }
    }

    /// Finds the end of the head at the start of the bytes: the index after its empty line.
    pub fn head_end(&mut self) -> Option<usize> {
        let bytes = &self.memory[self.start..self.end];
        let end = head::end(bytes, &mut self.searched);
        self.check();
        end
    }

    /// Moves the bytes to the front.
    fn compact(&mut self) {
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
    }

    /// What must hold after every change.
    fn check(&self) {
        debug_assert!(self.start <= self.end && self.end <= self.memory.len());
        debug_assert!(self.start < self.end || self.end == 0, "empty, not at 0");
        debug_assert!(self.searched <= self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: usize = 4;
    const MAX: usize = 16;

    /// Reads up to `n` bytes of `wire` into the buffer. Returns how many there was space for.
    fn receive(buffer: &mut ReceiveBuffer, wire: &[u8], n: usize) -> usize {
        let space = buffer.space(FIRST, MAX);
        let n = n.min(space.len()).min(wire.len());
        space[..n].copy_from_slice(&wire[..n]);
        buffer.received(n);
        n
    }

    fn wire(len: u8) -> Vec<u8> {
        (0..len).collect()
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_sizes_of_reads_and_uses() {
        let wire = wire(100);
        for (read, used, kept) in (1..=MAX + 1)
            .flat_map(|read| (1..=MAX + 1).map(move |used| (read, used)))
            .flat_map(|(read, used)| (0..MAX).map(move |kept| (read, used, kept)))
        {
            let mut buffer = ReceiveBuffer::new();
            let (mut rest, mut out) = (&wire[..], Vec::new());
            while !rest.is_empty() {
                let n = receive(&mut buffer, rest, read);
                assert!(n > 0, "no space: {read} {used} {kept}");
                rest = &rest[n..];
                while buffer.len() > kept {
                    let n = used.min(buffer.len() - kept);
                    out.extend_from_slice(&buffer.bytes()[..n]);
                    buffer.consume(n);
                }
                assert!(buffer.memory.len() <= MAX);
            }
            out.extend_from_slice(buffer.bytes());
            assert_eq!(out, wire, "read {read}, used {used}, kept {kept}");
        }
    }

    #[test]
    fn what_is_appended_comes_after_what_was_received() {
        let wire = wire(60);
        for (read, appended, used) in (0..8)
            .flat_map(|read| (1..40).map(move |appended| (read, appended)))
            .flat_map(|(read, appended)| (1..12).map(move |used| (read, appended, used)))
        {
            let mut buffer = ReceiveBuffer::new();
            let (mut rest, mut out) = (&wire[..], Vec::new());
            while !rest.is_empty() {
                let n = receive(&mut buffer, rest, read);
                rest = &rest[n..];
                let (now, later) = rest.split_at(appended.min(rest.len()));
                buffer.append(now);
                rest = later;
                let n = used.min(buffer.len());
                out.extend_from_slice(&buffer.bytes()[..n]);
                buffer.consume(n);
            }
            out.extend_from_slice(buffer.bytes());
            assert_eq!(out, wire, "read {read}, appended {appended}, used {used}");
        }
    }

    #[test]
    fn it_takes_no_memory_before_the_first_read_and_doubles_up_to_its_maximum() {
        let mut buffer = ReceiveBuffer::new();
        assert_eq!(buffer.memory.capacity(), 0);
        let mut sizes = Vec::new();
        for _ in 0..MAX {
            assert!(!buffer.is_full(MAX));
            receive(&mut buffer, &[7; MAX], 1);
            sizes.push(buffer.memory.len());
        }
        assert!(buffer.is_full(MAX));
        let expected = [[4; 4].as_slice(), &[8; 4], &[16; 8]].concat();
        assert_eq!(sizes, expected, "it grows when it is full");
        assert_eq!(buffer.space(FIRST, MAX), b"", "no more than the maximum");
        buffer.consume(1);
        assert_eq!(buffer.space(FIRST, MAX).len(), 1);
    }

    #[test]
    fn bytes_are_not_moved_while_there_is_space_after_more_of_them_than_were_used() {
        let mut buffer = ReceiveBuffer::new();
        buffer.space(MAX, MAX);
        receive(&mut buffer, &wire(12), 12);
        buffer.consume(5);
        buffer.space(FIRST, MAX);
        assert_eq!((buffer.start, buffer.end), (5, 12), "seven after five");
        buffer.consume(1);
        buffer.space(FIRST, MAX);
        assert_eq!((buffer.start, buffer.end), (0, 6), "six after six");
        receive(&mut buffer, &[9; 10], 10);
        buffer.consume(2);
        assert_eq!(buffer.space(FIRST, MAX).len(), 2, "moved, for it is full");
        buffer.consume(9);
        buffer.append(&[8; 2]);
        assert_eq!((buffer.start, buffer.end), (9, 16), "what just fits, too");
        assert_eq!(buffer.memory.len(), MAX, "and no larger");
    }

    #[test]
    fn it_grows_only_when_more_than_half_of_it_waits() {
        let mut buffer = ReceiveBuffer::new();
        receive(&mut buffer, &wire(4), 4);
        receive(&mut buffer, &wire(4), 4);
        buffer.consume(4);
        assert_eq!(buffer.space(FIRST, MAX).len(), 4, "half is enough");
        receive(&mut buffer, &wire(4), 4);
        buffer.consume(3);
        assert_eq!(buffer.space(FIRST, MAX).len(), 16 - 5, "five of eight wait");
        for _ in 0..100 {
            buffer.append(&[7; 10]);
            buffer.consume(10);
        }
        assert_eq!(buffer.memory.len(), 16, "nor for what is appended");
    }

    #[test]
    fn memory_is_given_back_when_nothing_waits_in_it() {
        let mut buffer = ReceiveBuffer::new();
        buffer.append(b"wait");
        buffer.release();
        assert_eq!(buffer.bytes(), b"wait");
        buffer.consume(4);
        buffer.release();
        assert_eq!(buffer.memory.capacity(), 0);
    }

    #[test]
    fn a_head_is_found_at_every_cut_after_anything() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for before in 0..5 {
            let mut buffer = ReceiveBuffer::new();
            buffer.append(&b"\r\n\r\n\r\n"[..before]);
            assert_eq!(buffer.head_end(), (before == 4).then_some(4));
            buffer.consume(before);
            for (at, byte) in wire.iter().enumerate() {
                buffer.append(&[*byte]);
                let end = (at + 1 == wire.len()).then_some(wire.len());
                assert_eq!(buffer.head_end(), end, "after {at} bytes");
            }
        }
    }

    #[test]
    fn a_head_is_searched_anew_where_bytes_were_used_or_written() {
        let mut buffer = ReceiveBuffer::new();
        buffer.append(b"GET / HTTP/1.1\r\nHost: a\r\n");
        assert_eq!(buffer.head_end(), None);
        buffer.consume(20);
        buffer.append(b"\r\n");
        assert_eq!(buffer.head_end(), Some(7));
        buffer.clear();
        buffer.append(b"a\nb");
        assert_eq!(buffer.head_end(), None);
        buffer.bytes_mut()[2] = b'\n';
        assert_eq!(buffer.head_end(), Some(3));
    }
}

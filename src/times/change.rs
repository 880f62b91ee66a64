//! What changes in a body, and what becomes of it.

/// A replacement of bytes by the same number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The offset of the first byte in the inflated content.
    pub at: usize,
    /// The number of bytes.
    pub len: u8,
    /// The new bytes; only the first `len` count.
    pub bytes: [u8; 10],
}

/// Receives the whole content of a body, in order, in pieces.
pub trait Reader {
    /// The next piece. `false`: its form is unknown, so reading stops.
    fn read(&mut self, bytes: &[u8]) -> bool;

    /// The changes known so far, in order, not touching each other. The list only grows. The first change may begin up
    /// to [`CONTEXT`] bytes before the piece that made it known.
    fn changes(&self) -> &[Change];
}

/// How far before a piece the first change may begin.
pub const CONTEXT: usize = 1 << 10;

/// The replacement of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The number of its first bytes that stay.
    pub keep: usize,
    /// Except for this one, if any: its offset and its value. It says that a block is no longer the last one.
    pub patch: Option<(usize, u8)>,
    /// Everything after them.
    pub tail: Vec<u8>,
}

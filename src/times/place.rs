//! A position in a gzip body, and the last symbol that was read.

/// What follows at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A gzip header.
    Member,
    /// A block's header.
    Block,
    /// This many bytes of an uncompressed block.
    Stored(u16),
    /// A symbol.
    Codes,
    /// Checksum and size.
    Trailer,
}

/// A position in the body: with the window, reading can continue from here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) state: State,
    /// Whether the block is the last one of its member.
    pub(super) last: bool,
    /// The next bit of the body.
    pub(super) bit: usize,
    /// The first bit of the block, and the first bit after its header.
    pub(super) block: usize,
    pub(super) codes: usize,
    /// How much was inflated before this member, and before the current piece.
    pub(super) member: usize,
    pub(super) inflated: usize,
    /// The checksum of the member before the current piece.
    pub(super) crc: u32,
}

impl Place {
    /// The length of the member so far, as its trailer counts it.
    pub(super) const fn member_size(&self) -> u32 {
        (self.inflated - self.member) as u32
    }
}

/// The last of the symbols that were read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Symbol {
    /// The distance of a match; 0 for a literal.
    pub(super) distance: usize,
    /// The first bit of the distance.
    pub(super) distance_at: usize,
}

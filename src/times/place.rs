//! A point of a gzip body, and what was read last.

/// What is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A gzip header.
    Member,
    /// A block's header.
    Block,
    /// So many bytes of a block that is not compressed.
    Stored(u16),
    /// A symbol.
    Codes,
    /// Checksum and size.
    Trailer,
}

/// A point of the body: who has the window too can go on from here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) state: State,
    /// Whether the block is the last one of its member.
    pub(super) last: bool,
    /// The next bit of the body.
    pub(super) bit: usize,
    /// The first bit of the block, and the first after its header.
    pub(super) block: usize,
    pub(super) codes: usize,
    /// How much was inflated before this member, and until the last piece.
    pub(super) member: usize,
    pub(super) inflated: usize,
    /// The checksum of the member until the last piece.
    pub(super) crc: u32,
}

impl Place {
    /// How long the member is so far, as its trailer counts it.
    pub(super) const fn member_size(&self) -> u32 {
        (self.inflated - self.member) as u32
    }
}

/// What the last of some symbols was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Symbol {
    /// How far back a match reaches; 0 for a literal.
    pub(super) distance: usize,
    /// The first bit of that distance.
    pub(super) distance_at: usize,
}

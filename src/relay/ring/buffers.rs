//! The payload buffers, and how much of the byte limit they use: buffers in use and spare ones together.

/// Buffers are multiples of a page, so that one fits the next payload of similar size.
pub(super) const PAGE: usize = 4096;

/// Most spare buffers kept while there is traffic.
const SPARES_MAX: usize = 8;

/// A spare buffer is used for a smaller payload only up to this factor, because it counts with its whole size.
const SPARE_FACTOR_MAX: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Buffers {
    bytes_max: usize,
    /// What the buffers in use cost.
    bytes_used: usize,
    /// Buffers of finished payloads, for reuse.
    ///
    /// Invariant: with those in use, they cost no more than `bytes_max`, and they are [`SPARES_MAX`] at most.
    spares: Vec<Vec<u8>>,
}

impl Buffers {
    /// No buffers yet; they will never cost more than `bytes_max`.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes_used: 0,
            spares: Vec::new(),
        }
    }

    /// Most bytes they may cost.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What those in use cost.
    pub(super) const fn bytes_used(&self) -> usize {
        self.bytes_used
    }

    /// A spare buffer of about `whole` bytes. Using it takes no more memory.
    pub(super) fn take_spare(&mut self, whole: usize) -> Option<Vec<u8>> {
        let fits = |spare: &Vec<u8>| {
            spare.len() >= whole && spare.len() / SPARE_FACTOR_MAX <= pages(whole)
        };
        let at = self.spares.iter().position(fits)?;
        let buffer = self.spares.swap_remove(at);
        self.bytes_used += cost(buffer.len());
        self.check();
        Some(buffer)
    }

    /// A new buffer of at least `bytes`. There must be room for it.
    pub(super) fn take_new(&mut self, bytes: usize) -> Vec<u8> {
        let len = pages(bytes);
        self.bytes_used += cost(len);
        self.check();
        vec![0; len]
    }

    /// By how much a buffer of `len` bytes grows that must finally have `limit` bytes: it doubles, within the byte
    /// limit.
    pub(super) fn growth(&self, len: usize, limit: usize) -> usize {
        pages(len.min(limit - len)).min((self.bytes_max - cost(len)) / PAGE * PAGE)
    }

    /// Makes a buffer `more` bytes longer. There must be room for them.
    pub(super) fn grow(&mut self, buffer: &mut Vec<u8>, more: usize) {
        buffer.resize(buffer.len() + more, 0);
        self.bytes_used += more;
        self.check();
    }

    /// Whether `bytes` more fit. Spare buffers are freed for them.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes_used + self.spare_bytes() + bytes > self.bytes_max {
            if self.spares.pop().is_none() {
                return false;
            }
        }
        true
    }

    /// Takes back a buffer that is no longer in use.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        self.bytes_used -= cost(buffer.len());
        if self.spares.len() < SPARES_MAX {
            self.spares.push(buffer);
        }
        self.check();
    }

    /// Whether [`Buffers::trim`] would free anything.
    pub(super) const fn has_spares(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Gives spare memory back to the system.
    pub(super) fn trim(&mut self) {
        self.spares = Vec::new();
    }

    fn spare_bytes(&self) -> usize {
        self.spares.iter().map(|spare| cost(spare.len())).sum()
    }

    /// What must hold after every change.
    fn check(&self) {
        debug_assert!(self.bytes_used + self.spare_bytes() <= self.bytes_max);
        debug_assert!(self.spares.len() <= SPARES_MAX);
    }
}

/// What a buffer costs: allocators do not start it at a page boundary, so it touches one more page.
pub(super) const fn cost(buffer_bytes: usize) -> usize {
    if buffer_bytes == 0 {
        0
    } else {
        buffer_bytes + PAGE
    }
}

/// Rounded up to whole pages.
pub(super) const fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE) * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_spare_buffers_are_kept_than_there_may_be() {
        let mut buffers = Buffers::new(1 << 20);
        let taken: Vec<_> = (0..100).map(|_| buffers.take_new(1)).collect();
        assert_eq!(buffers.bytes_used(), 100 * 2 * PAGE);
        for buffer in taken {
            buffers.give_back(buffer);
        }
        assert_eq!(buffers.bytes_used(), 0);
        assert_eq!(buffers.spare_bytes(), SPARES_MAX * 2 * PAGE);
        buffers.trim();
        assert!(!buffers.has_spares());
    }

    #[test]
    fn a_spare_buffer_serves_what_is_not_much_smaller() {
        for (whole, serves) in [
            (16 * PAGE + 1, false),
            (16 * PAGE, true),
            (3 * PAGE + 1, true),
            (3 * PAGE, false),
            (1, false),
        ] {
            let mut buffers = Buffers::new(1 << 20);
            let buffer = buffers.take_new(16 * PAGE);
            buffers.give_back(buffer);
            assert_eq!(buffers.take_spare(whole).is_some(), serves, "{whole}");
        }
    }

    #[test]
    fn a_buffer_doubles_as_far_as_it_is_to_grow_and_there_may_be() {
        let buffers = Buffers::new(10 * PAGE);
        for (len, limit, more) in [
            (PAGE, 9 * PAGE, PAGE),
            (2 * PAGE, 4 * PAGE - 1, 2 * PAGE),
            (2 * PAGE, 3 * PAGE, PAGE),
            (6 * PAGE, usize::MAX, 3 * PAGE),
            (9 * PAGE, usize::MAX, 0),
        ] {
            assert_eq!(buffers.growth(len, limit), more, "{len} to {limit}");
        }
    }

    #[test]
    fn there_is_room_to_the_last_byte() {
        let mut buffers = Buffers::new(10 * PAGE);
        assert!(buffers.make_room(10 * PAGE));
        assert!(!buffers.make_room(10 * PAGE + 1));
        buffers.take_new(4 * PAGE);
        assert!(buffers.make_room(5 * PAGE));
        assert!(!buffers.make_room(5 * PAGE + 1));
    }
}

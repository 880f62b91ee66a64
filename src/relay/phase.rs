//! Where we are in the sandbox's life, and what Lambda's next event is held back for.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serve,
    /// We owe Lambda the next event.
    Hold {
        reason: HoldReason,
        since: Instant,
        /// The end of the budget for what it is held for, at the latest `latest`.
        until: Instant,
        /// What the invocation's deadline allows.
        latest: Instant,
    },
    Drain {
        until: Instant,
        /// Nothing was left to do, and we have looked for more.
        has_looked: bool,
    },
    Done,
}

/// What Lambda's next event is held back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldReason {
    /// What the ring held at `mark` is still here.
    Queued { mark: u64 },
    /// The function runs: this costs nothing yet.
    Running,
    /// The function is done, and the ring is not empty.
    Done,
}

impl HoldReason {
    /// Whether the sandbox waits for us alone.
    pub(super) const fn is_flush(self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Done)
    }
}

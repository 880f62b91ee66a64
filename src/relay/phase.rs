//! The phase of the sandbox's life, and the reason and limits of a hold.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serve,
    /// Lambda's next event is held back: we have not asked for it yet.
    Hold {
        reason: HoldReason,
        since: Instant,
        /// When it ends even if its work is not done, and which limit that is.
        until: Instant,
        limit: HoldLimit,
        /// The latest end that the invocation's deadline allows.
        latest: Instant,
    },
    Drain {
        until: Instant,
        /// Nothing was left to do, and the shell has looked once more.
        has_looked: bool,
    },
    Done,
}

/// Why Lambda's next event is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldReason {
    /// A payload that was in the ring at `mark` is still there.
    Queued { mark: u64 },
    /// The function runs: the hold costs nothing yet.
    Running,
    /// The function is done, and the ring is not empty.
    Done,
}

/// The limit that ends a hold before its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldLimit {
    /// No telemetry has ever arrived.
    Silence,
    /// The time budget of the reason.
    Budget,
    /// The invocation's deadline.
    Deadline,
}

impl HoldLimit {
    /// The earlier one of a budget's end and of what the deadline allows.
    pub(super) fn earlier(budget_end: Instant, latest: Instant) -> (Instant, Self) {
        if budget_end < latest {
            (budget_end, Self::Budget)
        } else {
            (latest, Self::Deadline)
        }
    }
}

impl HoldReason {
    /// Whether the sandbox is kept awake only for us.
    pub(super) const fn is_flush(self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Done)
    }
}

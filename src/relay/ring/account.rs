//! The account: what happened to every payload that was answered with 200.

/// Why an acknowledged payload did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// It was dropped for a newer one, or found no room, because the ring was full.
    Full,
    /// The server refused it with a status that no retry changes.
    Refused,
    /// All its attempts failed.
    Attempts,
    /// There is no usable server address.
    Unusable,
    /// We had to exit before it could be sent.
    Shutdown,
    /// We had to exit, and its credentials could not be read, or were refused.
    Credentials,
}

impl LossReason {
    /// All reasons, in the order of [`Totals::lost`].
    pub const ALL: [Self; 6] = [
        Self::Full,
        Self::Refused,
        Self::Attempts,
        Self::Unusable,
        Self::Shutdown,
        Self::Credentials,
    ];

    /// The reason's name in the closing line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "lost_full",
            Self::Refused => "lost_refused",
            Self::Attempts => "lost_attempts",
            Self::Unusable => "lost_unusable_address",
            Self::Shutdown => "lost_shutdown",
            Self::Credentials => "lost_credentials",
        }
    }
}

/// Why an acknowledged payload is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutReason {
    /// It covers no time, and the server would merge it with the one before.
    Empty,
    /// It is not in the share that `PYROSCOPE_SAMPLE` keeps.
    Sampled,
}

impl LeftOutReason {
    /// All reasons, in the order of [`Totals::left_out`].
    pub const ALL: [Self; 2] = [Self::Empty, Self::Sampled];

    /// The reason's name in the closing line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty_left_out",
            Self::Sampled => "sampled_out",
        }
    }
}

/// What happened to the payloads so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payloads answered with 200.
    pub acknowledged: u64,
    /// Payloads the server answered with 2xx.
    pub relayed: u64,
    /// Body bytes of those.
    pub relayed_bytes: u64,
    /// Times a payload was sent again.
    pub resent: u64,
    /// Payloads lost, by reason in the order of [`LossReason::ALL`].
    pub lost: [u64; LossReason::ALL.len()],
    /// Payloads left out, by reason in the order of [`LeftOutReason::ALL`].
    pub left_out: [u64; LeftOutReason::ALL.len()],
    /// Most bytes the ring held at once.
    pub high_water_bytes: usize,
}

impl Totals {
    /// All payloads left out.
    #[must_use]
    pub fn left_out_sum(&self) -> u64 {
        self.left_out.iter().sum()
    }

    /// All lost payloads.
    #[must_use]
    pub fn lost_sum(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// A payload was answered with 200.
    pub(super) const fn acknowledge(&mut self) {
        self.acknowledged += 1;
    }

    /// The server accepted a payload with a body of this length.
    pub(super) const fn relay(&mut self, body_bytes: usize) {
        self.relayed += 1;
        self.relayed_bytes += body_bytes as u64;
    }

    /// A payload was lost.
    pub(super) const fn lose(&mut self, loss: LossReason) {
        self.lost[loss as usize] += 1;
    }

    /// A payload was answered with 200 and is not sent.
    pub(super) const fn leave_out(&mut self, why: LeftOutReason) {
        self.acknowledged += 1;
        self.left_out[why as usize] += 1;
    }

    /// The ring holds this many bytes now.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.high_water_bytes = self.high_water_bytes.max(bytes);
    }

    /// Checks the sum after every change.
    pub(super) fn check(&self, in_hand: usize) {
        debug_assert_eq!(
            self.acknowledged,
            self.relayed + self.lost_sum() + self.left_out_sum() + in_hand as u64,
            "an acknowledged payload is unaccounted for"
        );
    }
}

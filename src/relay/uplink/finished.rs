//! What an attempt ends with: its outcome, the server's answer, or how far it was when its connection died.

use std::time::Duration;

use crate::relay::phrases;
use crate::relay::ring::PayloadId;
use crate::relay::wakes::Wakes;

/// How an attempt ended.
#[derive(Debug)]
pub(in crate::relay) struct Finished {
    /// The payload it was for.
    pub(in crate::relay) payload: PayloadId,
    /// Its outcome.
    pub(in crate::relay) outcome: Outcome,
    /// Whether the connection had carried other exchanges before.
    pub(in crate::relay) reused: bool,
    /// Wakes of the sandbox before the attempt began.
    pub(in crate::relay) wakes: Wakes,
    /// The version of the credentials it was made with.
    pub(in crate::relay) credentials: u32,
    /// Whether the connection may carry another.
    pub(super) reusable: bool,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub(in crate::relay) enum Outcome {
    /// The server answered.
    Answered(Answer),
    /// The connection ended, or stayed silent after a wake; with the cause as text.
    Died(Death, String),
    /// It was given up: it timed out, or its answer cannot be used; with the cause as text.
    GivenUp(Death, String),
}

/// How far an exchange was when its connection died. Decided once, at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Death {
    /// Nothing of the request was sent.
    BeforeSending,
    /// Sending had begun, and no byte of an answer has arrived.
    Silent,
    /// A part of an answer has arrived.
    MidAnswer,
}

/// The server's answer.
#[derive(Debug, Clone, Default)]
pub(in crate::relay) struct Answer {
    /// The status code.
    pub(in crate::relay) status: u16,
    /// `Retry-After` in seconds; dates are not supported (RFC 9110 section 10.2.3 allows either).
    pub(in crate::relay) retry_after: Option<Duration>,
    /// The target of a redirect, without parts that may be secret.
    pub(in crate::relay) place: String,
    /// The start of the body. It may quote what was sent, so it is never logged.
    pub(in crate::relay) excerpt: Vec<u8>,
}

impl Answer {
    /// As text for the log.
    pub(in crate::relay) fn words(&self) -> String {
        phrases::words(self.status, &self.place, &self.excerpt)
    }
}

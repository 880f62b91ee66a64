//! Why a request is refused: the status to answer, and the reason for the log.

use super::body::BadChunk;

/// A reason to refuse a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its first byte cannot begin a request.
    NotHttp,
    /// A line of its head ends without a carriage return.
    BareLineFeed,
    /// Its head breaks the grammar of RFC 9112.
    MalformedHead,
    /// Its target is none of the forms of RFC 9112 section 3.2.
    MalformedTarget,
    /// `Host` is missing, is there twice or is invalid.
    NeedsOneHost,
    /// A `Content-Length` is not a number.
    BadLength,
    /// Two `Content-Length` differ.
    TwoLengths,
    /// It has a length and a transfer coding.
    LengthAndCoding,
    /// HTTP/1.0 has no transfer codings.
    CodingInHttp10,
    /// The end of its body is unknown.
    ChunkedNotLast,
    /// A chunk breaks the grammar.
    MalformedChunk,
    /// Telemetry that is not a batch of events.
    NotABatch,
    /// A method that the telemetry's port does not take.
    NotPost,
    /// A body larger than the ring.
    LargerThanRing,
    /// A batch of telemetry that is too large.
    BatchTooLarge,
    /// A request line that never ends.
    LineTooLong,
    /// An expectation other than `100-continue`.
    UnknownExpectation,
    /// A head that is longer than [`super::HEAD_BYTES_MAX`].
    HeadTooLong,
    /// More fields than [`super::HEADERS_MAX`].
    TooManyFields,
    /// A `Connection` with too many words.
    ConnectionTooLong,
    /// A relay opens no tunnels.
    Connect,
    /// Its body is coded by more than chunks.
    UnknownCoding,
    /// Another major version of HTTP.
    NotHttp1,
}

impl From<BadChunk> for Refusal {
    fn from(_: BadChunk) -> Self {
        Self::MalformedChunk
    }
}

impl Refusal {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotHttp
            | Self::BareLineFeed
            | Self::MalformedHead
            | Self::MalformedTarget
            | Self::NeedsOneHost
            | Self::BadLength
            | Self::TwoLengths
            | Self::LengthAndCoding
            | Self::CodingInHttp10
            | Self::ChunkedNotLast
            | Self::MalformedChunk
            | Self::NotABatch => 400,
            Self::NotPost => 405,
            Self::LargerThanRing | Self::BatchTooLarge => 413,
            Self::LineTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLong | Self::TooManyFields | Self::ConnectionTooLong => 431,
            Self::Connect | Self::UnknownCoding => 501,
            Self::NotHttp1 => 505,
        }
    }

    /// What is wrong, as text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotHttp => "not HTTP",
            Self::BareLineFeed => "bare line feed in the head",
            Self::MalformedHead => "malformed head",
            Self::MalformedTarget => "malformed target",
            Self::NeedsOneHost => "needs one Host",
            Self::BadLength => "bad Content-Length",
            Self::TwoLengths => "two different lengths",
            Self::LengthAndCoding => "Content-Length beside Transfer-Encoding",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::ChunkedNotLast => "chunked is not the last coding",
            Self::MalformedChunk => "malformed chunk",
            Self::NotABatch => "not a batch of events",
            Self::NotPost => "telemetry comes by POST",
            Self::LargerThanRing => "the body is larger than the ring",
            Self::BatchTooLarge => "the batch is too large",
            Self::LineTooLong | Self::HeadTooLong => "the head is too long",
            Self::UnknownExpectation => "unknown expectation",
            Self::TooManyFields => "too many header fields",
            Self::ConnectionTooLong => "Connection is too long",
            Self::Connect => "CONNECT is not for a relay",
            Self::UnknownCoding => "unknown transfer coding",
            Self::NotHttp1 => "not HTTP/1.x",
        }
    }
}

//! Reading a message body: by `Content-Length`, by chunks, or until the peer closes (RFC 9112 sections 6 and 7).
//!
//! A reader decodes in place: it moves the body's bytes to the front of its slice, so a body needs no second buffer. It
//! stores no bytes and accepts the stream cut at any point.
//!
//! ```text
//! Chunked:  Size ──space──▶ Padding ── ; ──▶ Semicolon ──▶ Extension ─┐
//!             ▲ └────CR──▶ SizeLf ◀──┴───────────────────────────────┘
//!             │              │ n > 0         │ n = 0
//!          DataLf ◀─ DataCr ◀─ Data          ▼
//!                                        TrailerStart ──▶ TrailerName ── : ──▶ Trailer
//!                                           │ ▲──────────── TrailerLf ◀──────────┘
//!                                           └──▶ EndLf ──▶ Done
//! ```

use super::fields::is_token_byte;

/// Most bytes of chunk extensions in one chunk line. No client sends any; h11 stops at 16 KiB for the whole head.
const EXTENSION_BYTES_MAX: u16 = 4096;

/// Most bytes of trailer fields. They are read and discarded: RFC 9110 section 6.5.1 allows it.
const TRAILER_BYTES_MAX: u16 = 16 * 1024;

/// Most hexadecimal digits of a chunk size: a `u64` has 16.
const SIZE_DIGITS_MAX: u8 = 16;

/// The rest of one body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyReader {
    /// This many bytes are left.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked(Chunks),
    /// Everything until the peer closes; only in answers.
    UntilClose,
}

/// The position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// In the size at the start of a chunk line: its value and number of digits so far.
    Size(u64, u8),
    /// In spaces after the size: its value, and the number of spaces so far. Old servers pad with them.
    Padding(u64, u16),
    /// After the semicolon that begins the extensions, where a name must follow; values as in the next one.
    Semicolon(u64, u16),
    /// In the extensions after the size: its value, and the number of extension bytes so far.
    Extension(u64, u16),
    /// The line feed of a chunk line.
    SizeLf(u64),
    /// This many bytes of chunk data are left.
    Data(u64),
    /// The carriage return after chunk data.
    DataCr,
    /// The line feed after chunk data.
    DataLf,
    /// At the start of a trailer line; with the number of trailer bytes so far, as in the next three.
    TrailerStart(u16),
    /// In the name of a trailer field.
    TrailerName(u16),
    /// In its value.
    Trailer(u16),
    /// The line feed of a trailer line.
    TrailerLf(u16),
    /// The line feed of the empty line that ends the body.
    EndLf,
    /// The body is complete.
    Done,
}

/// What [`BodyReader::decode`] did with a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Number of bytes used from the front of the slice.
    pub used: usize,
    /// Number of body bytes that are now at the front of the slice.
    pub body: usize,
}

/// A chunked body that breaks the grammar of RFC 9112 section 7.1. We never guess: a lenient reader in front of a
/// strict one makes request smuggling possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk;

impl BodyReader {
    /// A reader for a chunked body, at its start.
    #[must_use]
    pub const fn chunked() -> Self {
        Self::Chunked(Chunks::Size(0, 0))
    }

    /// Whether the whole body has been read. A body until close is complete when the peer closes.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// Reads the body bytes in `bytes` and moves them to the front of `bytes`.
    ///
    /// Stops at the end of the body: bytes after it are not used, and belong to the next message.
    ///
    /// # Errors
    /// A chunked body that breaks the grammar or a limit.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BadChunk> {
        match self {
            Self::Length(left) => {
                let n = clamp(*left, bytes.len());
                *left -= n as u64;
                Ok(Decoded { used: n, body: n })
            }
            Self::UntilClose => Ok(Decoded {
                used: bytes.len(),
                body: bytes.len(),
            }),
            Self::Chunked(chunks) => chunks.decode(bytes),
        }
    }
}

impl Chunks {
    fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BadChunk> {
        let mut at = Decoded { used: 0, body: 0 };
        while at.used < bytes.len() && *self != Self::Done {
            if let Self::Data(left) = *self {
                let n = clamp(left, bytes.len() - at.used);
                bytes.copy_within(at.used..at.used + n, at.body);
                at.used += n;
                at.body += n;
                let left = left - n as u64;
                *self = if left == 0 {
                    Self::DataCr
                } else {
                    Self::Data(left)
                };
            } else {
                *self = self.next(bytes[at.used])?;
                at.used += 1;
            }
        }
        Ok(at)
    }

    /// The state after one byte of framing.
    fn next(self, byte: u8) -> Result<Self, BadChunk> {
        Ok(match (self, byte) {
            (Self::Size(size, digits), _)
                if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX =>
            {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                Self::Size(size << 4 | digit, digits + 1)
            }
            (Self::Size(size, 1..), b';') => Self::Semicolon(size, 0),
            (Self::Padding(size, n), b';') => Self::Semicolon(size, n),
            (Self::Size(size, 1..), b' ' | b'\t') => Self::Padding(size, 0),
            (Self::Padding(size, n), b' ' | b'\t') if n < EXTENSION_BYTES_MAX => {
                Self::Padding(size, n + 1)
            }
            (Self::Semicolon(size, n), b' ' | b'\t') if n < EXTENSION_BYTES_MAX => {
                Self::Semicolon(size, n + 1)
            }
            (Self::Semicolon(size, n), _) if is_token_byte(byte) => Self::Extension(size, n),
            (Self::Size(size, 1..) | Self::Padding(size, _) | Self::Extension(size, _), b'\r') => {
                Self::SizeLf(size)
            }
            (Self::Extension(size, n), _) if text(byte) && n < EXTENSION_BYTES_MAX => {
                Self::Extension(size, n + 1)
            }
            (Self::SizeLf(0), b'\n') => Self::TrailerStart(0),
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(0, 0),
            (Self::TrailerStart(_), b'\r') => Self::EndLf,
            (Self::Trailer(n), b'\r') => Self::TrailerLf(n),
            (Self::TrailerName(n), b':') => Self::Trailer(n),
            (Self::TrailerStart(n) | Self::TrailerName(n), _)
                if is_token_byte(byte) && n < TRAILER_BYTES_MAX =>
            {
                Self::TrailerName(n + 1)
            }
            (Self::Trailer(n), _) if text(byte) && n < TRAILER_BYTES_MAX => Self::Trailer(n + 1),
            (Self::TrailerLf(n), b'\n') => Self::TrailerStart(n),
            (Self::EndLf, b'\n') => Self::Done,
            _ => return Err(BadChunk),
        })
    }
}

/// Whether a byte may be in an extension or a trailer: no control characters except tab (RFC 9110 section 5.5).
const fn text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn clamp(left: u64, room: usize) -> usize {
    usize::try_from(left).map_or(room, |left| left.min(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a vector whole, byte by byte and with a tail, and expects the same result each time.
    fn read(start: &BodyReader, wire: &[u8]) -> Result<(Vec<u8>, bool), BadChunk> {
        let whole = feed(start, wire, wire.len().max(1));
        assert_eq!(whole, feed(start, wire, 1), "bytewise");
        assert_eq!(whole, feed(start, wire, 3), "by threes");
        if let Ok((body, true)) = &whole {
            let mut tail = wire.to_vec();
            tail.extend_from_slice(b"GET / HTTP/1.1\r\n");
            assert_eq!(
                feed(start, &tail, tail.len()),
                Ok((body.clone(), true)),
                "with a tail"
            );
        }
        whole
    }

    fn feed(start: &BodyReader, wire: &[u8], step: usize) -> Result<(Vec<u8>, bool), BadChunk> {
        let (mut reader, mut body) = (start.clone(), Vec::new());
        for piece in wire.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = reader.decode(&mut piece)?;
            body.extend_from_slice(&piece[..decoded.body]);
            if reader.is_done() {
                break;
            }
            assert_eq!(
                decoded.used,
                piece.len(),
                "an unfinished body uses all it is given"
            );
        }
        Ok((body, reader.is_done()))
    }

    #[test]
    fn length() {
        assert_eq!(
            read(&BodyReader::Length(5), b"hello"),
            Ok((b"hello".to_vec(), true))
        );
        assert_eq!(
            read(&BodyReader::Length(6), b"hello"),
            Ok((b"hello".to_vec(), false))
        );
        assert_eq!(read(&BodyReader::Length(0), b""), Ok((vec![], true)));
    }

    #[test]
    fn until_close_is_never_done() {
        assert_eq!(
            read(&BodyReader::UntilClose, b"abc"),
            Ok((b"abc".to_vec(), false))
        );
    }

    #[test]
    fn chunked() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
            (
                b"A\r\n0123456789\r\na\r\nabcdefghij\r\n000\r\n\r\n",
                b"0123456789abcdefghij",
            ),
            (b"1;ext=\"v;,\"\r\nx\r\n0\r\n\r\n", b"x"),
            (b"1 \r\nx\r\n0\r\n\r\n", b"x"),
            (b"1\r\nx\r\n0\r\nTrailer: value\r\nOther:\r\n\r\n", b"x"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        ];
        for (wire, body) in cases {
            assert_eq!(
                read(&BodyReader::chunked(), wire),
                Ok((body.to_vec(), true)),
                "{:?}",
                wire.escape_ascii()
            );
        }
    }

    #[test]
    fn chunked_unfinished_at_every_cut() {
        let wire = b"5\r\nhello\r\n0\r\nT: v\r\n\r\n";
        for cut in 0..wire.len() {
            let (_, done) = read(&BodyReader::chunked(), &wire[..cut]).unwrap();
            assert!(!done, "done after {cut} bytes");
        }
    }

    #[test]
    fn chunked_refused() {
        let cases: [&[u8]; 19] = [
            b"1;\r\nx",
            b"1;=\r\nx",
            b"1; \r\nx",
            b"1;a\0\r\nx",
            b"0\r\nT: a\x01b\r\n\r\n",
            b"0\r\nT: a\x7fb\r\n\r\n",
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"10000000000000000\r\n",
            b"0\r\n\n",
            b"1;a\nb\r\n",
            b"0\r\nTrailer\n\r\n",
        ];
        for wire in cases {
            assert_eq!(
                read(&BodyReader::chunked(), wire),
                Err(BadChunk),
                "{:?}",
                wire.escape_ascii()
            );
        }
    }

    /// For each part of a chunk's line, and for trailers: the most bytes that are allowed, and one more.
    #[test]
    fn chunked_limits() {
        const LINE: usize = 4096;
        const TRAILERS: usize = 16 * 1024;
        let chunk = |line: String| line + "\r\nx\r\n0\r\n\r\n";
        let spaces = |n| " ".repeat(n);
        let cases: [(&dyn Fn(usize) -> String, usize); 6] = [
            // The space that begins the padding is not counted.
            (&|n| chunk("1 ".to_owned() + &spaces(n)), LINE),
            (&|n| chunk("1;".to_owned() + &spaces(n) + "e"), LINE),
            (
                &|n| chunk("1 ".to_owned() + &spaces(n - 99) + ";" + &spaces(99) + "e"),
                LINE,
            ),
            (&|n| chunk("1;e".to_owned() + &"\t".repeat(n)), LINE),
            (
                &|n| format!("1\r\nx\r\n0\r\n{}:\r\n\r\n", "T".repeat(n)),
                TRAILERS,
            ),
            (
                &|n| format!("1\r\nx\r\n0\r\nA:1\r\nT:{}\r\n\r\n", spaces(n - 3)),
                TRAILERS,
            ),
        ];
        for (at, (wire, most)) in cases.into_iter().enumerate() {
            let read = |n| read(&BodyReader::chunked(), wire(n).as_bytes());
            assert_eq!(read(most), Ok((b"x".to_vec(), true)), "{at}");
            assert_eq!(read(most + 1), Err(BadChunk), "{at}, a byte more");
        }
    }
}

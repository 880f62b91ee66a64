//! One HTTP/1.1 message, read from a stream and kept byte for byte.
//!
//! A reader of its own, sharing no line with the extension's: a mistake there must not be mirrored here.

use std::io::{self, ErrorKind, Read};

/// A head as received: start line, header lines and the empty line, with their line ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub raw: Vec<u8>,
}

impl Head {
    /// The head as text; bytes that are not UTF-8 show as replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    pub fn start_line(&self) -> String {
        self.text()
            .split("\r\n")
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// Names and values in the order received, names in the letter case received.
    pub fn headers(&self) -> Vec<(String, String)> {
        let text = self.text();
        let lines = text
            .split("\r\n")
            .skip(1)
            .take_while(|line| !line.is_empty());
        lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// The value of the only header of that name, in any letter case. Panics when there are two.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(
            values.len() <= 1,
            "{name} appears {} times in\n{}",
            values.len(),
            self.text()
        );
        values.pop()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers()
            .into_iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// How the body of a request with this head is framed.
    pub fn request_framing(&self) -> Framing {
        match (self.is_chunked(), self.content_length()) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Length(0),
        }
    }

    /// How the body of a response with this head is framed.
    pub fn response_framing(&self) -> Framing {
        match self.status() {
            100..=199 | 204 | 304 => Framing::Length(0),
            _ if self.is_chunked() => Framing::Chunked,
            _ => self
                .content_length()
                .map_or(Framing::UntilClose, Framing::Length),
        }
    }

    /// The status code of a response; 0 when the start line is not a status line.
    pub fn status(&self) -> u16 {
        self.start_line()
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    fn is_chunked(&self) -> bool {
        self.all("Transfer-Encoding")
            .iter()
            .any(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    fn content_length(&self) -> Option<usize> {
        self.header("Content-Length")
            .map(|value| value.parse().expect("Content-Length is a number"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A body: what it says, and the bytes that carried it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    pub decoded: Vec<u8>,
    pub raw: Vec<u8>,
}

/// A stream's bytes, handed out message by message; what was read too far is kept for the next one.
pub struct Messages<S> {
    pub stream: S,
    ahead: Vec<u8>,
}

impl<S: Read> Messages<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Bytes read from the stream that no message has claimed.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads at most `most` bytes into the look-ahead; `false` at the stream's end.
    pub fn read_some(&mut self, most: usize) -> io::Result<bool> {
        let mut piece = vec![0; most];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.ahead.extend_from_slice(&piece[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next head; `None` when the stream ends before its first byte.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                return Ok(Some(Head {
                    raw: self.take(end + 4),
                }));
            }
            if !self.read_some(16 * 1024)? {
                return if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(cut("head"))
                };
            }
        }
    }

    /// Reads a body into `body`, which holds what had come when the stream fails in the middle.
    pub fn body(&mut self, framing: Framing, body: &mut Body) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.exactly(length, body),
            Framing::Chunked => self.chunks(body),
            Framing::UntilClose => {
                while self.read_some(64 * 1024)? {}
                let rest = self.take(self.ahead.len());
                body.raw.extend_from_slice(&rest);
                body.decoded.extend_from_slice(&rest);
                Ok(())
            }
        }
    }

    fn exactly(&mut self, length: usize, body: &mut Body) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.ahead.is_empty() && !self.read_some(left.min(256 * 1024))? {
                return Err(cut("body"));
            }
            let piece = self.take(left.min(self.ahead.len()));
            left -= piece.len();
            body.raw.extend_from_slice(&piece);
            body.decoded.extend_from_slice(&piece);
        }
        Ok(())
    }

    fn chunks(&mut self, body: &mut Body) -> io::Result<()> {
        loop {
            let line = self.line(body)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, "chunk size"))?;
            if size == 0 {
                while !self.line(body)?.is_empty() {}
                return Ok(());
            }
            self.exactly(size, body)?;
            if !self.line(body)?.is_empty() {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "chunk longer than its size",
                ));
            }
        }
    }

    fn line(&mut self, body: &mut Body) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line = self.take(end + 2);
                body.raw.extend_from_slice(&line);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.read_some(16 * 1024)? {
                return Err(cut("chunk"));
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }
}

/// Where `needle` first begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}

fn cut(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        format!("the stream ended inside a {what}"),
    )
}

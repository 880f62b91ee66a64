//! Heads: where one ends, what it says, and which body follows it.
//!
//! `httparse` reads the grammar; this file adds the rules that make the framing unambiguous (RFC 9112 sections 2, 3, 5
//! and 6) and refuses what two readers could read differently.

use super::HeaderSlots;
use super::body::BodyReader;
use super::fields::{digits, is_token_byte, lines, members, names_token, value};
use super::refusal::Refusal;

/// Most bytes of `Connection` in one request: each field is looked up in it. Clients send one or two words.
const CONNECTION_BYTES_MAX: usize = 1024;

/// Finds the end of the head that starts at `bytes[0]`: the index after its empty line.
///
/// `searched` remembers how far an earlier call searched, so that a head that arrives byte by byte costs no more than a
/// whole one. A bare line feed ends the search too; the parser then refuses it.
pub fn end(bytes: &[u8], searched: &mut usize) -> Option<usize> {
    let mut at = *searched;
    while let Some(line) = line_feed(&bytes[at..]) {
        let next_line = at + line + 1;
        match &bytes[next_line..] {
            [b'\n', ..] => return Some(next_line + 1),
            [b'\r', b'\n', ..] => return Some(next_line + 2),
            [] | [b'\r'] => {
                *searched = next_line - 1;
                return None;
            }
            _ => at = next_line,
        }
    }
    *searched = bytes.len();
    None
}

/// The index of the first line feed. Every byte of every head is searched, so this compares eight at a time: it
/// combines them with line feeds and takes the lowest byte that becomes zero.
fn line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LINE_FEEDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let (eights, rest) = bytes.as_chunks();
    for (i, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight) ^ LINE_FEEDS;
        let zeros = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if zeros != 0 {
            return Some(8 * i + zeros.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|&b| b == b'\n')?;
    Some(8 * eights.len() + at)
}

/// Number of bytes of empty lines before a request line, which a server should skip (RFC 9112 section 2.2).
#[must_use]
pub fn leading_blank(bytes: &[u8]) -> usize {
    let lines = bytes.chunks_exact(2).take_while(|line| *line == b"\r\n");
    2 * lines.count()
}

/// Whether `byte` can begin a request: a method is a token.
#[must_use]
pub fn begins_request(byte: u8) -> bool {
    is_token_byte(byte)
}

/// A request as received.
#[derive(Debug)]
pub struct Request<'b> {
    /// The method, in its original case.
    pub method: &'b str,
    /// The target, unchanged.
    pub target: &'b str,
    /// Whether the peer speaks HTTP/1.0.
    pub http10: bool,
    /// The fields, in the order received.
    pub headers: &'b [httparse::Header<'b>],
}

/// What a request's head says about its body and connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing {
    /// How to read the body.
    pub body: BodyReader,
    /// Whether the head mentions a body at all, even an empty one.
    pub has_body: bool,
    /// Whether the connection may carry another request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Parses a whole request head.
///
/// # Errors
/// What breaks RFC 9112's grammar, or one of our limits.
pub fn request<'b>(head: &'b [u8], slots: &'b mut HeaderSlots<'b>) -> Result<Request<'b>, Refusal> {
    if has_bare_line_feed(head) {
        return Err(Refusal::BareLineFeed);
    }
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, slots) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Err(httparse::Error::Version) if names_version(head) => return Err(Refusal::NotHttp1),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
        _ => return Err(Refusal::MalformedHead),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::MalformedHead);
    };
    let is_target = target.starts_with('/')
        || target == "*" && method == "OPTIONS"
        || authority(target).is_some_and(|host| !host.is_empty() && is_host(host.as_bytes()));
    // CONNECT has a target form of its own, and its own refusal.
    if !is_target && method != "CONNECT" {
        return Err(Refusal::MalformedTarget);
    }
    Ok(Request {
        method,
        target,
        http10: version == 0,
        headers: parsed.headers,
    })
}

impl Request<'_> {
    /// Decides which body follows (RFC 9112 section 6.3) and whether the connection is kept (9.3).
    ///
    /// # Errors
    /// Two lengths, a length together with a transfer coding, codings other than `chunked`, no `Host`, two or an
    /// invalid one, an unknown expectation.
    pub fn framing(&self) -> Result<Framing, Refusal> {
        let mut hosts = lines(self.headers, "host");
        let is_bad = match hosts.next() {
            None => !self.http10,
            Some(host) => !is_host(host) || hosts.next().is_some(),
        };
        if is_bad {
            return Err(Refusal::NeedsOneHost);
        }
        if lines(self.headers, "connection")
            .map(<[u8]>::len)
            .sum::<usize>()
            > CONNECTION_BYTES_MAX
        {
            return Err(Refusal::ConnectionTooLong);
        }
        if self.method == "CONNECT" {
            return Err(Refusal::Connect);
        }
        let length = content_length(self.headers)?;
        let body = match (coding(self.headers), length) {
            (Coding::None, length) => BodyReader::Length(length.unwrap_or(0)),
            (_, Some(_)) => return Err(Refusal::LengthAndCoding),
            _ if self.http10 => return Err(Refusal::CodingInHttp10),
            (Coding::Chunked, None) => BodyReader::chunked(),
            (Coding::ChunkedLast, None) => return Err(Refusal::UnknownCoding),
            (Coding::Other | Coding::Unframed, None) => {
                return Err(Refusal::ChunkedNotLast);
            }
        };
        let has_body = length.is_some() || body != BodyReader::Length(0);
        let expects_continue = match value(self.headers, "expect") {
            None | Some(b"") => false,
            Some(v) if v.eq_ignore_ascii_case(b"100-continue") => !self.http10 && !body.is_done(),
            Some(_) => return Err(Refusal::UnknownExpectation),
        };
        Ok(Framing {
            body,
            has_body,
            keep_alive: keep_alive(self.http10, self.headers),
            expects_continue,
        })
    }

    /// The host that the client asked for: the target's authority has priority over `Host` (RFC 9112 section 3.2.2).
    #[must_use]
    pub fn host(&self) -> Option<&[u8]> {
        authority(self.target)
            .map_or_else(|| value(self.headers, "host"), |host| Some(host.as_bytes()))
    }
}

/// The authority of an absolute-form target, `http://authority/path`.
fn authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    is_http.then(|| &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())])
}

/// Whether `value` is a valid `Host` (RFC 9110 section 7.2): `name`, `name:port`, `[address]:port`, or empty.
fn is_host(value: &[u8]) -> bool {
    let name_end = || value.iter().position(|&b| b == b':').unwrap_or(value.len());
    let end = match value.first() {
        Some(b'[') => value.iter().position(|&b| b == b']').map_or(0, |at| at + 1),
        _ => name_end(),
    };
    let (host, port) = value.split_at(end);
    let is_host = match host {
        [b'[', address @ .., b']'] => address
            .iter()
            .all(|&b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
        name => name
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b)),
    };
    let is_port = match port {
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        rest => rest.is_empty(),
    };
    is_host && is_port
}

/// Whether the request line ends with an HTTP version at all.
fn names_version(head: &[u8]) -> bool {
    let word = head.split(|&b| b == b' ' || b == b'\r').nth(2);
    matches!(
        word,
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
    )
}

/// An answer's head as received.
#[derive(Debug)]
pub struct Response<'b> {
    /// The status code.
    pub status: u16,
    /// Whether the peer speaks HTTP/1.0.
    pub http10: bool,
    /// The fields, in the order received.
    pub headers: &'b [httparse::Header<'b>],
    /// Whether the fields cannot be read; they are empty then.
    pub is_malformed: bool,
}

/// Parses a whole response head.
///
/// A success counts whatever its fields are: the server has accepted the payload, and sending it again would duplicate
/// it. Any other answer must be well-formed.
///
/// # Errors
/// What is wrong, as text.
pub fn response<'b>(
    head: &'b [u8],
    slots: &'b mut HeaderSlots<'b>,
) -> Result<Response<'b>, &'static str> {
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let outcome = parser.parse_response_with_uninit_headers(&mut parsed, head, slots);
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err("malformed answer");
    };
    let is_malformed = match outcome {
        Ok(httparse::Status::Complete(n)) if n == head.len() => false,
        Err(httparse::Error::Status) => return Err("malformed answer"),
        _ if status / 100 == 2 => true,
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields in the answer"),
        _ => return Err("malformed answer"),
    };
    Ok(Response {
        status,
        http10: version == 0,
        headers: if is_malformed { &[] } else { parsed.headers },
        is_malformed,
    })
}

/// The status of the answer at the start of `bytes`, if its status line is complete and a success (RFC 9112 section 4).
#[must_use]
pub fn success_line(bytes: &[u8]) -> Option<u16> {
    let end = line_feed(bytes)?;
    let rest = bytes[..end].strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0' | b'1', b' ', status @ .., b'\r'] => {
            let (status, reason) = status.split_at_checked(3)?;
            let status = digits(status).filter(|status| status / 100 == 2)?;
            matches!(reason, [] | [b' ', ..]).then_some(status as u16)
        }
        _ => None,
    }
}

impl Response<'_> {
    /// Decides which body follows (RFC 9112 section 6.3), and whether the connection may be reused.
    ///
    /// # Errors
    /// Lengths that contradict each other, or are invalid.
    pub fn framing(&self, to_head_request: bool) -> Result<(BodyReader, bool), &'static str> {
        if self.is_malformed {
            // The end of its body is unknown, and its body is not needed.
            return Ok((BodyReader::Length(0), false));
        }
        let keep_alive = keep_alive(self.http10, self.headers);
        if to_head_request || self.status == 204 || self.status == 304 {
            return Ok((BodyReader::Length(0), keep_alive));
        }
        let length = content_length(self.headers).map_err(Refusal::reason)?;
        match (coding(self.headers), length) {
            // Section 6.3 rule 3: the coding has priority, and the connection is not trusted any further; nor is it if
            // that HTTP version has no such coding (section 6.1).
            (Coding::Chunked | Coding::ChunkedLast, length) => Ok((
                BodyReader::chunked(),
                keep_alive && length.is_none() && !self.http10,
            )),
            (Coding::None, Some(length)) => Ok((BodyReader::Length(length), keep_alive)),
            (Coding::None, None) | (Coding::Other | Coding::Unframed, _) => {
                Ok((BodyReader::UntilClose, false))
            }
        }
    }
}

fn has_bare_line_feed(mut head: &[u8]) -> bool {
    while let Some(at) = line_feed(head) {
        if !head[..at].ends_with(b"\r") {
            return true;
        }
        head = &head[at + 1..];
    }
    false
}

fn keep_alive(http10: bool, headers: &[httparse::Header]) -> bool {
    if http10 {
        names_token(headers, "connection", "keep-alive")
            && !names_token(headers, "connection", "close")
    } else {
        !names_token(headers, "connection", "close")
    }
}

/// The length that all `Content-Length` lines agree on. A list in one line is refused.
fn content_length(headers: &[httparse::Header]) -> Result<Option<u64>, Refusal> {
    let mut found = None;
    for line in lines(headers, "content-length") {
        let Some(length) = digits(line) else {
            return Err(Refusal::BadLength);
        };
        if found.is_some_and(|before| before != length) {
            return Err(Refusal::TwoLengths);
        }
        found = Some(length);
    }
    Ok(found)
}

/// What `Transfer-Encoding` says.
enum Coding {
    /// Nothing.
    None,
    Chunked,
    /// `chunked`, once and last, over other codings that we cannot read.
    ChunkedLast,
    /// Only other codings: the end is unknown.
    Other,
    /// `chunked` twice, or not last: the end is unknown too.
    Unframed,
}

fn coding(headers: &[httparse::Header]) -> Coding {
    members(headers, "transfer-encoding").fold(Coding::None, |before, member| {
        match (before, member.eq_ignore_ascii_case(b"chunked")) {
            (Coding::None, true) => Coding::Chunked,
            (Coding::Other, true) => Coding::ChunkedLast,
            (Coding::None | Coding::Other, false) => Coding::Other,
            _ => Coding::Unframed,
        }
    })
}

#[cfg(test)]
mod tests;

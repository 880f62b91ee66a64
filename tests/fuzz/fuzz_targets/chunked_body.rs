//! Chunked bodies: whatever the cut, the same as an independent reader makes of the whole; and every body, put
//! in chunks, comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::http1::body::{BadChunk, BodyReader};

/// A body as far as it goes, whether it is whole, and how many bytes it took.
type Read = Result<(Vec<u8>, bool, usize), BadChunk>;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, wire)) = input.split_first() else {
        return;
    };
    let whole = read(wire, wire.len().max(1));
    for step in [1, 3, usize::from(cut) + 1] {
        assert_eq!(whole, read(wire, step), "in pieces of {step}");
    }
    assert_eq!(whole, reference(wire), "not what the reference reads");

    let mut chunks = Vec::new();
    for piece in wire.chunks(usize::from(cut) + 1) {
        chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunks.extend_from_slice(piece);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(
        read(&chunks, usize::from(cut) + 2),
        Ok((wire.to_vec(), true, chunks.len()))
    );
});

fn read(wire: &[u8], step: usize) -> Read {
    let (mut reader, mut body, mut used) = (BodyReader::chunked(), Vec::new(), 0);
    for piece in wire.chunks(step) {
        let mut piece = piece.to_vec();
        let at = reader.decode(&mut piece)?;
        body.extend_from_slice(&piece[..at.body]);
        used += at.used;
        if reader.is_done() {
            break;
        }
        assert_eq!(
            at.used,
            piece.len(),
            "an unfinished body uses all it is given"
        );
    }
    Ok((body, reader.is_done(), used))
}

/// RFC 9112 section 7.1, line by line. libFuzzer's inputs are too short for the limits on extensions and trailers.
fn reference(wire: &[u8]) -> Read {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = line(&wire[at..], is_chunk_line)? else {
            return Ok((body, false, wire.len()));
        };
        at += line.len() + 2;
        let digits = line
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .collect::<Vec<_>>();
        let size = digits.iter().fold(0, |size: u64, digit| {
            size << 4 | u64::from(char::from(**digit).to_digit(16).expect("a digit"))
        });
        if size == 0 {
            break;
        }
        let rest = &wire[at..];
        let n = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        body.extend_from_slice(&rest[..n]);
        at += n;
        match &rest[n..] {
            [] | [b'\r'] => return Ok((body, false, wire.len())),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Err(BadChunk),
        }
    }
    loop {
        let Some(line) = line(&wire[at..], is_trailer)? else {
            return Ok((body, false, wire.len()));
        };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok((body, true, at));
        }
    }
}

/// The line that `wire` begins with, if it is whole; what is there of it must be able to become a good one.
fn line(wire: &[u8], good: impl Fn(&[u8], bool) -> bool) -> Result<Option<&[u8]>, BadChunk> {
    let end = wire.iter().position(|&b| b == b'\r');
    let text = &wire[..end.unwrap_or(wire.len())];
    if !good(text, end.is_some()) {
        return Err(BadChunk);
    }
    match end.map(|end| wire.get(end + 1)) {
        None | Some(None) => Ok(None),
        Some(Some(b'\n')) => Ok(Some(text)),
        Some(Some(_)) => Err(BadChunk),
    }
}

/// A size of one to sixteen digits, and perhaps extensions, of which the first one's name must begin.
fn is_chunk_line(text: &[u8], whole: bool) -> bool {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = trim_start(&text[digits..]);
    let good_rest = match rest.split_first() {
        None => true,
        Some((b';', extension)) => match trim_start(extension).split_first() {
            None => !whole,
            Some((first, _)) => is_token(&[*first]) && is_text(extension),
        },
        Some(_) => false,
    };
    let good_digits = digits <= 16 && (digits > 0 || !whole && text.is_empty());
    good_digits && good_rest
}

/// The empty line at the end, or a field: a name, a colon, a value.
fn is_trailer(text: &[u8], whole: bool) -> bool {
    match text.iter().position(|&b| b == b':') {
        None => text.is_empty() || !whole && is_token(text),
        Some(colon) => colon > 0 && is_token(&text[..colon]) && is_text(&text[colon..]),
    }
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| b" \t".contains(b)).count();
    &text[blanks..]
}

fn is_token(text: &[u8]) -> bool {
    text.iter()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn is_text(text: &[u8]) -> bool {
    text.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

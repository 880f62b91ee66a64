//! Finds one part of a `multipart/form-data` body (RFC 7578, RFC 2046 section 5.1).
//!
//! The delimiter is taken from the body's own first line; only forms that SDKs send are supported.

use std::ops::Range;

/// Most parts that are read. SDKs send one to three.
const PARTS_MAX: usize = 8;

/// Longest boundary (RFC 2046 section 5.1.1), with the two hyphens before it.
const DELIMITER_MAX: usize = 72;

/// The range of the content of the first part with that name.
#[must_use]
pub fn part(body: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let line = find(body, b"\r\n", 0).filter(|end| *end <= DELIMITER_MAX)?;
    let first = body.get(..line)?;
    if !first.starts_with(b"--") {
        return None;
    }
    let delimiter = [b"\r\n", first].concat();
    let mut at = line + 2;
    for _ in 0..PARTS_MAX {
        let start = find(body, b"\r\n\r\n", at)? + 4;
        let end = find(body, &delimiter, start)?;
        if is_named(body.get(at..start)?, name) {
            return Some(start..end);
        }
        at = end + delimiter.len();
        // After the last part, two more hyphens follow the delimiter.
        if !body.get(at..)?.starts_with(b"\r\n") {
            return None;
        }
        at += 2;
    }
    None
}

/// Whether a part's fields give it that name.
fn is_named(fields: &[u8], name: &[u8]) -> bool {
    let quoted = [b" name=\"", name, b"\""].concat();
    find(fields, &quoted, 0).is_some()
}

/// The first index of `needle`, starting at `from`.
fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == first)?;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(body: &str) -> Option<&str> {
        part(body.as_bytes(), b"profile").map(|range| &body[range])
    }

    #[test]
    fn the_part_of_that_name_is_found_among_others() {
        let other =
            "--b\r\nContent-Disposition: form-data; name=\"labels\"\r\n\r\nname=\"profile\"";
        let profile = "--b\r\nContent-Disposition: form-data; name=\"profile\"; filename=\"p\"\r\nContent-Type: x/y\r\n\r\n\r\n-\0-b";
        assert_eq!(
            content(&format!("{profile}\r\n--b--\r\n")),
            Some("\r\n-\0-b")
        );
        assert_eq!(
            content(&format!("{other}\r\n{profile}\r\n{other}\r\n--b--\r\n")),
            Some("\r\n-\0-b")
        );
        assert_eq!(
            content(&format!("{other}\r\n--b--\r\n{profile}\r\n--b--")),
            None
        );
    }

    #[test]
    fn what_is_no_such_form_has_no_part() {
        for body in [
            "",
            "\r\n",
            "--b",
            "--b\r\n",
            "-b\r\nX: name=\"profile\"\r\n\r\nx\r\n-b--",
            "--b\r\nX: name=\"profile\"\r\n\r\nno end",
            "--b\r\nX: name=\"profile\"\r\nx\r\n--b--",
            "--b\r\nX: filename=\"profile\"\r\n\r\nx\r\n--b--",
        ] {
            assert_eq!(content(body), None, "{body:?}");
        }
        let long = "-".repeat(DELIMITER_MAX);
        assert_eq!(
            content(&format!(
                "{long}\r\nX: name=\"profile\"\r\n\r\nx\r\n{long}--"
            )),
            Some("x")
        );
        assert_eq!(
            content(&format!(
                "-{long}\r\nX: name=\"profile\"\r\n\r\nx\r\n-{long}--"
            )),
            None
        );
    }
}

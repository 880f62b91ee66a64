//! The text format that logrus uses without a terminal: `time="…" level=info msg="…" field=value`.

use super::{Entry, Value, hex};

/// Appends the line, without its line feed.
///
/// A field with a fixed field's name shows that field's value. logrus does the same with two fixed fields of one name.
pub(super) fn line(out: &mut Vec<u8>, entry: &Entry) {
    let names = &entry.format.names;
    let fixed = [
        (&names.time, entry.time),
        (&names.level, entry.level),
        (&names.msg, entry.msg),
        (&names.logrus_error, ""),
    ];
    if entry.format.timestamps {
        pair(out, &names.time, Value::Text(entry.time));
        out.push(b' ');
    }
    let shown = |name: &str, own| {
        let mut same = fixed.iter().filter(|(fixed, _)| *fixed == name);
        same.next().map_or(own, |&(_, value)| Value::Text(value))
    };
    pair(out, &names.level, shown(&names.level, Value::Number(0)));
    if !entry.msg.is_empty() {
        out.push(b' ');
        pair(out, &names.msg, shown(&names.msg, Value::Number(0)));
    }
    for (name, value) in &entry.data {
        out.push(b' ');
        pair(out, name, shown(name, *value));
    }
}

fn pair(out: &mut Vec<u8>, name: &str, value: Value) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    match value {
        Value::Text(text) => quoted(out, text),
        Value::Number(number) => crate::http1::write::number(out, number),
    }
}

/// Appends it bare if every character is harmless, otherwise as Go's `%q`.
fn quoted(out: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b))
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\u{7}'..='\r' => out.extend_from_slice(&[b'\\', b"abtnvfr"[c as usize - 7]]),
            '\0'..=' ' | '\x7f' if c != ' ' => hex(out, b'x', 2, c),
            c if c.is_ascii() || is_printable(c) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '\0'..='\u{ffff}' => hex(out, b'u', 4, c),
            _ => hex(out, b'U', 8, c),
        }
    }
    out.push(b'"');
}

/// Whether Go counts a character beyond ASCII as printable: not a control, format, private, unassigned or blank
/// character. Rust agrees, with tables that the binary has anyway; only its Unicode version is later than Go's.
///
/// Rust shows it by how it escapes the character. It escapes combining characters too, but only at the start of a text.
fn is_printable(c: char) -> bool {
    let mut padded = [b'+', 0, 0, 0, 0];
    let length = 1 + c.encode_utf8(&mut padded[1..]).len();
    let text = str::from_utf8(&padded[..length]).unwrap_or_default();
    text.escape_debug().count() == 2
}

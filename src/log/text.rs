//! logrus' text form, as it is where no terminal reads along: `time="…" level=info msg="…" field=value`.

use super::{Entry, Value, hex};

/// Appends the line, without its end.
///
/// Whatever has a fixed field's name shows that field's value: so do two fixed fields of one name, in logrus.
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

/// Bare where every character is harmless, else as Go's `%q`.
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
            c if is_printable(c) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '\0'..='\u{ffff}' => hex(out, b'u', 4, c),
            _ => hex(out, b'U', 8, c),
        }
    }
    out.push(b'"');
}

/// Whether Go takes a character for printable: no control, format or private character, no blank but
/// U+0020.
///
/// Go also knows which code points its version of Unicode leaves unassigned, and escapes them. The table for that
/// takes ten times the bytes of this one: they are written as they are, but for the large gaps.
fn is_printable(c: char) -> bool {
    const NOT: [(u32, u32); 24] = [
        (0x80, 0xa0),
        (0xad, 0xad),
        (0x600, 0x605),
        (0x61c, 0x61c),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x1680, 0x1680),
        (0x180e, 0x180e),
        (0x2000, 0x200f),
        (0x2028, 0x202f),
        (0x205f, 0x206f),
        (0x3000, 0x3000),
        (0xd800, 0xf8ff),
        (0xfdd0, 0xfdef),
        (0xfeff, 0xfeff),
        (0xfff0, 0xfffb),
        (0x110bd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0x323b0, 0xe00ff),
        (0xe01f0, 0x0010_ffff),
    ];
    let code = c as u32;
    // The last two code points of each plane are no characters.
    code & 0xfffe != 0xfffe
        && !NOT
            .iter()
            .any(|&(first, last)| (first..=last).contains(&code))
}

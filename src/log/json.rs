//! logrus' JSON form: one object, its keys sorted, its strings escaped as Go's `encoding/json` does by default.

use super::{Entry, Value, hex, set};

/// Appends the line, without its line feed.
///
/// If two fixed fields have the same name, the last one is kept, as in logrus.
pub(super) fn line(out: &mut Vec<u8>, mut entry: Entry) {
    let names = &entry.format.names;
    let data = &mut entry.data;
    if entry.format.timestamps {
        set(data, (&*names.time).into(), Value::Text(entry.time));
    }
    set(data, (&*names.msg).into(), Value::Text(entry.msg));
    set(data, (&*names.level).into(), Value::Text(entry.level));
    let mut mark = b'{';
    for (name, value) in data {
        out.push(mark);
        mark = b',';
        string(out, name);
        out.push(b':');
        match value {
            Value::Text(text) => string(out, text),
            Value::Number(number) => crate::http1::write::number(out, *number),
        }
    }
    out.push(b'}');
}

/// Appends a string that is also safe in HTML and JavaScript.
///
/// Bytes that are not UTF-8 were replaced by U+FFFD, which Go escapes.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\u{8}'..='\n' | '\u{c}' | '\r' => {
                out.extend_from_slice(&[b'\\', b"btn?fr"[c as usize - 8]]);
            }
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{fffd}' => {
                hex(out, b'u', 4, c);
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

//! A JSON scanner (RFC 8259) for one object's fields or one array's elements, no more than we need.
//!
//! Used for Lambda's events, for telemetry and for `PYROSCOPE_HTTP_HEADERS`. Nested values are only checked for balance
//! and returned as text. It never recurses, so depth costs nothing.

use std::borrow::Cow;

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'t> {
    /// A string, unescaped.
    String(Cow<'t, str>),
    /// A number, as it is written.
    Number(&'t str),
    /// An object or an array, as it is written.
    Nested(&'t str),
    /// `true`, `false` or `null`.
    Other,
}

impl Value<'_> {
    /// The value as an integer, also from a string of digits: AWS documents `deadlineMs` as one and sends the other.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::String(text) => text.parse().ok(),
            Self::Number(text) => text.parse().ok(),
            Self::Nested(_) | Self::Other => None,
        }
    }
}

/// The text is not exactly one well-formed JSON object, or array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Calls `each` for every field of the object in `text`, in order.
///
/// # Errors
/// If the text is not exactly one object. `each` has already seen the fields before the error.
pub fn object<'t>(
    text: &'t str,
    mut each: impl FnMut(Cow<'t, str>, Value<'t>),
) -> Result<(), Malformed> {
    fields(text, &mut each)
}

/// The same without generics, so that it is compiled once.
fn fields<'t>(
    text: &'t str,
    each: &mut dyn FnMut(Cow<'t, str>, Value<'t>),
) -> Result<(), Malformed> {
    Scan { text, at: 0 }.list(b'{', b'}', &mut |scan| {
        scan.blank();
        let key = scan.string()?;
        scan.expect(b':')?;
        each(key, scan.value()?);
        Ok(())
    })
}

/// Calls `each` for every element of the array in `text`, in order.
///
/// # Errors
/// If the text is not exactly one array. `each` has already seen the elements before the error.
pub fn array<'t>(text: &'t str, mut each: impl FnMut(Value<'t>)) -> Result<(), Malformed> {
    Scan { text, at: 0 }.list(b'[', b']', &mut |scan| {
        each(scan.value()?);
        Ok(())
    })
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    /// Reads all of the text: items, as `item` reads them, separated by commas, inside these brackets.
    fn list(
        &mut self,
        open: u8,
        close: u8,
        item: &mut dyn FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(open)?;
        if self.peek() == Some(close) {
            self.at += 1;
            return self.end();
        }
        loop {
            item(self)?;
            let next = self.peek().ok_or(Malformed)?;
            self.at += 1;
            if next == close {
                return self.end();
            } else if next != b',' {
                return Err(Malformed);
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space, without consuming it.
    fn peek(&mut self) -> Option<u8> {
        self.blank();
        self.byte()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn value(&mut self) -> Result<Value<'t>, Malformed> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.word())),
            Some(b'{' | b'[') => self.nested(),
            Some(b't' | b'f' | b'n') => match self.word() {
                "true" | "false" | "null" => Ok(Value::Other),
                _ => Err(Malformed),
            },
            _ => Err(Malformed),
        }
    }

    fn word(&mut self) -> &'t str {
        let start = self.at;
        while matches!(
            self.byte(),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
        ) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Skips a nested object or array.
    fn nested(&mut self) -> Result<Value<'t>, Malformed> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.byte() {
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(_) => {}
                None => return Err(Malformed),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(Value::Nested(&self.text[start..self.at]));
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Malformed> {
        if self.byte() != Some(b'"') {
            return Err(Malformed);
        }
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut copied = start;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let stops = |&b: &u8| b == b'"' || b == b'\\' || b < b' ';
            let stop = rest.iter().position(stops).ok_or(Malformed)?;
            self.at += stop;
            match rest[stop] {
                b'"' => break,
                b'\\' => {
                    let out = owned.get_or_insert_with(String::new);
                    out.push_str(&self.text[copied..self.at]);
                    self.at += 1;
                    out.push(self.escape()?);
                    copied = self.at;
                }
                _ => return Err(Malformed),
            }
        }
        let rest = &self.text[copied..self.at];
        self.at += 1;
        Ok(match owned {
            None => Cow::Borrowed(rest),
            Some(mut out) => {
                out.push_str(rest);
                Cow::Owned(out)
            }
        })
    }

    /// Reads the rest of an escape, after its backslash. A lone surrogate becomes U+FFFD, as in Go.
    fn escape(&mut self) -> Result<char, Malformed> {
        let kind = self.byte().ok_or(Malformed)?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => kind as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                if (0xd800..0xdc00).contains(&first)
                    && self.text.as_bytes()[self.at..].starts_with(b"\\u")
                {
                    let before = self.at;
                    self.at += 2;
                    let second = self.hex4()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let joined = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return char::from_u32(joined).ok_or(Malformed);
                    }
                    self.at = before;
                }
                char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(Malformed),
        })
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self
                .byte()
                .and_then(|b| (b as char).to_digit(16))
                .ok_or(Malformed)?;
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<Vec<(String, Value<'_>)>, Malformed> {
        let mut all = Vec::new();
        object(text, |key, value| all.push((key.into_owned(), value))).map(|()| all)
    }

    fn string(text: &str) -> Value<'_> {
        Value::String(Cow::Borrowed(text))
    }

    #[test]
    fn objects() {
        assert_eq!(fields(" {} \n"), Ok(vec![]));
        assert_eq!(
            fields(r#"{"a":"b", "n" : -1.5e3,"t":true,"o":{"x":["}"]},"z":null}"#),
            Ok(vec![
                ("a".into(), string("b")),
                ("n".into(), Value::Number("-1.5e3")),
                ("t".into(), Value::Other),
                ("o".into(), Value::Nested(r#"{"x":["}"]}"#)),
                ("z".into(), Value::Other),
            ])
        );
        assert_eq!(
            fields(r#"{"a\n\"\u00e9\ud83d\ude00\ud800x":"\/"}"#).unwrap()[0].0,
            "a\n\"é😀\u{fffd}x"
        );
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            "{}x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{'a':1}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":[}",
            "{\"a\":nul}",
            "{\"a\":\"b",
            "{\"a\":\"\\u12\"}",
            "{\"a\":1 \"b\":2}",
        ] {
            assert_eq!(fields(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn arrays() {
        let elements = |text: &'static str| {
            let mut all = Vec::new();
            array(text, |value| all.push(value)).map(|()| all)
        };
        assert_eq!(elements(" [ ] "), Ok(vec![]));
        assert_eq!(
            elements(r#"[{"a":[1]}, "b" ,2]"#),
            Ok(vec![
                Value::Nested(r#"{"a":[1]}"#),
                string("b"),
                Value::Number("2"),
            ])
        );
        for text in [
            "", "{}", "[", "[1", "[1,]", "[,]", "[1 2]", "[1]x", "[{]", "[1}",
        ] {
            assert_eq!(elements(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn cut_anywhere() {
        let text =
            r#"{"eventType":"INVOKE","deadlineMs":1,"tracing":{"type":"a","value":"\u00e9"}}"#;
        for cut in 0..text.len() {
            assert_eq!(fields(&text[..cut]), Err(Malformed), "{cut}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(Value::Number("12").as_u64(), Some(12));
        assert_eq!(string("12").as_u64(), Some(12));
        assert_eq!(Value::Number("1e3").as_u64(), None);
        assert_eq!(Value::Other.as_u64(), None);
    }
}

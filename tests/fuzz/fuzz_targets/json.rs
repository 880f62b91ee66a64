//! JSON: every object that serde_json takes is read with the same fields, one that is cut is refused, and any
//! text written to the log is read back by serde_json as it was, fields up to what is logged of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::json::{self, Value};
use pyroscope_lambda_extension::log::{Format, Level, Log};
use serde_json::Value as Json;

fuzz_target!(|text: &str| {
    let mut fields = Vec::new();
    let read = json::object(text, |key, value| fields.push((key.into_owned(), value)));
    match serde_json::from_str(text) {
        Ok(Json::Object(reference)) => {
            assert_eq!(read, Ok(()), "a good object is refused");
            // Where a key comes twice, the last one counts; serde_json keeps them by key.
            for (key, expected) in &reference {
                let (_, value) = fields
                    .iter()
                    .rfind(|(own, _)| own == key)
                    .expect("every field is seen");
                check(value, expected);
            }
            let known = |key: &String| reference.contains_key(key);
            assert!(fields.iter().all(|(key, _)| known(key)));
            for (cut, _) in text.trim_end().char_indices().take(64) {
                assert!(
                    json::object(&text[..cut], |_, _| ()).is_err(),
                    "whole after {cut} bytes"
                );
            }
        }
        Ok(_) => assert!(read.is_err(), "not an object"),
        Err(_) => {}
    }

    let format = Format {
        json: true,
        ..Format::DEFAULT
    };
    let mut log = Log::in_format(Level::Info, format);
    log.line(Level::Info, 0, text, &[("field", text.into())]);
    let line: Json = serde_json::from_slice(log.take()).expect("a line is an object");
    let clipped = &text[..text.floor_char_boundary(2048)];
    assert_eq!(
        (&line["msg"], &line["field"]),
        (&text.into(), &clipped.into())
    );
});

fn check(value: &Value, expected: &Json) {
    match (value, expected) {
        (Value::String(text), Json::String(expected)) => {
            assert_eq!(text, expected);
            assert_eq!(value.as_u64(), expected.parse().ok());
        }
        (Value::Number(text), Json::Number(expected)) => {
            assert_eq!(
                serde_json::from_str::<serde_json::Number>(text)
                    .ok()
                    .as_ref(),
                Some(expected)
            );
            assert_eq!(value.as_u64(), expected.as_u64());
        }
        (Value::Nested(text), Json::Array(_) | Json::Object(_)) => {
            assert_eq!(
                serde_json::from_str::<Json>(text).ok().as_ref(),
                Some(expected)
            );
        }
        (Value::Other, Json::Bool(_) | Json::Null) => {}
        _ => panic!("{value:?} is not {expected:?}"),
    }
}

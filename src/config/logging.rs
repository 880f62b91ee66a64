//! The format of log lines, from the `PYROSCOPE_LOG_*` settings. Few values are invalid: any text is a time layout.
//!
//! `PYROSCOPE_LOG_FUNC_FIELD_NAME` and `PYROSCOPE_LOG_FILE_FIELD_NAME` are not read: the extension we replace never
//! writes these fields, and logrus does not reserve the names of fields that it does not write.

use std::borrow::Cow;

use crate::log::{Format, Names};

use super::{Note, switch, warn};

/// Reads the format through `env`.
pub(super) fn read(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Format {
    let or = |variable, default: Cow<'static, str>| env(variable).map_or(default, Cow::Owned);
    let default = Format::DEFAULT;
    Format {
        json: env("PYROSCOPE_LOG_FORMAT").is_some_and(|word| is_json(&word, notes)),
        timestamps: !switch(env, "PYROSCOPE_LOG_TIMESTAMP_DISABLE", false, notes),
        layout: or("PYROSCOPE_LOG_TIMESTAMP_FORMAT", default.layout),
        names: Names {
            time: or("PYROSCOPE_LOG_TIMESTAMP_FIELD_NAME", default.names.time),
            level: or("PYROSCOPE_LOG_LEVEL_FIELD_NAME", default.names.level),
            msg: or("PYROSCOPE_LOG_MSG_FIELD_NAME", default.names.msg),
            logrus_error: or(
                "PYROSCOPE_LOG_LOGRUS_ERROR_FIELD_NAME",
                default.names.logrus_error,
            ),
        },
    }
}

/// Only in lower case, as in the extension we replace.
fn is_json(word: &str, notes: &mut Vec<Note>) -> bool {
    if word != "json" && !word.eq_ignore_ascii_case("text") {
        let problem = [
            "\"",
            word,
            "\" is neither text nor json, using the default text",
        ];
        warn(notes, "PYROSCOPE_LOG_FORMAT", problem.concat());
    }
    word == "json"
}

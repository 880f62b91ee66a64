//! Adds labels to a Push request with one series, without changing its bytes.
//!
//! ```text
//!  before:  0A LEN                            series
//!  after:   0A LEN' SKIP k │ 0A LEN │ series │ labels
//!           └── stored ──┘ └─── untouched ──┘ └ stored ┘
//! ```
//!
//! The new start states a new length, and then a field that no server knows, of `k` bytes: these are the old start.
//! Labels may be anywhere in a series, so they come last. In a gzip body both parts are members that store their bytes
//! uncompressed.

use super::gzip;
use super::protobuf::{TAG_SERIES, field, varint};

/// Most bytes before the body: a gzip member with a tag, a length, the field to skip and its length.
pub const PREFIX_MAX: usize = 40;

/// A field of a series that Pyroscope will hardly ever use: number 1,000, with a length.
const TAG_UNKNOWN: u64 = 1000 << 3 | 2;

/// Field numbers of a series, and of a label.
const LABELS: u64 = 1;
const LABEL_NAME: u64 = 1;
const LABEL_VALUE: u64 = 2;

/// The bytes before and after the body, so that its one series of `inflated` bytes, including its tag and its length,
/// gets these labels. `None` if there are none.
pub(super) fn around<'l>(
    body: &[u8],
    inflated: usize,
    labels: impl Iterator<Item = &'l (String, String)>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut after = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, LABEL_NAME, name.as_bytes());
        field(&mut label, LABEL_VALUE, value.as_bytes());
        field(&mut after, LABELS, &label);
    }
    if after.is_empty() {
        return None;
    }
    let content = content_of(inflated)?;
    let mut skip = Vec::new();
    varint(&mut skip, TAG_UNKNOWN);
    varint(&mut skip, (inflated - content) as u64);
    let mut before = vec![TAG_SERIES];
    varint(&mut before, (skip.len() + inflated + after.len()) as u64);
    before.append(&mut skip);
    Some(if gzip::is_gzip(body) {
        (gzip::member(&before), gzip::member(&after))
    } else {
        (before, after)
    })
}

/// The length of a field's content, from the length of the whole field with a tag of one byte.
fn content_of(whole: usize) -> Option<usize> {
    (2..=6)
        .filter_map(|head| whole.checked_sub(head))
        .find(|content| {
            let mut length = Vec::new();
            varint(&mut length, *content as u64);
            content + length.len() + 1 == whole
        })
}

//! Answers of the server and of Lambda: whatever the cut, the same status, body and end come out; a body that a
//! length or chunks frame is as long as they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::http1::buffer::ReceiveBuffer;
use pyroscope_lambda_extension::http1::response::ResponseReader;

/// What an answer was read as.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    statuses: Vec<u16>,
    length: Option<Vec<u8>>,
    closes: bool,
    body: Vec<u8>,
    /// Whether it was whole, and then whether its connection may go on.
    done: Option<bool>,
    whole_at_close: bool,
    used: usize,
}

fuzz_target!(|input: &[u8]| {
    let Some((&flags, wire)) = input.split_first() else {
        return;
    };
    let to_head_request = flags & 1 == 1;
    let whole = read(wire, wire.len().max(1), to_head_request);
    for step in [1, 3, usize::from(flags >> 1) + 1] {
        assert_eq!(
            whole,
            read(wire, step, to_head_request),
            "in pieces of {step}"
        );
    }
    let Ok(answer) = whole else {
        return;
    };
    assert!(answer.statuses.len() <= 1, "one final head");
    assert!(
        answer
            .statuses
            .iter()
            .all(|status| (200..600).contains(status))
    );
    if answer.done.is_some() {
        let status = answer.statuses[0];
        if to_head_request || status == 204 || status == 304 {
            assert_eq!(answer.body, b"");
        } else if let Some(length) = answer.length {
            let length: usize = str::from_utf8(&length)
                .ok()
                .and_then(|text| text.parse().ok())
                .expect("a length");
            assert_eq!(answer.body.len(), length);
        }
        assert!(
            answer.done == Some(false) || !answer.closes,
            "asked to close, goes on"
        );
    }
});

fn read(wire: &[u8], step: usize, to_head_request: bool) -> Result<Answer, &'static str> {
    let mut reader = ResponseReader::new(to_head_request);
    let (mut statuses, mut length, mut body) = (Vec::new(), None, Vec::new());
    let (mut inbox, mut used, mut closes) = (ReceiveBuffer::new(), 0, false);
    for piece in wire.chunks(step) {
        inbox.append(piece);
        let before = inbox.len();
        let result = reader.read(
            &mut inbox,
            |head| {
                statuses.push(head.status);
                let has = |name: &str| {
                    head.headers
                        .iter()
                        .find(|h| h.name.eq_ignore_ascii_case(name))
                        .map(|h| h.value.to_vec())
                };
                closes =
                    has("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
                if has("transfer-encoding").is_none() {
                    length = has("content-length");
                }
            },
            |piece| body.extend_from_slice(piece),
        );
        assert_eq!(reader.has_head(), !statuses.is_empty());
        result?;
        assert!(body.len() + inbox.len() <= wire.len());
        used += before - inbox.len();
        if reader.done().is_some() {
            break;
        }
    }
    Ok(Answer {
        statuses,
        length,
        closes,
        body,
        done: reader.done(),
        whole_at_close: reader.is_whole_at_close(),
        used,
    })
}

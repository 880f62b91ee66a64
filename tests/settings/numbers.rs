//! Durations, counts, bytes; and what Lambda says of its sandbox.

use std::time::Duration;

use crate::support::play::{Gate, Play};
use crate::support::pyroscope::Pyroscope;
use crate::support::sandbox::Sandbox;
use crate::{config, expect_default, lines, said, with};

/// Go, `time.ParseDuration`: "a possibly signed sequence of decimal numbers, each with optional fraction and a unit
/// suffix"; and, in the extension we replace, a timeout of 0 is `http.Client`'s default of ours, 10 s. A timeout
/// below zero ends every request of Go's client at once, which nobody can want.
#[test]
fn timeouts() {
    let ms = Duration::from_millis;
    for (text, timeout) in [
        ("10s", ms(10_000)),
        ("300ms", ms(300)),
        ("1.5h", ms(5_400_000)),
        ("2h45m", ms(9_900_000)),
        ("1m30s", ms(90_000)),
        ("+5s", ms(5_000)),
        (".5s", ms(500)),
        ("1.s", ms(1_000)),
        ("1s1s", ms(2_000)),
        ("1us", Duration::from_micros(1)),
        ("1µs", Duration::from_micros(1)),
        ("1μs", Duration::from_micros(1)),
        ("1ns", Duration::from_nanos(1)),
        ("0.5ns1us", Duration::from_micros(1)),
        (
            "9223372036854775807ns",
            Duration::from_nanos(i64::MAX as u64),
        ),
        // Zero, also what is cut to it, is the default without a word.
        ("0", ms(10_000)),
        ("-0", ms(10_000)),
        ("0s", ms(10_000)),
        ("0h0m", ms(10_000)),
        ("0.9ns", ms(10_000)),
    ] {
        let (config, notes) = with("PYROSCOPE_TIMEOUT", text);
        assert_eq!((config.timeout, notes.len()), (timeout, 0), "{text}");
    }
    // "missing unit", "unknown unit", "invalid duration", and past 290 years: each an error of ParseDuration.
    for text in [
        "10",
        "soon",
        "1d",
        "1S",
        "s",
        ".s",
        "1 s",
        " 1s",
        "1s ",
        "+",
        "--1s",
        "1e3s",
        "1,5s",
        "1s,",
        "9223372036854775808ns",
        "300y",
        "\"5s\"",
        "٣s",
    ] {
        let problem = format!("\"{text}\" is not a duration above zero, using the default 10s");
        expect_default("PYROSCOPE_TIMEOUT", text, &problem);
    }
    for text in ["-1ns", "-1h"] {
        let problem = format!("\"{text}\" is not a duration above zero, using the default 10s");
        expect_default("PYROSCOPE_TIMEOUT", text, &problem);
    }
}

/// The only test that takes as long as the default: what it is must be seen once, for all that mean it.
#[test]
fn a_timeout_that_is_none_is_ten_seconds() {
    let never = Gate::new();
    let start = |text: &str| {
        let server = Pyroscope::http();
        server.next(Play::answer(200).unanswered_until(&never));
        let extension = Sandbox::relay_only(&server)
            .set("PYROSCOPE_TIMEOUT", text)
            .listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        (server, extension)
    };
    let running = ["", "0", "-0s", "0.9ns", "-1s", "soon"].map(|text| (text, start(text)));
    for (text, (server, _extension)) in &running {
        let requests = server.wait_complete(2);
        let took = requests[1].head_at - requests[0].head_at;
        let expected = Duration::from_millis(9_900)..Duration::from_millis(12_000);
        assert!(expected.contains(&took), "{text:?}: {took:?}");
    }
}

/// Go, `strconv.Atoi`: an optional sign and decimal digits. 0 is the default without a word, as in the extension we
/// replace; what is not above zero is so with a word.
#[test]
fn workers() {
    for (text, workers) in [
        ("1", 1),
        ("5", 5),
        ("+7", 7),
        ("007", 7),
        ("64", 64),
        ("0", 5),
        ("-0", 5),
        ("+0", 5),
    ] {
        let (config, notes) = with("PYROSCOPE_NUM_WORKERS", text);
        assert_eq!((config.workers, notes.len()), (workers, 0), "{text}");
    }
    for text in [
        "-1",
        "many",
        "5.0",
        "1e1",
        "0x5",
        "1_000",
        " 5",
        "5 ",
        "five",
        "+",
        "9223372036854775808",
        "٣",
    ] {
        let problem = format!("\"{text}\" is not a number above zero, using the default 5");
        expect_default("PYROSCOPE_NUM_WORKERS", text, &problem);
    }
    // A limit of ours: Lambda's file descriptors are counted.
    for text in ["65", "1000", "9223372036854775807"] {
        let (config, notes) = with("PYROSCOPE_NUM_WORKERS", text);
        let problem = format!("\"{text}\" is more than 64, using 64");
        assert_eq!((config.workers, notes), (64, vec![problem.clone()]));
        let said = said(&[("PYROSCOPE_NUM_WORKERS", text)]);
        assert_eq!(said, lines("warning", "PYROSCOPE_NUM_WORKERS", &[&problem]));
    }
    assert_eq!(said(&[("PYROSCOPE_NUM_WORKERS", "0")]), [""; 0]);
}

/// A setting of ours.
#[test]
fn buffer_bytes() {
    const NAME: &str = "PYROSCOPE_BUFFER_BYTES";
    for (text, bytes) in [
        ("65536", 65_536),
        ("1000000", 1_000_000),
        ("1073741824", 1 << 30),
    ] {
        let (config, notes) = with(NAME, text);
        assert_eq!((config.buffer_bytes, notes.len()), (bytes, 0), "{text}");
    }
    for text in [
        "65535",
        "0",
        "-1",
        "16MB",
        "16 MiB",
        "1e6",
        "lots",
        "18446744073709551616",
    ] {
        let problem = format!(
            "\"{text}\" is not a number of bytes, 65536 at least, using the default 16777216"
        );
        expect_default(NAME, text, &problem);
    }
    // Lambda's own variable: never the user's fault, so never a word.
    for (mib, bytes) in [
        ("128", 16 << 20),
        ("64", 8 << 20),
        ("63", 8 << 20),
        ("0", 8 << 20),
        ("10240", 64 << 20),
        ("18446744073709551615", 64 << 20),
        ("256", 32 << 20),
        ("much", 16 << 20),
    ] {
        let memory = ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mib);
        assert_eq!(config(&[memory]).buffer_bytes, bytes);
        assert_eq!(config(&[memory]).notes, []);
        assert_eq!(config(&[memory, (NAME, "70000")]).buffer_bytes, 70_000);
    }
}

#[test]
fn snap_start_is_what_lambda_says() {
    let name = "AWS_LAMBDA_INITIALIZATION_TYPE";
    assert!(!config(&[]).snap_start);
    for (kind, snap_start) in [
        ("on-demand", false),
        ("provisioned-concurrency", false),
        ("snap-start", true),
        ("", false),
    ] {
        let config = config(&[(name, kind)]);
        assert_eq!((config.snap_start, config.notes), (snap_start, vec![]));
    }
}

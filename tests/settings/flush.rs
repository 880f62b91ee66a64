//! The flush modes.

use pyroscope_lambda_extension::config::FlushMode;

use crate::support::extensions_api::ExtensionsApi;
use crate::support::play::{Gate, Play};
use crate::support::pyroscope::Pyroscope;
use crate::support::sandbox::Sandbox;
use crate::{config, expect_default};

/// A setting of ours. It wins over the older one, which is what counts where it is unset or of no use.
#[test]
fn flush_modes() {
    use FlushMode::{End, Invoke, None};
    const NAME: &str = "PYROSCOPE_FLUSH_MODE";
    for (word, alone, beside) in [
        ("", None, Invoke),
        ("none", None, None),
        ("invoke", Invoke, Invoke),
        ("END", End, End),
    ] {
        let old = ("PYROSCOPE_FLUSH_ON_INVOKE", "true");
        for (vars, expected) in [(&[(NAME, word)][..], alone), (&[(NAME, word), old], beside)] {
            let config = config(vars);
            assert_eq!(config.flush_mode, expected, "{vars:?}");
            assert_eq!(config.notes, []);
        }
    }
    let problem = r#""always" is none of none, invoke and end, using "#;
    expect_default(NAME, "always", &format!("{problem}the default none"));
    let config = config(&[(NAME, "always"), ("PYROSCOPE_FLUSH_ON_INVOKE", "1")]);
    assert_eq!(config.flush_mode, Invoke);
    assert_eq!(
        config.notes[0].problem,
        format!("{problem}invoke as PYROSCOPE_FLUSH_ON_INVOKE says")
    );
}

/// In the extension we replace, INVOKE waits with the next event until the queue is empty; unset or false, it asks
/// at once.
#[test]
fn flush_on_invoke() {
    for (word, waits) in [
        ("t", true),
        ("TRUE", true),
        ("", false),
        ("F", false),
        ("yes", false),
    ] {
        let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
        server.next(Play::answer(200).unanswered_until(&gate));
        let extension = Sandbox::with(&lambda, &server)
            .set("PYROSCOPE_FLUSH_ON_INVOKE", word)
            .listening();
        lambda.wait_next();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        server.wait_complete(1);
        let calls = lambda.calls().len();
        lambda.invoke();
        if waits {
            // Answered behind the INVOKE, so the INVOKE has been read, and nothing was asked for since.
            extension.wait_log("Invoked");
            assert_eq!(extension.post("/ingest", b"another").status, 200);
            assert_eq!(lambda.calls().len(), calls, "{word:?}");
            gate.open();
            lambda.wait_next();
        } else {
            lambda.wait_next();
            assert_eq!(
                server
                    .requests()
                    .iter()
                    .filter(|request| request.answered)
                    .count(),
                0
            );
            gate.open();
        }
        server.wait_answered(1);
    }
}

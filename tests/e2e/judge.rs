//! What must hold of a run: all that came is what was to come, the way it came, and nothing was lost.

use std::process::ExitStatus;

use crate::decode::Decoded;
use crate::subjects::Subject;
use crate::support::pyroscope::{Pyroscope, Request};
use crate::{BASE_PATH, EXTENSION_NAME, Outcome, STAGE, TENANT, TOKEN, is_seen};

/// What is wrong with a run, each in a line.
pub fn judge(subject: &Subject, outcome: &Outcome, server: &Pyroscope) -> Vec<String> {
    let mut wrong = judge_life(outcome);
    for (request, profiles) in &outcome.arrived {
        wrong.extend(judge_request(request, profiles, subject, server));
    }
    let cut_off = server.requests().len() - outcome.arrived.len();
    if cut_off > 0 {
        wrong.push(format!("{cut_off} requests were cut off"));
    }
    wrong.extend(judge_unsent(outcome));
    for sight in &subject.shows {
        if !is_seen(&outcome.arrived, sight) {
            let types = sight.types.join(" or ");
            wrong.push(format!(
                "no profile of {types} has {} in it",
                sight.function
            ));
        }
    }
    wrong.extend(judge_account(outcome));
    wrong
}

/// The SDK spoke as its row is there for.
pub fn judge_unsent(outcome: &Outcome) -> impl Iterator<Item = String> {
    outcome
        .unsent
        .iter()
        .map(|line| format!("nothing was sent to the extension with {line:?}"))
}

/// It holds this service's profiles, and the extension made of it what its settings say.
fn judge_request(
    request: &Request,
    profiles: &Result<Vec<Decoded>, String>,
    subject: &Subject,
    server: &Pyroscope,
) -> Vec<String> {
    let mut wrong = Vec::new();
    match profiles {
        Ok(profiles) => wrong.extend(
            profiles
                .iter()
                .filter(|profile| profile.app != subject.service)
                .map(|profile| format!("a profile of {}", profile.app)),
        ),
        Err(error) => wrong.push(format!("not decoded, {}: {error}", request.target())),
    }
    if !request.path().starts_with(BASE_PATH) {
        wrong.push(format!("{} lacks the base path", request.path()));
    }
    let expected = [
        ("Host", server.host()),
        ("X-Forwarded-Host", "localhost:4040".to_owned()),
        ("Authorization", format!("Bearer {TOKEN}")),
        ("X-Scope-OrgID", TENANT.to_owned()),
        ("X-Stage", STAGE.to_owned()),
    ];
    for (name, value) in expected {
        let found = request.head.all(name);
        if found != [value.as_str()] {
            wrong.push(format!("{name} is {found:?} instead of {value:?}"));
        }
    }
    wrong
}

/// Whatever is at the far end: the function ran well, and the extension was one and had nothing to complain about.
pub fn judge_life(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    for answer in &outcome.answers {
        if !answer.starts_with(WELL) {
            wrong.push(format!("an invocation was answered with {answer}"));
        }
    }
    let lines = &outcome.log.lines;
    let registered = format!("External agent {EXTENSION_NAME} ");
    if !lines
        .iter()
        .any(|line| line.contains(&registered) && line.contains("[INVOKE SHUTDOWN]"))
    {
        wrong.push("the extension did not register for INVOKE and SHUTDOWN".to_owned());
    }
    let complaints = lines
        .iter()
        .filter(|line| line.contains(LOG_MARK))
        .filter(|line| !line.contains("level=info") && !line.contains("level=debug"));
    wrong.extend(complaints.cloned());
    // One process per run: none that was started again, none that is still there.
    match outcome.endings.as_slice() {
        [only] if only.success() => {}
        [] => wrong.push("the extension has not ended".to_owned()),
        endings => {
            let endings: Vec<String> = endings.iter().map(ExitStatus::to_string).collect();
            wrong.push(format!(
                "the extension ended with {}",
                endings.join(", then ")
            ));
        }
    }
    wrong
}

/// What the extension took and what it relayed is what arrived.
fn judge_account(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(closing) = closing_line(outcome) else {
        wrong.push("no closing line".to_owned());
        return wrong;
    };
    // A field that is only there when there is something to say.
    let mut words = closing.split(' ');
    let left_out = words.find_map(|word| word.strip_prefix("empty_left_out="));
    let left_out: usize = left_out.and_then(|count| count.parse().ok()).unwrap_or(0);
    let arrived = outcome.arrived.len();
    for (field, expected) in [
        ("acknowledged", arrived + left_out),
        ("relayed", arrived),
        ("lost", 0),
    ] {
        let word = format!("{field}={expected}");
        if !closing.split(' ').any(|other| other == word) {
            wrong.push(format!(
                "{arrived} payloads arrived, the closing line is not {word}: {closing}"
            ));
        }
    }
    wrong
}

/// The extension's account of itself.
pub fn closing_line(outcome: &Outcome) -> Option<&str> {
    let mut lines = outcome.log.lines.iter();
    lines
        .find(|line| line.contains("msg=\"Relay closed\""))
        .map(String::as_str)
}

/// How a function answers that has done what it is for.
pub const WELL: &str = "{\"burned\":";

/// In each of the extension's log lines.
pub const LOG_MARK: &str = "svc=pyroscope-lambda-ext";

//! Node.js, with the current SDK, the last of the line before, which sent multipart, and the last that sent in chunks.

use std::path::Path;

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let installed = [
        ("nodejs", "@pyroscope/nodejs", "\"@pyroscope/nodejs\": \""),
        (
            "nodejs-multipart",
            "@pyroscope/nodejs-multipart",
            "multipart\": \"npm:@pyroscope/nodejs@",
        ),
        (
            "nodejs-chunked",
            "@pyroscope/nodejs-chunked",
            "chunked\": \"npm:@pyroscope/nodejs@",
        ),
    ];
    installed
        .map(|(name, package, key)| {
            subject(
                name,
                package,
                version(include_str!("package.json"), key),
                parts,
            )
        })
        .into()
}

/// The function with the SDK that is installed as `package`.
fn subject(name: &'static str, package: &str, version: &str, parts: &Path) -> Subject {
    let folder = parts.join("nodejs");
    let mut subject = Subject::new(name, "nodejs", parts);
    subject.sdk = format!("@pyroscope/nodejs {version}");
    subject.command = vec![
        folder.join("node"),
        folder.join("node_modules/aws-lambda-ric/index.mjs"),
        "function.handler".into(),
    ];
    subject.task_folder = folder;
    subject.variables.extend([
        ("FUNCTION_SDK", package.to_owned()),
        (
            "FUNCTION_SDK_OPTIONS",
            r#"{"flushIntervalMs":500}"#.to_owned(),
        ),
    ]);
    subject.shows = vec![Sight::cpu("burnNodeCpu")];
    subject
}

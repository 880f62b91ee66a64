//! Node.js, with the current SDK and the last that sent multipart.

use std::path::Path;

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let packages = include_str!("package.json");
    let current = version(packages, "\"@pyroscope/nodejs\": \"");
    let multipart = version(packages, "npm:@pyroscope/nodejs@");
    vec![
        subject("nodejs", parts, current, "@pyroscope/nodejs"),
        subject(
            "nodejs-multipart",
            parts,
            multipart,
            "@pyroscope/nodejs-multipart",
        ),
    ]
}

/// The function with the SDK that is installed as `package`.
fn subject(name: &'static str, parts: &Path, version: &str, package: &str) -> Subject {
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

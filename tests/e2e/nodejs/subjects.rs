//! Node.js, with the current SDK, the last of the line before, which sent multipart, and the last that sent in chunks.

use std::path::Path;

use super::{BEARER, Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let current = subject("nodejs", "@pyroscope/nodejs", "", parts);
    let mut multipart = subject(
        "nodejs-multipart",
        "@pyroscope/nodejs-multipart",
        "npm:",
        parts,
    );
    multipart.sends = &[
        "content-type: multipart/form-data; boundary=----formdata-undici",
        BEARER,
    ];
    let mut chunked = subject("nodejs-chunked", "@pyroscope/nodejs-chunked", "npm:", parts);
    chunked.sends = &["transfer-encoding: chunked", "user-agent: axios/", BEARER];
    let mended = ("NODE_OPTIONS", "--import ./mend.mjs".to_owned());
    chunked.variables.push(mended);
    vec![current, multipart, chunked]
}

/// The function with the SDK that is installed as `package`; `alias` precedes the name it really has, if another.
fn subject(name: &'static str, package: &str, alias: &str, parts: &Path) -> Subject {
    let packages = include_str!("package.json");
    let real = if alias.is_empty() {
        ""
    } else {
        "npm:@pyroscope/nodejs@"
    };
    let version = version(packages, &format!("\"{package}\": \"{real}"));
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
    subject.sends = &["content-type: application/octet-stream", BEARER];
    subject
}

//! Python, with the SDK that pushes and the last that sent to /ingest.

use std::path::Path;

use super::{BASIC, Sight, Subject, folder, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let current = version(include_str!("requirements.txt"), "pyroscope-io==");
    let legacy = version(include_str!("requirements-legacy.txt"), "pyroscope-io==");
    let mut ingest = subject("python-ingest", parts, legacy, "{}");
    ingest.sends = &["post /ingest?", BASIC];
    // It has no setting for its interval of 10 s. Its folder comes before that of the current one.
    let packages = parts.join("python/legacy").display().to_string();
    ingest.variables.push(("PYTHONPATH", packages));
    let options = r#"{"upload_interval":1}"#;
    vec![subject("python", parts, current, options), ingest]
}

fn subject(name: &'static str, parts: &Path, version: &str, options: &str) -> Subject {
    let mut subject = Subject::new(name, "python", parts);
    subject.sdk = format!("pyroscope-io {version}");
    subject.command = vec![
        parts.join("python/bin/python"),
        "-m".into(),
        "awslambdaric".into(),
        "function.handler".into(),
    ];
    subject.task_folder = folder("python");
    subject.variables.extend([
        ("FUNCTION_SDK_OPTIONS", options.to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]);
    subject.shows = vec![Sight::cpu("burn_python_cpu")];
    subject.sends = &["post /push.v1.pusherservice/push ", BASIC];
    subject
}

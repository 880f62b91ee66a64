//! The functions of `examples/`, as a user would deploy them.

use std::path::{Path, PathBuf};

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let python = include_str!("../../../examples/functions/python/requirements.txt");
    let nodejs = include_str!("../../../examples/functions/nodejs/package.json");
    vec![
        Subject {
            sdk: format!("pyroscope-io {}", version(python, "pyroscope-io==")),
            command: vec![
                parts.join("python/bin/python"),
                "-m".into(),
                "awslambdaric".into(),
            ],
            shows: vec![Sight::cpu("count_primes")],
            ..subject("example-python", "python", parts)
        },
        Subject {
            sdk: format!("@pyroscope/nodejs {}", version(nodejs, "/nodejs\": \"")),
            command: vec![
                parts.join("nodejs/node"),
                parts.join("nodejs/node_modules/aws-lambda-ric/index.mjs"),
            ],
            shows: vec![Sight::cpu("countPrimes")],
            ..subject("example-nodejs", "nodejs", parts)
        },
    ]
    .into_iter()
    .map(handled)
    .collect()
}

fn subject(name: &'static str, folder: &str, parts: &Path) -> Subject {
    let mut subject = Subject::new(name, "examples", parts);
    subject.task_folder = parts.join("examples").join(folder);
    let service = subject.service.clone();
    subject
        .variables
        .push(("PYROSCOPE_APPLICATION_NAME", service));
    subject
}

/// The handler is the same in all of them, and as the templates have it.
fn handled(mut subject: Subject) -> Subject {
    subject.command.push(PathBuf::from("function.handler"));
    subject
}

//! What is run: each SDK in a function of its own.
//!
//! The current SDKs, and the last of each that spoke differently: between them Push, a bare pprof and multipart.

use std::fs;
use std::path::{Path, PathBuf};

/// A function and its SDK.
pub struct Subject {
    /// As it is called in the report and in the names of files.
    pub name: &'static str,
    /// The package and its version.
    pub sdk: String,
    /// The runtime with its arguments.
    pub command: Vec<PathBuf>,
    pub task_folder: PathBuf,
    pub variables: Vec<(&'static str, String)>,
    /// The function that burns CPU, as its profile names it.
    pub burning: &'static str,
    /// Where all that is written goes.
    pub log_file: PathBuf,
    /// Why it cannot run here.
    pub missing: Option<String>,
}

/// Every SDK that is run.
pub fn subjects(parts: &Path) -> Vec<Subject> {
    let current = include_str!("requirements.txt");
    let legacy = include_str!("requirements-legacy.txt");
    let packages = include_str!("nodejs/package.json");
    vec![
        Subject {
            sdk: format!("pyroscope-io {}", version(current, "pyroscope-io==")),
            ..python("python", parts, r#"{"upload_interval":1}"#, "")
        },
        Subject {
            sdk: format!(
                "@pyroscope/nodejs {}",
                version(packages, "\"@pyroscope/nodejs\": \"")
            ),
            ..nodejs("nodejs", parts, "@pyroscope/nodejs")
        },
        Subject {
            sdk: format!(
                "@pyroscope/nodejs {}",
                version(packages, "npm:@pyroscope/nodejs@")
            ),
            ..nodejs("nodejs-multipart", parts, "@pyroscope/nodejs-multipart")
        },
        // It has no setting for its interval of 10 s.
        Subject {
            sdk: format!("pyroscope-io {}", version(legacy, "pyroscope-io==")),
            ..python("python-ingest", parts, "{}", "python/legacy")
        },
    ]
}

/// The function in Python; `packages` is a folder among the parts that comes before the installed ones.
fn python(name: &'static str, parts: &Path, options: &str, packages: &str) -> Subject {
    let mut variables = vec![
        ("FUNCTION_SERVICE", service(name)),
        ("FUNCTION_SDK_OPTIONS", options.to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ];
    if !packages.is_empty() {
        variables.push(("PYTHONPATH", parts.join(packages).display().to_string()));
    }
    Subject {
        name,
        sdk: String::new(),
        command: vec![
            parts.join("python/bin/python"),
            "-m".into(),
            "awslambdaric".into(),
            "function.handler".into(),
        ],
        task_folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python"),
        variables,
        burning: "burn_python_cpu",
        log_file: parts.join(format!("{name}.log")),
        missing: reason(parts, "python"),
    }
}

/// The function in Node.js, with the SDK that is installed as `package`.
fn nodejs(name: &'static str, parts: &Path, package: &str) -> Subject {
    let folder = parts.join("nodejs");
    Subject {
        name,
        sdk: String::new(),
        command: vec![
            folder.join("node"),
            folder.join("node_modules/aws-lambda-ric/index.mjs"),
            "function.handler".into(),
        ],
        task_folder: folder,
        variables: vec![
            ("FUNCTION_SERVICE", service(name)),
            ("FUNCTION_SDK", package.to_owned()),
            (
                "FUNCTION_SDK_OPTIONS",
                r#"{"flushIntervalMs":500}"#.to_owned(),
            ),
        ],
        burning: "burnNodeCpu",
        log_file: parts.join(format!("{name}.log")),
        missing: reason(parts, "nodejs"),
    }
}

/// The version that follows `key` where the parts are listed.
fn version<'t>(list: &'t str, key: &str) -> &'t str {
    let rest = list.split_once(key).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    &rest[..end.unwrap_or(rest.len())]
}

/// Under which name its profiles are to arrive.
pub fn service(name: &str) -> String {
    format!("e2e.{name}")
}

/// What `run` wrote down when it could not install a runtime.
fn reason(parts: &Path, runtime: &str) -> Option<String> {
    let text = fs::read_to_string(parts.join(format!("{runtime}.missing"))).ok()?;
    Some(text.trim().to_owned())
}

//! What is run: each SDK in a function of its own. Each runtime lists its own, in the folder that has its functions.
//!
//! The current SDKs, and the last of each that spoke differently.

use std::fs;
use std::path::{Path, PathBuf};

use crate::decode::Decoded;

#[path = "examples/subjects.rs"]
mod examples;
#[path = "go/subjects.rs"]
mod go;
#[path = "java/subjects.rs"]
mod java;
#[path = "nodejs/subjects.rs"]
mod nodejs;
#[path = "python/subjects.rs"]
mod python;
#[path = "replay/subjects.rs"]
mod replay;
#[path = "rust/subjects.rs"]
mod rust;

/// A function and its SDK.
pub struct Subject {
    /// As it is called in the report and in the names of files.
    pub name: &'static str,
    /// The language, for profiles that do not say.
    pub runtime: &'static str,
    /// The package and its version.
    pub sdk: String,
    /// Its requests without itself.
    pub is_replay: bool,
    /// The runtime with its arguments.
    pub command: Vec<PathBuf>,
    pub task_folder: PathBuf,
    pub variables: Vec<(&'static str, String)>,
    /// Under which name its profiles are to arrive.
    pub service: String,
    /// What its profiles must show, first of all what burns CPU.
    pub shows: Vec<Sight>,
    /// How lines of a head begin, in lower case, that the extension was sent if this SDK speaks as it is here for.
    pub sends: &'static [&'static str],
    /// Where all that is written goes.
    pub log_file: PathBuf,
    /// Why it cannot run here.
    pub missing: Option<Missing>,
}

/// A function that must be found in a profile of a certain type. Its name is in others too, and not meant there.
pub struct Sight {
    /// How the type of what is counted may begin: that of the first value, such as `cpu:nanoseconds`.
    pub types: &'static [&'static str],
    pub function: &'static str,
}

/// Why a runtime is not there.
pub struct Missing {
    pub reason: String,
    /// The machine lacks the language itself, rather than a part that should have been installed.
    pub is_excused: bool,
}

/// Every SDK that is run.
pub fn subjects(parts: &Path) -> Vec<Subject> {
    [
        python::subjects,
        nodejs::subjects,
        rust::subjects,
        go::subjects,
        java::subjects,
        replay::subjects,
        examples::subjects,
    ]
    .into_iter()
    .flat_map(|subjects| subjects(parts))
    .collect()
}

impl Subject {
    /// What all have in common; the rest is its runtime's to say.
    fn new(name: &'static str, runtime: &'static str, parts: &Path) -> Self {
        let service = format!("e2e.{name}");
        Self {
            name,
            runtime,
            sdk: String::new(),
            is_replay: false,
            command: Vec::new(),
            task_folder: PathBuf::new(),
            variables: vec![("FUNCTION_SERVICE", service.clone())],
            service,
            shows: Vec::new(),
            sends: &[],
            log_file: parts.join(format!("{name}.log")),
            missing: Missing::found(runtime, parts),
        }
    }
}

impl Sight {
    /// A function that burns CPU.
    pub fn cpu(function: &'static str) -> Self {
        let types = &[
            "cpu:",
            "samples:",
            "wall:",
            "itimer:",
            "jdk.ExecutionSample:",
        ];
        Self { types, function }
    }

    /// Whether a type as the server names them is meant, such as `process_cpu:cpu:nanoseconds:cpu:nanoseconds`.
    pub fn is_of(&self, profile_type: &str) -> bool {
        let counted = profile_type.split_once(':').map_or("", |(_, rest)| rest);
        self.types.iter().any(|start| counted.starts_with(start))
    }

    /// What the function used of what the profile counts, in a profile of the type that is meant.
    pub fn value_in(&self, profile: &Decoded) -> Option<i64> {
        let kind = profile.sample_types.first()?;
        let is_meant = self.types.iter().any(|start| kind.starts_with(start));
        is_meant.then(|| profile.value_of(self.function)).flatten()
    }
}

impl Missing {
    /// What `run` wrote down when it could not install the runtime.
    fn found(runtime: &str, parts: &Path) -> Option<Self> {
        let noted = |kind| fs::read_to_string(parts.join(format!("{runtime}.{kind}")));
        let (text, is_excused) = match (noted("absent"), noted("missing")) {
            (Ok(text), _) => (text, true),
            (_, Ok(text)) => (text, false),
            _ => return None,
        };
        Some(Self {
            reason: text.trim().to_owned(),
            is_excused,
        })
    }
}

/// The version that follows `key` where the parts are listed.
fn version<'t>(list: &'t str, key: &str) -> &'t str {
    let rest = list.split_once(key).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    &rest[..end.unwrap_or(rest.len())]
}

/// The folder of a runtime's functions.
fn folder(runtime: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e")
        .join(runtime)
}

/// The credentials that functions give their SDKs, as they are sent: what the far end is not to see.
const BASIC: &str = "authorization: basic b2ytdghllxnkazpvzi10agutc2rr";
const BEARER: &str = "authorization: bearer of-the-sdk";

//! Go, with every kind of profile that its SDK takes by default or on request, sent at the end of each invocation.

use std::path::Path;

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let folder = parts.join("go");
    let mut subject = Subject::new("go", "go", parts);
    let version = version(include_str!("go.mod"), "github.com/grafana/pyroscope-go v");
    subject.sdk = format!("pyroscope-go {version}");
    subject.command = vec![folder.join("function")];
    subject.task_folder = folder;
    // Mutex and block profiles are of the same types; who unlocks is in the one, who waits in the other.
    let seen = |kind, function| Sight {
        types: kind,
        function,
    };
    subject.shows = vec![
        Sight::cpu("burnGoCPU"),
        seen(&["alloc_objects:"], "allocateGoHeap"),
        seen(&["contentions:"], "unlockGoMutex"),
        seen(&["contentions:"], "waitForGoChannel"),
    ];
    subject.sends = &["x-scope-orgid: of-the-sdk", "x-stage: of-the-sdk"];
    vec![subject]
}

//! Rust, with the current SDK.

use std::path::Path;

use super::{BASIC, Sight, Subject, folder, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let manifest = include_str!("Cargo.toml");
    let mut subject = Subject::new("rust", "rust", parts);
    subject.sdk = format!(
        "pyroscope {}",
        version(manifest, "pyroscope = { version = \"=")
    );
    subject.command = vec![parts.join("rust/debug/burning-function")];
    subject.task_folder = folder("rust");
    subject.shows = vec![Sight::cpu("burn_rust_cpu")];
    subject.sends = &["post /push.v1.pusherservice/push ", BASIC];
    vec![subject]
}

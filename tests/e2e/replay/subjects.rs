//! What the SDKs for Ruby and .NET send, by a function in Python: a replay, as their packages may not be had.

use std::path::Path;

use super::{BASIC, Sight, Subject, folder};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let mut ruby = subject("ruby", "pyroscope gem 1.1.1", "burn_ruby_cpu", parts);
    ruby.sends = &["user-agent: pyroscope-rs/rbspy/", BASIC];
    let mut dotnet = subject("dotnet", "pyroscope-dotnet 1.4.0", "BurnDotnetCpu", parts);
    dotnet.sends = &["user-agent: pyroscope-dotnet/", "connection: close"];
    // The last that asked before it sent a body.
    let mut expect = subject(
        "dotnet-expect",
        "pyroscope-dotnet 1.1.0",
        "BurnDotnetCpu",
        parts,
    );
    expect.sends = &["expect: 100-continue"];
    vec![ruby, dotnet, expect]
}

/// The requests of a package in its version, whose profile shows the function.
fn subject(name: &'static str, package: &str, function: &'static str, parts: &Path) -> Subject {
    let mut subject = Subject::new(name, "python", parts);
    subject.sdk = format!("requests of {package}");
    subject.is_replay = true;
    subject.command = vec![
        parts.join("python/bin/python"),
        "-m".into(),
        "awslambdaric".into(),
        "replay.handler".into(),
    ];
    subject.task_folder = folder("replay");
    let version = package.rsplit(' ').next().unwrap_or_default();
    subject.variables.extend([
        ("FUNCTION_REPLAY", name.to_owned()),
        ("FUNCTION_REPLAY_VERSION", version.to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]);
    subject.shows = vec![Sight::cpu(function)];
    subject
}

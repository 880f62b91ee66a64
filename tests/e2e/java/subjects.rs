//! Java, with an agent that sends every kind of profile in one JFR, in chunks, and one that is told to send OTLP, which
//! takes but one kind.

use std::path::Path;

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let mut otlp = subject("java-otlp", parts);
    otlp.variables.push(("PYROSCOPE_FORMAT", "otlp".to_owned()));
    // The agent leaves the name out of what it sends, and says so in its log.
    "unknown_service".clone_into(&mut otlp.service);
    let mut jfr = subject("java", parts);
    jfr.variables.extend([
        ("PYROSCOPE_PROFILER_ALLOC", "64k".to_owned()),
        ("PYROSCOPE_PROFILER_LOCK", "1us".to_owned()),
    ]);
    let seen = |kind, function| Sight {
        types: kind,
        function,
    };
    // The event in the recording, and what the server makes of it.
    jfr.shows.extend([
        seen(&["jdk.ObjectAllocation", "alloc_"], "allocateJavaHeap"),
        seen(&["jdk.JavaMonitorEnter:", "delay:"], "waitForJavaLock"),
    ]);
    vec![jfr, otlp]
}

fn subject(name: &'static str, parts: &Path) -> Subject {
    let folder = parts.join("java");
    let mut subject = Subject::new(name, "java", parts);
    let agent = "<artifactId>agent</artifactId>\n      <version>";
    let version = version(include_str!("pom.xml"), agent);
    subject.sdk = format!("io.pyroscope:agent {version}");
    // As Lambda starts it.
    let options = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
    ];
    subject.command = vec![folder.join("java")];
    subject.command.extend(options.map(Into::into));
    subject.command.extend([
        format!("-Djava.io.tmpdir={}", folder.join("tmp").display()).into(),
        "-classpath".into(),
        "classes:dependency/*".into(),
        "com.amazonaws.services.lambda.runtime.api.client.AWSLambda".into(),
        "Function::handle".into(),
    ]);
    subject.task_folder = folder;
    subject.shows = vec![Sight::cpu("burnJavaCpu")];
    // It compresses as it sends, and so knows no length beforehand.
    subject.sends = &[
        "transfer-encoding: chunked",
        "x-scope-orgid: of-the-sdk",
        "x-stage: of-the-sdk",
    ];
    subject
}

//! Java, with its agent as it is, which sends JFR in chunks, and with the agent told to send OTLP.

use std::path::Path;

use super::{Sight, Subject, version};

pub fn subjects(parts: &Path) -> Vec<Subject> {
    let mut otlp = subject("java-otlp", parts);
    otlp.variables.push(("PYROSCOPE_FORMAT", "otlp".to_owned()));
    // The agent leaves the name out of what it sends, and says so in its log.
    "unknown_service".clone_into(&mut otlp.service);
    vec![subject("java", parts), otlp]
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
    subject
}

//! `make e2e-pyroscope`: a real Pyroscope server at the far end, which is then asked what it has got.
//!
//! ```text
//!   function ── SDK ──▶ localhost:4040  the extension ── https ──▶ Pyroscope ◀── https ── what came of it?
//! ```
//!
//! One run per SDK, as for the stand-in. What must hold: the server refused nothing, has each service under its
//! name with the function that burns CPU in its flame graph, for the tenant of the extension's settings and for
//! nobody else; and it has the extension's own profile. Each SDK runs as two versions of its function, which
//! `PYROSCOPE_LABELS` tells apart: asked for each version, the server's totals add up to that of both. Then the
//! fleets, in `fleet`.

mod flame;
mod fleet;
mod process;
mod query;

use std::collections::BTreeSet;

use crate::judge::{closing_line, judge_life, judge_unsent};
use crate::report::table;
use crate::subjects::{Sight, Subject, subjects};
use crate::{Outcome, Stage, TENANT};
use flame::Flames;
use process::{ADDRESS, Server};
use query::Asker;

/// What the server has of a service, and what is wrong with it.
struct Account {
    service: String,
    /// As the extension and the SDK have it: what was sent.
    sent: [String; 4],
    types: Vec<String>,
    labels: BTreeSet<String>,
    seen: Vec<Seen>,
    /// What the flame graph of each version adds up to, in words.
    versions: Vec<String>,
    wrong: Vec<String>,
}

/// A function that the server shows, and the flame graph in which it does.
struct Seen {
    function: &'static str,
    profile_type: String,
    flames: Flames,
}

/// Runs every SDK against the server and prints what the server has of it, and then the fleets; or `only` the fleets
/// of these names. Whether all is well.
pub fn run(stage: &Stage, all: bool, only: &[String]) -> bool {
    match attend(stage, all, only) {
        Ok(is_well) => is_well,
        Err(error) => {
            println!("e2e: {error}");
            false
        }
    }
}

fn attend(stage: &Stage, all: bool, only: &[String]) -> Result<bool, String> {
    let _server = Server::start(&stage.parts, &stage.authority)?;
    let asker = Asker::new(&stage.authority, Some(TENANT))?;
    asker.wait_until_storing()?;
    let is_well = !only.is_empty() || run_each(stage, &asker, all)?;
    Ok(fleet::run(stage, only, all)? && is_well)
}

fn run_each(stage: &Stage, asker: &Asker, all: bool) -> Result<bool, String> {
    let (mut accounts, mut skipped, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for subject in subjects(&stage.parts) {
        if let Some(missing) = &subject.missing {
            skipped.push(format!("{} is skipped: {}", subject.name, missing.reason));
            if all && !missing.is_excused {
                wrong.push(format!("{} may not be skipped here", subject.name));
            }
            continue;
        }
        eprintln!("e2e: {} …", subject.name);
        accounts.push(account(stage, asker, &subject));
    }
    accounts.push(own_account(asker));
    for account in &accounts {
        account.print();
    }
    wrong.extend(judge_tenants(stage, asker, &accounts)?);
    print_table(&accounts);
    for line in skipped.iter().chain(&wrong) {
        println!("{line}");
    }
    for account in &accounts {
        for what in &account.wrong {
            println!("{}: {what}", account.service);
        }
    }
    let failed = accounts.iter().filter(|one| !one.wrong.is_empty()).count();
    println!(
        "e2e: {} passed, {failed} failed, {} skipped",
        accounts.len() - failed,
        skipped.len()
    );
    Ok(wrong.is_empty() && failed == 0 && accounts.len() > 1)
}

/// Runs a function with its SDK, once as each version, and asks the server for it.
fn account(stage: &Stage, asker: &Asker, subject: &Subject) -> Account {
    let mut account = Account::of(subject.service.clone());
    let versions = versions(subject);
    let mut sums = [0; 3];
    for version in versions {
        let settings = [
            ("PYROSCOPE_REMOTE_ADDRESS", format!("https://{ADDRESS}")),
            ("PYROSCOPE_TENANT_ID", TENANT.to_owned()),
            ("PYROSCOPE_SELF_PROFILING", "true".to_owned()),
            ("PYROSCOPE_LABELS", LABELS.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", (*version).to_owned()),
        ];
        let label = takes_labels(subject).then_some((VERSION, *version));
        let is_shown = || {
            let mut sights = subject.shows.iter();
            sights.try_fold(true, |all, sight| {
                Ok(all && seen(asker, &account.service, sight, label)?.is_some())
            })
        };
        match stage.live(subject, settings.into(), is_shown) {
            Ok(outcome) => {
                account.wrong.extend(judge_life(&outcome));
                account.wrong.extend(judge_unsent(&outcome));
                account.wrong.extend(judge_closing(&outcome));
                let of = |field| closing_field(&outcome, field)?.parse().ok();
                sums[0] += outcome.answers.len();
                sums[1] += of("relayed=").unwrap_or(0);
                sums[2] += of("bytes=").unwrap_or(0);
            }
            Err(error) => account.wrong.push(error),
        }
    }
    let [calls, relayed, bytes] = sums.map(|sum| sum.to_string());
    account.sent = [subject.sdk.clone(), calls, relayed, bytes];
    account.ask(asker, &subject.shows);
    if takes_labels(subject)
        && let Err(error) = account.ask_versions(asker, versions)
    {
        account.wrong.push(error);
    }
    account
}

/// As which versions of its function it runs: one where there is nothing to tell apart, or no SDK.
fn versions(subject: &Subject) -> &'static [&'static str] {
    if takes_labels(subject) && !subject.is_replay {
        &["7", "8"]
    } else {
        &["7"]
    }
}

/// A body in OTLP gets no labels.
fn takes_labels(subject: &Subject) -> bool {
    let is_otlp = |(name, value): &(&str, String)| *name == "PYROSCOPE_FORMAT" && value == "otlp";
    !subject.variables.iter().any(is_otlp)
}

/// What the extension sent of itself, while it relayed the others.
fn own_account(asker: &Asker) -> Account {
    let mut account = Account::of("pyroscope.lambda.extension".to_owned());
    account.sent[0] = "the extension itself".to_owned();
    account.ask(asker, &[Sight::cpu("loop")]);
    account
}

impl Account {
    fn of(service: String) -> Self {
        Self {
            service,
            sent: Default::default(),
            types: Vec::new(),
            labels: BTreeSet::new(),
            seen: Vec::new(),
            versions: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Asks the server for all there is of the service.
    fn ask(&mut self, asker: &Asker, sights: &[Sight]) {
        if let Err(error) = self.try_ask(asker, sights) {
            self.wrong.push(error);
        }
    }

    fn try_ask(&mut self, asker: &Asker, sights: &[Sight]) -> Result<(), String> {
        self.types = asker.services()?.remove(&self.service).unwrap_or_default();
        for series in asker.series(&self.service)? {
            let labels = series
                .iter()
                .filter(|(name, _)| !PROFILE_LABELS.contains(&name.as_str()))
                .map(|(name, value)| format!("{name}=\"{value}\""));
            self.labels.insert(labels.collect::<Vec<_>>().join(" "));
        }
        for sight in sights {
            match seen(asker, &self.service, sight, None)? {
                Some(seen) => self.seen.push(seen),
                None => {
                    let what = format!("no flame graph of it has {} in it", sight.function);
                    self.wrong.push(what);
                }
            }
        }
        Ok(())
    }

    /// Asks for the flame graph of each version: each series has one, and what they count is what all of them count.
    fn ask_versions(&mut self, asker: &Asker, versions: &[&str]) -> Result<(), String> {
        for labels in &self.labels {
            let has_version = |version| labels.contains(&format!("{VERSION}=\"{version}\""));
            if !versions.iter().any(has_version) || !labels.contains(ENV) {
                self.wrong.push(format!("a series has only {labels}"));
            }
        }
        for seen in &self.seen {
            let (mut sum, mut words) = (0, Vec::new());
            let unit = seen.profile_type.split(':').nth(2).unwrap_or_default();
            for version in versions {
                let label = (VERSION, *version);
                let graph = asker.flame_graph_with(&self.service, &seen.profile_type, label)?;
                let total = Flames::read(&graph)?.total();
                sum += total;
                words.push(format!("{} of version {version}", amount(total, unit)));
                if total == 0 {
                    let what = format!("nothing of version {version} in {}", seen.profile_type);
                    self.wrong.push(what);
                }
            }
            let total = seen.flames.total();
            if sum != total {
                let what = format!("{} add up to {sum}, not {total}", words.join(" and "));
                self.wrong.push(what);
            }
            self.versions.push(words.join(", "));
        }
        Ok(())
    }

    fn print(&self) {
        println!("{}", self.service);
        for labels in &self.labels {
            println!("  {labels}");
        }
        for versions in &self.versions {
            println!("  {versions}");
        }
        for profile_type in &self.types {
            println!("  {profile_type}");
            let mut seen = self.seen.iter();
            if let Some(seen) = seen.find(|seen| seen.profile_type == *profile_type) {
                for line in seen.flames.lines(seen.function) {
                    println!("    {line}");
                }
            }
        }
        println!();
    }
}

impl Seen {
    fn words(&self) -> String {
        let mut parts = self.profile_type.split(':');
        let mut part = || parts.next().unwrap_or_default();
        let (name, counted, unit) = (part(), part(), part());
        let (value, total) = (self.value(), self.flames.total());
        let (value, total) = (amount(value, unit), amount(total, unit));
        format!("{} {value} of {total}, {name}:{counted}", self.function)
    }

    fn value(&self) -> i64 {
        self.flames.value_of(self.function)
    }

    /// Of all that there is in the flame graph, in thousandths.
    fn share(&self) -> i64 {
        self.value() * 1000 / self.flames.total().max(1)
    }
}

/// The flame graph in which a function can be seen: of those that are meant the one that shows it best.
/// `label`: of profiles that have it.
fn seen(
    asker: &Asker,
    service: &str,
    sight: &Sight,
    label: Option<(&str, &str)>,
) -> Result<Option<Seen>, String> {
    let mut all = Vec::new();
    let types = asker.services()?.remove(service).unwrap_or_default();
    for profile_type in types.into_iter().filter(|one| sight.is_of(one)) {
        let graph = match label {
            Some(label) => asker.flame_graph_with(service, &profile_type, label)?,
            None => asker.flame_graph(service, &profile_type)?,
        };
        let flames = Flames::read(&graph)?;
        all.push(Seen {
            function: sight.function,
            profile_type,
            flames,
        });
    }
    all.retain(|seen| seen.value() > 0);
    Ok(all
        .into_iter()
        .max_by_key(|seen| (seen.share(), seen.value())))
}

/// All that was acknowledged and was not empty was relayed, so the server took it.
fn judge_closing(outcome: &Outcome) -> Option<String> {
    let of = |field| closing_field(outcome, field)?.parse::<u64>().ok();
    // A field that is only there when there is something to say.
    let relayed = of("relayed=").map(|count| count + of("empty_left_out=").unwrap_or(0));
    let is_well = of("lost=") == Some(0) && relayed == of("acknowledged=");
    let closing = closing_line(outcome).unwrap_or("no closing line");
    (!is_well).then(|| format!("not all was relayed: {closing}"))
}

fn closing_field(outcome: &Outcome, field: &str) -> Option<String> {
    let mut words = closing_line(outcome)?.split(' ');
    words.find_map(|word| word.strip_prefix(field).map(str::to_owned))
}

/// The tenant has these services and no others, another tenant has nothing, and nobody may ask without one.
fn judge_tenants(
    stage: &Stage,
    asker: &Asker,
    accounts: &[Account],
) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let found: BTreeSet<String> = asker.services()?.into_keys().collect();
    let expected: BTreeSet<String> = accounts.iter().map(|one| one.service.clone()).collect();
    if found != expected {
        wrong.push(format!(
            "the services are {found:?} instead of {expected:?}"
        ));
    }
    let other = Asker::new(&stage.authority, Some("another-tenant"))?;
    let mut others = other.services()?.len();
    for account in accounts {
        for seen in &account.seen {
            let graph = other.flame_graph(&account.service, &seen.profile_type)?;
            others += usize::from(Flames::read(&graph)?.total() > 0);
        }
    }
    println!(
        "tenant {TENANT} has {} services, another has {others}",
        found.len()
    );
    if others > 0 {
        wrong.push("another tenant sees what is not its own".to_owned());
    }
    match Asker::new(&stage.authority, None)?.services() {
        Err(refusal) if refusal.contains("401") => println!("without a tenant {refusal}"),
        other => wrong.push(format!("without a tenant there is {other:?}")),
    }
    println!();
    Ok(wrong)
}

fn print_table(accounts: &[Account]) {
    let columns = [
        "service", "SDK", "calls", "relayed", "bytes", "types", "", "found",
    ];
    let mut lines = vec![columns.map(str::to_owned).to_vec()];
    for account in accounts {
        let verdict = if account.wrong.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        let mut line = vec![account.service.clone()];
        line.extend(account.sent.clone());
        line.extend([account.types.len().to_string(), verdict.to_owned()]);
        // Each function in a line, the first in that of its service.
        for words in account.seen.iter().map(Seen::words) {
            line.resize(columns.len() - 1, String::new());
            line.push(words);
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    table(&lines);
}

/// A value as a person would say it.
fn amount(value: i64, unit: &str) -> String {
    match unit {
        "nanoseconds" | "ns" => format!("{:.3} s", value as f64 / 1e9),
        unit => format!("{value} {unit}"),
    }
}

/// What the extension adds to each profile, the SDK's own labels beside it.
const LABELS: &str = r#"{"version": "${AWS_LAMBDA_FUNCTION_VERSION}", "env": "e2e"}"#;
const VERSION: &str = "version";
const ENV: &str = "env=\"e2e\"";

/// Labels that say the same as the profile's type, and as the service's name.
const PROFILE_LABELS: [&str; 8] = [
    "__name__",
    "__period_type__",
    "__period_unit__",
    "__profile_type__",
    "__service_name__",
    "__type__",
    "__unit__",
    "service_name",
];

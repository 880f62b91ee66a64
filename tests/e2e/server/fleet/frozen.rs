//! Sandboxes that stand still: what does an SDK upload when they go on, and does the server take it?
//!
//! A function is stopped (SIGSTOP) and continued: for 90 s as they pass; or for longer by the clock alone. For that
//! libfaketime gives the function's process clocks, Java's monotonic one too, that are as much behind as the pause is
//! long, and at once no more while it is stopped. So when it goes on, its clocks, the server's and the extensions' agree,
//! and the profile under way began so long ago. It is stopped when it has its first invocation; what it uploaded before
//! that is as old as its clock was, and left out.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::Fleet;
use super::runtime_api::RuntimeApi;
use super::sandbox::{Function, Pair, UPLOAD_GUARD, addresses};
use super::tap::{Request, Tap};
use super::times::span;
use crate::Stage;
use crate::subjects::{Subject, subjects};
use crate::support::monitor::let_pass;

struct Pause {
    name: &'static str,
    subject: &'static str,
    seconds: u32,
    /// By the clock alone.
    is_moved: bool,
}

const fn pause(name: &'static str, subject: &'static str, seconds: u32, is_moved: bool) -> Pause {
    Pause {
        name,
        subject,
        seconds,
        is_moved,
    }
}

const PAUSES: [Pause; 8] = [
    pause("java-90s", "java", 90, false),
    pause("java-70m", "java", 70 * 60, true),
    pause("java-2h", "java", 2 * 3600, true),
    pause("java-3h", "java", 3 * 3600, true),
    pause("python-90s", "python", 90, false),
    pause("python-70m", "python", 70 * 60, true),
    pause("python-2h", "python", 2 * 3600, true),
    pause("python-3h", "python", 3 * 3600, true),
];

/// All that are asked for, at once: most of the time they stand still.
pub fn live(stage: &Stage, is_asked: impl Fn(&str) -> bool) -> Vec<Fleet> {
    let subjects = subjects(&stage.parts);
    let found = |pause: &Pause| {
        let mut subjects = subjects.iter().filter(|one| one.missing.is_none());
        subjects.find(|one| one.name == pause.subject)
    };
    let certificate = stage.authority.pem_file();
    let (certificate, numbered) = (certificate.path(), (1..).zip(&PAUSES));
    let asked: Vec<_> = numbered
        .filter(|(_, pause)| is_asked(pause.name))
        .filter_map(|(number, pause)| Some((number, pause, found(pause)?)))
        .collect();
    if !asked.is_empty() {
        eprintln!("e2e: {} sandboxes that stand still …", asked.len());
    }
    thread::scope(|scope| {
        let sandboxes: Vec<_> = asked
            .iter()
            .map(|&(number, pause, subject)| {
                let lived = scope.spawn(move || pause.live(subject, certificate, number));
                (pause, subject, lived)
            })
            .collect();
        let fleets = sandboxes.into_iter().map(|(pause, subject, lived)| {
            let mut fleet = Fleet::of(pause.name, pause.service());
            fleet.sdk.clone_from(&subject.sdk);
            fleet.sandboxes = 1;
            fleet.is_paused = true;
            fleet.must_lose = pause.is_moved;
            match lived
                .join()
                .unwrap_or_else(|_| Err("it panicked".to_owned()))
            {
                Ok((requests, accounts, words)) => {
                    fleet.requests = requests;
                    fleet.accounts = accounts;
                    fleet.words = words;
                }
                Err(error) => fleet.wrong.push(error),
            }
            fleet
        });
        fleets.collect()
    })
}

type Lived = (Vec<Request>, [super::Account; 2], String);

impl Pause {
    fn service(&self) -> String {
        format!("fleet.{}", self.name)
    }

    fn live(
        &self,
        subject: &Subject,
        certificate: &std::path::Path,
        number: u8,
    ) -> Result<Lived, String> {
        let [address, first, second] = addresses(number);
        let pair = Pair::start(certificate, [first, second]);
        let tap = Tap::listening(address, pair.addresses())?;
        let runtime = RuntimeApi::start(r#"{"seconds":0.5}"#, usize::MAX)?;
        let clock = Clock::behind(
            subject,
            self.name,
            if self.is_moved { self.seconds } else { 0 },
            // So that Java makes up for what it missed. Python's waits do not go through the library.
            self.subject == "java",
        )?;
        let mut variables = clock.variables()?;
        if self.is_moved {
            // So long that it is stopped before its first upload, mostly.
            variables.extend([
                ("FUNCTION_UPLOAD_INTERVAL", "20s".to_owned()),
                (
                    "FUNCTION_SDK_OPTIONS",
                    r#"{"upload_interval":30}"#.to_owned(),
                ),
            ]);
        }
        let mut function = Function::start(
            subject,
            &self.service(),
            &runtime,
            address,
            self.name,
            &variables,
        )?;
        runtime.wait_invoked(UPLOAD_GUARD)?;
        if !self.is_moved {
            tap.wait_until(
                UPLOAD_GUARD,
                || function.is_running(),
                |requests| !requests.is_empty(),
            )?;
        }
        function.signal(Signal::SIGSTOP)?;
        pair.freeze();
        let before = tap.requests().len();
        if self.is_moved {
            clock.set(0)?;
        } else {
            let_pass(Duration::from_secs(self.seconds.into()));
        }
        pair.thaw(true);
        function.signal(Signal::SIGCONT)?;
        let wanted = match (self.is_moved, self.subject) {
            (true, _) => 3,
            // As many as show whether the agent makes up for the intervals that it missed.
            (false, "java") => 60,
            (false, _) => 5,
        };
        let enough = tap.wait_until(
            UPLOAD_GUARD,
            || function.is_running(),
            |requests| requests.len() >= before + wanted,
        );
        enough.map_err(|error| format!("{error}, see {}", function.log.display()))?;
        runtime.finish(UPLOAD_GUARD)?;
        drop(function);
        tap.wait_closed(UPLOAD_GUARD)?;
        let mut requests = tap.requests();
        let words = words(&requests[before..])?;
        if self.is_moved {
            // What was over before the clocks were right is old by the method, and not by the pause.
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let half = Duration::from_secs(u64::from(self.seconds) / 2);
            let since = now.unwrap_or_default().saturating_sub(half).as_nanos();
            requests.retain(|request| span(request).is_ok_and(|(_, end)| end as u128 > since));
        }
        Ok((requests, pair.shut_down(), words))
    }
}

/// What was uploaded after the pause; with Java's whole seconds, what is shorter is of no time at all.
fn words(after: &[Request]) -> Result<String, String> {
    let spans = after.iter().map(span).collect::<Result<Vec<_>, _>>()?;
    let longest = spans.iter().map(|(begin, end)| end - begin).max();
    let of_nothing = spans.iter().filter(|(begin, end)| begin == end).count();
    let bytes: usize = after.iter().map(|request| request.raw().len()).sum();
    Ok(format!(
        "{} uploads of {bytes} bytes after the pause, the longest over {:.1} s, {of_nothing} of no time at all",
        after.len(),
        longest.unwrap_or_default() as f64 / 1e9
    ))
}

/// The clocks of a function's process.
pub struct Clock {
    /// By how much they are off, in libfaketime's words.
    file: PathBuf,
    library: Option<PathBuf>,
    is_monotonic_too: bool,
}

impl Clock {
    /// Clocks that are behind by so much, and the monotonic one too or not.
    pub fn behind(
        subject: &Subject,
        name: &str,
        seconds: u32,
        is_monotonic_too: bool,
    ) -> Result<Self, String> {
        let clock = Self {
            file: subject
                .log_file
                .with_file_name(format!("fleet-{name}.clock")),
            library: if seconds == 0 { None } else { Some(library()?) },
            is_monotonic_too,
        };
        clock.set(seconds)?;
        Ok(clock)
    }

    pub fn set(&self, seconds_behind: u32) -> Result<(), String> {
        fs::write(&self.file, format!("-{seconds_behind}\n"))
            .map_err(|error| format!("{}: {error}", self.file.display()))
    }

    pub fn variables(&self) -> Result<Vec<(&'static str, String)>, String> {
        let Some(library) = &self.library else {
            return Ok(Vec::new());
        };
        let mut variables = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // The file is read at each look at the clock.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ];
        if !self.is_monotonic_too {
            variables.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        }
        Ok(variables)
    }
}

fn library() -> Result<PathBuf, String> {
    let found = LIBRARIES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.ok_or_else(|| format!("no {}: Debian has it in faketime", LIBRARIES[0]))
}

const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

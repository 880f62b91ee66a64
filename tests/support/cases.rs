//! Cases of one test at the same time: each waits more than it works.

use std::fmt::Debug;
use std::thread;

/// Runs all cases at once. Each is a thread with the case as its name, which its failure tells.
pub fn side_by_side<C: Copy + Send + Debug>(
    cases: impl IntoIterator<Item = C>,
    run: impl Fn(C) + Sync,
) {
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = cases
            .into_iter()
            .map(|case| {
                // A name may not hold a NUL, and Debug writes none.
                let named = thread::Builder::new().name(format!("{case:?}"));
                let thread = named.spawn_scoped(scope, move || run(case));
                (case, thread.expect("a thread"))
            })
            .collect();
        let failed: Vec<_> = threads
            .into_iter()
            .filter_map(|(case, thread)| thread.join().is_err().then_some(case))
            .collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

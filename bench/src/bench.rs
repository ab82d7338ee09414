//! One run of the bench.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::children::alone;
use crate::job::{Job, Outcome, Work};
use crate::progress::Progress;
use crate::results::{Id, Missing, Results};
use crate::site::Site;
use crate::stores::Store;
use crate::{Failure, Result};

pub(crate) struct Bench {
    pub(crate) site: Site,
    pub(crate) results: Results,
    pub(crate) progress: Progress,
    pub(crate) quick: bool,
}

/// The runtimes: threads of tokio's, and what they are called.
pub(crate) const CT: (usize, &str) = (0, "ct");
pub(crate) const MT: (usize, &str) = (2, "mt");

impl Bench {
    pub(crate) fn new(quick: bool) -> Self {
        let (site, results, progress) = Default::default();
        Self { site, results, progress, quick }
    }

    /// How often everything is repeated.
    pub(crate) fn repeats(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// How often what takes long is repeated.
    pub(crate) fn few(&self) -> usize {
        if self.quick { 1 } else { 2 }
    }

    pub(crate) fn seconds(&self, seconds: f64) -> f64 {
        if self.quick { seconds / 2.0 } else { seconds }
    }

    /// Keeps all figures of an outcome.
    pub(crate) fn keep(
        &mut self,
        row: &'static str,
        store: Store,
        setup: &str,
        repeat: usize,
        outcome: &Outcome,
    ) {
        for (contender, figures) in &outcome.figures {
            for (name, figure) in figures {
                let id = Id::new(row, store.name(), setup, contender, name);
                self.results.add(id, repeat, *figure);
            }
        }
        for (contender, why) in &outcome.failed {
            self.failed(row, store, setup, contender, why.as_str().into());
        }
    }

    /// Notes what could not be measured. The others go on.
    pub(crate) fn failed(
        &mut self,
        row: &'static str,
        store: Store,
        setup: &str,
        contender: &str,
        why: Failure,
    ) {
        self.miss(row, store.name(), setup, contender, why.to_string(), true);
    }

    /// Notes what this machine has no means to measure, which is no failure.
    pub(crate) fn left_out(
        &mut self,
        row: &'static str,
        store: Store,
        setup: &str,
        contender: &str,
        why: &str,
    ) {
        self.miss(row, store.name(), setup, contender, why.to_owned(), false);
    }

    /// Notes that the rest of a row could not be measured.
    pub(crate) fn gave_up(&mut self, row: &'static str, why: Failure) {
        self.miss(row, "the rest", "", "", why.to_string(), true);
    }

    fn miss(
        &mut self,
        row: &'static str,
        store: &'static str,
        setup: &str,
        contender: &str,
        why: String,
        is_failure: bool,
    ) {
        let [setup, contender] = [setup, contender].map(str::to_owned);
        let missing = Missing { row, store, setup, contender, why, is_failure };
        self.progress.line(&format!("not measured: {missing}"));
        self.results.miss(missing);
    }

    /// Has one child do one job, and keeps what it found.
    pub(crate) async fn run(&mut self, row: &'static str, setup: &str, repeat: usize, job: &Job) {
        self.progress.step(&format!("{row}, {}, {setup}, repeat {}", job.store.name(), repeat + 1));
        match alone(job).await {
            Ok(outcome) => self.keep(row, job.store, setup, repeat, &outcome),
            Err(error) => {
                self.failed(row, job.store, setup, &job.contenders.join(", "), error);
            }
        }
    }
}

/// A job on keys of its own. The contenders begin in another order in each repeat.
pub(crate) fn job(
    work: Work,
    store: Store,
    contenders: &[&str],
    repeat: usize,
    urls: &[String],
    workers: usize,
) -> Job {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut contenders: Vec<_> = contenders.iter().map(|&name| name.to_owned()).collect();
    let places = repeat % contenders.len().max(1);
    contenders.rotate_left(places);
    let key = format!("bench/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Job { work, store, contenders, urls: urls.to_vec(), workers, key }
}

/// The same for one contender.
pub(crate) fn job_of(work: Work, store: Store, contender: &str, urls: &[String]) -> Result<Job> {
    if urls.is_empty() {
        return Err("the store has no address".into());
    }
    Ok(job(work, store, &[contender], 0, urls, CT.0))
}

/// `1 task`, `2 tasks`.
pub(crate) fn plural(count: usize, what: &str, plural: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {plural}") }
}

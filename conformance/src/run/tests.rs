//! Harnesses that say what is not so, or cannot do what they have begun.

use lockcore::{
    Acquire, BackendError, Claim, LeaseInfo, Limits, LockKey, MemoryBackend, Release,
    ReleaseSignal, Renew, async_trait,
};

use super::*;
use crate::cases;

/// What is wrong with a harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    KillPanics,
    CannotKill,
    CannotRestart,
    CannotResume,
    TellsNoMemory,
    SaysSo,
    OneStoreOnly,
    TtlsAreAllTheSame,
}

struct Mine(Wrong, MemoryBackend);

impl Harness for Mine {
    type Backend = Bare;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(Wrong::Nothing, MemoryBackend::new()))
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<Bare, BoxError> {
        Ok(Bare(self.0, self.1.clone()))
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        let one = self.0 == Wrong::OneStoreOnly;
        one.then(|| SocketAddr::from(([127, 0, 0, 1], 9))).into_iter().collect()
    }

    async fn inflict(&self, fault: Fault) -> bool {
        assert!(self.0 != Wrong::KillPanics, "the server does not start again");
        match fault {
            Fault::Kill => self.0 != Wrong::CannotKill,
            Fault::Restart => self.0 != Wrong::CannotRestart,
            Fault::Resume => self.0 != Wrong::CannotResume,
            Fault::Pause | Fault::Wipe => true,
        }
    }

    fn combined(&self) -> bool {
        self.0 == Wrong::OneStoreOnly
    }

    fn remembers(&self) -> bool {
        self.0 != Wrong::SaysSo
    }
}

/// A store in memory that keeps it to itself, where that is wrong.
#[derive(Debug)]
struct Bare(Wrong, MemoryBackend);

#[async_trait]
impl LockBackend for Bare {
    fn limits(&self) -> Limits {
        let limits = self.1.limits();
        if self.0 == Wrong::TtlsAreAllTheSame {
            return Limits::new(limits.min_ttl, limits.min_ttl * 2);
        }
        limits
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        Ok(match self.1.acquire(claim).await? {
            Acquire::Acquired(lease) if self.0 == Wrong::TellsNoMemory => {
                Acquire::Acquired(lease.with_incarnation(None))
            }
            answer => answer,
        })
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.1.renew(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.1.release(claim).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.1.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.1.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.1.list(prefix, after, limit).await
    }
}

const KILLED: &str = "faults::killed_between_calls";

fn verdict(name: &str, wrong: Wrong) -> Result<Verdict, Failure> {
    let case = cases().find(|case| case.name() == name).expect("a case");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    on(case, Arc::new(Mine(wrong, MemoryBackend::new())), runtime.handle())
}

fn failure(name: &str, wrong: Wrong) -> String {
    verdict(name, wrong).expect_err("wrong").to_string()
}

#[test]
fn a_server_that_cannot_be_mended_is_a_failure() {
    assert_eq!(verdict(KILLED, Wrong::Nothing).unwrap(), Verdict::Passed);
    let able = verdict(KILLED, Wrong::CannotKill).unwrap();
    assert_eq!(able, Verdict::NotApplicable("the harness cannot kill its server".to_owned()));
    let told = failure(KILLED, Wrong::CannotRestart);
    assert!(told.contains("can kill its server, and could not restart it"), "{told}");
    let told = failure("faults::paused_while_waiting", Wrong::CannotResume);
    assert!(told.contains("can pause its server, and could not resume it"), "{told}");
}

#[test]
#[should_panic(expected = "the server does not start again")]
fn a_harness_that_panics_is_not_one_that_cannot() {
    let _ = verdict(KILLED, Wrong::KillPanics);
}

#[test]
fn a_memory_is_told_or_is_said_not_to_be() {
    for name in ["fencing::memory_is_one_and_grows", "fencing::memory_is_another_after_a_wipe"] {
        let told = failure(name, Wrong::TellsNoMemory);
        assert!(told.contains("tells no memory"), "{told}");
        let able = verdict(name, Wrong::SaysSo).unwrap();
        assert_eq!(able, Verdict::NotApplicable("the store does not tell its memory".to_owned()));
    }
}

#[test]
fn a_combination_has_more_than_one_store() {
    let told = failure("ownership::one_holder", Wrong::OneStoreOnly);
    assert!(told.contains("made of several stores, and has one endpoint"), "{told}");
}

#[test]
fn there_is_room_between_the_ttls() {
    let told = failure("ownership::one_holder", Wrong::TtlsAreAllTheSame);
    assert!(told.contains("needs room between the shortest ttl and the longest"), "{told}");
}

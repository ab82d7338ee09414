//! Looking at what enough of the stores hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, HolderId, LeaseInfo, LockBackend, LockKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::error::copy;
use super::{Group, NoAgreement, before};
use crate::ballot::Stand;

/// How long a store may take to show what it holds.
const LIMIT: Duration = Duration::from_secs(1);

/// How many keys of each store are looked at a time: many for those that the others do not show,
/// and so few that each can show them in time.
const PAGE: usize = 100;

/// What each store has shown, or why not.
pub(super) type Sights<T> = Vec<Result<T, BackendError>>;

/// Whether the answers so far will do.
pub(super) enum Enough {
    No,
    /// The rest is waited for as long again as these took.
    Nearly,
    Yes,
}

impl Group {
    /// Asks every store, until what was heard is enough. Who has not answered has failed.
    pub(super) async fn ask<T, F>(
        &self,
        question: impl Fn(Arc<dyn LockBackend>) -> F,
        enough: impl Fn(&Sights<T>) -> Enough,
    ) -> Sights<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let mut asking = JoinSet::new();
        for (index, node) in self.calls.nodes().iter().enumerate() {
            let question = question(node.backend.clone());
            let asked = self.calls.asks(index);
            asking.spawn(async move {
                let answer = timeout(LIMIT, question).await;
                asked.ends(matches!(answer, Ok(Ok(_))));
                let answer = answer.unwrap_or_else(|_| {
                    Err(BackendError::unavailable(format!("no answer within {LIMIT:?}")))
                });
                (index, answer)
            });
        }
        let unheard = || Err(BackendError::unavailable("no answer yet"));
        let mut sights: Vec<_> =
            std::iter::repeat_with(unheard).take(self.calls.nodes().len()).collect();
        let mut waited: BTreeSet<_> = (0..self.calls.nodes().len()).collect();
        let (began, mut end) = (Instant::now(), None);
        while let Some(answer) = before(end, asking.join_next()).await {
            if let Ok((index, answer)) = answer
                && let Some(sight) = sights.get_mut(index)
            {
                *sight = answer;
                waited.remove(&index);
                // A store that has answered nobody for so long is not waited for once more.
                let silent = |node: &usize| self.calls.is_silent_for(*node, LIMIT);
                if sights.iter().filter(|sight| sight.is_ok()).count() >= self.need
                    && waited.iter().all(silent)
                {
                    break;
                }
                match enough(&sights) {
                    Enough::Yes => break,
                    Enough::Nearly => {
                        let took = began.elapsed().max(Duration::from_millis(1));
                        end.get_or_insert_with(|| Instant::now() + took);
                    }
                    Enough::No => {}
                }
            }
        }
        sights
    }

    pub(crate) async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        // One hung store must not keep the others' answer back. But one that is as fast as they
        // knows the lease's end where another of them has not heard of its renewal yet.
        let sights = self.inspect_all(key, |sights| match self.shown(sights) {
            Shown::Lease { agreed: true, .. } => Enough::Nearly,
            Shown::Nothing => Enough::Yes,
            Shown::Lease { .. } | Shown::Unclear(_) => Enough::No,
        });
        let sights = sights.await;
        match self.shown(&sights) {
            Shown::Lease { info, .. } => Ok(Some(info)),
            Shown::Nothing => Ok(None),
            Shown::Unclear(_) => Err(self.unclear(&sights)),
        }
    }

    /// The key in every store.
    async fn inspect_all(
        &self,
        key: &LockKey,
        enough: impl Fn(&Sights<Option<LeaseInfo>>) -> Enough,
    ) -> Sights<Option<LeaseInfo>> {
        let question = |backend: Arc<dyn LockBackend>| {
            let key = key.clone();
            async move { backend.inspect(&key).await }
        };
        self.ask(question, enough).await
    }

    fn shown(&self, sights: &Sights<Option<LeaseInfo>>) -> Shown {
        let failed = sights.iter().filter(|sight| sight.is_err()).count();
        self.lease(sights.iter().filter_map(|sight| sight.as_ref().ok()?.as_ref()), failed)
    }

    /// The lease that most of these are of, where `failed` stores have shown nothing.
    fn lease<'a>(&self, shown: impl Iterator<Item = &'a LeaseInfo>, failed: usize) -> Shown {
        let mut by_holder: BTreeMap<HolderId, Vec<&LeaseInfo>> = BTreeMap::new();
        for info in shown {
            by_holder.entry(info.holder).or_default().push(info);
        }
        let mut most = by_holder.into_values().max_by_key(Vec::len).unwrap_or_default();
        if most.len() + failed < self.need {
            return Shown::Nothing;
        }
        // The lease ends when so many of them have ended that too few are left.
        most.sort_by_key(|info| Reverse(info.remaining));
        let Some((first, last)) = most.first().zip(most.get(self.need - 1).or(most.last())) else {
            return Shown::Unclear(None);
        };
        let with = |token| most.iter().filter(|info| info.token == token).count();
        // What was agreed on, or on its way there the greatest.
        let tokens = most.iter().map(|info| (with(info.token) >= self.need, info.token));
        let (agreed, token) = tokens.max().unwrap_or_default();
        let (key, label) = (first.key.clone(), first.label.clone());
        let info = LeaseInfo::new(key, first.holder, token, last.remaining, label);
        if most.len() < self.need {
            Shown::Unclear(Some(info))
        } else {
            Shown::Lease { info, agreed }
        }
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let (mut found, mut after) = (Vec::new(), after.cloned());
        while found.len() < limit {
            let (prefix, from) = (prefix.to_owned(), after.clone());
            let question = |backend: Arc<dyn LockBackend>| {
                let (prefix, from) = (prefix.clone(), from.clone());
                async move { backend.list(&prefix, from.as_ref(), PAGE).await }
            };
            let sights = self.ask(question, |_| Enough::No).await;
            let failed = sights.iter().filter(|sight| sight.is_err()).count();
            if failed >= self.need {
                return Err(self.unclear(&sights));
            }
            // Beyond the last key of a full page there may be more that it does not show.
            let pages = || sights.iter().filter_map(|sight| sight.as_ref().ok());
            let full = pages().filter(|infos| infos.len() >= PAGE);
            let horizon = full.filter_map(|infos| infos.last()).map(|info| &info.key).min();
            let keys: BTreeSet<_> = pages().flatten().map(|info| &info.key).collect();
            for key in keys {
                if horizon.is_some_and(|horizon| key > horizon) || found.len() == limit {
                    break;
                }
                let shown = pages().flatten().filter(|info| info.key == *key);
                match self.lease(shown, failed) {
                    // In doubt it is shown: what is hidden is thought free.
                    Shown::Lease { info, .. } | Shown::Unclear(Some(info)) => found.push(info),
                    Shown::Nothing | Shown::Unclear(None) => {}
                }
            }
            match horizon.cloned() {
                Some(horizon) => after = Some(horizon),
                None => break,
            }
        }
        Ok(found)
    }

    fn unclear<T>(&self, sights: &Sights<T>) -> BackendError {
        let stand = |sight: &Result<T, BackendError>| match sight {
            Ok(_) => Stand::NotHeld,
            Err(error) => Stand::Failed(copy(error)),
        };
        let stands: Vec<_> = sights.iter().map(stand).collect();
        BackendError::unavailable(NoAgreement::new(self, &stands))
    }
}

enum Shown {
    /// It stands, and `agreed` says whether enough show this token.
    Lease {
        info: LeaseInfo,
        agreed: bool,
    },
    Nothing,
    /// It depends on stores that have shown nothing.
    Unclear(Option<LeaseInfo>),
}

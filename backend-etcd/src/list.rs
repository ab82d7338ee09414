//! Leases as others see them.

use std::time::Duration;

use etcd_client::{GetOptions, KeyValue};
use lockcore::{BackendError, LeaseInfo, LockKey};
use tokio::task::JoinSet;

use crate::backend::EtcdBackend;
use crate::error;
use crate::record::Held;
use crate::route::Route;
use crate::trouble::Trouble;

/// Leases looked up in one page of a list.
const PAGE: usize = 256;
/// Questions about single leases that are under way at once.
const AT_ONCE: usize = 16;

impl EtcdBackend {
    pub(crate) async fn look(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let name = self.names.lease(key);
        let found = self.route.get(&name, None).await.map_err(Trouble::of_question)?;
        let Some(found) = found.kvs().first() else { return Ok(None) };
        let held = Held::read(found).ok_or_else(|| error::foreign(&name))?;
        info(&self.route, key.clone(), held).await
    }

    pub(crate) async fn all(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut leases = Vec::new();
        let end = end_of(self.names.leases(prefix).as_bytes());
        let after = after.filter(|after| after.as_str() >= prefix);
        let mut start = match after {
            Some(after) => behind(self.names.lease(after).as_bytes()),
            None => self.names.leases(prefix).into_bytes(),
        };
        // What ended or is foreign makes room: go on from the last name seen.
        while leases.len() < limit && start < end {
            let wanted = (limit - leases.len()).min(PAGE);
            let page = self.page(&start, &end, wanted).await?;
            if let Some(last) = page.last() {
                start = behind(last.key());
            }
            let full = page.len() == wanted;
            leases.extend(self.look_all(&page).await?);
            if !full {
                break;
            }
        }
        Ok(leases)
    }

    async fn page(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<KeyValue>, BackendError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(end).with_limit(limit);
        let found = self.route.get(start, Some(options)).await;
        Ok(found.map_err(Trouble::of_question)?.take_kvs())
    }

    /// Those of these leases that stand, in their order. Foreign values are left out: they must
    /// not hide the leases of others.
    async fn look_all(&self, page: &[KeyValue]) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut found = Vec::with_capacity(page.len());
        let mut looks = JoinSet::new();
        for (n, one) in page.iter().enumerate() {
            let (Some(key), Some(held)) = (self.names.key_of_lease(one.key()), Held::read(one))
            else {
                continue;
            };
            if looks.len() == AT_ONCE {
                found.extend(next(&mut looks).await?);
            }
            let route = self.route.clone();
            looks.spawn(async move { (n, info(&route, key, held).await) });
        }
        while !looks.is_empty() {
            found.extend(next(&mut looks).await?);
        }
        found.sort_by_key(|(n, _)| *n);
        Ok(found.into_iter().map(|(_, info)| info).collect())
    }
}

type Look = (usize, Result<Option<LeaseInfo>, BackendError>);

async fn next(looks: &mut JoinSet<Look>) -> Result<Option<(usize, LeaseInfo)>, BackendError> {
    match looks.join_next().await {
        Some(Ok((n, looked))) => Ok(looked?.map(|info| (n, info))),
        Some(Err(_)) => Err(error::unavailable("a look ended with its runtime")),
        None => Ok(None),
    }
}

/// A lease with what is left of it; `None` if that is nothing.
async fn info(route: &Route, key: LockKey, held: Held) -> Result<Option<LeaseInfo>, BackendError> {
    let told = route.time_to_live(held.lease).await.map_err(Trouble::of_question)?;
    if told.ttl() < 0 {
        return Ok(None);
    }
    // Right after an election the new leader has not begun to count.
    let left = told.ttl().min(told.granted_ttl());
    let left = Duration::from_secs(left.try_into().unwrap_or(0));
    let Held { record, token, .. } = held;
    Ok(Some(LeaseInfo::new(key, record.holder, token, left, &*record.label)))
}

/// The first name greater than this one.
fn behind(name: &[u8]) -> Vec<u8> {
    [name, b"\0"].concat()
}

/// The first name greater than all that start with this one, which does not end in 0xff.
fn end_of(name: &[u8]) -> Vec<u8> {
    let mut end = name.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_starts_with_its_prefix_and_nothing_else() {
        for prefix in ["p/lease/", "p/lease/a", "p/lease/é", "p/lease/a\u{10ffff}"] {
            let (start, end) = (prefix.as_bytes(), end_of(prefix.as_bytes()));
            let inside = |name: &str| name.as_bytes() >= start && name.as_bytes() < &*end;
            for name in [prefix.to_owned(), format!("{prefix}\u{1}"), format!("{prefix}\u{10ffff}")]
            {
                assert!(inside(&name), "{name:?}");
                assert!(behind(name.as_bytes()) > name.clone().into_bytes());
            }
            for name in ["p/lease", "p/lease0", "p/leasf", "p/memory", "o/lease/a", "p/lease!"] {
                assert!(!inside(name), "{prefix:?} {name:?}");
            }
        }
    }
}

//! Looking for locks in one store alone, where all are in both.

use std::time::Duration;

use lockcore::{BackendError, LeaseInfo};
use tokio::time::sleep;

use super::keys::Desk;

/// How many leases are looked at. Of more, a few of those who hold them would be among these.
const MOST: usize = 100;

/// How long a lock that is just being taken or released in both stores may be seen in one.
const PASSING: Duration = Duration::from_millis(250);

/// A lease in `left` whose holder has none in `other`, and which stays so.
pub(super) async fn foreign(left: &Desk, other: &Desk) -> Result<Option<LeaseInfo>, BackendError> {
    let mut alone = alone(left, other).await?;
    if alone.is_empty() {
        return Ok(None);
    }
    sleep(PASSING).await;
    let still = self::alone(left, other).await?;
    alone.retain(|info| still.iter().any(|now| now.holder == info.holder && now.key == info.key));
    Ok(alone.into_iter().next())
}

async fn alone(left: &Desk, other: &Desk) -> Result<Vec<LeaseInfo>, BackendError> {
    let mut found = Vec::new();
    for info in left.users(MOST).await? {
        let there = other.look_at(&info.key).await?;
        if there.is_none_or(|there| there.holder != info.holder) {
            found.push(info);
        }
    }
    Ok(found)
}

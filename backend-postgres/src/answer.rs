//! Reading the answers to statements.

use std::time::Duration;

use lockcore::{BackendError, Claim, Contention, HolderId, Incarnation, Lease, LeaseInfo, LockKey};
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use crate::error;
use crate::params::{Uuid, micros};

/// The format of the records that this version reads and writes.
pub(crate) const FORMAT: i16 = 2;

/// A row, and what it is the answer to.
pub(crate) struct Answer<'a> {
    pub(crate) row: &'a Row,
    pub(crate) what: &'static str,
}

/// The lease that a claim is granted.
pub(crate) fn lease(claim: &Claim, token: u64) -> Lease {
    Lease::new(token, Duration::from_micros(micros(claim.ttl).unsigned_abs()))
}

/// Refuses a record that is not ours.
pub(crate) fn is_ours(table: &str, format: Option<i16>) -> Result<(), BackendError> {
    match format {
        Some(format) if format != FORMAT => Err(error::foreign(table, format)),
        _ => Ok(()),
    }
}

impl<'a> Answer<'a> {
    /// The one row of an answer.
    pub(crate) fn one(rows: &'a [Row], what: &'static str) -> Result<Self, BackendError> {
        let [row] = rows else { return Err(error::unexpected(what)) };
        Ok(Self { row, what })
    }

    /// Refuses what is under the key if it is not ours. Whether there is a record.
    pub(crate) fn is_ours(&self, table: &str) -> Result<bool, BackendError> {
        let format = self.get("format")?;
        is_ours(table, format)?;
        Ok(format.is_some())
    }

    pub(crate) fn get<T: FromSqlOwned>(&self, column: &str) -> Result<T, BackendError> {
        self.row.try_get(column).map_err(|_| error::unexpected(self.what))
    }

    pub(crate) fn token(&self) -> Result<Option<u64>, BackendError> {
        self.get::<Option<i64>>("token")?.map(|token| self.a_token(token)).transpose()
    }

    pub(crate) fn a_token(&self, token: i64) -> Result<u64, BackendError> {
        u64::try_from(token).map_err(|_| error::unexpected(self.what))
    }

    /// For how long the store is known to have kept all its data.
    pub(crate) fn incarnation(&self) -> Result<Incarnation, BackendError> {
        let born = self.get::<Option<Uuid>>("born")?;
        let age = self.get::<Option<i64>>("age_us")?;
        let Some((born, age)) = born.zip(age) else {
            // Something else is in the place of the record: nothing is known.
            return Ok(Incarnation::new(HolderId::random().as_u128(), Duration::ZERO));
        };
        // The clock may have been set back since: then nothing is known for sure.
        let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        Ok(Incarnation::new(born.0, age))
    }

    /// The lease, if one was granted.
    pub(crate) fn granted(&self, claim: &Claim) -> Result<Option<Lease>, BackendError> {
        let Some(token) = self.token()? else { return Ok(None) };
        let incarnation = claim.incarnation.then(|| self.incarnation()).transpose()?;
        Ok(Some(lease(claim, token).with_incarnation(incarnation)))
    }

    /// What is left of another's lease or place. Rounded up: before that, asking is in vain.
    pub(crate) fn left(&self) -> Result<Option<Duration>, BackendError> {
        let left = self.get::<Option<i64>>("left_us")?;
        let left = left.and_then(|left| u64::try_from(left).ok());
        Ok(left.map(|left| Duration::from_micros(left + 1)))
    }

    pub(crate) fn contention(&self) -> Result<Contention, BackendError> {
        let ahead = self.get::<Option<i32>>("ahead")?;
        let ahead = ahead.and_then(|ahead| u32::try_from(ahead).ok());
        Ok(Contention::new(self.left()?).with_ahead(ahead))
    }

    /// The first in line, to be signalled: its listener and its holder.
    pub(crate) fn next(&self) -> Result<Option<(i64, String)>, BackendError> {
        let Some(next) = self.get::<Option<String>>("next")? else { return Ok(None) };
        let parts = next.split_once(':');
        let parts = parts
            .and_then(|(listener, holder)| Some((listener.parse().ok()?, holder.replace('-', ""))));
        parts.map(Some).ok_or_else(|| error::unexpected(self.what))
    }

    pub(crate) fn info(&self, key: LockKey) -> Result<LeaseInfo, BackendError> {
        let holder = HolderId::from_u128(self.get::<Uuid>("holder")?.0);
        let token = self.token()?.ok_or_else(|| error::unexpected(self.what))?;
        // It stood when it was found, and may have ended since.
        let left = u64::try_from(self.get::<i64>("left_us")?).unwrap_or(0);
        let label = self.get::<Vec<u8>>("label")?;
        // A label is text when we write it; whoever else wrote it, the lease is still shown.
        let label = String::from_utf8_lossy(&label);
        Ok(LeaseInfo::new(key, holder, token, Duration::from_micros(left), label))
    }
}

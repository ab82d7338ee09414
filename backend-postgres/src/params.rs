//! Parameters of statements.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::BytesMut;
use lockcore::HolderId;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// A parameter with its type, so that a statement needs no round trip to be prepared.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A uuid, in binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) u128);

impl From<HolderId> for Uuid {
    fn from(holder: HolderId) -> Self {
        Self(holder.as_u128())
    }
}

impl ToSql for Uuid {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// Whole microseconds, rounded up: a lease never ends before what was claimed.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

//! The answers of the scripts: see their headers.

use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Contention, HandOver, HolderId, Incarnation, Lease, LeaseInfo, LockKey,
    Release, Renew,
};
use redis::{RedisError, Value};

use crate::error;
use crate::keys::Names;
use crate::server::text;

/// Reads answers about one record.
pub(crate) struct Answers<'a> {
    /// What was asked for, for people.
    pub(crate) call: &'static str,
    /// Names the record.
    pub(crate) names: &'a Names,
    pub(crate) key: &'a LockKey,
    pub(crate) ttl: Duration,
}

impl<'a> Answers<'a> {
    /// For a call that grants nothing.
    pub(crate) fn question(call: &'static str, names: &'a Names, key: &'a LockKey) -> Self {
        Self { call, names, key, ttl: Duration::ZERO }
    }

    fn foreign(&self) -> BackendError {
        error::foreign(&self.names.record(self.key))
    }

    pub(crate) fn acquire(
        &self,
        answer: Result<Value, RedisError>,
        incarnation: Option<Incarnation>,
    ) -> Result<Acquire, BackendError> {
        match self.known(answer)? {
            Value::Array(fields) => Ok(Acquire::Contended(self.contention(&fields)?)),
            token => Ok(Acquire::Acquired(self.lease(&token, incarnation)?)),
        }
    }

    pub(crate) fn renew(
        &self,
        answer: Result<Value, RedisError>,
        incarnation: Option<Incarnation>,
    ) -> Result<Renew, BackendError> {
        match self.known(answer)? {
            // As renew.lua and renew_many.lua say it.
            Value::Nil | Value::Int(0) => Ok(Renew::NotHeld),
            Value::Int(-1) => Err(self.foreign()),
            token => Ok(Renew::Renewed(self.lease(&token, incarnation)?)),
        }
    }

    pub(crate) fn release(
        &self,
        answer: Result<Value, RedisError>,
    ) -> Result<Release, BackendError> {
        match self.known(answer)? {
            Value::Nil => Ok(Release::NotHeld),
            token => Ok(Release::Released { token: self.token(&token)? }),
        }
    }

    pub(crate) fn hand_over(
        &self,
        answer: Result<Value, RedisError>,
        incarnation: Option<Incarnation>,
    ) -> Result<HandOver, BackendError> {
        match self.known(answer)? {
            Value::Nil => Ok(HandOver::NotHeld),
            Value::Array(fields) => Ok(HandOver::Yielded(self.contention(&fields)?)),
            token => Ok(HandOver::Granted(self.lease(&token, incarnation)?)),
        }
    }

    /// What a question was answered, which changes nothing even if its answer is lost.
    pub(crate) fn inspect(
        &self,
        answer: Result<Value, RedisError>,
    ) -> Result<Option<LeaseInfo>, BackendError> {
        match answer {
            Ok(Value::Nil) => Ok(None),
            Ok(Value::Array(fields)) => {
                info(self.key, &fields).map(Some).ok_or_else(|| error::unexpected(self.call))
            }
            Ok(_) => Err(error::unexpected(self.call)),
            Err(error) if error::is_foreign(&error) => Err(self.foreign()),
            Err(error) => Err(error::of_question(error)),
        }
    }

    fn known(&self, answer: Result<Value, RedisError>) -> Result<Value, BackendError> {
        answer.map_err(|error| {
            if error::is_foreign(&error) { self.foreign() } else { error::of_command(error) }
        })
    }

    fn token(&self, answer: &Value) -> Result<u64, BackendError> {
        let token = text(answer).and_then(|token| token.parse().ok());
        token.ok_or_else(|| error::unexpected(self.call))
    }

    fn lease(
        &self,
        token: &Value,
        incarnation: Option<Incarnation>,
    ) -> Result<Lease, BackendError> {
        Ok(Lease::new(self.token(token)?, self.ttl).with_incarnation(incarnation))
    }

    fn contention(&self, fields: &[Value]) -> Result<Contention, BackendError> {
        let number = |field: &Value| match field {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let (left, ahead) = match fields {
            [left] => (number(left), None),
            [left, ahead] => {
                let ahead = number(ahead).and_then(|ahead| u32::try_from(ahead).ok());
                (number(left).filter(|_| ahead.is_some()), ahead)
            }
            _ => (None, None),
        };
        let left = left.ok_or_else(|| error::unexpected(self.call))?;
        Ok(Contention::new(Some(Duration::from_millis(left))).with_ahead(ahead))
    }
}

fn info(key: &LockKey, fields: &[Value]) -> Option<LeaseInfo> {
    let [holder, token, Value::Int(left), Value::BulkString(label)] = fields else {
        return None;
    };
    let holder = text(holder)?.parse().ok()?;
    let token = text(token)?.parse().ok()?;
    // The store counts the millisecond in which the lease began as a whole one.
    let left = Duration::from_millis(u64::try_from(left - 1).ok()?);
    // A label is text when we write it; whoever else wrote it, the lease is still shown.
    let label = String::from_utf8_lossy(label);
    Some(LeaseInfo::new(key.clone(), holder, token, left, label))
}

/// For how long the server has surely kept its data. It runs for `uptime` at least.
pub(crate) fn incarnation(
    answer: Result<Value, RedisError>,
    uptime: Duration,
) -> Option<Incarnation> {
    let fields = match answer {
        Ok(Value::Array(fields)) => fields,
        // Another record is in its place.
        Err(error) if error::is_foreign(&error) => return None,
        // It cannot be told right now: a full server took no record.
        Err(_) => return Some(Incarnation::new(HolderId::random().as_u128(), Duration::ZERO)),
        Ok(_) => return None,
    };
    let mut fields = fields.iter().filter_map(text);
    let id: HolderId = fields.next()?.parse().ok()?;
    let since: u64 = fields.next()?.parse().ok()?;
    let known = fields.next()?.parse::<u64>().ok()?.saturating_sub(since);
    // The server's clock may have been set forward, and INFO may be refused.
    Some(Incarnation::new(id.as_u128(), Duration::from_micros(known).min(uptime)))
}

/// The record of the incarnation that the script told; `None` where the server's run is not known,
/// so that the record alone does not tell whether it is the same.
pub(crate) fn incarnation_record(answer: &Value) -> Option<Vec<u8>> {
    let Value::Array(fields) = answer else { return None };
    let [id, since, _, run] = fields.as_slice() else { return None };
    let (id, since, run) = (text(id)?, text(since)?, text(run)?);
    (!run.is_empty()).then(|| format!("2|{id}|{since}|{run}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_no_script_gives_leave_the_outcome_unknown() {
        let (names, key) = (Names::default(), LockKey::new("k").expect("valid"));
        let ttl = Duration::from_secs(1);
        let answers = Answers { call: "a test", names: &names, key: &key, ttl };
        for value in [
            Value::Int(1),
            Value::Okay,
            Value::BulkString(b"x".to_vec()),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(-7)]),
            Value::Array(vec![Value::Int(2), Value::Nil]),
            Value::Array(vec![Value::BulkString(b"1".to_vec())]),
        ] {
            let all = [
                answers.acquire(Ok(value.clone()), None).err(),
                answers.renew(Ok(value.clone()), None).err(),
                answers.release(Ok(value.clone())).err(),
                answers.hand_over(Ok(value.clone()), None).err(),
            ];
            for error in all {
                assert!(matches!(error, Some(BackendError::Ambiguous(_))), "{value:?}: {error:?}");
            }
        }
        let acquired = answers.acquire(Ok(Value::Nil), None);
        assert!(matches!(acquired, Err(BackendError::Ambiguous(_))), "{acquired:?}");
    }
}

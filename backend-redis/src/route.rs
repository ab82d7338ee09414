//! The way to the server: our own link, or a connection lent by the caller.

use std::fmt;
use std::sync::Arc;

use lockcore::BackendError;
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::connected::Connected;
use crate::connection::Link;
use crate::error;
use crate::scripts::{self, Connection, Script};

#[derive(Clone)]
pub(crate) enum Route {
    Own(Link),
    Lent(Arc<dyn Lend>),
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(link) => fmt::Debug::fmt(link, f),
            Self::Lent(_) => f.write_str("a connection of the caller's"),
        }
    }
}

/// Gives out handles of one connection, whatever its type.
pub(crate) trait Lend: Send + Sync {
    fn lend(&self) -> Box<Connection>;
}

pub(crate) struct Lender<C>(pub(crate) C);

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Lend for Lender<C> {
    fn lend(&self) -> Box<Connection> {
        Box::new(self.0.clone())
    }
}

/// A connection found usable, to make an exchange on.
pub(crate) struct Ready {
    /// Whose connection it is, if it is ours.
    pub(crate) connected: Option<Arc<Connected>>,
    connection: Box<Connection>,
}

impl Route {
    pub(crate) async fn ready(&self) -> Result<Ready, BackendError> {
        Ok(match self {
            Self::Own(link) => {
                let connected = link.connected().await?;
                Ready {
                    connection: Box::new(connected.connection.clone()),
                    connected: Some(connected),
                }
            }
            Self::Lent(lender) => Ready { connected: None, connection: lender.lend() },
        })
    }
}

impl Ready {
    pub(crate) async fn run(&mut self, script: &Script, call: &Cmd) -> Result<Value, RedisError> {
        let exchange = script.run(&mut *self.connection, call);
        attend(self.connected.as_deref(), exchange).await
    }

    pub(crate) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let exchange = scripts::ask(&mut *self.connection, command);
        attend(self.connected.as_deref(), exchange).await
    }

    /// Runs many calls of one script in one round trip.
    pub(crate) async fn run_all(
        &mut self,
        script: &Script,
        calls: &Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        let exchange = script.run_all(&mut *self.connection, calls);
        attend(self.connected.as_deref(), exchange).await
    }
}

/// Makes an exchange with an eye on whether the connection answers.
async fn attend<T>(
    connected: Option<&Connected>,
    exchange: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let Some(connected) = connected else {
        return exchange.await;
    };
    let call = connected.vigil.call();
    let done = exchange.await;
    match &done {
        Err(error) if !error::is_reply(error) => connected.broke(),
        _ => call.answered(),
    }
    done
}

/// The answer of a script: see their headers.
pub(crate) enum Reply {
    Done(Vec<Value>),
    No(Vec<Value>),
}

impl Reply {
    pub(crate) fn read(value: Value, what: &str) -> Result<Self, BackendError> {
        let Value::Array(mut fields) = value else {
            return Err(error::unexpected(what));
        };
        let rest = fields.split_off(fields.len().min(1));
        match (fields.first(), rest.first()) {
            (Some(Value::Int(1)), _) => Ok(Self::Done(rest)),
            (Some(Value::Int(0)), _) => Ok(Self::No(rest)),
            (Some(Value::Int(2)), Some(Value::BulkString(name))) => {
                Err(error::foreign(&String::from_utf8_lossy(name)))
            }
            _ => Err(error::unexpected(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_no_script_gives_leave_the_outcome_unknown() {
        for value in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(7)]),
            Value::Array(vec![Value::Int(2)]),
            Value::Array(vec![Value::BulkString(b"1".to_vec())]),
        ] {
            let read = Reply::read(value.clone(), "a test");
            assert!(matches!(read, Err(BackendError::Ambiguous(_))), "{value:?}");
        }
    }
}

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
            Self::Own(link) => Ready::new(link.connected().await?),
            Self::Lent(lender) => Ready { connected: None, connection: lender.lend() },
        })
    }
}

impl Ready {
    pub(crate) fn new(connected: Arc<Connected>) -> Self {
        let connection = Box::new(connected.connection.clone());
        Self { connected: Some(connected), connection }
    }

    pub(crate) async fn run(&mut self, script: &Script, call: &Cmd) -> Result<Value, RedisError> {
        let exchange = script.run(&mut *self.connection, call);
        let answer = attend(self.connected.as_deref(), exchange).await;
        self.check([&answer]);
        answer
    }

    pub(crate) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let exchange = scripts::ask(&mut *self.connection, command);
        attend(self.connected.as_deref(), exchange).await
    }

    /// Runs many calls of scripts in one round trip. On a cluster their keys may be on several
    /// servers, so it is for a connection of our own alone.
    pub(crate) async fn run_all(
        &mut self,
        calls: &Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let exchange = scripts::run_all(&mut *self.connection, calls);
        let answers = attend(self.connected.as_deref(), exchange).await?;
        self.check(&answers);
        Ok(answers)
    }

    /// Gives up the connection to a server that is not the primary any more: behind a name that
    /// moves, the next one leads to the server that is.
    fn check<'a>(&self, answers: impl IntoIterator<Item = &'a Result<Value, RedisError>>) {
        let demoted =
            answers.into_iter().any(|answer| answer.as_ref().is_err_and(error::is_demoted));
        if demoted && let Some(connected) = &self.connected {
            connected.broke();
        }
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

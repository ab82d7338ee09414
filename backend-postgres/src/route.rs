//! The way to the server: our own link, or connections lent by the caller.

use std::fmt;
use std::sync::Arc;

use lockcore::{BackendError, Claim, ReleaseSignal};
use tokio_postgres::{Client, Row};

use crate::connection::Link;
use crate::error::{self, Failure};
use crate::exchange::{self, Failed, Settings, Turn};
#[cfg(feature = "pool")]
use crate::pool;
use crate::statements::{Param, Query};

#[derive(Clone)]
pub(crate) enum Route {
    Own(Link),
    Given(Arc<Given>),
    #[cfg(feature = "pool")]
    Pool(deadpool_postgres::Pool, Settings),
}

/// A connection of the caller's, given to us for good.
pub(crate) struct Given {
    client: Client,
    turn: Turn,
    settings: Settings,
}

impl Given {
    pub(crate) fn new(client: Client, settings: Settings) -> Arc<Self> {
        Arc::new(Self { client, turn: Turn::default(), settings })
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(link) => fmt::Debug::fmt(link, f),
            Self::Given(..) => f.write_str("a connection of the caller's"),
            #[cfg(feature = "pool")]
            Self::Pool(..) => f.write_str("a pool of the caller's"),
        }
    }
}

impl Route {
    /// Sends a statement that changes a holder's lease, once there is a connection.
    pub(crate) async fn command(
        &self,
        claim: &Claim,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, BackendError> {
        self.send(Some(claim), query, params).await?.map_err(error::of_command)
    }

    /// Sends a question, which changes nothing.
    pub(crate) async fn ask(
        &self,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, BackendError> {
        self.send(None, query, params).await?.map_err(error::of_question)
    }

    /// Sends a statement, and leaves the judgement of its failure to the caller; without a
    /// connection it is none of the statement's.
    pub(crate) async fn exchange(
        &self,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<Row>, Failed>, BackendError> {
        self.send(None, query, params).await
    }

    /// `claim`: what the statement is about, if it is about a lease of a holder's.
    async fn send(
        &self,
        claim: Option<&Claim>,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<Row>, Failed>, BackendError> {
        match self {
            Self::Own(link) => {
                let connected = link.connected().await?;
                Ok(connected.exchange(claim, query, params).await)
            }
            Self::Given(given) => {
                let Given { client, turn, settings } = &**given;
                if client.is_closed() {
                    return Err(BackendError::unavailable(Failure::new(
                        "the connection that was given is closed",
                    )));
                }
                let limit = settings.limit_for(claim);
                Ok(exchange::on_shared(client, turn, settings, limit, query, params).await)
            }
            #[cfg(feature = "pool")]
            Self::Pool(pool, settings) => {
                pool::exchange(pool, settings, claim, query, params).await
            }
        }
    }

    /// Arms a signal; where sessions are shared there is none, and waiting polls.
    pub(crate) async fn watch(&self, payload: String) -> Result<ReleaseSignal, BackendError> {
        match self {
            Self::Own(link) => link.connected().await?.watch(payload).await,
            _ => Ok(ReleaseSignal::never()),
        }
    }

    /// Finds out whether the server can be reached.
    pub(crate) async fn ready(&self) -> Result<(), BackendError> {
        match self {
            Self::Own(link) => Ok(link.connected().await.map(drop)?),
            _ => self.ask(&Query::rare("SELECT", ""), &[]).await.map(drop),
        }
    }
}

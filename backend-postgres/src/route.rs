//! The way to the server: sessions of our own, or connections lent by the caller.

use std::fmt;
use std::sync::Arc;

use lockcore::{BackendError, HolderId, ReleaseSignal};
use tokio_postgres::{Client, Row};

use crate::error::{self, Failed, Failure};
use crate::exchange::{self, Settings, Subject, Turn};
use crate::params::Param;
#[cfg(feature = "pool")]
use crate::pool;
use crate::release_signals::Topic;
use crate::sessions::Sessions;
use crate::statements::Query;

#[derive(Clone)]
pub(crate) enum Route {
    Own(Arc<Sessions>),
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
            Self::Own(sessions) => fmt::Debug::fmt(sessions, f),
            Self::Given(..) => f.write_str("a connection of the caller's"),
            #[cfg(feature = "pool")]
            Self::Pool(..) => f.write_str("a pool of the caller's"),
        }
    }
}

impl Route {
    /// Sends a statement that changes leases, once there is a connection.
    pub(crate) async fn command(
        &self,
        subject: Subject,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, BackendError> {
        self.send(&subject, query, params).await?.map_err(error::of_command)
    }

    /// Sends a question, which changes nothing.
    pub(crate) async fn ask(
        &self,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, BackendError> {
        self.send(&Subject::default(), query, params).await?.map_err(error::of_question)
    }

    /// Sends a statement, and leaves the judgement of its failure to the caller; without a
    /// connection it is none of the statement's.
    pub(crate) async fn exchange(
        &self,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<Row>, Failed>, BackendError> {
        self.send(&Subject::default(), query, params).await
    }

    async fn send(
        &self,
        subject: &Subject,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<Row>, Failed>, BackendError> {
        match self {
            Self::Own(sessions) => sessions.send(subject, query, params).await,
            Self::Given(given) => {
                let Given { client, turn, settings } = &**given;
                if client.is_closed() {
                    return Err(BackendError::unavailable(Failure::new(
                        "the connection that was given is closed",
                    )));
                }
                Ok(exchange::on_shared(client, turn, settings, subject, &[], query, params).await)
            }
            #[cfg(feature = "pool")]
            Self::Pool(pool, settings) => {
                pool::exchange(pool, settings, subject, query, params).await
            }
        }
    }

    /// Sends a statement that nobody depends on. On sessions of our own its answer is not waited
    /// for.
    pub(crate) async fn tell(&self, query: &Query, params: &[Param<'_>]) {
        if let Self::Own(sessions) = self
            && sessions.send_only(query, params)
        {
            return;
        }
        let told = self.exchange(query, params).await;
        if let Ok(Err(error)) = told {
            tracing::debug!(?error, "a release was not told");
        }
    }

    /// The number by which others can signal a holder; 0: it polls.
    pub(crate) fn listener_for(&self, holder: HolderId) -> i64 {
        match self {
            Self::Own(sessions) => sessions
                .listening()
                .map_or(0, |session| session.signals().listener_for(holder.to_string())),
            _ => 0,
        }
    }

    /// The number by which others can signal this process; 0: it does not listen.
    pub(crate) fn listener(&self) -> i64 {
        match self {
            Self::Own(sessions) => {
                sessions.listening().map_or(0, |session| session.signals().listener())
            }
            _ => 0,
        }
    }

    /// Signals a holder of this process, if `listener` is this process.
    pub(crate) fn signal_own(&self, listener: i64, payload: &str) -> bool {
        let Self::Own(sessions) = self else { return false };
        let session = sessions.listening();
        let session = session.filter(|session| session.signals().listener() == listener);
        if let Some(session) = &session {
            session.signals().signal(payload);
        }
        session.is_some()
    }

    /// Arms a signal; where sessions are shared there is none, and waiting polls.
    pub(crate) async fn watch(&self, topic: Topic) -> Result<ReleaseSignal, BackendError> {
        match self {
            Self::Own(sessions) => sessions.watch(topic).await,
            _ => Ok(ReleaseSignal::never()),
        }
    }

    /// Finds out whether the server can be reached.
    pub(crate) async fn ready(&self) -> Result<(), BackendError> {
        match self {
            Self::Own(sessions) => sessions.ready().await,
            _ => self.ask(&Query::rare("SELECT", ""), &[]).await.map(drop),
        }
    }
}

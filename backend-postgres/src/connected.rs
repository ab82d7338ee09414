//! One session on the server.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, Claim, HolderId, ReleaseSignal};
use lockcore_link::Vigil;
use tokio::task::AbortHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::address::Address;
use crate::driver::{self, Lifeline};
use crate::error;
use crate::exchange::{self, Failed, Settings, Turn};
use crate::statements::{Param, Prepared, Query};
use crate::unconnected::Unconnected;
use crate::wake::Ears;

/// The oldest server whose SQL is what the statements use and the tests were made for.
const OLDEST: i32 = 130_000;

/// How to find what the server does for a connection.
#[derive(Clone, Debug)]
pub(crate) enum Session {
    /// It has our settings and is ours alone. Its process, and when that began.
    Ours(i32, i64),
    /// Shared through a pooler. The advisory lock that each transaction of the connection holds.
    Shared(i64),
}

/// One session, from its handshake to its loss.
pub(crate) struct Connected {
    client: Arc<Client>,
    driver: AbortHandle,
    vigil: Arc<Vigil>,
    /// Also knows whether the connection is lost.
    ears: Arc<Ears>,
    settings: Settings,
    prepared: Prepared,
    turn: Turn,
    session: Session,
    is_greeted: bool,
    pub(crate) volatile: bool,
}

impl Connected {
    /// Connects to one server. `pooled`: a pooler is in between, which takes no startup options.
    /// `old`: of a connection that was given up; its work has ended before this one is used.
    pub(crate) async fn open(
        address: &Address,
        server: usize,
        pooled: bool,
        channel: &str,
        settings: &Settings,
        old: Option<&Session>,
    ) -> Result<Self, Unconnected> {
        let (shown, config) = &address.servers[server];
        let mut config = config.clone();
        let mark = HolderId::random();
        // As much of it as a lock has for a name.
        let number = mark.as_u128() as i64;
        let mark = mark.to_string();
        if !pooled {
            let ours = settings.startup_options();
            let given = config.get_options().map(|given| format!("{given} ")).unwrap_or_default();
            // The last of two counts.
            config.options(format!("{given}{ours} -c leaselock.session={mark}"));
        }
        let ears = Arc::new(Ears::new(channel));
        let vigil = Arc::new(Vigil::default());
        let lifeline = Lifeline { ears: Arc::clone(&ears), vigil: Arc::clone(&vigil) };
        let (client, driver) = driver::connect(address, &config, lifeline)
            .await
            .map_err(|error| Unconnected::refused(shown, address.tls.is_required(), error))?;
        let mut connected = Self {
            client: Arc::new(client),
            driver,
            vigil,
            ears,
            settings: settings.marked(number),
            prepared: Prepared::default(),
            // As the startup options say, where they arrived.
            turn: Turn::new(Some(settings.limit_for(None))),
            session: Session::Shared(number),
            is_greeted: false,
            volatile: false,
        };
        connected.greet(shown, &mark, old).await?;
        Ok(connected)
    }

    async fn greet(
        &mut self,
        shown: &str,
        mark: &str,
        old: Option<&Session>,
    ) -> Result<(), Unconnected> {
        match old {
            Some(Session::Ours(process, since)) => self.end(shown, *process, *since).await?,
            Some(Session::Shared(number)) => {
                let waited = exchange::until_over(&self.client, &self.settings, *number).await;
                waited.map_err(|error| Unconnected::refused(shown, false, error))?;
            }
            None => {}
        }
        let question = Query::rare(include_str!("sql/greet.sql"), "");
        let call = self.vigil.call();
        let rows = self.client.query_typed(&question.sql, &[]).await;
        call.answered();
        let rows = rows.map_err(|error| Unconnected::refused(shown, false, error))?;
        let facts = rows.first().and_then(Facts::read);
        let facts = facts.ok_or_else(|| Unconnected::not_postgres(shown))?;
        if facts.version < OLDEST {
            return Err(Unconnected::too_old(shown, facts.version));
        }
        if facts.standby {
            return Err(Unconnected::standby(shown));
        }
        self.volatile = facts.volatile;
        if let (Some(true), Some(since)) = (facts.mark.map(|found| found == mark), facts.since) {
            self.session = Session::Ours(facts.process, since);
        }
        self.is_greeted = true;
        Ok(())
    }

    /// Ends an older session. Where the server refuses that, it ends by the limits on its
    /// statements, and a new session is of use all the same.
    async fn end(&self, shown: &str, process: i32, since: i64) -> Result<(), Unconnected> {
        let command = Query::rare(include_str!("sql/end.sql"), "");
        let params = [(&process as _, Type::INT4), (&since as _, Type::INT8)];
        match self.client.query_typed(&command.sql, &params).await {
            Err(error) if error::is_refusal(&error) => {
                let error = error::words(&error);
                tracing::warn!(
                    server = %shown,
                    %error,
                    "the session before this one was not ended: what was given up on it may still \
                     be carried out"
                );
                Ok(())
            }
            Err(error) => Err(Unconnected::refused(shown, false, error)),
            Ok(_) => Ok(()),
        }
    }

    pub(crate) fn is_pooled(&self) -> bool {
        matches!(self.session, Session::Shared(_))
    }

    /// The session, if it may still be at work on what it was sent. What a pooler has passed on is
    /// carried out although the connection is closed.
    pub(crate) fn unfinished(&self) -> Option<&Session> {
        Some(&self.session).filter(|_| self.is_pooled() || !self.client.is_closed())
    }

    /// Sends a statement, with an eye on whether the connection answers.
    pub(crate) async fn exchange(
        &self,
        claim: Option<&Claim>,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failed> {
        let Self { client, turn, settings, prepared, .. } = self;
        let limit = settings.limit_for(claim);
        let call = self.vigil.call();
        let done = if self.is_pooled() {
            exchange::on_shared(client, turn, settings, limit, query, params).await
        } else {
            exchange::on_ours(client, turn, prepared, limit, query, params).await
        };
        match &done {
            Err(Failed::Unanswered(_)) => self.ears.lose(),
            _ => call.answered(),
        }
        done
    }

    pub(crate) async fn watch(&self, payload: String) -> Result<ReleaseSignal, BackendError> {
        if self.is_pooled() {
            return Ok(ReleaseSignal::never());
        }
        let call = self.vigil.call();
        let armed = self.ears.watch(payload, &self.client).await;
        // Where others watch, nothing was asked.
        call.ended();
        armed
    }
}

impl lockcore_link::Connection for Connected {
    fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.ears.is_lost() && !self.vigil.is_suspect()
    }

    /// Who watches on it is woken, and who waits on it for an answer learns that none will come.
    fn retire(&self) {
        self.ears.lose();
        self.driver.abort();
    }
}

impl Drop for Connected {
    /// The driver ends by itself, when it has read what is still to come. From a server that did
    /// not answer the first question that may be nothing, for ever.
    fn drop(&mut self) {
        self.ears.lose();
        if !self.is_greeted {
            self.driver.abort();
        }
    }
}

/// What a server says in answer to `greet.sql`.
struct Facts {
    version: i32,
    mark: Option<String>,
    process: i32,
    since: Option<i64>,
    standby: bool,
    volatile: bool,
}

impl Facts {
    fn read(row: &Row) -> Option<Self> {
        Some(Self {
            version: row.try_get("version").ok()?,
            mark: row.try_get("mark").ok()?,
            process: row.try_get("process").ok()?,
            since: row.try_get("since").ok()?,
            standby: row.try_get("standby").ok()?,
            volatile: row.try_get("volatile").ok()?,
        })
    }
}

/// How much of what is left of the time for connecting each of the servers left may take.
pub(crate) fn share(left: Duration, servers: usize) -> Duration {
    left / u32::try_from(servers).unwrap_or(u32::MAX).max(1)
}

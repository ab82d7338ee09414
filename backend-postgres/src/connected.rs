//! One session on the server.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, HolderId, ReleaseSignal};
use lockcore_link::Vigil;
use tokio::task::AbortHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::address::Address;
use crate::driver::{self, Lifeline};
use crate::error::{self, Failed};
use crate::exchange::{self, Settings, Subject, Turn};
use crate::params::Param;
use crate::release_signals::{ReleaseSignals, Topic, Unheard};
use crate::statements::{Prepared, Query};
use crate::unconnected::Unconnected;

/// The oldest server whose SQL is what the statements use and the tests were made for.
const OLDEST: i32 = 130_000;

/// How to find what the server does for a connection. Each has a number at random.
#[derive(Clone, Debug)]
pub(crate) enum Session {
    /// It has our settings and is ours alone. It holds the advisory lock of its number as long as
    /// it lives.
    Ours { number: i64, process: i32, since: i64 },
    /// Shared through a pooler. Each transaction holds the advisory lock of the number.
    Shared { number: i64 },
}

/// One session, from its handshake to its loss.
pub(crate) struct Connected {
    client: Arc<Client>,
    driver: AbortHandle,
    vigil: Arc<Vigil>,
    /// Also knows whether the connection is lost.
    signals: Arc<ReleaseSignals>,
    settings: Settings,
    prepared: Prepared,
    turn: Turn,
    session: Session,
    is_greeted: bool,
    pub(crate) volatile: bool,
}

impl Connected {
    /// Connects to one server. `pooled`: a pooler is in between, which takes no startup options.
    /// `replaced`: its work has ended before this one is used.
    pub(crate) async fn open(
        address: &Address,
        server: usize,
        pooled: bool,
        announcements: &str,
        unheard: &Unheard,
        settings: &Settings,
        replaced: Option<&Self>,
    ) -> Result<Self, Unconnected> {
        let (shown, config) = &address.servers[server];
        let mut config = config.clone();
        let mark = HolderId::random();
        // As much of it as a lock has for a name. Positive: 0 and below are no listeners.
        let number = (mark.as_u128() as i64 & i64::MAX).max(1);
        let mark = mark.to_string();
        if !pooled {
            let ours = settings.startup_options();
            let given = config.get_options().map(|given| format!("{given} ")).unwrap_or_default();
            // The last of two counts.
            config.options(format!("{given}{ours} -c leaselock.session={mark}"));
        }
        let signals = Arc::new(ReleaseSignals::new(number, announcements, unheard.clone()));
        let vigil = Arc::new(Vigil::default());
        let lifeline = Lifeline { signals: Arc::clone(&signals), vigil: Arc::clone(&vigil) };
        let (client, driver) = driver::connect(address, &config, lifeline)
            .await
            .map_err(|error| Unconnected::refused(shown, address.tls.is_required(), error))?;
        let mut connected = Self {
            client: Arc::new(client),
            driver,
            vigil,
            signals,
            settings: settings.clone(),
            prepared: Prepared::default(),
            // As the startup options say, where they arrived.
            turn: Turn::new(Some(settings.limit_for(&Subject::default()))),
            session: Session::Shared { number },
            is_greeted: false,
            volatile: false,
        };
        connected.greet(shown, &mark, number, replaced).await?;
        Ok(connected)
    }

    async fn greet(
        &mut self,
        shown: &str,
        mark: &str,
        number: i64,
        replaced: Option<&Self>,
    ) -> Result<(), Unconnected> {
        if let Some(replaced) = replaced {
            self.outlast(shown, replaced).await?;
        }
        let question = Query::rare(include_str!("sql/greet.sql"), "");
        let params = [(&mark as _, Type::TEXT), (&number as _, Type::INT8)];
        let call = self.vigil.call();
        let rows = self.client.query_typed(&question.sql, &params).await;
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
        if let (true, Some(since)) = (facts.ours, facts.since) {
            self.session = Session::Ours { number, process: facts.process, since };
        }
        self.is_greeted = true;
        Ok(())
    }

    /// Waits until the server does nothing more for an older connection, whatever became of that:
    /// a release must not overtake the acquire that it is to undo.
    async fn outlast(&self, shown: &str, replaced: &Self) -> Result<(), Unconnected> {
        let waited = match replaced.session {
            Session::Ours { number, process, since } => {
                self.end(shown, process, since).await?;
                // If it cannot be ended, it ends when it finds its client gone.
                replaced.driver.abort();
                let wait = Query::rare(include_str!("sql/ended.sql"), "");
                let params = [(&number as _, Type::INT8)];
                self.client.query_typed(&wait.sql, &params).await.map(drop)
            }
            Session::Shared { number } => {
                exchange::until_over(&self.client, &self.settings, number).await
            }
        };
        waited.map_err(|error| Unconnected::refused(shown, false, error))
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
        matches!(self.session, Session::Shared { .. })
    }

    /// Sends a statement, with an eye on whether the connection answers.
    pub(crate) async fn exchange(
        &self,
        subject: &Subject,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failed> {
        let Self { client, turn, settings, prepared, .. } = self;
        let call = self.vigil.call();
        let done = match self.session {
            Session::Shared { number } => {
                let marks = [number];
                exchange::on_shared(client, turn, settings, subject, &marks, query, params).await
            }
            Session::Ours { .. } => {
                let limit = settings.limit_for(subject);
                exchange::on_ours(client, turn, prepared, limit, query, params).await
            }
        };
        match &done {
            Err(Failed::Unanswered(_)) => self.signals.lose(),
            Err(Failed::Refused(refusal)) if error::is_of_another_server(refusal) => {
                call.answered();
                self.signals.lose();
            }
            _ => call.answered(),
        }
        done
    }

    /// Sends a statement of no consequence and does not wait for its answer.
    pub(crate) fn send_only(&self, query: &Query, params: &[Param<'_>]) {
        exchange::send_only(&self.client, query, params);
    }

    pub(crate) fn signals(&self) -> &ReleaseSignals {
        &self.signals
    }

    pub(crate) async fn watch(&self, topic: Topic) -> Result<ReleaseSignal, BackendError> {
        if self.is_pooled() {
            return Ok(ReleaseSignal::never());
        }
        let call = self.vigil.call();
        let armed = self.signals.watch(topic, &self.client).await;
        // Where others watch, nothing was asked.
        call.ended();
        armed
    }
}

impl lockcore_link::Connection for Connected {
    fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.signals.is_lost() && !self.vigil.is_suspect()
    }

    /// Who watches on it is woken, and who waits on it for an answer learns that none will come.
    fn retire(&self) {
        self.signals.lose();
        self.driver.abort();
    }
}

impl Drop for Connected {
    /// The driver ends by itself, when it has read what is still to come. From a server that did
    /// not answer the first question that may be nothing, for ever.
    fn drop(&mut self) {
        self.signals.lose();
        if !self.is_greeted {
            self.driver.abort();
        }
    }
}

/// What a server says in answer to `greet.sql`.
struct Facts {
    version: i32,
    ours: bool,
    process: i32,
    since: Option<i64>,
    standby: bool,
    volatile: bool,
}

impl Facts {
    fn read(row: &Row) -> Option<Self> {
        Some(Self {
            version: row.try_get("version").ok()?,
            ours: row.try_get("ours").ok()?,
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

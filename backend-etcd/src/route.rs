//! The way to the cluster, and the requests that are made on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Error, GetOptions, GetResponse, LeaseGrantOptions, LeaseTimeToLiveResponse, Txn,
    TxnResponse,
};
use lockcore::{BackendError, HolderId, ReleaseSignal};
use lockcore_link::Connection;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::connected::Connected;
use crate::connection::Link;
use crate::error::{self, Meaning};
use crate::keep_alive::{KeepAlives, Kept};
use crate::mail::Mailbox;
use crate::memory::State;
use crate::trouble::Trouble;
use crate::unconnected::Unconnected;
use crate::wake::Wakes;

/// What revoking a lease that nobody needs any more may take.
const REVOKE_LIMIT: Duration = Duration::from_secs(5);
/// How many are under way at once. Others wait for their turn.
const REVOKES: usize = 64;
/// How many may wait: far more than one process releases at once. What is not revoked ends with
/// its ttl, and is no tombstone until then.
const QUEUE: usize = 16_384;

/// The way to the cluster: our own link, or a client of the caller's.
#[derive(Clone)]
pub(crate) struct Route {
    way: Way,
    revokes: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

#[derive(Clone)]
enum Way {
    Own(Link),
    Lent(Arc<Lent>),
}

struct Lent {
    client: Client,
    wakes: Wakes,
    mailbox: Mailbox,
    keeps: KeepAlives,
}

/// A lease of etcd's, just granted.
pub(crate) struct Grant {
    pub(crate) seconds: u32,
    /// Where, and at which revision.
    pub(crate) state: State,
}

impl Route {
    pub(crate) fn own(link: Link) -> Self {
        Self::new(Way::Own(link))
    }

    pub(crate) fn lent(client: Client) -> Self {
        Self::new(Way::Lent(Arc::new(Lent {
            client,
            wakes: Wakes::default(),
            mailbox: Mailbox::default(),
            keeps: KeepAlives::default(),
        })))
    }

    fn new(way: Way) -> Self {
        let of = |size| Arc::new(Semaphore::new(size));
        Self { way, revokes: of(REVOKES), queue: of(QUEUE) }
    }

    /// Opens a connection where there is none.
    pub(crate) async fn reach(&self) -> Result<(), Unconnected> {
        match &self.way {
            Way::Own(link) => link.connected().await.map(|_| ()),
            Way::Lent(_) => Ok(()),
        }
    }

    /// Makes one request. Where it is sure that no server took it up, a connection to one that
    /// answers is looked for and gets it, once.
    async fn call<T, F>(&self, request: impl Fn(&Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_on(|client, _| request(client)).await
    }

    /// The same, for a request that may go out on the connection's keep-alive streams.
    async fn call_on<T, F>(&self, request: impl Fn(&Client, &KeepAlives) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let link = match &self.way {
            Way::Own(link) => link,
            Way::Lent(lent) => {
                return request(&lent.client, &lent.keeps).await.map_err(Trouble::Etcd);
            }
        };
        let connected = link.connected().await.map_err(Trouble::Unconnected)?;
        match attend(&connected, || request(&connected.client, &connected.keeps)).await {
            Err(error) if error::may_go_elsewhere(&error) => {
                connected.retire();
                let connected = link.connected().await.map_err(Trouble::Unconnected)?;
                attend(&connected, || request(&connected.client, &connected.keeps)).await
            }
            done => done,
        }
        .map_err(Trouble::Etcd)
    }

    pub(crate) async fn grant(&self, id: i64, seconds: u32) -> Result<Grant, Trouble> {
        let granted = self.call(|client| {
            let mut leases = client.lease_client();
            async move {
                let options = LeaseGrantOptions::new().with_id(id);
                leases.grant(i64::from(seconds), Some(options)).await
            }
        });
        let granted = granted.await?;
        // Shorter than asked it never is; a server with a slow election timeout grants more.
        let seconds = u32::try_from(granted.ttl()).unwrap_or(seconds).max(seconds);
        let header = granted.header();
        let revision = header.and_then(|header| u64::try_from(header.revision()).ok());
        let cluster = header.map_or(0, etcd_client::ResponseHeader::cluster_id);
        let state = State { cluster, revision: Some(revision.unwrap_or(0)) };
        Ok(Grant { seconds, state })
    }

    /// Begins a lease's ttl anew.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<Kept, Trouble> {
        let kept = self.keep_alive_all(&[id]).await?;
        kept.first().copied().ok_or(Trouble::Etcd(Error::LeaseKeepAliveError(String::new())))
    }

    /// Begins the ttls of several leases anew: an answer for each, in their order.
    pub(crate) async fn keep_alive_all(&self, ids: &[i64]) -> Result<Vec<Kept>, Trouble> {
        let kept = self.call_on(|client, keeps| {
            let answers: Vec<_> = ids.iter().map(|&id| keeps.order(client, id)).collect();
            async move {
                let mut kept = Vec::with_capacity(answers.len());
                for answer in answers {
                    kept.push(answer.wait().await?);
                }
                Ok(kept)
            }
        });
        kept.await
    }

    pub(crate) async fn revoke(&self, id: i64) -> Result<(), Trouble> {
        let revoked = self.call(|client| {
            let mut leases = client.lease_client();
            async move { leases.revoke(id).await }
        });
        revoked.await.map(|_| ())
    }

    /// Revokes a lease that nobody needs any more while the caller goes on, and says when it has
    /// surely ended. Nothing depends on it: a lease that is not revoked ends with its ttl.
    pub(crate) fn revoke_behind(&self, id: i64, ended: impl FnOnce() + Send + 'static) {
        let (Ok(place), Ok(runtime)) =
            (Arc::clone(&self.queue).try_acquire_owned(), Handle::try_current())
        else {
            return;
        };
        let route = self.clone();
        runtime.spawn(async move {
            let turn = route.revokes.acquire().await;
            match tokio::time::timeout(REVOKE_LIMIT, route.revoke(id)).await {
                Ok(Err(trouble)) if !trouble.lease_not_found() => {
                    tracing::debug!(?trouble, "a lease was not revoked and ends with its ttl");
                }
                Ok(_) => ended(),
                Err(_) => {}
            }
            drop((turn, place));
        });
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Trouble> {
        let told = self.call(|client| {
            let mut leases = client.lease_client();
            async move { leases.time_to_live(id, None).await }
        });
        told.await
    }

    pub(crate) async fn txn(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        let done = self.call(|client| {
            let (mut kv, txn) = (client.kv_client(), txn.clone());
            async move { kv.txn(txn).await }
        });
        done.await
    }

    pub(crate) async fn get(
        &self,
        name: impl AsRef<[u8]>,
        options: Option<GetOptions>,
    ) -> Result<GetResponse, Trouble> {
        let found = self.call(|client| {
            let (mut kv, options) = (client.kv_client(), options.clone());
            let name = name.as_ref().to_vec();
            async move { kv.get(name, options).await }
        });
        found.await
    }

    /// Whether a signal is armed for the deletion of a name, and nothing came since it was last
    /// asked for.
    pub(crate) fn is_watched_in_vain(&self, name: &str) -> bool {
        match &self.way {
            Way::Own(link) => link.usable().is_some_and(|connected| connected.wakes.is_quiet(name)),
            Way::Lent(lent) => lent.wakes.is_quiet(name),
        }
    }

    /// Arms a signal for the deletion of a name: when this returns, the server has confirmed.
    pub(crate) async fn watch(&self, name: String) -> Result<ReleaseSignal, BackendError> {
        match &self.way {
            Way::Own(link) => {
                let connected = link.connected().await?;
                let call = connected.vigil.call();
                let heard = hears(&connected);
                let armed = connected.wakes.watch(&connected.client, name, heard).await;
                // Where others watch the same name, nothing was asked.
                call.ended();
                armed
            }
            Way::Lent(lent) => lent.wakes.watch(&lent.client, name, || {}).await,
        }
    }

    /// Arms a signal for a holder's turn, which is told to this mailbox: when this returns, the
    /// server has confirmed.
    pub(crate) async fn watch_turn(
        &self,
        mailbox: String,
        holder: HolderId,
    ) -> Result<ReleaseSignal, BackendError> {
        match &self.way {
            Way::Own(link) => {
                let connected = link.connected().await?;
                let call = connected.vigil.call();
                let (client, heard) = (&connected.client, hears(&connected));
                let armed = connected.mailbox.watch(client, mailbox, holder, heard).await;
                // Only the first was asked for.
                call.ended();
                armed
            }
            Way::Lent(lent) => lent.mailbox.watch(&lent.client, mailbox, holder, || {}).await,
        }
    }

    /// Whether a holder hears of its turn.
    pub(crate) fn listens(&self, holder: HolderId) -> bool {
        self.in_mailbox(|mailbox| mailbox.listens(holder))
    }

    /// Whether a holder was told of its turn since this was last asked.
    pub(crate) fn was_told(&self, holder: HolderId) -> bool {
        self.in_mailbox(|mailbox| mailbox.was_told(holder))
    }

    fn in_mailbox(&self, ask: impl Fn(&Mailbox) -> bool) -> bool {
        match &self.way {
            Way::Own(link) => link.usable().is_some_and(|connected| ask(&connected.mailbox)),
            Way::Lent(lent) => ask(&lent.mailbox),
        }
    }
}

/// Notes a sign of life.
fn hears(connected: &Arc<Connected>) -> impl Fn() + Send + 'static {
    let heard = Arc::downgrade(connected);
    move || {
        if let Some(connected) = heard.upgrade() {
            connected.vigil.heard();
        }
    }
}

/// Makes a request with an eye on whether the connection answers.
async fn attend<T, F>(connected: &Connected, request: impl FnOnce() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let call = connected.vigil.call();
    let done = request().await;
    match &done {
        Err(error) if !error::is_answer(error) || error::meaning(error) == Meaning::Unheard => {
            connected.retire();
        }
        _ => call.answered(),
    }
    done
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Own(link) => fmt::Debug::fmt(link, f),
            Way::Lent(_) => f.write_str("a client of the caller's"),
        }
    }
}

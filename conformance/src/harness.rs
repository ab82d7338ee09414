//! What a backend's author gives to the suite.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use lockcore::{BoxError, LockBackend};

/// A store under test: how to start it, reach it, and break it.
///
/// `start` is called once for the cases that share a server, and again for those that break
/// theirs: they have a server to themselves, and pass it on whole. A harness is dropped when its
/// last case has ended, or one has failed that may have left it broken, and stops its server then.
pub trait Harness: Sized + Send + Sync + 'static {
    /// The backend under test.
    type Backend: LockBackend;

    /// Starts a store. An error makes the run red: a store that cannot be started is never a
    /// silent pass.
    fn start() -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Connects a new, independent client to the store, through these addresses: the store's own
    /// [`endpoints`](Self::endpoints), or those of the suite's fault proxy in front of them, in
    /// the same order. Stores without endpoints get none.
    fn connect(
        &self,
        at: &[SocketAddr],
    ) -> impl Future<Output = Result<Self::Backend, BoxError>> + Send;

    /// The store's TCP endpoints. Without any, the cases about faults on the wire are reported as
    /// not applicable.
    fn endpoints(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Breaks or mends the server, and returns when it is done. `false`: this harness cannot, and
    /// the cases that need it are reported as not applicable.
    fn inflict(&self, fault: Fault) -> impl Future<Output = bool> + Send {
        let _ = fault;
        async { false }
    }

    /// Connects a *fixture client*: another implementation of the store's record format, of as
    /// little code as it takes, which writes and reads the frozen records by commands of the
    /// driver and shares nothing with the backend. The cases of the group `formats` have both
    /// exclude each other. `None`: there is none, and they are reported as not applicable.
    ///
    /// Its `watch` may never resolve, and its `list` show nothing: they are not asked for.
    fn fixture(
        &self,
    ) -> impl Future<Output = Result<Option<Arc<dyn LockBackend>>, BoxError>> + Send {
        async { Ok(None) }
    }

    /// Whether the backend is made of several stores, each of which may fail alone; then it has
    /// two endpoints or more, or none, else every case fails. Some laws have a form of their own
    /// for these:
    ///
    /// - An attempt that some stores did not answer may be given up, with
    ///   [`BackendError::Unavailable`](lockcore::BackendError), also for a while after a loss of
    ///   data. It leaves leases that count for nothing and end with their ttl, and the holder asks
    ///   no more.
    /// - Of those who come at once nobody may win: what was rolled back contends for a moment. Who
    ///   asks again may be told what the attempt came to that its caller gave up.
    /// - A release may be answered while some stores still show the lease for a moment.
    /// - A token may be greater than the one asked for, or had before, on the real clock.
    ///
    /// The suite is gentler with them too: it makes fewer cuts within messages, looks again after
    /// 25 ms and not at once, claims for twice as long on a slow wire, and for longer where a
    /// request is held back.
    fn combined(&self) -> bool {
        false
    }

    /// Whether a release is signalled to those who watch. `false`: waiters poll, and the cases
    /// about signals are reported as not applicable.
    fn signals(&self) -> bool {
        true
    }

    /// Whether leases tell [how long the store has forgotten nothing](lockcore::Incarnation).
    /// `false`: they do not, and the cases about that are reported as not applicable. `true` makes
    /// them fail where a lease tells nothing.
    fn remembers(&self) -> bool {
        true
    }

    /// The clock that the store follows. Only a store inside this process, without endpoints, can
    /// follow the paused one; exact times are asserted there.
    fn clock() -> Clock {
        Clock::Real
    }

    /// Names the store for the report: which, its version, where it came from.
    fn about(&self) -> String {
        std::any::type_name::<Self::Backend>().to_owned()
    }
}

/// Which clock a store follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// tokio's clock, paused: a case takes no real time, and its times are exact.
    Paused,
    /// The clock on the wall.
    Real,
}

/// What can be done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Stop it where it stands, as SIGSTOP does: connections stay open, nothing answers.
    Pause,
    /// Let a paused server go on.
    Resume,
    /// End it at once, as SIGKILL does.
    Kill,
    /// Start a killed server again, at the same address.
    Restart,
    /// Make it forget all data.
    Wipe,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Wipe => "wipe",
        })
    }
}

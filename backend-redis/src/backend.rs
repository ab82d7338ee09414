//! The backend: each method is one script.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, Incarnation, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::answers::Answers;
use crate::builder::RedisBackendBuilder;
use crate::call::Call;
use crate::connected::Connected;
use crate::keys::Names;
use crate::memory::{self, Question};
use crate::route::{Lender, Ready, Route};
use crate::scripts::{ACQUIRE, HAND_OVER, INCARNATION, INSPECT, RELEASE, RENEW, Script};

const MIN_TTL: Duration = Duration::from_millis(10);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest place in a line. The scripts know it, and that a record outlives its lease by so
/// much at least.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Redis shows nothing that has expired, to the millisecond of the clock it read when it took up
/// the command; the rest is for that reading and for rounding.
const EXPIRY_LAG: Duration = Duration::from_millis(10);

/// Locks in Redis or Valkey.
///
/// Clones share one connection, which carries all calls and, with RESP3, the release signals too.
/// It is opened again at the next call after it broke or fell silent. See the [crate
/// documentation](crate) for URLs, guarantees, and the rights a user needs.
///
/// # Errors
///
/// Every method answers as the laws of [`LockBackend`] say. The driver's
/// [`RedisError`] is among the sources of a [`BackendError`], and is found by walking
/// [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct RedisBackend {
    pub(crate) route: Route,
    pub(crate) names: Names,
    retention: Retention,
    /// Where this process hears whose turn it is: its part of the channel's name.
    process: Arc<str>,
}

/// For how long a token outlives its lease.
#[derive(Clone)]
struct Retention {
    millis: u64,
    /// In the digits of a record, and in those of a number.
    padded: Arc<str>,
    plain: Arc<str>,
}

impl RedisBackend {
    /// Connects to the server at a URL, with the defaults of the [builder](Self::builder).
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for a URL that cannot be used, [`BackendError::Unavailable`]
    /// where no server answers, [`BackendError::Rejected`] where one refuses: a wrong password, a
    /// certificate that is not trusted, something that is not Redis.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, BackendError> {
        Self::builder(url).connect().await
    }

    /// Settings for a connection to the server at a URL.
    pub fn builder(url: impl AsRef<str>) -> RedisBackendBuilder {
        RedisBackendBuilder::new(url)
    }

    /// Uses the address, user, TLS and TCP settings of a client of the driver's, and connects at
    /// the first call. The connection is this backend's own: see
    /// [`RedisBackendBuilder::from_client`].
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] when the client's settings cannot be used.
    pub fn from_client(client: redis::Client) -> Result<Self, BackendError> {
        RedisBackendBuilder::from_client(client).build()
    }

    /// Asks over a connection of the caller's, such as a `ConnectionManager` or a cluster
    /// connection. Waiting then polls, and a lease's incarnation is `None`: see [`RedisBackendBuilder::from_connection`].
    pub fn from_connection<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        RedisBackendBuilder::lent(Arc::new(Lender(connection)))
    }

    pub(crate) fn new(route: Route, names: Names, retention: Duration, process: &str) -> Self {
        let millis = millis(retention.max(MAX_WAIT));
        let retention = Retention {
            millis,
            padded: format!("{millis:013}").into(),
            plain: millis.to_string().into(),
        };
        Self { route, names, retention, process: process.into() }
    }

    pub(crate) fn padded_retention(&self) -> &str {
        &self.retention.padded
    }

    pub(crate) async fn ready(&self) -> Result<Ready, BackendError> {
        self.route.ready().await
    }

    /// Runs a script, and then asks for the incarnation where the claim wants it: in this order,
    /// so that a store which lost its data in between does not vouch for the lease.
    async fn grant(
        &self,
        ready: &mut Ready,
        script: &Script,
        call: Cmd,
        claim: &Claim,
    ) -> (Result<Value, RedisError>, Option<Incarnation>) {
        // A connection of the caller's may lead anywhere, and next time to another server.
        let Some(connected) = ready.connected.clone().filter(|_| claim.incarnation) else {
            return (ready.run(script, &call).await, None);
        };
        let mut calls = Pipeline::with_capacity(2);
        calls.add_command(call);
        let (question, ask) = connected.memory.question(&self.names.incarnation());
        calls.add_command(ask);
        let mut answers = match ready.run_all(&calls).await {
            Ok(answers) => answers.into_iter(),
            Err(error) => return (Err(error), None),
        };
        let answer = answers.next().unwrap_or(Ok(Value::Okay));
        let told = answers.next().unwrap_or(Ok(Value::Nil));
        (answer, self.incarnation(ready, &connected, &question, told).await)
    }

    /// The incarnation, from the answer to a question about it. It is asked in full where the
    /// record is not the one that is known.
    pub(crate) async fn incarnation(
        &self,
        ready: &mut Ready,
        connected: &Connected,
        question: &Question,
        answer: Result<Value, RedisError>,
    ) -> Option<Incarnation> {
        if let Question::Same = question {
            if let Some(same) = connected.memory.same(&answer) {
                return Some(same);
            }
            let ask = memory::in_full(&self.names.incarnation());
            let answer = ready.run(&INCARNATION, &ask).await;
            return connected.memory.learn(answer, connected.facts.uptime());
        }
        connected.memory.learn(answer, connected.facts.uptime())
    }

    fn renew_call(&self, claim: &Claim) -> Cmd {
        let mut call = Call::new(&RENEW, 1, 4);
        call.record(&self.names, &claim.key).holder(claim.holder).number(stored_millis(claim.ttl));
        call.text(&self.retention.padded).least_token(claim);
        call.done()
    }

    pub(crate) fn inspect_call(&self, key: &LockKey) -> Cmd {
        let mut call = Call::new(&INSPECT, 1, 0);
        call.record(&self.names, key);
        call.done()
    }

    /// Reads the answers to a call about a claim's record.
    pub(crate) fn answers<'a>(&'a self, call: &'static str, claim: &'a Claim) -> Answers<'a> {
        let ttl = Duration::from_millis(millis(claim.ttl));
        Answers { call, names: &self.names, key: &claim.key, ttl }
    }

    /// What follows the holder in its place, if the claim waits.
    fn add_place(&self, call: &mut Call, ready: &Ready, claim: &Claim) {
        let Some(wait) = claim.wait else { return };
        let listens = ready.connected.as_ref().is_some_and(|it| it.listens(claim.holder));
        let channel = format!("{}{}", self.process, if listens { 'p' } else { '-' });
        call.number(stored_millis(wait)).text(&channel);
    }
}

/// Whole milliseconds, rounded up: a lease never ends before what was claimed.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The same for the store, which counts from the start of the millisecond of its clock.
pub(crate) fn stored_millis(ttl: Duration) -> u64 {
    millis(ttl) + 1
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("server", &self.route)
            .field("prefix", &self.names.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for RedisBackend {
    fn limits(&self) -> Limits {
        Limits::new(MIN_TTL, MAX_TTL).with_expiry_lag(EXPIRY_LAG).with_line(MAX_WAIT)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        let mut ready = self.ready().await?;
        let ttl = stored_millis(claim.ttl);
        let mut call = Call::new(&ACQUIRE, 1, 8);
        call.record(&self.names, &claim.key).holder(claim.holder).number(ttl);
        call.text(&self.retention.padded).number(ttl + self.retention.millis);
        call.text(&claim.label).least_token(claim);
        self.add_place(&mut call, &ready, claim);
        let call = call.done();
        let (answer, incarnation) = self.grant(&mut ready, &ACQUIRE, call, claim).await;
        self.answers("an acquire", claim).acquire(answer, incarnation)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        let mut ready = self.ready().await?;
        let call = self.renew_call(claim);
        let (answer, incarnation) = self.grant(&mut ready, &RENEW, call, claim).await;
        self.answers("a renewal", claim).renew(answer, incarnation)
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        self.renew_all(claims).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        let mut call = Call::new(&RELEASE, 1, 4);
        call.record(&self.names, &claim.key).holder(claim.holder);
        call.text(&self.retention.padded).text(&self.retention.plain);
        call.text(if claim.announce { "1" } else { "" });
        let answer = self.ready().await?.run(&RELEASE, &call.done()).await;
        self.answers("a release", claim).release(answer)
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.limits().check(from)?;
        self.limits().check(to)?;
        let mut ready = self.ready().await?;
        let ttl = stored_millis(to.ttl);
        let mut call = Call::new(&HAND_OVER, 1, 10);
        call.record(&self.names, &from.key).holder(from.holder).holder(to.holder).number(ttl);
        call.text(&self.retention.padded).number(ttl + self.retention.millis);
        call.text(&to.label).least_token(to).text(if over { "1" } else { "0" });
        self.add_place(&mut call, &ready, to);
        let call = call.done();
        let (answer, incarnation) = self.grant(&mut ready, &HAND_OVER, call, to).await;
        self.answers("a hand-over", to).hand_over(answer, incarnation)
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        match self.ready().await?.connected {
            Some(connected) if claim.wait.is_some() => connected.watch_turn(claim.holder).await,
            Some(connected) => connected.watch_releases(self.names.released(&claim.key)).await,
            None => Ok(ReleaseSignal::never()),
        }
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let answer = self.ready().await?.run(&INSPECT, &self.inspect_call(key)).await;
        Answers::question("an inspection", &self.names, key).inspect(answer)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.all(prefix, after, limit).await
    }
}

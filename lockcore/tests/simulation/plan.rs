//! What a run is made of.

use std::time::{Duration, SystemTime};

use lockcore::MemoryBackend;
use lockcore::simulation::Flaw;

pub(crate) const CLIENTS: usize = 4;
pub(crate) const KEYS: [&str; 3] = ["a", "b", "c"];
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// The core's default for this ttl.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_nanos(1_666_666_666);
pub(crate) const RENEW_EVERY: Duration = Duration::from_nanos(3_333_333_333);
/// The core's default.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(10);

/// How late the network may deliver a request: a lease which has ended may be asked for once more.
pub(crate) const LATEST: Duration = Duration::from_secs(25);

/// How long a lease may be believed in, counted from the request.
pub(crate) fn useful() -> Duration {
    TTL - (TTL / 100 + Duration::from_millis(2))
}

/// What a run is rich in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Any,
    /// Copies of requests to acquire come often and late, nobody renews, and guards are kept for long
    /// or not at all.
    LateCopies,
    /// Runtimes stall often, and no request is lost.
    Stalls,
}

/// One run. The same plan gives the same run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long clients work, in virtual seconds.
    pub(crate) seconds: u64,
    pub(crate) shape: Shape,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) trace: bool,
}

impl Plan {
    /// A run of the core as it is.
    pub(crate) fn new(seed: u64, seconds: u64) -> Self {
        Self { seed, seconds, shape: Shape::Any, flaw: None, trace: false }
    }

    pub(crate) fn store(&self) -> MemoryBackend {
        MemoryBackend::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }
}

/// How one client has set its manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) renews: bool,
    pub(crate) max_hold: Option<Duration>,
}

impl Settings {
    pub(crate) fn draw(random: &mut fastrand::Rng, plan: &Plan) -> Self {
        Self {
            renews: random.u8(..5) > 0 && plan.shape != Shape::LateCopies,
            max_hold: (random.u8(..5) == 0).then(|| Duration::from_secs(random.u64(3..30))),
        }
    }
}

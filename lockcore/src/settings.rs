//! The durations a manager works with, validated once.

use std::time::Duration;

use crate::claim::{self, Limits};
use crate::error::InvalidInput;

#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) ttl: Option<Duration>,
    pub(crate) renew_every: Option<Duration>,
    pub(crate) no_renewal: bool,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) poll_floor: Option<Duration>,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) label: Option<String>,
}

/// What [`Wishes`] come to on a store with certain limits.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Duration,
    /// `None`: leases are not renewed.
    pub(crate) renew_every: Option<Duration>,
    pub(crate) request_timeout: Duration,
    pub(crate) poll_floor: Duration,
    pub(crate) retry_for: Duration,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) label: String,
}

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_POLL_FLOOR: Duration = Duration::from_secs(1);
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

impl Settings {
    /// The wishes, with defaults for what was not wished. Only the default ttl bends to the
    /// store; what was asked for is taken or refused, by [`check`](Self::check).
    pub(crate) fn from_wishes(wishes: Wishes, limits: &Limits) -> Self {
        let ttl = wishes.ttl.unwrap_or_else(|| DEFAULT_TTL.max(limits.min_ttl).min(limits.max_ttl));
        let renew_every = wishes.renew_every.unwrap_or(ttl / 3);
        Self {
            ttl,
            renew_every: (!wishes.no_renewal).then_some(renew_every),
            request_timeout: wishes
                .request_timeout
                .unwrap_or_else(|| (ttl / 6).min(MAX_REQUEST_TIMEOUT)),
            poll_floor: wishes.poll_floor.unwrap_or(DEFAULT_POLL_FLOOR),
            retry_for: wishes.retry_for.unwrap_or(DEFAULT_RETRY_FOR),
            max_hold: wishes.max_hold,
            label: wishes.label.unwrap_or_else(default_label),
        }
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), InvalidInput> {
        limits.check_ttl(self.ttl)?;
        let useful = useful(self.ttl);
        for (name, duration) in
            [("renew_every", self.renew_every), ("request_timeout", Some(self.request_timeout))]
        {
            if duration.is_some_and(|duration| duration < TICK || duration >= useful) {
                return Err(InvalidInput::new(format!(
                    "{name} must be {TICK:?} or more, and less than the {useful:?} that a ttl of \
                     {:?} is good for",
                    self.ttl
                )));
            }
        }
        if self.poll_floor < TICK {
            return Err(InvalidInput::new(format!("poll_floor must be {TICK:?} or more")));
        }
        if self.max_hold.is_some_and(|max| max.is_zero()) {
            return Err(InvalidInput::new("max_hold must be more than zero"));
        }
        claim::check_label(&self.label)
    }
}

/// How long a lease of `ttl` may be believed in, counted from before it was asked for: less by
/// what the clocks of the store and of this machine may drift apart meanwhile, 1 % and 2 ms.
///
/// The margin is that of the Redlock algorithm (Redis documentation, "Distributed Locks with
/// Redis").
pub(crate) fn useful(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100 + Duration::from_millis(2))
}

/// Host and process, for people who inspect the store.
fn default_label() -> String {
    let pid = std::process::id();
    let mut label = format!("{}:{pid}", hostname());
    // A host name is at most 255 bytes; keep the pid, which is what tells processes apart.
    if label.len() > claim::Claim::MAX_LABEL || label.contains('\0') {
        label = format!("pid:{pid}");
    }
    label
}

#[cfg(unix)]
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn hostname() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60));

    fn checked(wishes: Wishes, limits: &Limits) -> Result<Settings, InvalidInput> {
        let settings = Settings::from_wishes(wishes, limits);
        settings.check(limits)?;
        Ok(settings)
    }

    fn with(change: impl FnOnce(&mut Wishes)) -> Result<Settings, InvalidInput> {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        checked(wishes, &LIMITS)
    }

    #[test]
    fn the_defaults_are_those_of_the_docs() {
        let settings = with(|_| {}).expect("defaults");
        assert_eq!(settings.ttl, Duration::from_secs(30));
        assert_eq!(settings.renew_every, Some(Duration::from_secs(10)));
        assert_eq!(settings.request_timeout, Duration::from_secs(2));
        assert_eq!(settings.poll_floor, Duration::from_secs(1));
        assert_eq!(settings.retry_for, Duration::from_secs(10));
        assert_eq!(settings.max_hold, None);
        assert!(settings.label.ends_with(&format!(":{}", std::process::id())));
        let short = with(|wishes| wishes.ttl = Some(Duration::from_secs(6))).expect("valid");
        assert_eq!(short.request_timeout, Duration::from_secs(1));
    }

    #[test]
    fn the_default_ttl_bends_to_the_store_and_a_wish_does_not() {
        let limits = Limits::new(Duration::from_secs(40), Duration::from_secs(50));
        let settings = checked(Wishes::default(), &limits).expect("defaults");
        assert_eq!(settings.ttl, Duration::from_secs(40));
        let wish = Wishes { ttl: Some(DEFAULT_TTL), ..Wishes::default() };
        assert!(checked(wish, &limits).is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for ttl in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
            assert!(with(|wishes| wishes.ttl = Some(ttl)).is_err(), "{ttl:?}");
        }
        for wrong in [Duration::ZERO, Duration::from_secs(30), Duration::MAX] {
            assert!(with(|wishes| wishes.renew_every = Some(wrong)).is_err(), "{wrong:?}");
            assert!(with(|wishes| wishes.request_timeout = Some(wrong)).is_err(), "{wrong:?}");
        }
        assert!(with(|wishes| wishes.poll_floor = Some(Duration::ZERO)).is_err());
        assert!(with(|wishes| wishes.max_hold = Some(Duration::ZERO)).is_err());
        assert!(with(|wishes| wishes.label = Some("x".repeat(257))).is_err());
        assert!(with(|wishes| wishes.retry_for = Some(Duration::ZERO)).is_ok());
        assert!(with(|wishes| wishes.retry_for = Some(Duration::MAX)).is_ok());
        assert!(with(|wishes| wishes.poll_floor = Some(Duration::MAX)).is_ok());
        assert!(with(|wishes| wishes.ttl = Some(Duration::from_millis(10))).is_ok());
    }

    #[test]
    fn a_lease_is_believed_in_for_less_than_its_ttl() {
        assert_eq!(useful(Duration::from_secs(10)), Duration::from_millis(9_898));
        assert_eq!(useful(Duration::from_millis(1)), Duration::ZERO);
    }
}

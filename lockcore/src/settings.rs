//! The durations a manager works with, validated once.

use std::sync::Arc;
use std::time::Duration;

use crate::claim::{self, Limits};
use crate::input::InvalidInput;
use crate::seams;

#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) ttl: Option<Duration>,
    pub(crate) renew_every: Option<Duration>,
    pub(crate) no_renewal: bool,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) poll_every: Option<Duration>,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) label: Option<String>,
}

/// What [`Overrides`] come to on a store with certain limits.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Duration,
    /// `None`: leases are not renewed.
    pub(crate) renew_every: Option<Duration>,
    pub(crate) request_timeout: Duration,
    pub(crate) poll_every: Duration,
    pub(crate) retry_for: Duration,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) label: Arc<str>,
}

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_POLL_EVERY: Duration = Duration::from_secs(1);
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

impl Settings {
    /// The overrides, with defaults for what was not wished. Only the default ttl bends to the
    /// store; what was asked for is taken or refused, by [`check`](Self::check).
    pub(crate) fn from_overrides(overrides: Overrides, limits: &Limits) -> Self {
        let ttl =
            overrides.ttl.unwrap_or_else(|| DEFAULT_TTL.max(limits.min_ttl).min(limits.max_ttl));
        let renew_every = overrides.renew_every.unwrap_or(ttl / 3);
        Self {
            ttl,
            renew_every: (!overrides.no_renewal).then_some(renew_every),
            request_timeout: overrides
                .request_timeout
                .unwrap_or_else(|| (ttl / 6).min(MAX_REQUEST_TIMEOUT)),
            poll_every: overrides.poll_every.unwrap_or(DEFAULT_POLL_EVERY),
            retry_for: overrides.retry_for.unwrap_or(DEFAULT_RETRY_FOR),
            max_hold: overrides.max_hold,
            label: overrides.label.unwrap_or_else(default_label).into(),
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
        if self.poll_every < TICK {
            return Err(InvalidInput::new(format!("poll_every must be {TICK:?} or more")));
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
    if seams::flawed!(NoDriftMargin) {
        return ttl;
    }
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

    fn checked(overrides: Overrides, limits: &Limits) -> Result<Settings, InvalidInput> {
        let settings = Settings::from_overrides(overrides, limits);
        settings.check(limits)?;
        Ok(settings)
    }

    fn with(change: impl FnOnce(&mut Overrides)) -> Result<Settings, InvalidInput> {
        let mut overrides = Overrides::default();
        change(&mut overrides);
        checked(overrides, &LIMITS)
    }

    #[test]
    fn the_defaults_are_those_of_the_docs() {
        let settings = with(|_| {}).expect("defaults");
        assert_eq!(settings.ttl, Duration::from_secs(30));
        assert_eq!(settings.renew_every, Some(Duration::from_secs(10)));
        assert_eq!(settings.request_timeout, Duration::from_secs(2));
        assert_eq!(settings.poll_every, Duration::from_secs(1));
        assert_eq!(settings.retry_for, Duration::from_secs(10));
        assert_eq!(settings.max_hold, None);
        assert!(settings.label.ends_with(&format!(":{}", std::process::id())));
        let short = with(|overrides| overrides.ttl = Some(Duration::from_secs(6))).expect("valid");
        assert_eq!(short.request_timeout, Duration::from_secs(1));
    }

    #[test]
    fn the_default_ttl_bends_to_the_store_and_a_wish_does_not() {
        let limits = Limits::new(Duration::from_secs(40), Duration::from_secs(50));
        let settings = checked(Overrides::default(), &limits).expect("defaults");
        assert_eq!(settings.ttl, Duration::from_secs(40));
        let overridden = Overrides { ttl: Some(DEFAULT_TTL), ..Overrides::default() };
        assert!(checked(overridden, &limits).is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for ttl in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
            assert!(with(|overrides| overrides.ttl = Some(ttl)).is_err(), "{ttl:?}");
        }
        for wrong in [Duration::ZERO, Duration::from_secs(30), Duration::MAX] {
            assert!(with(|overrides| overrides.renew_every = Some(wrong)).is_err(), "{wrong:?}");
            assert!(
                with(|overrides| overrides.request_timeout = Some(wrong)).is_err(),
                "{wrong:?}"
            );
        }
        assert!(with(|overrides| overrides.poll_every = Some(Duration::ZERO)).is_err());
        assert!(with(|overrides| overrides.max_hold = Some(Duration::ZERO)).is_err());
        assert!(with(|overrides| overrides.label = Some("x".repeat(257))).is_err());
        assert!(with(|overrides| overrides.retry_for = Some(Duration::ZERO)).is_ok());
        assert!(with(|overrides| overrides.retry_for = Some(Duration::MAX)).is_ok());
        assert!(with(|overrides| overrides.poll_every = Some(Duration::MAX)).is_ok());
        assert!(with(|overrides| overrides.ttl = Some(Duration::from_millis(10))).is_ok());
    }

    #[test]
    fn a_lease_is_believed_in_for_less_than_its_ttl() {
        assert_eq!(useful(Duration::from_secs(10)), Duration::from_millis(9_898));
        assert_eq!(useful(Duration::from_millis(1)), Duration::ZERO);
    }
}

//! Whether a history may have been: what is surely wrong, and nothing that is only odd.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;

use super::{Answer, Call, Event, Log, Relied, Verb};
use crate::case::Failure;

/// One key's part of a history.
struct OfKey<'a> {
    calls: Vec<&'a Call>,
    holders: HashMap<usize, Vec<&'a Call>>,
    relied: Vec<&'a Relied>,
    /// When something was done to the server, from the beginning to the end of doing it.
    faults: Vec<(u64, u64)>,
    lag: u64,
    combined: bool,
}

/// Two things that cannot both have been.
type Contradiction = (&'static str, String, String);

fn contradiction(
    what: &'static str,
    one: &dyn Display,
    other: &dyn Display,
) -> Result<(), Contradiction> {
    Err((what, one.to_string(), other.to_string()))
}

impl Log {
    pub(super) fn check(&self) -> Result<(), Failure> {
        let keys: BTreeSet<usize> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Call(call) => Some(call.key),
                Event::Relied(relied) => Some(relied.key),
                Event::Fault { .. } => None,
            })
            .collect();
        for key in keys {
            let log = self.of_key(key);
            OfKey::new(&log).check().map_err(|(what, one, other)| {
                Failure::new(format!("the history: {what}\n    {one}\n    {other}\n{log}"))
            })?;
        }
        Ok(())
    }
}

impl Call {
    /// The token and ttl that were granted, and when that was known.
    fn granted(&self) -> Option<(u64, u64, u64)> {
        match self.answer {
            Answer::Granted { token, ttl } => Some((token, ttl, self.answered?)),
            _ => None,
        }
    }

    /// It took place before `time`, whatever it did.
    fn surely_over_by(&self, time: u64) -> bool {
        let known = !matches!(self.answer, Answer::Open | Answer::Ambiguous);
        known && self.answered.is_some_and(|answered| answered <= time)
    }
}

impl<'a> OfKey<'a> {
    fn new(log: &'a Log) -> Self {
        let mut this = Self {
            calls: Vec::new(),
            holders: HashMap::new(),
            relied: Vec::new(),
            faults: Vec::new(),
            lag: log.lag.saturating_add(log.slack),
            combined: log.combined,
        };
        for event in &log.events {
            match event {
                Event::Call(call) => {
                    this.calls.push(call);
                    this.holders.entry(call.holder).or_default().push(call);
                }
                Event::Relied(relied) => this.relied.push(relied),
                Event::Fault { began, done, .. } => {
                    this.faults.push((*began, done.unwrap_or(u64::MAX)));
                }
            }
        }
        this
    }

    fn check(&self) -> Result<(), Contradiction> {
        self.exclusion()?;
        self.tokens()?;
        self.contended_for_a_reason()?;
        self.released_its_token()?;
        self.released_is_over()?;
        self.stretches()
    }

    fn of_holder(
        &self,
        holder: usize,
        wanted: impl Fn(Verb) -> bool,
    ) -> impl Iterator<Item = &'a Call> {
        let calls = self.holders.get(&holder).into_iter().flatten();
        calls.copied().filter(move |call| wanted(call.verb))
    }

    /// Until when a granted lease surely stood: as long as whoever has it may believe in it.
    fn surely_until(&self, call: &Call, ttl: u64) -> u64 {
        let useful = ttl.saturating_sub(ttl / 100 + 2_000);
        let mut until = call.invoked.saturating_add(useful);
        for release in self.of_holder(call.holder, Verb::ends) {
            if !release.surely_over_by(call.invoked) {
                until = until.min(release.invoked);
            }
        }
        for &(began, done) in &self.faults {
            if done >= call.invoked {
                until = until.min(began);
            }
        }
        until
    }

    /// L1: nobody is granted what another surely has.
    fn exclusion(&self) -> Result<(), Contradiction> {
        for first in &self.calls {
            let Some((_, ttl, known)) = first.granted() else { continue };
            let until = self.surely_until(first, ttl);
            for second in &self.calls {
                let Some((_, _, answered)) = second.granted() else { continue };
                let within = second.invoked >= known && answered <= until;
                if second.holder != first.holder && within {
                    return contradiction("two holders at once", first, second);
                }
            }
        }
        Ok(())
    }

    /// L5: whoever asks later gets a greater token, and no two get the same.
    fn tokens(&self) -> Result<(), Contradiction> {
        for first in &self.calls {
            let Some((before, _, known)) = first.granted() else { continue };
            for second in self.calls.iter().filter(|call| call.verb.asks()) {
                let Some((after, _, answered)) = second.granted() else { continue };
                let same_holder = first.holder == second.holder;
                let wrong = match second.invoked >= known {
                    true if same_holder => after < before,
                    true => after <= before,
                    false => after == before && !same_holder,
                };
                if wrong && !self.forgotten(first.invoked, answered) {
                    return contradiction("tokens fell", first, second);
                }
            }
        }
        Ok(())
    }

    /// Over a loss of data tokens rise by the clock alone: not where one was raised ahead of it.
    fn forgotten(&self, from: u64, to: u64) -> bool {
        let fault = self.faults.iter().any(|&(began, done)| began <= to && done >= from);
        fault && self.calls.iter().any(|call| call.floor > 0 && call.invoked <= to)
    }

    /// Contended is the answer for a key that another has, and may have for a moment longer.
    fn contended_for_a_reason(&self) -> Result<(), Contradiction> {
        for call in self.calls.iter().filter(|call| call.answer == Answer::Contended) {
            let Some(answered) = call.answered else { continue };
            let asked = self.asked(call);
            let reason = self.calls.iter().any(|other| {
                other.holder != call.holder
                    && other.invoked <= answered
                    && self.may_stand(other, asked)
            });
            if !reason {
                return contradiction("contended, and nobody can have it", call, &"");
            }
        }
        Ok(())
    }

    /// When an attempt began that this call had the answer to. A combination goes on with one whose
    /// caller has gone, and tells who asks again what it came to.
    fn asked(&self, call: &Call) -> u64 {
        let earlier = self.of_holder(call.holder, Verb::asks).filter(|earlier| {
            self.combined && earlier.answered.is_none() && earlier.invoked < call.invoked
        });
        earlier.map(|earlier| earlier.invoked).min().unwrap_or(call.invoked)
    }

    /// Whether what a call got, a lease or a place in line, may stand at `time` or later.
    fn may_stand(&self, call: &Call, time: u64) -> bool {
        let Some(answered) = call.answered else { return !call.verb.ends() };
        let lasts = |length: u64| answered.saturating_add(length).saturating_add(self.lag) >= time;
        match call.answer {
            Answer::Ambiguous => !call.verb.ends(),
            Answer::Granted { ttl, .. } => self.lasts(call, answered, ttl, time),
            // Of stores made of several: what was rolled back, and whoever asked meanwhile.
            Answer::Unavailable => self.combined && call.verb == Verb::Acquire && lasts(call.ttl),
            // And what a slow store of them was asked for: it is taken back when that has answered.
            Answer::Contended => {
                self.combined && lasts(0)
                    || call.wait > 0 && self.lasts(call, answered, call.wait, time)
            }
            Answer::Open | Answer::Released { .. } | Answer::NotHeld | Answer::Refused => false,
        }
    }

    /// Whether what was answered for so long may stand at `time` or later.
    fn lasts(&self, call: &Call, answered: u64, length: u64, time: u64) -> bool {
        let released = self.of_holder(call.holder, Verb::ends).any(|release| {
            release.invoked >= answered
                && release.surely_over_by(time.saturating_sub(1))
                && matches!(release.answer, Answer::Released { .. } | Answer::NotHeld)
        });
        // A server that stood still or came back may keep it for longer.
        let prolonged = self.faults.iter().any(|&(_, done)| done >= call.invoked);
        let ends = answered.saturating_add(length).saturating_add(self.lag);
        !released && (prolonged || ends >= time)
    }

    /// A release tells a token that its holder had.
    fn released_its_token(&self) -> Result<(), Contradiction> {
        for release in &self.calls {
            let (Answer::Released { token: Some(token) }, Some(answered)) =
                (release.answer, release.answered)
            else {
                continue;
            };
            let mut known = true;
            let mut last = None;
            let before = self.of_holder(release.holder, |verb| !verb.ends());
            for call in before.filter(|call| call.invoked <= answered) {
                match call.granted() {
                    Some((granted, _, _)) if granted == token => known = false,
                    Some(_) => last = Some(call),
                    // It may have been granted, or raised, without anybody hearing of it.
                    None => known &= call.surely_over_by(answered),
                }
            }
            if let (true, Some(last), false) = (known, last, self.combined) {
                return contradiction("released a token that was not granted", last, release);
            }
        }
        Ok(())
    }

    /// L4, L6: once a holder was released it has nothing, unless it asked again.
    fn released_is_over(&self) -> Result<(), Contradiction> {
        for release in self.calls.iter().filter(|call| call.verb.ends()) {
            let Some(known) = release.answered else { continue };
            if !matches!(release.answer, Answer::Released { .. } | Answer::NotHeld) {
                continue;
            }
            let asked = self
                .of_holder(release.holder, Verb::asks)
                .any(|acquire| !acquire.surely_over_by(release.invoked));
            let later = self
                .calls
                .iter()
                .filter(|call| call.holder == release.holder && call.invoked >= known && !asked);
            for call in later {
                match (call.verb, call.answer) {
                    (Verb::Renew, Answer::Granted { .. }) => {
                        return contradiction("renewed after its release", release, call);
                    }
                    (Verb::Release, Answer::Released { .. }) => {
                        return contradiction("released twice", release, call);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Nobody relied on the lock while another did, and their tokens rose.
    fn stretches(&self) -> Result<(), Contradiction> {
        let mut all = self.relied.clone();
        all.sort_by_key(|relied| relied.began);
        for pair in all.windows(2) {
            let [first, second] = pair else { continue };
            if second.began < first.ended {
                return contradiction("two relied on it at once", first, second);
            }
            if second.token <= first.token {
                return contradiction("tokens fell", first, second);
            }
        }
        // The order above is that of the grants' arrival; this one that of real time.
        for later in &all {
            for earlier in &all {
                if earlier.began < later.asked && earlier.token >= later.token {
                    return contradiction("tokens fell", earlier, later);
                }
            }
        }
        Ok(())
    }
}

//! What a process does next, by the answers that it hears.

use crate::flaw::Flaw;
use crate::store::{Answer, Ask, Key, Side, Verb};
use crate::world::{AWAY, At, LOCK, PHASE, World};

impl World {
    fn ask(&mut self, n: usize, next: At, at: Side, verb: Verb, key: Key, least: u8) {
        let process = &mut self.processes[n];
        process.at = next;
        // One holder for all, except for what is locked.
        let holder = if key == Key::Locked { process.holder } else { 0 };
        process.ask = Some(Ask { at, verb, key, holder, least });
        process.answer = None;
    }

    fn own(&self, n: usize) -> Side {
        self.processes[n].phase.unwrap_or(Side::Old)
    }

    pub(crate) fn find_phase(&mut self, n: usize) {
        let own = self.own(n);
        self.processes[n].began = self.now;
        self.ask(n, At::FindsPhase, own, Verb::Look, Key::Phase(own), 0);
    }

    pub(crate) fn renew(&mut self, n: usize) {
        let own = self.own(n);
        self.processes[n].began = self.now;
        self.ask(n, At::RenewsPhase, own, Verb::Renew, Key::Phase(own), 0);
    }

    pub(crate) fn lock(&mut self, n: usize, flaw: Option<Flaw>) {
        let stands = self.processes[n].until >= self.now + LOCK;
        let stands =
            stands || flaw == Some(Flaw::LocksOutlive) && self.processes[n].until >= self.now;
        if self.processes[n].phase.is_some() && !stands {
            return;
        }
        self.holders += 1;
        let process = &mut self.processes[n];
        (process.holder, process.began) = (self.holders, self.now);
        let floor = if flaw == Some(Flaw::NoFloor) { 0 } else { process.floor };
        match process.phase {
            Some(own) => self.ask(n, At::Locks, own, Verb::Take, Key::Locked, floor),
            None => self.ask(n, At::LocksFirst, Side::Old, Verb::Take, Key::Locked, 0),
        }
    }

    pub(crate) fn unlock(&mut self, n: usize) {
        let process = &mut self.processes[n];
        process.guard = None;
        let (holder, phase) = (process.holder, process.phase);
        for side in [Side::Old, Side::New] {
            if phase.is_none_or(|phase| phase == side) {
                let ask = self.of_lock(side, Verb::Release, holder, 0);
                let now = self.now;
                self.store(side).execute(ask, now);
            }
        }
    }

    pub(crate) fn leave(&mut self, n: usize, flaw: Option<Flaw>) {
        let (phase, run) = (self.processes[n].phase, self.processes[n].run);
        self.unlock(n);
        self.end(n);
        let Some(own) = phase else { return };
        let others = self
            .processes
            .iter()
            .any(|other| other.phase == phase && other.at == At::Running && other.run == run);
        if flaw == Some(Flaw::LeavingReleases) || flaw == Some(Flaw::LastOutReleases) && !others {
            self.give_back(own);
        }
    }

    pub(crate) fn end(&mut self, n: usize) {
        let process = &mut self.processes[n];
        (process.at, process.guard, process.good, process.ask) = (At::Idle, None, None, None);
        (process.ceiling, process.floor, process.until) = (0, 0, 0);
    }

    fn give_back(&mut self, own: Side) {
        let key = Key::Phase(own);
        let ask = Ask { at: own, verb: Verb::Release, key, holder: 0, least: 0 };
        let now = self.now;
        self.store(own).execute(ask, now);
    }

    fn refused(&mut self, n: usize, flaw: Option<Flaw>) {
        let registered = matches!(self.processes[n].at, At::Looks);
        if flaw == Some(Flaw::RefusedReleases) && registered {
            self.give_back(self.own(n));
        }
        self.processes[n].until = 0;
        self.processes[n].at =
            if flaw == Some(Flaw::ComesBackForEver) { At::Idle } else { At::Out };
        if self.processes[n].at == At::Idle {
            self.lost(n, flaw);
        }
    }

    /// It has lost its phase, or could not enter it: it does so anew.
    fn lost(&mut self, n: usize, flaw: Option<Flaw>) {
        let away = self.is_away(n) && flaw != Some(Flaw::ComesBackForEver);
        let process = &mut self.processes[n];
        (process.until, process.ceiling) = (0, 0);
        if away {
            process.at = At::Out;
        } else if process.good.is_some() && flaw == Some(Flaw::AcquiresWithoutLook) {
            self.register(n);
        } else {
            self.find_phase(n);
        }
    }

    fn is_away(&self, n: usize) -> bool {
        self.processes[n].good.is_some_and(|good| self.now > good + AWAY)
    }

    fn look(&mut self, n: usize, next: At) {
        let other = self.own(n).other();
        self.ask(n, next, other, Verb::Look, Key::Phase(other), 0);
    }

    fn register(&mut self, n: usize) {
        let own = self.own(n);
        self.processes[n].began = self.now;
        self.ask(n, At::Registers, own, Verb::Take, Key::Phase(own), 0);
    }

    fn mark(&mut self, n: usize) {
        self.ask(n, At::Marks, Side::Old, Verb::Take, Key::Mark, 0);
    }

    fn find_floor(&mut self, n: usize) {
        let other = self.own(n).other();
        self.ask(n, At::Floor, other, Verb::Take, Key::Ceiling, 0);
    }

    fn confirm(&mut self, n: usize) {
        let (own, run, floor) = (self.own(n), self.processes[n].run, self.processes[n].floor);
        if self.processes[n].began + PHASE <= self.now {
            return self.lost(n, None);
        }
        self.ask(n, At::Confirms, own, Verb::Take, Key::Within(own, run), floor);
    }

    /// It is in its phase from now on.
    fn entered(&mut self, n: usize, flaw: Option<Flaw>) {
        let unchecked = [Some(Flaw::AwayBeforeOnly), Some(Flaw::ComesBackForEver)].contains(&flaw);
        if self.is_away(n) && !unchecked {
            self.processes[n].at = At::Out;
            return;
        }
        let now = self.now;
        let process = &mut self.processes[n];
        let late = flaw == Some(Flaw::BeliefFromAnswer);
        process.until = if late { now } else { process.began } + PHASE;
        process.good = Some(process.began);
        process.at = At::Running;
    }

    /// The key is locked in `token`, once the store knows of a greater ceiling.
    fn cover(&mut self, n: usize, flaw: Option<Flaw>) {
        let (own, process) = (self.own(n), &self.processes[n]);
        if process.ceiling > process.token || flaw == Some(Flaw::CeilingForgotten) {
            return self.hold(n);
        }
        let least = process.token + 1;
        self.ask(n, At::Raises { taken: false }, own, Verb::Renew, Key::Ceiling, least);
    }

    /// The next step, after an answer or none.
    pub(crate) fn heard(&mut self, n: usize, ask: Ask, answer: Option<Answer>, flaw: Option<Flaw>) {
        let is = |other| flaw == Some(other);
        let own = self.own(n);
        let at = self.processes[n].at;
        let Some(answer) = answer else { return self.unheard(n, at, flaw) };
        match (at, answer) {
            (At::FindsPhase, Some(run)) => {
                self.processes[n].run = run;
                // Any run that was confirmed once, or this one.
                let any = is(Flaw::ConfirmationNotTied) && run > 1;
                let run = if any { run - 1 } else { run };
                if is(Flaw::JoinsUnconfirmed) {
                    let run = self.processes[n].run;
                    self.processes[n].began = self.now;
                    self.processes[n].run = run;
                    return self.ask(n, At::Joins, own, Verb::Renew, Key::Phase(own), 0);
                }
                self.ask(n, At::FindsRun, own, Verb::Look, Key::Within(own, run), 0);
            }
            (At::FindsRun, Some(floor)) => {
                let process = &mut self.processes[n];
                let keeps = is(Flaw::FloorKept) && process.floor > 0;
                process.floor = match (is(Flaw::JoinsWithoutFloor), keeps) {
                    (true, _) => 0,
                    (_, true) => process.floor,
                    _ => floor,
                };
                process.began = self.now;
                self.ask(n, At::Joins, own, Verb::Renew, Key::Phase(own), 0);
            }
            (At::Joins, Some(run)) if run == self.processes[n].run => {
                if is(Flaw::ConfirmationNotTied) || is(Flaw::JoinsUnconfirmed) {
                    return self.entered(n, flaw);
                }
                self.ask(n, At::JoinsRun, own, Verb::Renew, Key::Within(own, run), 0);
            }
            (At::JoinsRun, Some(_)) => self.entered(n, flaw),
            (At::FindsPhase | At::FindsRun | At::Joins | At::JoinsRun, _) => {
                if is(Flaw::LooksBeforeOnly) || !self.processes[n].good.is_some_and(|_| false) {
                    self.look(n, At::LooksFirst);
                }
            }
            (At::LooksFirst | At::Looks, Some(_)) => self.refused(n, flaw),
            (At::LooksFirst, None) => {
                if own == Side::New && !is(Flaw::PlainUnseen) {
                    let other = own.other();
                    return self.ask(n, At::LooksForPlain, other, Verb::Look, Key::Locked, 0);
                }
                self.register(n);
            }
            // Held in the store being left: by a process in both, or by a plain one.
            (At::LooksForPlain, held) => {
                let in_both = self.stores[1].holder(Key::Locked, self.now).is_some();
                if held.is_some() && !in_both {
                    return self.refused(n, flaw);
                }
                self.register(n);
            }
            (At::Registers, Some(run)) => {
                let again = self.processes[n].good.is_some();
                self.processes[n].run = run;
                if again && is(Flaw::AcquiresWithoutLook) {
                    return self.confirm(n);
                }
                match (own, is(Flaw::LooksBeforeOnly), is(Flaw::CeilingBeforeLook)) {
                    (_, true, _) | (_, _, true) => self.find_floor(n),
                    (Side::New, ..) if !is(Flaw::MarkAfterLook) => self.mark(n),
                    _ => self.look(n, At::Looks),
                }
            }
            (At::Marks, Some(_)) if is(Flaw::MarkAfterLook) => self.find_floor(n),
            (At::Marks, Some(_)) => self.look(n, At::Looks),
            (At::Looks, None) if is(Flaw::CeilingBeforeLook) => self.confirm(n),
            (At::Looks, None) if is(Flaw::MarkAfterLook) && own == Side::New => self.mark(n),
            (At::Looks, None) => self.find_floor(n),
            // Nobody ran in `New`: there is no floor to find.
            (At::Unmarked { registered: false }, None) => self.register(n),
            (At::Unmarked { registered: true }, None) => {
                self.processes[n].floor = 0;
                self.confirm(n);
            }
            (At::Floor, Some(ceiling)) => {
                let process = &mut self.processes[n];
                if !(is(Flaw::FloorKept) && process.floor > 0) {
                    process.floor = ceiling + 1;
                }
                if is(Flaw::CeilingBeforeLook) {
                    return self.look(n, At::Looks);
                }
                self.confirm(n);
            }
            (At::Confirms, Some(floor)) => {
                let process = &mut self.processes[n];
                process.floor = if is(Flaw::FloorKept) { process.floor } else { floor };
                self.entered(n, flaw);
            }
            (At::RenewsPhase, Some(run)) => {
                if run != self.processes[n].run && !is(Flaw::TokenNotCompared) {
                    return self.lost(n, flaw);
                }
                let process = &mut self.processes[n];
                process.run = run;
                if is(Flaw::TokenNotCompared) {
                    return self.entered(n, flaw);
                }
                self.ask(n, At::RenewsRun, own, Verb::Renew, Key::Within(own, run), 0);
            }
            (At::RenewsRun, Some(_)) => {
                self.entered(n, None.or(flaw.filter(|flaw| *flaw == Flaw::BeliefFromAnswer)));
            }
            (At::Locks, Some(token)) => {
                self.processes[n].token = token;
                self.cover(n, flaw);
            }
            (At::Raises { .. }, Some(ceiling)) => {
                self.processes[n].ceiling = ceiling;
                self.cover(n, flaw);
            }
            (At::Raises { taken: false }, None) => {
                self.ask(n, At::Raises { taken: true }, own, Verb::Take, Key::Ceiling, ask.least);
            }
            (At::LocksFirst, Some(token)) => {
                self.processes[n].token = token;
                self.ask(n, At::LocksSecond, Side::New, Verb::Take, Key::Locked, token);
            }
            (At::LocksSecond, Some(token)) if token > self.processes[n].token => {
                self.processes[n].token = token;
                self.ask(n, At::RaisesFirst, Side::Old, Verb::Renew, Key::Locked, token);
            }
            (At::LocksSecond | At::RaisesFirst, Some(token))
                if token == self.processes[n].token =>
            {
                self.hold(n);
            }
            (At::LocksFirst | At::LocksSecond | At::RaisesFirst, _) => {
                self.unlock(n);
                self.processes[n].at = At::Running;
            }
            (At::RenewsPhase | At::RenewsRun, None) => self.lost(n, flaw),
            (At::Locks | At::Raises { .. }, None) => self.processes[n].at = At::Running,
            // A key that is its own is held by a stranger, or there is a mark: it tries again.
            _ => self.lost(n, flaw),
        }
    }

    /// No answer came.
    fn unheard(&mut self, n: usize, at: At, flaw: Option<Flaw>) {
        let own = self.own(n);
        match at {
            At::RenewsPhase | At::RenewsRun => self.processes[n].at = At::Running,
            At::Locks | At::Raises { .. } => self.processes[n].at = At::Running,
            At::LocksFirst | At::LocksSecond | At::RaisesFirst => {
                self.unlock(n);
                self.processes[n].at = At::Running;
            }
            At::LooksFirst if flaw == Some(Flaw::SilenceIsGone) => self.register(n),
            At::Looks if flaw == Some(Flaw::SilenceIsGone) => self.confirm(n),
            At::LooksFirst | At::Looks if own == Side::Old => {
                let registered = at == At::Looks;
                self.ask(n, At::Unmarked { registered }, own, Verb::Look, Key::Mark, 0);
            }
            At::Registers if flaw == Some(Flaw::UnansweredIsTakenBack) => {
                self.give_back(own);
                self.lost(n, flaw);
            }
            _ => self.lost(n, flaw),
        }
    }
}

//! Flaws that the simulation must find in the core, each by its check.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockcore::simulation::Flaw;

use crate::checks::Check;
use crate::plan::{Plan, Shape};
use crate::run;

/// Each flaw, and the promise whose check finds it. `LOCKCORE_FLAW=NeverPolls` tries that one alone.
const FLAWS: &[(Flaw, Check)] = &[
    (Flaw::AcquireUnbounded, Check::Hang),
    (Flaw::AmbiguousIsUnavailable, Check::ReleaseFirst),
    (Flaw::AnswersSwapped, Check::TokenOfItsLease),
    (Flaw::BurstHasNoEnd, Check::LetsOthersIn),
    (Flaw::DeadlineFromAnswer, Check::Deadline),
    (Flaw::DroppedAcquireNotUndone, Check::LeftBehind),
    (Flaw::DroppedGuardNotReleased, Check::LeftBehind),
    (Flaw::EachTriesAtOnce, Check::OutageRate),
    (Flaw::HandsOverTooLate, Check::HandsOverInTime),
    (Flaw::LateGrantHandedOut, Check::ValidWhenGiven),
    (Flaw::LateRenewalCounts, Check::LossIsFinal),
    (Flaw::LossByFlagAlone, Check::Exclusion),
    (Flaw::MaxHoldIgnored, Check::MaxHold),
    (Flaw::NeverPolls, Check::Hang),
    (Flaw::NewLocksOverlooked, Check::RenewalsGoOn),
    (Flaw::NoDriftMargin, Check::LeaseBehindGuard),
    (Flaw::NobodyTries, Check::OutageTried),
    (Flaw::NotHeldForAll, Check::LossHasCause),
    (Flaw::NotHeldIgnored, Check::NotHeldEnds),
    (Flaw::NotHeldIsReleased, Check::ReleaseIsTrue),
    (Flaw::OrphanKept, Check::PlaceKept),
    (Flaw::OtherReleasedFirst, Check::FromFirst),
    (Flaw::OutageHasNoEnd, Check::UnavailableHasCause),
    (Flaw::OutageNotTold, Check::OutageTold),
    (Flaw::OvertakenGoesOn, Check::ReleaseFirst),
    (Flaw::PlaceDropped, Check::PlaceKept),
    (Flaw::QueueIgnored, Check::Order),
    (Flaw::ReleaseEndsWithMaxHold, Check::ReleaseGoesOn),
    (Flaw::ReleaseIgnoresTheToken, Check::ReleaseIsTrue),
    (Flaw::ReleaseOvertakesAcquire, Check::AcquireSeenToEnd),
    (Flaw::RenewalAfterRelease, Check::SpentHolder),
    (Flaw::RenewalUnbounded, Check::RenewalsGoOn),
    (Flaw::RespawnWithoutRelease, Check::ReleaseFirst),
    (Flaw::RetriesForEver, Check::Bounded),
    (Flaw::SignalBelieved, Check::LeaseBehindGuard),
    (Flaw::SpentHolderAsksAgain, Check::SpentHolder),
    (Flaw::SuspendIgnored, Check::Deadline),
    (Flaw::TimeLimitIgnored, Check::TimeLimit),
    (Flaw::TimersTrusted, Check::LossIsTold),
    (Flaw::TurnHasNoEnd, Check::TurnEnds),
    (Flaw::UnavailableIsContended, Check::ContendedHasCause),
    (Flaw::YieldedPlaceDropped, Check::PlaceKept),
];

/// So many seeds are tried for each.
const SEEDS: u64 = 3_000;

#[test]
fn every_flaw_is_found() {
    let mut missed = Vec::new();
    let wished = std::env::var("LOCKCORE_FLAW").ok();
    let wished = |flaw: Flaw| wished.as_ref().is_none_or(|name| *name == format!("{flaw:?}"));
    for (flaw, check) in FLAWS.iter().filter(|(flaw, _)| wished(*flaw)) {
        let (found, tried) = (AtomicBool::new(false), AtomicU64::new(0));
        run::each(0..SEEDS, |seed| {
            let shape = match flaw {
                Flaw::ReleaseIgnoresTheToken => Shape::LateCopies,
                Flaw::OvertakenGoesOn | Flaw::TurnHasNoEnd => Shape::Stalls,
                _ => Shape::Any,
            };
            let seconds = if shape == Shape::Stalls { 200 } else { 60 };
            let plan = Plan { flaw: Some(*flaw), shape, ..Plan::new(seed, seconds) };
            let outcome = run::one(plan);
            tried.fetch_add(1, Ordering::Relaxed);
            let finds = outcome.violations.iter().any(|violation| violation.check == *check);
            found.fetch_or(finds, Ordering::Relaxed);
            !finds
        });
        let tried = tried.into_inner();
        if found.into_inner() {
            println!("{flaw:?}: found in {tried} seeds: {check}");
        } else {
            missed.push(format!("{flaw:?} by {check:?}"));
        }
    }
    assert!(FLAWS.iter().any(|(flaw, _)| wished(*flaw)), "no flaw of that name");
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {}", missed.join(", "));
}

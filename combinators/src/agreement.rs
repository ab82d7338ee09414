//! Agreeing on one fencing token, the same for a quorum and for a switch between stores.
//!
//! The members of an agreement are asked for a lease each and may answer with different tokens.
//! Only *equal* tokens count: the lower ones are raised to the greatest, until the latest answers
//! of enough members are equal. It is wrong to count "at least as great": then another holder's
//! lease, granted between two answers, gets a token that is smaller than ours and later than it
//! (`docs/adr/0008-a-quorum-agrees-by-equality.md`).

/// The latest that a member has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vote {
    /// Asked, and not answered yet.
    Pending,
    /// Holds a lease with this token.
    Granted(u64),
    /// Holds none, or none that counts: contended, failed, emptied a short while ago.
    Against,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// There are answers to wait for, and no agreement without them.
    Wait,
    /// Those who have answered are enough and disagree; who has not answered yet could still
    /// settle it. Worth a short wait, and no long one.
    WaitOrRaise(u64),
    /// No answer can settle it: raise every granted token below this one to it.
    Raise(u64),
    /// Enough members hold this token.
    Agreed(u64),
    /// There will not be enough.
    Hopeless,
}

/// Decides, from the latest votes of all members, where `need` of them must agree.
///
/// `need` is more than half of the members.
pub(crate) fn step(votes: &[Vote], need: usize) -> Step {
    let pending = votes.iter().filter(|vote| **vote == Vote::Pending).count();
    let tokens = || {
        votes.iter().filter_map(|vote| match vote {
            Vote::Granted(token) => Some(*token),
            Vote::Pending | Vote::Against => None,
        })
    };
    let granted = tokens().count();
    if granted + pending < need {
        return Step::Hopeless;
    }
    let with = |token| tokens().filter(|other| *other == token).count();
    // More than half: there is one such token at most.
    if let Some(token) = tokens().find(|token| with(*token) >= need) {
        return Step::Agreed(token);
    }
    let Some(greatest) = tokens().max().filter(|_| granted >= need) else {
        return Step::Wait;
    };
    if tokens().any(|token| with(token) + pending >= need) {
        Step::WaitOrRaise(greatest)
    } else {
        Step::Raise(greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::Vote::{Against, Granted, Pending};
    use super::*;

    #[test]
    fn only_equal_tokens_of_enough_members_agree() {
        for (votes, need, expected) in [
            (&[Granted(5), Granted(5), Pending][..], 2, Step::Agreed(5)),
            (&[Granted(5), Against, Granted(5)], 2, Step::Agreed(5)),
            // A greater one beside it changes nothing: it was not agreed on.
            (&[Granted(5), Granted(9), Granted(5)], 2, Step::Agreed(5)),
            (&[Granted(5), Granted(9), Against], 2, Step::Raise(9)),
            (&[Granted(5), Granted(9), Pending], 2, Step::WaitOrRaise(9)),
            (&[Granted(5), Granted(7), Granted(9)], 2, Step::Raise(9)),
            (&[Granted(5), Pending, Pending], 2, Step::Wait),
            (&[Granted(5), Pending, Against], 2, Step::Wait),
            (&[Granted(5), Against, Against], 2, Step::Hopeless),
            (&[Pending, Against, Against], 2, Step::Hopeless),
            // Of five: three that answered and disagree need not wait for the hung ones.
            (&[Granted(5), Granted(7), Granted(9), Pending, Pending], 3, Step::WaitOrRaise(9)),
            (&[Granted(5), Granted(7), Granted(9), Granted(8), Pending], 3, Step::Raise(9)),
            // All of two.
            (&[Granted(5), Granted(5)], 2, Step::Agreed(5)),
            (&[Granted(5), Granted(9)], 2, Step::Raise(9)),
            (&[Granted(5), Against], 2, Step::Hopeless),
        ] {
            assert_eq!(step(votes, need), expected, "{votes:?}");
        }
    }
}

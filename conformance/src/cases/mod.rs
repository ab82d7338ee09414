//! The table of cases, one file a group.

mod cancellation;
mod contention;
mod core_retry;
mod cuts;
mod expiry;
mod faults;
mod fencing;
mod formats;
mod guard;
mod hand_over;
mod input;
mod late;
mod line;
mod midway;
mod over;
mod ownership;
mod partitions;
mod places;
mod renew_many;
mod renewal;
mod repeats;
mod retry;
mod sight;
mod strangers;
mod waiting;
mod wire;
mod wrapped;

use crate::case::Case;

/// All cases, group by group.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        ownership::CASES,
        expiry::CASES,
        renewal::CASES,
        renew_many::CASES,
        retry::CASES,
        core_retry::CASES,
        repeats::CASES,
        fencing::CASES,
        sight::CASES,
        contention::CASES,
        waiting::CASES,
        cancellation::CASES,
        guard::CASES,
        input::CASES,
        wire::CASES,
        partitions::CASES,
        late::CASES,
        cuts::CASES,
        strangers::CASES,
        formats::CASES,
        faults::CASES,
        midway::CASES,
        line::turns::CASES,
        line::places::CASES,
        line::signals::CASES,
        line::process::CASES,
        hand_over::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Declares the cases of a group: its name, then `function: "law"` or `function: "law", needs`.
macro_rules! cases {
    ($group:literal; $($case:ident: $law:literal $(, $needs:expr)?;)*) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$(
            $crate::case::Case::new(
                concat!($group, "::", stringify!($case)),
                $law,
                |cx| Box::pin($case(cx)),
            )$(.needs($needs))?,
        )*];
    };
}

pub(crate) use cases;

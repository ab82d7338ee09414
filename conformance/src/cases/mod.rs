//! The table of cases, one file a group.

mod cancellation;
mod contention;
mod cuts;
mod expiry;
mod faults;
mod fencing;
mod guard;
mod input;
mod ownership;
mod renewal;
mod retry;
mod sight;
mod waiting;
mod wire;

use crate::case::Case;

/// All cases, group by group.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        ownership::CASES,
        expiry::CASES,
        renewal::CASES,
        retry::CASES,
        fencing::CASES,
        sight::CASES,
        contention::CASES,
        waiting::CASES,
        cancellation::CASES,
        guard::CASES,
        input::CASES,
        wire::CASES,
        cuts::CASES,
        faults::CASES,
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

//! Distributed locks that teams can trust and can move between stores.

pub use lockcore::*;

//! The protocol of [`Quorum`](crate::Quorum), as a model that is searched exhaustively, and what
//! must not be done, each of which the search finds wrong
//! (`docs/adr/0008-a-quorum-agrees-by-equality.md`).
//!
//! Two clients take one key at three stores, or five. Requests and answers may be late, lost and in
//! any order, leases end and calls are given up at any moment, clocks show anything, and one store
//! may lose its memory. What a client makes of the answers is the shipped [`agreement`].
//!
//! `cargo test -p lockcore-combinators model -- --nocapture` prints the number of states, and the
//! shortest way to each failure.
//!
//! [`agreement`]: crate::agreement

mod checks;
mod client;
mod flaw;
mod node;
mod quorum;
mod search;

//! A model of the line in the store, searched breadth first and walked at random
//! (`docs/adr/0012-a-line-in-the-store.md`).
//!
//! Two to four processes want one key. Each has a local queue of tasks, whose head talks to the
//! store. Requests and answers are late or lost, requests arrive twice, signals are lost, processes
//! die, and the store may lose its data. [`store`] has the steps that a backend implements,
//! [`laws`] says independently what each step may do, [`world`] is what the core will do.
//!
//! Each entry of [`flaw::Flaw`] is a mistake. The search finds every one of them.
//!
//! ```text
//! cargo test -p lockcore --test line_model -- --nocapture     states, and the way to each failure
//! LOCKCORE_MODEL=full cargo test -p lockcore --test line_model --release     the larger search
//! ```

mod deliver;
mod event;
mod flaw;
mod flaws;
mod laws;
mod liveness;
mod messages;
mod process;
mod promises;
mod search;
mod searches;
mod step;
mod store;
mod walks;
mod world;

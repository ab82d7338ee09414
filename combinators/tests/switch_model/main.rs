//! A model of the phases of a switch, searched breadth first and walked at random
//! (`docs/adr/0017-a-phase-is-a-key-that-nobody-releases.md`).
//!
//! Processes enter the phases `Old`, `Both` and `New`, over two stores, and take one key. Requests are
//! late, lost and doubled, processes pause for any time, give up, die and leave, a store may lose its
//! data, and in the end plain processes take over. Nobody may hold the key while another does, and
//! tokens rise. Time goes in ticks: a lock lives for one, a phase for three.
//!
//! Each entry of [`flaw::Flaw`] is a mistake, and each is found.
//!
//! ```text
//! cargo test -p lockcore-combinators --test switch_model -- --nocapture     states, and how often
//! LOCKCORE_MODEL=full cargo test -p lockcore-combinators --test switch_model --release
//! ```

mod answers;
mod flaw;
mod scripts;
mod search;
mod store;
mod walks;
mod world;

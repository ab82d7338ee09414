//! Clients of a quorum whose nodes fail, and whether what they had may have been.
//!
//! They run as tasks and as processes (`contender`), so what they note is text, and its times are
//! of a clock that the processes of a machine share.

mod client;
mod history;
mod note;
mod pulse;

pub use self::client::{KEYS, Plan, contend};
pub use self::history::History;
pub use self::note::Note;
pub use self::pulse::Pulse;

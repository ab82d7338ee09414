#![doc = include_str!("../README.md")]

mod link;
mod vigil;

pub use crate::link::{Connection, Connector, Link};
pub use crate::vigil::{Call, Vigil};

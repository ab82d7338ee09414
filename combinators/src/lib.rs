#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agreement;
mod ballot;
mod calls;
mod flaw;
mod group;
#[cfg(test)]
mod model;
mod proposals;
mod quorum;
mod silence;
mod switchover;

pub use crate::group::{NoAgreement, NodeState};
pub use crate::quorum::{Quorum, QuorumBuilder};
pub use crate::switchover::{Held, Phase, Process, Status, Switchover, SwitchoverBuilder};

#[cfg(test)]
mod tests;

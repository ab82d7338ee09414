#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agreement;
mod ballot;
mod both;
mod calls;
mod crowds;
mod flaw;
mod group;
#[cfg(test)]
mod model;
mod proposals;
mod quorum;
mod silence;
mod switchover;

pub use crate::group::{NoAgreement, NodeState, QuorumStatus};
pub use crate::quorum::{Quorum, QuorumBuilder};
pub use crate::switchover::{
    Check, Held, Phase, Process, Standing, Stands, Status, Switchover, SwitchoverBuilder,
};

#[cfg(test)]
mod tests;

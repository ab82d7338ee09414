#![doc = include_str!("../README.md")]

mod harness;
pub mod proxy;
pub mod servers;

pub use crate::harness::{Fault, Harness};

#![doc = include_str!("../README.md")]

mod case;
mod cases;
mod faulty;
mod harness;
mod history;
mod options;
mod permits;
mod port;
pub mod proxy;
mod report;
mod run;
mod runner;
pub mod servers;
mod suite;

pub use crate::case::{Case, Cx, Failure, Outcome};
pub use crate::cases::all as cases;
pub use crate::faulty::{Faulty, Mishap, Storm, Verb};
pub use crate::harness::{Clock, Fault, Harness};
pub use crate::history::check_history;
pub use crate::run::{Verdict, on};
pub use crate::runner::{Suites, main};

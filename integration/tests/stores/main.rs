//! What users see of locks on the stores: under faults, from several processes, and on their way
//! from one store to another. One program, for most of these tests wait most of the time.

mod cluster;
mod faults;
mod fences;
#[cfg(unix)]
mod processes;
mod switchover;

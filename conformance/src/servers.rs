//! Servers for the tests of backends.

//! Ports for servers that must come back at the same address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ports that systems hand out to outgoing connections. From there, a client that
/// reconnects while its server is down could be given the server's own port, be connected to
/// itself, and keep the server from coming back.
const PORTS: Range<u16> = 10_240..32_768;

/// Finds a port of 127.0.0.1 on which nobody listens now. Another process may take it before the
/// caller does: callers try again with a new one.
pub(crate) fn free() -> io::Result<u16> {
    let mut last = None;
    for _ in 0..100 {
        let port = fastrand::u16(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no free port")))
}

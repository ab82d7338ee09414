//! Ports for servers that must come back at the same address.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

/// Below the ports that systems hand out to outgoing connections. From there, a client that
/// reconnects while its server is down could be given the server's own port, be connected to
/// itself, and keep the server from coming back.
const PORTS: Range<u16> = 10_240..32_768;

/// Those that this process was given: a server that is down for a while must find its own free.
static GIVEN: LazyLock<Mutex<Given>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Given {
    ports: BTreeSet<u16>,
    /// Not the thread's, which makes the same choices for the same case on every store.
    random: Option<fastrand::Rng>,
}

/// Finds a port of 127.0.0.1 on which nobody listens now, each time another. Another process may
/// take it before the caller does: callers try again with a new one.
pub(crate) fn free() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Given { ports, random } = &mut *given;
    let random = random.get_or_insert_with(|| fastrand::Rng::with_seed(seed()));
    let mut last = None;
    for _ in 0..100 {
        let port = random.u16(PORTS);
        if ports.contains(&port) {
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {
                ports.insert(port);
                return Ok(port);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no free port")))
}

/// Another one in each process.
fn seed() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(since_1970.subsec_nanos()) << 32 | u64::from(std::process::id())
}

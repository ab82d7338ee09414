//! The ways to a server: an address, a container, a program.

#[cfg(feature = "containers")]
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;

use lockcore::BoxError;

use super::address::Address;
use super::options::SOCKET;
use super::up::port_was_taken;
use super::{Kind, PROGRAMS, RedisOptions, RedisServer, URL};
#[cfg(feature = "containers")]
use crate::servers::container::{self, Container};
use crate::servers::local::{self, LocalServer};

#[cfg(feature = "containers")]
const IMAGE: &str = "LOCKCORE_TEST_REDIS_IMAGE";
#[cfg(feature = "containers")]
const DEFAULT_IMAGE: &str = "redis:8";

/// The ports inside a container, plain and TLS.
#[cfg(feature = "containers")]
const INSIDE: (u16, u16) = (6379, 6380);

/// A free port may be taken by another before the server has it.
const ATTEMPTS: usize = 10;

impl RedisServer {
    /// The first of: a container, a program.
    pub(super) async fn auto(options: &RedisOptions) -> Result<Self, BoxError> {
        // Learned once: an image that cannot be pulled is not asked for again and again.
        static NO_CONTAINERS: OnceLock<String> = OnceLock::new();
        let container = match NO_CONTAINERS.get() {
            Some(error) => error.clone(),
            None => match Self::container(options).await {
                Ok(result) => return result,
                Err(error) => NO_CONTAINERS.get_or_init(|| error.to_string()).clone(),
            },
        };
        if let Some(program) = local::find(&PROGRAMS) {
            return Self::local(&program, options).await;
        }
        Err(format!(
            "no Redis server for the tests. One of these gives one: install redis-server or \
             valkey-server (on Debian and Ubuntu: apt-get install redis-server), start a Docker \
             engine and build with the feature `containers`, or set {URL} to the address of a \
             running server. No container because: {container}"
        )
        .into())
    }

    /// A server that somebody else has started.
    pub(super) async fn at(url: &str) -> Result<Self, BoxError> {
        let address = Address::parse(url)?;
        let addr = tokio::net::lookup_host(&address.authority)
            .await?
            .next()
            .ok_or_else(|| format!("{URL}: no such host"))?;
        let mut server = Self {
            addr,
            tls_addr: None,
            unix_socket: None,
            address,
            kind: Kind::Url,
            version: String::new(),
            origin: format!("address from {URL}"),
        };
        server.wait_until_up().await?;
        Ok(server)
    }

    pub(super) async fn local(program: &Path, options: &RedisOptions) -> Result<Self, BoxError> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let mut attempt = 1;
        loop {
            let (port, tls_port) = options.free_ports()?;
            let args = options.command("127.0.0.1", port, tls_port);
            let process = LocalServer::spawn(program, args, options.files())?;
            let socket = process.folder().join(SOCKET);
            let origin = format!("{name} on this machine");
            let mut server = Self::own((port, tls_port), options, Kind::Local(process), origin);
            server.unix_socket = options.wants_unix_socket().then_some(socket);
            match server.wait_until_up().await {
                Ok(()) => return Ok(server),
                Err(error) if port_was_taken(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// An outer error: there are no containers here. An inner one: the server did not come up.
    #[cfg(feature = "containers")]
    pub(super) async fn container(
        options: &RedisOptions,
    ) -> Result<Result<Self, BoxError>, BoxError> {
        if !container::engine_answers().await {
            return Err("no Docker engine answers".into());
        }
        let image = env::var(IMAGE).ok().filter(|image| !image.is_empty());
        let image = image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        let program = PROGRAMS[usize::from(image.contains("valkey"))];
        let mut attempt = 1;
        loop {
            let (port, tls_port) = options.free_ports()?;
            let mut command = vec![program.to_owned()];
            command.extend(options.command("0.0.0.0", INSIDE.0, tls_port.map(|_| INSIDE.1)));
            let mut ports = vec![(port, INSIDE.0)];
            ports.extend(tls_port.map(|port| (port, INSIDE.1)));
            let spec = container::Spec {
                image: image.clone(),
                command,
                files: options.files().clone(),
                ports,
            };
            let container = match Container::start(spec).await {
                Ok(container) => container,
                Err(error) if port_was_taken(&error) && attempt < ATTEMPTS => {
                    attempt += 1;
                    continue;
                }
                Err(error) => return Err(format!("image {image}: {error}").into()),
            };
            let origin = format!("container image {image}");
            let kind = Kind::Container(container);
            let mut server = Self::own((port, tls_port), options, kind, origin);
            let up = server.wait_until_up().await;
            return Ok(up.map(|()| server));
        }
    }

    #[cfg(not(feature = "containers"))]
    #[expect(clippy::unused_async, reason = "the same as with the feature")]
    pub(super) async fn container(_: &RedisOptions) -> Result<Result<Self, BoxError>, BoxError> {
        Err("this build has no containers: it lacks the feature `containers`".into())
    }

    pub(super) fn own(
        (port, tls_port): (u16, Option<u16>),
        options: &RedisOptions,
        kind: Kind,
        origin: String,
    ) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            addr,
            tls_addr: tls_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            unix_socket: None,
            address: Address::own(addr, options.login()),
            kind,
            version: String::new(),
            origin,
        }
    }
}

//! Redis and Valkey.

mod address;
mod options;

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lockcore::BoxError;
use tokio::time::sleep;

pub use self::options::RedisOptions;

use self::address::Address;
use self::options::SOCKET;
#[cfg(feature = "containers")]
use super::container::{self, Container};
use super::local::{self, LocalServer};
use super::resp::{Reply, ask};
use super::{SOURCE, Source};
use crate::Fault;

const URL: &str = "LOCKCORE_TEST_REDIS_URL";
#[cfg(feature = "containers")]
const IMAGE: &str = "LOCKCORE_TEST_REDIS_IMAGE";
#[cfg(feature = "containers")]
const DEFAULT_IMAGE: &str = "redis:8";
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// The ports inside a container, plain and TLS.
#[cfg(feature = "containers")]
const INSIDE: (u16, u16) = (6379, 6380);

/// How long a server may take to be up, on a machine that does much else.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long one question to it may take, and the pause between two.
const ASK_LIMIT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(10);
const WIPE_LIMIT: Duration = Duration::from_secs(10);
/// A free port may be taken by another before the server has it.
const ATTEMPTS: usize = 10;

/// A Redis or Valkey server for one test or one run of the suite.
///
/// Where it comes from is said in the [module](super). It ends when it is dropped; in a
/// container, dropping it takes some 0.3 s.
#[derive(Debug)]
pub struct RedisServer {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    unix_socket: Option<PathBuf>,
    address: Address,
    kind: Kind,
    version: String,
    origin: String,
}

#[derive(Debug)]
enum Kind {
    Url,
    Local(LocalServer),
    #[cfg(feature = "containers")]
    Container(Container),
}

impl RedisServer {
    /// Starts a server, and returns when it answers commands.
    ///
    /// A server from `LOCKCORE_TEST_REDIS_URL` serves the default options only; with others the
    /// next source is used.
    ///
    /// # Errors
    ///
    /// No source can give a server: the error says what to install or set. A server that does
    /// not come up: the error shows the end of what it wrote.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the server that it was starting ends.
    pub async fn start(options: RedisOptions) -> Result<Self, BoxError> {
        let source = Source::from_env()?;
        let url = env::var(URL).ok().filter(|url| !url.is_empty());
        match source {
            Source::Url => match url {
                None => Err(format!("{SOURCE}=url, but {URL} is not set").into()),
                Some(_) if !options.are_default() => Err(format!(
                    "this test needs a server of its own options, which {SOURCE}=url forbids"
                )
                .into()),
                Some(url) => Self::at(&url).await,
            },
            Source::Local => match local::find(&PROGRAMS) {
                None => Err("no redis-server or valkey-server on the PATH; \
                     on Debian and Ubuntu: apt-get install redis-server"
                    .into()),
                Some(program) => Self::local(&program, &options).await,
            },
            Source::Container => Self::container(&options).await?,
            Source::Auto => match url {
                Some(url) if options.are_default() => Self::at(&url).await,
                _ => Self::auto(&options).await,
            },
        }
    }

    /// The first of: a container, a program.
    async fn auto(options: &RedisOptions) -> Result<Self, BoxError> {
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
    async fn at(url: &str) -> Result<Self, BoxError> {
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

    async fn local(program: &Path, options: &RedisOptions) -> Result<Self, BoxError> {
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
    async fn container(options: &RedisOptions) -> Result<Result<Self, BoxError>, BoxError> {
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
    async fn container(_: &RedisOptions) -> Result<Result<Self, BoxError>, BoxError> {
        Err("this build has no containers: it lacks the feature `containers`".into())
    }

    fn own(
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

    /// Where the server listens for plain connections. Servers that this process has started
    /// listen on 127.0.0.1, and keep their address over kill and restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the server listens for TLS connections, with [`RedisOptions::tls`].
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// The server's Unix socket, with [`RedisOptions::unix_socket`] and unless it runs in a
    /// container.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix_socket.as_deref()
    }

    /// What a client connects to: `redis://…`, with the password if the server asks for one.
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// [`url`](Self::url) with another address, such as that of a proxy before the server.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        self.address.at(addr)
    }

    /// Names the server, its version and where it came from, such as
    /// `Redis 7.0.15 (redis-server on this machine)`.
    pub fn about(&self) -> String {
        format!("{} ({})", self.version, self.origin)
    }

    /// Breaks or mends the server, and returns when it is done: a paused server has stopped, a
    /// killed one is gone, a restarted one answers commands. `false`: nothing was done, because
    /// the server is not ours to break.
    ///
    /// A kill also ends a paused server. A restart kills first where the server still runs.
    ///
    /// # Panics
    ///
    /// If the fault fails, for example because the server does not come up again.
    pub async fn inflict(&self, fault: Fault) -> bool {
        let done = match (&self.kind, fault) {
            (Kind::Url, _) => return false,
            (_, Fault::Wipe) => self.wipe().await,
            (Kind::Local(process), Fault::Pause) => process.pause().map_err(Into::into),
            (Kind::Local(process), Fault::Resume) => process.resume().map_err(Into::into),
            (Kind::Local(process), Fault::Kill) => {
                process.kill();
                Ok(())
            }
            (Kind::Local(process), Fault::Restart) => match process.respawn() {
                Ok(()) => self.up().await.map(drop),
                Err(error) => Err(error.into()),
            },
            #[cfg(feature = "containers")]
            (Kind::Container(container), Fault::Pause) => container.pause().await,
            #[cfg(feature = "containers")]
            (Kind::Container(container), Fault::Resume) => container.resume().await,
            #[cfg(feature = "containers")]
            (Kind::Container(container), Fault::Kill) => container.kill().await,
            #[cfg(feature = "containers")]
            (Kind::Container(container), Fault::Restart) => match container.restart().await {
                Ok(()) => self.up().await.map(drop),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = done {
            panic!("{fault} of {}: {error}", self.about());
        }
        true
    }

    async fn wipe(&self) -> Result<(), BoxError> {
        match ask(
            self.addr,
            self.address.login.as_ref(),
            &["FLUSHALL"],
            WIPE_LIMIT,
        )
        .await?
        {
            Reply::Text(_) => Ok(()),
            Reply::Error(error) => Err(error.into()),
        }
    }

    async fn wait_until_up(&mut self) -> Result<(), BoxError> {
        self.version = self.up().await?;
        Ok(())
    }

    /// Waits until the server answers commands, and returns its name and version.
    async fn up(&self) -> Result<String, BoxError> {
        let start = Instant::now();
        loop {
            let last = match self.answer().await {
                Ok(version) => return Ok(version),
                Err(error) => error,
            };
            let ended = self.ended().await;
            if ended || start.elapsed() > START_LIMIT {
                let how = if ended {
                    "it has ended".to_owned()
                } else {
                    format!("not within {START_LIMIT:?}; last answer: {last}")
                };
                let log = self.log().await;
                let origin = &self.origin;
                return Err(format!("Redis did not come up ({origin}): {how}\n{log}").into());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Asks once whether the server is up.
    async fn answer(&self) -> io::Result<String> {
        let login = self.address.login.as_ref();
        match ask(self.addr, login, &["PING"], ASK_LIMIT).await? {
            Reply::Text(_) => {}
            // It answers, if only to refuse us: who may do what is the test's affair.
            Reply::Error(error) if is_refusal(&error) => return Ok("Redis".to_owned()),
            Reply::Error(error) => return Err(io::Error::other(error)),
        }
        let info = match ask(self.addr, login, &["INFO", "server"], ASK_LIMIT).await? {
            Reply::Text(info) => info,
            Reply::Error(_) => return Ok("Redis".to_owned()),
        };
        // Another server may have been quicker to take the port.
        if let Kind::Local(process) = &self.kind
            && let (Some(ours), Some(theirs)) = (process.pid(), field(&info, "process_id"))
            && ours.to_string() != theirs
        {
            return Err(io::Error::other("the port belongs to another server"));
        }
        Ok(name_and_version(&info))
    }

    async fn ended(&self) -> bool {
        match &self.kind {
            Kind::Url => false,
            Kind::Local(process) => process.exited().is_some(),
            #[cfg(feature = "containers")]
            Kind::Container(container) => container.exited().await,
        }
    }

    async fn log(&self) -> String {
        match &self.kind {
            Kind::Url => String::new(),
            Kind::Local(process) => process.log_tail(),
            #[cfg(feature = "containers")]
            Kind::Container(container) => container.log().await,
        }
    }
}

fn port_was_taken(error: &BoxError) -> bool {
    let error = error.to_string().to_lowercase();
    error.contains("address already in use") || error.contains("port is already allocated")
}

fn is_refusal(error: &str) -> bool {
    ["NOAUTH", "NOPERM", "WRONGPASS"]
        .iter()
        .any(|code| error.starts_with(code))
}

/// A line of the answer to `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// Valkey also names the version of Redis that it began from.
fn name_and_version(info: &str) -> String {
    match (field(info, "valkey_version"), field(info, "redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "Redis".to_owned(),
    }
}

#[cfg(test)]
mod tests;

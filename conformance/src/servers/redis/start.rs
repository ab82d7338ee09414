//! The ways to a server: an address, a container, a program.

use std::net::{Ipv4Addr, SocketAddr};

use lockcore::BoxError;

use super::options::SOCKET;
use super::{RedisOptions, RedisServer};
use crate::servers::address::{Address, Form};
use crate::servers::container::{self, Container};
use crate::servers::host::{Host, on_a_free_port};
use crate::servers::local::{self, Folder, Launch, LocalServer, Place};
use crate::servers::source::Start;

const FORM: Form =
    Form { variable: "LOCKCORE_TEST_REDIS_URL", schemes: &["redis", "valkey"], port: 6379 };
pub(super) const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// The ports inside a container, plain and TLS.
const INSIDE: (u16, u16) = (6379, 6380);

impl Start for RedisServer {
    const NAME: &str = "Redis";
    const URL: &str = FORM.variable;
    const INSTALL: &str = "install redis-server or valkey-server (on Debian and Ubuntu: apt-get \
                           install redis-server)";

    type Options = RedisOptions;

    fn anyones(options: &RedisOptions) -> bool {
        options.are_default()
    }

    async fn at(url: &str) -> Result<Self, BoxError> {
        let address = Address::parse(&FORM, url)?;
        let addr = address.resolve(&FORM).await?;
        let origin = format!("address from {}", FORM.variable);
        Self::new((addr, None), address, Host::Url, origin).wait_until_up().await
    }

    async fn local(options: &RedisOptions) -> Result<Option<Self>, BoxError> {
        let Some(program) = local::find(&PROGRAMS) else {
            return Ok(None);
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let server = on_a_free_port(|| async {
            let ports = options.free_ports()?;
            let args = options.command("127.0.0.1", ports.0, ports.1);
            let folder = Folder::new(&name, Place::Disk, None)?.with(options.files())?;
            let socket = folder.path().join(SOCKET);
            let launch = Launch { program: program.clone(), args, ..Launch::default() };
            let process = LocalServer::spawn(launch, folder)?;
            let origin = format!("{name} on this machine");
            let mut server = Self::own(ports, options, Host::Local(Box::new(process)), origin);
            server.unix_socket = options.wants_unix_socket().then_some(socket);
            server.wait_until_up().await
        });
        server.await.map(Some)
    }

    async fn container(options: &RedisOptions) -> Result<Result<Self, BoxError>, BoxError> {
        let image = container::image("LOCKCORE_TEST_REDIS_IMAGE", "redis:8").await?;
        let program = PROGRAMS[usize::from(image.contains("valkey"))];
        let server = on_a_free_port(|| async {
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
                ..container::Spec::default()
            };
            let container = Container::start(spec).await?;
            let origin = format!("container image {image}");
            let host = Host::Container(container);
            Ok(Self::own((port, tls_port), options, host, origin))
        });
        match server.await {
            Ok(server) => Ok(server.wait_until_up().await),
            Err(error) => Err(format!("image {image}: {error}").into()),
        }
    }
}

impl RedisServer {
    pub(super) fn own(
        (port, tls_port): (u16, Option<u16>),
        options: &RedisOptions,
        host: Host,
        origin: String,
    ) -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addr = at(port);
        let address = Address::own(&FORM, addr, options.login(), "");
        Self::new((addr, tls_port.map(at)), address, host, origin)
    }

    fn new(
        (addr, tls_addr): (SocketAddr, Option<SocketAddr>),
        address: Address,
        host: Host,
        origin: String,
    ) -> Self {
        let version = String::new();
        Self { addr, tls_addr, unix_socket: None, address, host, version, origin }
    }
}

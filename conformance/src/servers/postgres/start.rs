//! The ways to a server: an address, a container, a program.

use std::net::IpAddr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use lockcore::BoxError;

use super::options::{DATA, DATABASE, login};
use super::template::{Programs, fill, user};
use super::{Inner, PostgresOptions, PostgresServer};
use crate::port;
use crate::servers::address::{Address, Form};
use crate::servers::container::{self, Container};
use crate::servers::host::{Host, on_a_free_port};
use crate::servers::local::{Folder, Launch, LocalServer, Place};
use crate::servers::source::Start;

const FORM: Form = Form {
    variable: "LOCKCORE_TEST_POSTGRES_URL",
    schemes: &["postgres", "postgresql"],
    port: 5432,
};

/// Where it listens inside a container.
pub(super) const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5432);

impl Start for PostgresServer {
    const NAME: &str = "Postgres";
    const URL: &str = FORM.variable;
    const INSTALL: &str = "install postgresql (on Debian and Ubuntu: apt-get install postgresql)";

    type Options = PostgresOptions;

    fn anyones(options: &PostgresOptions) -> bool {
        options.are_default()
    }

    async fn at(url: &str) -> Result<Self, BoxError> {
        let address = Address::parse(&FORM, url)?;
        let server = Inner {
            addr: address.resolve(&FORM).await?,
            unix_socket: None,
            address,
            host: Host::Url,
            version: String::new(),
            origin: format!("address from {}", FORM.variable),
        };
        server.wait_until_up().await
    }

    async fn local(options: &PostgresOptions) -> Result<Option<Self>, BoxError> {
        let Some(programs) = Programs::find() else {
            return Ok(None);
        };
        let server = on_a_free_port(|| async {
            let (port, user) = (port::free()?, user()?);
            let folder = Folder::new("postgres", Place::Disk, user)?.with(options.files())?;
            fill(&folder, &programs).await?;
            let socket = folder.path().to_owned();
            let launch = Launch {
                program: programs.get("postgres"),
                args: options.command("127.0.0.1", port, &socket.to_string_lossy()),
                user,
                // By SIGKILL it would leave a piece of shared memory behind.
                quits: true,
                ..Launch::default()
            };
            let host = Host::Local(Box::new(LocalServer::spawn(launch, folder)?));
            let mut server = Inner::own(port, host, "postgres on this machine".to_owned());
            server.unix_socket = Some(socket);
            server.wait_until_up().await
        });
        server.await.map(Some)
    }

    async fn container(options: &PostgresOptions) -> Result<Result<Self, BoxError>, BoxError> {
        let image = container::image("LOCKCORE_TEST_POSTGRES_IMAGE", "postgres:18").await?;
        let server = on_a_free_port(|| async {
            let port = port::free()?;
            let script = include_str!("container.sh");
            let mut command: Vec<String> = ["sh", "-c", script, "postgres"].map(Into::into).into();
            command.extend(options.command("0.0.0.0", INSIDE.port(), "/tmp"));
            let mut files = options.files().clone();
            files.push(("password".to_owned(), login().password.into_bytes()));
            let ports = vec![(port, INSIDE.port())];
            let spec = container::Spec {
                image: image.clone(),
                command,
                files,
                ports,
                several: true,
                ..container::Spec::default()
            };
            let host = Host::Container(Container::start(spec).await?);
            Ok(Inner::own(port, host, format!("container image {image}")))
        });
        match server.await {
            Ok(server) => Ok(server.wait_until_up().await),
            Err(error) => Err(format!("image {image}: {error}").into()),
        }
    }
}

impl Inner {
    fn own(port: u16, host: Host, origin: String) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            addr,
            unix_socket: None,
            address: Address::own(&FORM, addr, Some(login()), &format!("/{DATABASE}")),
            host,
            version: String::new(),
            origin,
        }
    }
}

/// Removes the file by which a killed server still seems to run, should its number be given to
/// another process.
pub(super) fn forget_process(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(DATA).join("postmaster.pid"));
}

//! The ways to a server: an address, a container, a program.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use lockcore::BoxError;

use super::options::{Member, Ports};
use super::{EtcdOptions, EtcdServer};
use crate::servers::address::{Address, Form};
use crate::servers::container::{self, Container};
use crate::servers::host::{Host, free_ports, on_a_free_port};
use crate::servers::local::{self, Folder, Launch, LocalServer, Place};
use crate::servers::source::Start;

const FORM: Form = Form { variable: "LOCKCORE_TEST_ETCD_URL", schemes: &["etcd"], port: 2379 };

/// The ports inside a container.
const INSIDE: Ports = Ports { client: 2379, peer: 2380, tls: Some(2381) };

impl Start for EtcdServer {
    const NAME: &str = "etcd";
    const URL: &str = FORM.variable;
    const INSTALL: &str = "install etcd (on Debian and Ubuntu: apt-get install etcd-server)";

    type Options = EtcdOptions;

    fn anyones(options: &EtcdOptions) -> bool {
        options.are_default()
    }

    async fn at(url: &str) -> Result<Self, BoxError> {
        let address = Address::parse(&FORM, url)?;
        let server = Self {
            addr: address.resolve(&FORM).await?,
            tls_addr: None,
            address,
            options: EtcdOptions::new(),
            member: String::new(),
            host: Host::Url,
            version: String::new(),
            origin: format!("address from {}", FORM.variable),
        };
        server.wait_until_up().await
    }

    async fn local(options: &EtcdOptions) -> Result<Option<Self>, BoxError> {
        let Some(program) = local::find(&["etcd"]) else {
            return Ok(None);
        };
        let server = on_a_free_port(|| async {
            let alone = [Member::of_its_own(options)?];
            Self::spawn(&program, options, &alone[0], &alone)?.wait_until_up().await
        });
        server.await.map(Some)
    }

    async fn container(options: &EtcdOptions) -> Result<Result<Self, BoxError>, BoxError> {
        let image = "gcr.io/etcd-development/etcd:v3.6.6";
        let image = container::image("LOCKCORE_TEST_ETCD_IMAGE", image).await?;
        let server = on_a_free_port(|| async {
            let Member { name, ports: outside } = Member::of_its_own(options)?;
            let inside = Ports { tls: outside.tls.and(INSIDE.tls), ..INSIDE };
            let alone = [Member { name, ports: inside }];
            let mut command = vec!["etcd".to_owned()];
            command.extend(options.command(&alone[0], &alone, "0.0.0.0"));
            let mut ports = vec![(outside.client, inside.client)];
            ports.extend(outside.tls.zip(inside.tls));
            let spec = container::Spec {
                image: image.clone(),
                command,
                env: env(options),
                files: options.files().clone(),
                ports,
                ..container::Spec::default()
            };
            let host = Host::Container(Container::start(spec).await?);
            let origin = format!("container image {image}");
            let [Member { name, .. }] = alone;
            Ok(Self::own(Member { name, ports: outside }, options, host, origin))
        });
        match server.await {
            Ok(server) => Ok(server.wait_until_up().await),
            Err(error) => Err(format!("image {image}: {error}").into()),
        }
    }
}

impl EtcdServer {
    /// Starts a program of this machine as a member of a cluster. It has not to be up yet.
    pub(super) fn spawn(
        program: &Path,
        options: &EtcdOptions,
        me: &Member,
        cluster: &[Member],
    ) -> Result<Self, BoxError> {
        let folder = Folder::new("etcd", Place::Memory, None)?.with(options.files())?;
        let args = options.command(me, cluster, "127.0.0.1");
        let program = program.to_owned();
        let launch = Launch { program, args, env: env(options), ..Launch::default() };
        let host = Host::Local(Box::new(LocalServer::spawn(launch, folder)?));
        Ok(Self::own(me.clone(), options, host, "etcd on this machine".to_owned()))
    }

    fn own(member: Member, options: &EtcdOptions, host: Host, origin: String) -> Self {
        let Member { name, ports } = member;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addr = at(ports.client);
        Self {
            addr,
            tls_addr: ports.tls.map(at),
            address: Address::own(&FORM, addr, options.login(), "/"),
            options: options.clone(),
            member: name,
            host,
            version: String::new(),
            origin,
        }
    }
}

/// As no test ends the machine, nothing has to wait for the disk. By the environment, as versions
/// before 3.5 do not know this and refuse the argument.
fn env(options: &EtcdOptions) -> Vec<(String, String)> {
    vec![("ETCD_UNSAFE_NO_FSYNC".to_owned(), (!options.durable).to_string())]
}

impl Member {
    /// With a name that no other server has, and free ports.
    pub(super) fn of_its_own(options: &EtcdOptions) -> Result<Self, BoxError> {
        let name = format!("member-{:016x}", fastrand::u64(..));
        let [client, peer, tls] = free_ports()?;
        let ports = Ports { client, peer, tls: options.wants_tls().then_some(tls) };
        Ok(Self { name, ports })
    }
}

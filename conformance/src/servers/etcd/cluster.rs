//! Several members of one cluster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lockcore::BoxError;
use tokio::time::sleep;

use super::options::Member;
use super::{EtcdOptions, EtcdServer};
use crate::Fault;
use crate::servers::host::on_a_free_port;
use crate::servers::local;
use crate::servers::source::{Source, Start};

/// How long a cluster may take to have a leader, and the pause between two questions for it.
const ELECTION_LIMIT: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// An etcd cluster of several members, for tests of what happens when some of them fail.
///
/// The members are programs on this machine, wherever other servers come from, and keep their data
/// over a kill. They end when it is dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts so many members, and returns when all of them answer requests.
    ///
    /// # Errors
    ///
    /// There is no etcd on this machine, or `LOCKCORE_TEST_SOURCE` is `url`: the error says what
    /// to do. A member does not come up: the error shows the end of what it wrote.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the members that it was starting end.
    pub async fn start(members: usize) -> Result<Self, BoxError> {
        if Source::from_env()? == Source::Url {
            return Err("this test starts a cluster, which LOCKCORE_TEST_SOURCE=url forbids".into());
        }
        let (name, install) = (EtcdServer::NAME, EtcdServer::INSTALL);
        let missing = || format!("no program of {name} on this machine: {install}");
        let program = local::find(&["etcd"]).ok_or_else(missing)?;
        let options = EtcdOptions::new().private();
        let members = on_a_free_port(|| async {
            let all = (0..members).map(|_| Member::of_its_own(&options));
            let all = all.collect::<Result<Vec<_>, _>>()?;
            // None of them is up before most of them are.
            let spawned = all.iter().map(|me| EtcdServer::spawn(&program, &options, me, &all));
            let spawned = spawned.collect::<Result<Vec<_>, _>>()?;
            let mut members = Vec::new();
            for member in spawned {
                members.push(member.wait_until_up().await?);
            }
            Ok(members)
        });
        Ok(Self { members: members.await? })
    }

    /// Where each member listens.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.members.iter().map(EtcdServer::addr).collect()
    }

    /// What a client connects to: `etcd://…` with all members.
    pub fn url(&self) -> String {
        self.url_of(&self.addrs())
    }

    /// [`url`](Self::url) with these addresses alone.
    pub fn url_of(&self, addrs: &[SocketAddr]) -> String {
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        format!("etcd://{}/", addrs.join(","))
    }

    /// Which member leads, as it says itself; waits until one does.
    ///
    /// # Errors
    ///
    /// None does within 30 seconds.
    pub async fn leader(&self) -> Result<usize, BoxError> {
        let start = Instant::now();
        loop {
            for (n, member) in self.members.iter().enumerate() {
                if member.leads().await {
                    return Ok(n);
                }
            }
            if start.elapsed() > ELECTION_LIMIT {
                return Err(format!("no member leads after {ELECTION_LIMIT:?}").into());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Breaks or mends one member, as [`EtcdServer::inflict`] does. A restart returns when the
    /// member answers requests, and so waits for a majority. `false`: nothing was done, as for a
    /// wipe: a cluster does not take a member back that has lost its data.
    ///
    /// # Panics
    ///
    /// If the fault fails, for example because the member does not come up again, or if there is
    /// no such member.
    pub async fn inflict(&self, member: usize, fault: Fault) -> bool {
        fault != Fault::Wipe && self.members[member].inflict(fault).await
    }
}

impl EtcdServer {
    async fn leads(&self) -> bool {
        let Ok(status) = self.post("maintenance/status", "{}").await else {
            return false;
        };
        let leader = status.field("leader").filter(|&leader| leader != "0");
        leader.is_some() && leader == status.field("member_id")
    }
}

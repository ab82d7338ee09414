//! Running SQL by Postgres' own client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lockcore::BoxError;
use tokio::process::Command;
use tokio::time::timeout;

use crate::servers::address::Address;
use crate::servers::host::Host;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the client is.
#[derive(Clone, Debug)]
pub(super) enum Psql {
    /// A program on this machine.
    Local(PathBuf),
    /// In the server's container.
    #[cfg(feature = "containers")]
    Container,
}

impl Psql {
    pub(super) async fn run(
        &self,
        host: &Host,
        addr: SocketAddr,
        address: &Address,
        sql: &str,
    ) -> Result<String, BoxError> {
        let login = address.login.as_ref();
        let user = login.and_then(|login| login.user.as_deref()).unwrap_or_default();
        let password = login.map(|login| login.password.as_str()).unwrap_or_default();
        match self {
            Self::Local(program) => {
                let mut psql = Command::new(program);
                psql.args(args(&addr.ip().to_string(), addr.port(), user, address.database(), sql));
                psql.env("PGPASSWORD", password);
                psql.stdin(Stdio::null()).kill_on_drop(true);
                let output =
                    timeout(LIMIT, psql.output()).await.map_err(|_| "psql: no answer")??;
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).trim().into());
                }
                Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
            }
            #[cfg(feature = "containers")]
            Self::Container => {
                let _ = host;
                Err("no psql in containers".into())
            }
        }
    }
}

fn args(host: &str, port: u16, user: &str, database: &str, sql: &str) -> Vec<String> {
    let port = port.to_string();
    // Neither a file of the user's, nor headings, nor blanks.
    let mut args = vec!["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"];
    args.extend(["--set", "ON_ERROR_STOP=1", "--single-transaction"]);
    args.extend(["--host", host, "--port", &port, "--username", user]);
    args.extend(["--dbname", database, "--command", sql]);
    args.into_iter().map(str::to_owned).collect()
}

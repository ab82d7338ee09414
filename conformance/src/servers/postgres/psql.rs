//! Running SQL by Postgres' own client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lockcore::BoxError;
use tokio::process::Command;
use tokio::time::timeout;

use crate::servers::address::Address;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A client to run: where, and as whom.
#[derive(Debug)]
pub(super) struct Psql<'a> {
    at: SocketAddr,
    address: &'a Address,
}

impl<'a> Psql<'a> {
    pub(super) fn new(at: SocketAddr, address: &'a Address) -> Self {
        Self { at, address }
    }

    /// By a program on this machine.
    pub(super) async fn local(&self, program: PathBuf, sql: &str) -> Result<String, BoxError> {
        let mut psql = Command::new(program);
        psql.args(self.args(sql)).env("PGPASSWORD", self.password());
        psql.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, psql.output()).await.map_err(|_| "psql: no answer")??;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Beside the server, in its container.
    pub(super) async fn container(
        &self,
        container: &crate::servers::container::Container,
        sql: &str,
    ) -> Result<String, BoxError> {
        let mut command = vec!["env".to_owned(), format!("PGPASSWORD={}", self.password())];
        // Where `container.sh` has put it.
        command.push("./psql".to_owned());
        command.extend(self.args(sql));
        let output = timeout(LIMIT, container.exec(command)).await;
        Ok(output.map_err(|_| "psql: no answer")??.trim_end().to_owned())
    }

    fn password(&self) -> &str {
        self.address.login.as_ref().map(|login| login.password.as_str()).unwrap_or_default()
    }

    fn args(&self, sql: &str) -> Vec<String> {
        let (host, port) = (self.at.ip().to_string(), self.at.port().to_string());
        let login = self.address.login.as_ref();
        let user = login.and_then(|login| login.user.as_deref()).unwrap_or_default();
        // Neither a file of the user's, nor headings, nor blanks.
        let mut args = vec!["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"];
        args.extend(["--no-password", "--set", "ON_ERROR_STOP=1", "--single-transaction"]);
        args.extend(["--host", &host, "--port", &port, "--username", user]);
        args.extend(["--dbname", self.address.database(), "--command", sql]);
        args.into_iter().map(str::to_owned).collect()
    }
}

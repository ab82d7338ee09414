//! The scripts, and how they are run.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::error;

/// Anything that takes commands.
pub(crate) type Connection = dyn ConnectionLike + Send;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                include_str!("lua/common.lua"),
                "\n",
                include_str!(concat!("lua/", $file))
            ))
        })
    };
}

pub(crate) static ACQUIRE: LazyLock<Script> = script!("acquire.lua");
pub(crate) static RENEW: LazyLock<Script> = script!("renew.lua");
pub(crate) static RELEASE: LazyLock<Script> = script!("release.lua");
pub(crate) static INSPECT: LazyLock<Script> = script!("inspect.lua");

/// A script, known to the server by its hash: one round trip unless the server forgot it.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        let hash = redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(crate) fn call(&self, keys: &[&str], args: &[&str]) -> Cmd {
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        call.arg(keys).arg(args);
        call
    }

    async fn load(&self, connection: &mut Connection) -> Result<(), RedisError> {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(self.code);
        ask(connection, &load).await.map(drop)
    }

    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        call: &Cmd,
    ) -> Result<Value, RedisError> {
        match ask(connection, call).await {
            // Refused before anything was done: a restart or SCRIPT FLUSH forgot it.
            Err(refused) if error::is_noscript(&refused) => {
                self.load(connection).await?;
                ask(connection, call).await
            }
            done => done,
        }
    }

    pub(crate) async fn run_all(
        &self,
        connection: &mut Connection,
        calls: &Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        match ask_all(connection, calls).await {
            Err(refused) if error::is_noscript(&refused) => {
                self.load(connection).await?;
                ask_all(connection, calls).await
            }
            done => done,
        }
    }
}

async fn ask_all(
    connection: &mut Connection,
    commands: &Pipeline,
) -> Result<Vec<Value>, RedisError> {
    let answers = connection.req_packed_commands(commands, 0, commands.len());
    let answers = answers.await?.into_iter().map(Value::extract_error);
    answers.collect()
}

pub(crate) async fn ask(connection: &mut Connection, command: &Cmd) -> Result<Value, RedisError> {
    connection.req_packed_command(command).await?.extract_error()
}

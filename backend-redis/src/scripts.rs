//! The scripts, and how they are run.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::error;

/// Anything that takes commands.
pub(crate) type Connection = dyn ConnectionLike + Send;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));)*

        fn all() -> impl Iterator<Item = &'static Script> {
            [$(&*$name),*].into_iter()
        }
    };
}

scripts! {
    ACQUIRE = "acquire.lua";
    RENEW = "renew.lua";
    RENEW_MANY = "renew_many.lua";
    RELEASE = "release.lua";
    HAND_OVER = "hand_over.lua";
    INSPECT = "inspect.lua";
    INCARNATION = "incarnation.lua";
}

/// A script, known to the server by its hash: one round trip unless the server forgot it.
pub(crate) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(code: &str) -> Self {
        // Put in where they are needed: defining a function costs each call of a script.
        let code = code
            .replace("-- @line", include_str!("lua/line.lua"))
            .replace("-- @foreign", include_str!("lua/foreign.lua"));
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    fn load(&self) -> Cmd {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(&self.code);
        load
    }

    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        call: &Cmd,
    ) -> Result<Value, RedisError> {
        match ask(connection, call).await {
            // Refused before anything was done: a restart or SCRIPT FLUSH forgot it.
            Err(refused) if error::is_noscript(&refused) => {
                ask(connection, &self.load()).await?;
                ask(connection, call).await
            }
            done => done,
        }
    }
}

/// Runs many calls of scripts in one round trip: an answer each, or no answer.
pub(crate) async fn run_all(
    connection: &mut Connection,
    calls: &Pipeline,
) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
    let answers = ask_all(connection, calls).await?;
    if !answers.iter().any(|answer| answer.as_ref().is_err_and(error::is_noscript)) {
        return Ok(answers);
    }
    for script in all() {
        ask(connection, &script.load()).await?;
    }
    // All of them again: asked twice by the same holder, each answers the same.
    ask_all(connection, calls).await
}

async fn ask_all(
    connection: &mut Connection,
    commands: &Pipeline,
) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
    let answers = connection.req_packed_commands(commands, 0, commands.len());
    Ok(answers.await?.into_iter().map(Value::extract_error).collect())
}

pub(crate) async fn ask(connection: &mut Connection, command: &Cmd) -> Result<Value, RedisError> {
    connection.req_packed_command(command).await?.extract_error()
}

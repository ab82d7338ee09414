//! What a failure of the driver or of the server means for a caller (law L7).

use std::error::Error;
use std::fmt;

use lockcore::BackendError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A failure in words, with what to do about it; the driver's error is its source.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    text: String,
    source: Option<RedisError>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    pub(crate) fn of(text: impl Into<String>, source: RedisError) -> Self {
        Self { text: text.into(), source: Some(source) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(source) = &self.source {
            // The driver's words may fill several lines; an error of ours is one.
            let words = source.to_string();
            let lines: Vec<_> = words.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            write!(f, ": {}", lines.join(", "))?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(source)
    }
}

/// What a server's error reply says: its first word, wherever the server put it.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    // Before Redis 7 the refusal of a command in a script is quoted in the text of another error.
    if code == "ERR"
        && let Some(detail) = error.detail()
        && let Some(at) = detail.rfind(": -")
    {
        return detail[at + 3..].split_ascii_whitespace().next();
    }
    Some(code)
}

pub(crate) fn is_crossslot(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
}

pub(crate) fn is_noscript(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Another record is where ours belongs, as the scripts say it or the server.
pub(crate) fn is_foreign(error: &RedisError) -> bool {
    matches!(code(error), Some("FOREIGN" | "WRONGTYPE"))
}

/// The server is not the primary, or not any more. Another may serve at the same address by now.
pub(crate) fn is_demoted(error: &RedisError) -> bool {
    matches!(code(error), Some("READONLY" | "MASTERDOWN"))
}

/// Whether the server answered: then the connection is in order, whatever it answered.
pub(crate) fn is_reply(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed
    )
}

/// The server does not know HELLO, or not version 3 of its protocol.
pub(crate) fn lacks_resp3(error: &RedisError) -> bool {
    if error.kind() == ErrorKind::RESP3NotSupported || error.code() == Some("NOPROTO") {
        return true;
    }
    // Servers differ in how they quote the unknown command.
    error.detail().is_some_and(|detail| {
        let detail = detail.to_ascii_lowercase();
        detail.starts_with("unknown command") && detail.contains("hello")
    })
}

/// A foreign value where a record of ours belongs.
pub(crate) fn foreign(name: &str) -> BackendError {
    BackendError::rejected(Failure::new(format!(
        "the Redis key `{}` holds something that this version does not know as a record of its \
         own, and it is left alone: find out whose it is (another version may hold the lock), or \
         use another key or prefix",
        name.escape_debug()
    )))
}

/// The server answered something no script of ours answers: it may have done anything.
pub(crate) fn unexpected(what: &str) -> BackendError {
    BackendError::ambiguous(Failure::new(format!(
        "the server's answer to {what} cannot be understood: is it Redis, without a proxy that \
         rewrites answers?"
    )))
}

/// The error of a command that may have been sent.
pub(crate) fn of_command(error: RedisError) -> BackendError {
    if !is_reply(&error) {
        return BackendError::ambiguous(Failure::of("no answer came", error));
    }
    refusal(error)
}

/// The error of a question or a subscription, which changes nothing even if it was heard.
pub(crate) fn of_question(error: RedisError) -> BackendError {
    if !is_reply(&error) {
        return BackendError::unavailable(Failure::of("no answer came", error));
    }
    refusal(error)
}

fn refusal(error: RedisError) -> BackendError {
    let (now, text) = advice(&error);
    let failure = Failure::of(text, error);
    if now { BackendError::unavailable(failure) } else { BackendError::rejected(failure) }
}

const LACKS_RIGHT: (bool, &str) =
    (false, "the user lacks a right: grant what the documentation lists");

/// Whether a refusal is of the moment (it was refused before anything was done), and what to do.
pub(crate) fn advice(error: &RedisError) -> (bool, &'static str) {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return (false, "the user or password was not accepted");
    }
    match code(error).unwrap_or_default() {
        "LOADING" => (true, "the server is loading its data"),
        "BUSY" => (true, "the server is busy with a script"),
        "READONLY" => (true, "this server is a replica: connect to the primary"),
        "OOM" => (true, "the server's memory is full: raise maxmemory"),
        "MISCONF" => (true, "the server cannot save and refuses writes"),
        "NOREPLICAS" => (true, "too few replicas are connected"),
        "MASTERDOWN" => (true, "this replica has lost its primary"),
        "CLUSTERDOWN" => (true, "the cluster is down"),
        "TRYAGAIN" => (true, "the cluster is moving the key's slot"),
        "NOSCRIPT" => (true, "the server forgot a script right after it was loaded"),
        "ERR" if detail_starts(error, "max number of clients") => {
            (true, "the server takes no more clients: raise maxclients")
        }
        // In a script this has no code of its own; the texts are those of Redis 7 and 8.
        "ERR" if detail_starts(error, "The user executing the script") => LACKS_RIGHT,
        "ERR" if detail_starts(error, "ACL failure in script") => LACKS_RIGHT,
        "NOPERM" => LACKS_RIGHT,
        "NOAUTH" => (false, "the server wants a password: give it in the URL"),
        "WRONGPASS" => (false, "the user or password was not accepted"),
        "MOVED" | "ASK" => (
            false,
            "another node of the cluster has this key: use a connection that follows the cluster",
        ),
        "DENIED" => (false, "the server is in protected mode"),
        _ => (false, "the command was refused"),
    }
}

fn detail_starts(error: &RedisError, text: &str) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with(text))
}

/// The same error without the server's words if they repeat the password: a server that does not
/// know the command which carries it quotes the whole command.
pub(crate) fn scrub(error: RedisError, password: Option<&str>) -> RedisError {
    let leaks = password.is_some_and(|password| {
        !password.is_empty() && format!("{error} {error:?}").contains(password)
    });
    if !leaks {
        return error;
    }
    let kind = match error.kind() {
        ErrorKind::Extension => ErrorKind::AuthenticationFailed,
        kind => kind,
    };
    RedisError::from((kind, "the server repeated the password; its words are left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
            .and_then(redis::Value::extract_error)
            .expect_err("an error reply")
    }

    #[test]
    fn refusals_of_the_moment_are_unavailable_and_others_rejected() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
            "NOREPLICAS Not enough good replicas to write.",
            "MASTERDOWN Link with MASTER is down",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "ERR max number of clients reached",
            // As servers before version 7 put it.
            "ERR Error running script (call to f_0): @user_script:9: @user_script: 9: -READONLY You can't write",
        ] {
            let error = of_command(reply(line));
            assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        }
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair",
            "NOPERM this user has no permissions",
            "WRONGTYPE Operation against a key",
            "MOVED 1 127.0.0.1:7000",
            "ASK 1 127.0.0.1:7000",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "ERR something new",
            "NEW kind of refusal",
        ] {
            let error = of_command(reply(line));
            assert!(matches!(error, BackendError::Rejected(_)), "{error:?}");
        }
    }

    #[test]
    fn a_missing_right_is_told_in_scripts_too() {
        for line in [
            "NOPERM User set has no permissions to run the 'set' command",
            "ERR The user executing the script can't run this command or subcommand",
            "ERR ACL failure in script: User set has no permissions to run the 'set' command",
        ] {
            assert_eq!(advice(&reply(line)), LACKS_RIGHT, "{line}");
        }
    }

    #[test]
    fn without_a_reply_the_outcome_is_unknown() {
        let error = of_command(std::io::Error::other("reset").into());
        assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
        let driver = error
            .source()
            .and_then(Error::source)
            .and_then(|source| source.downcast_ref::<RedisError>());
        assert!(driver.is_some(), "{error:?}");
    }

    #[test]
    fn hello_is_missed_in_every_spelling() {
        for line in [
            "ERR unknown command `HELLO`, with args beginning with: `3`, ",
            "ERR unknown command 'HELLO', with args beginning with: '3' ",
            "ERR unknown command 'hello'",
            "NOPROTO unsupported protocol version",
        ] {
            assert!(lacks_resp3(&reply(line)), "{line}");
        }
        assert!(!lacks_resp3(&reply("NOAUTH HELLO must be called with")));
    }

    #[test]
    fn a_repeated_password_is_left_out() {
        let error = scrub(reply("ERR unknown: '3' 'AUTH' 'me' 'hunter2'"), Some("hunter2"));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

//! Users other than root, for servers that refuse to run as root.

use std::io;
use std::path::Path;
use std::process::Command;

/// A user of this machine and its first group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Who is to run such a server: the first of these users that exists, or none where this
    /// process is not root's and so needs no other.
    #[cfg(unix)]
    pub(in super::super) fn unless_ordinary(names: &[&str]) -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        match names.iter().find_map(|name| Self::find(&users, name)) {
            Some(user) => Ok(Some(user)),
            None => Err(io::Error::other(format!(
                "the server refuses to run as root, and there is no user {}",
                names.join(" or ")
            ))),
        }
    }

    #[cfg(not(unix))]
    pub(in super::super) fn unless_ordinary(_: &[&str]) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// In lines like `NAME:x:UID:GID:…`.
    #[cfg(unix)]
    fn find(users: &str, name: &str) -> Option<Self> {
        let fields = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = fields.split(':').skip(1);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Gives a file to the user.
    pub(super) fn owns(self, path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))?;
        #[cfg(not(unix))]
        let _ = path;
        Ok(())
    }

    /// Has the command run as the user, without groups of root's.
    pub(in super::super) fn runs(self, command: &mut Command) {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::uid(
            std::os::unix::process::CommandExt::gid(command, self.gid),
            self.uid,
        );
        #[cfg(not(unix))]
        let _ = command;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgresql:x:7:8::/:\npostgres:x:101:104::/:\n";
        assert_eq!(User::find(users, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(User::find(users, "post"), None);
    }
}

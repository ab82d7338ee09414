//! The stores that the tests run on, and where their servers are found. All of it is data.

use std::fmt;

use crate::summary::Run;

/// A store that the tests run on.
#[derive(Debug)]
pub(crate) struct Store {
    /// What conformance reports begin with, the store's own name first.
    pub(crate) names: &'static [&'static str],
    /// The server's programs on this machine.
    pub(crate) programs: Programs,
    /// The environment variable with the address of a running server.
    pub(crate) url: &'static str,
    /// The environment variable with the image to use.
    pub(crate) image_variable: &'static str,
    /// The image in the registry, and its tag.
    pub(crate) image: (&'static str, &'static str),
    /// How an image is made where there is no registry.
    pub(crate) recipe: Recipe,
}

/// Programs of this machine.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Any of these.
    pub(crate) names: &'static [&'static str],
    /// Where they are if not on the search path. `*` is any folder.
    pub(crate) folders: &'static [&'static str],
    /// The Debian packages that have them.
    pub(crate) packages: &'static [&'static str],
}

/// An image of Debian packages.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// What the image is called.
    pub(crate) image: &'static str,
    /// What it is made for: its version is the image's. Where the name ends with a version of its
    /// own, as in `postgresql-17`, that is left out.
    pub(crate) package: &'static str,
    /// What else has to be in it. The C library comes as a dependency.
    pub(crate) tools: &'static [&'static str],
    /// The user who runs the server, where it is not root.
    pub(crate) user: Option<&'static str>,
}

const fn redis(image: &'static str, package: &'static str) -> Recipe {
    Recipe { image, package, tools: &[], user: None }
}

const REDIS: Recipe = redis("leaselock-test-redis", "redis-server");
const VALKEY: Recipe = redis("leaselock-test-valkey", "valkey-server");
const ETCD: Recipe =
    Recipe { image: "leaselock-test-etcd", package: "etcd-server", tools: &[], user: None };
const POSTGRES: Recipe = Recipe {
    image: "leaselock-test-postgres",
    package: "postgresql",
    // It is started by a script.
    tools: &["dash", "coreutils", "util-linux"],
    user: Some("postgres"),
};

pub(crate) const STORES: [Store; 3] = [
    Store {
        names: &["Redis", "Valkey"],
        programs: Programs {
            names: &["redis-server", "valkey-server"],
            folders: &[],
            packages: &["redis-server"],
        },
        url: "LOCKCORE_TEST_REDIS_URL",
        image_variable: "LOCKCORE_TEST_REDIS_IMAGE",
        image: ("redis", "8"),
        recipe: REDIS,
    },
    Store {
        names: &["etcd"],
        programs: Programs { names: &["etcd"], folders: &[], packages: &["etcd-server"] },
        url: "LOCKCORE_TEST_ETCD_URL",
        image_variable: "LOCKCORE_TEST_ETCD_IMAGE",
        image: ("gcr.io/etcd-development/etcd", "v3.6.6"),
        recipe: ETCD,
    },
    Store {
        names: &["Postgres"],
        programs: Programs {
            names: &["initdb"],
            folders: &["/usr/lib/postgresql/*/bin"],
            packages: &["postgresql"],
        },
        url: "LOCKCORE_TEST_POSTGRES_URL",
        image_variable: "LOCKCORE_TEST_POSTGRES_IMAGE",
        image: ("postgres", "18"),
        recipe: POSTGRES,
    },
];

/// In front of Postgres. It always runs on this machine, wherever the Postgres does.
pub(crate) const PGBOUNCER: &str = "PgBouncer";
pub(crate) const PGBOUNCER_PROGRAMS: [(&str, Programs); 2] = [
    (
        PGBOUNCER,
        Programs { names: &["pgbouncer"], folders: &["/usr/sbin"], packages: &["pgbouncer"] },
    ),
    (
        "psql",
        Programs {
            names: &["psql"],
            folders: &["/usr/lib/postgresql/*/bin"],
            packages: &["postgresql-client"],
        },
    ),
];

/// A combination of stores that the tests run on.
#[derive(Debug)]
pub(crate) struct Combination {
    /// What conformance reports begin with, without the versions.
    pub(crate) stores: &'static str,
    /// What comes first behind that.
    pub(crate) how: &'static str,
    /// Calls go to one of the stores, so a few cases are enough.
    pub(crate) in_part: bool,
}

const fn quorum(stores: &'static str) -> Combination {
    Combination { stores, how: "memory vouched for", in_part: false }
}

const fn both(stores: &'static str) -> Combination {
    Combination { stores, how: "phase both", in_part: false }
}

const fn alone(how: &'static str) -> Combination {
    Combination { stores: "Switchover from Redis to Postgres", how, in_part: true }
}

pub(crate) const COMBINATIONS: [Combination; 10] = [
    quorum("Quorum of Redis, Redis, Redis"),
    quorum("Quorum of Redis, etcd, Postgres"),
    both("Switchover from Redis to etcd"),
    both("Switchover from Redis to Postgres"),
    both("Switchover from etcd to Redis"),
    both("Switchover from etcd to Postgres"),
    both("Switchover from Postgres to Redis"),
    both("Switchover from Postgres to etcd"),
    alone("phase old"),
    alone("phase new"),
];

impl Combination {
    /// Whether it is a run on this combination.
    pub(crate) fn is(&self, run: &Run) -> bool {
        let others = STORES.iter().flat_map(|store| {
            let names = store.names.iter();
            names.map(|&name| (name, store.names[0]))
        });
        let stores = others.fold(run.name.clone(), |name, (own, first)| name.replace(own, first));
        stores == self.stores && run.origin.split("; ").next() == Some(self.how)
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.stores, self.how)
    }
}

/// What building needs beside Rust.
pub(crate) const C: Programs =
    Programs { names: &["cc"], folders: &[], packages: &["gcc", "libc6-dev"] };
pub(crate) const PROTOC: Programs = Programs {
    names: &["protoc"],
    folders: &[],
    packages: &["protobuf-compiler", "libprotobuf-dev"],
};

/// A version of a store on which `cargo xtask matrix` runs the suite.
#[derive(Debug)]
pub(crate) struct Version {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// The release of Debian that has it.
    pub(crate) suite: &'static str,
    pub(crate) recipe: Recipe,
    /// The environment variable with the image to use.
    pub(crate) image_variable: &'static str,
    /// The package with the tests, and the tests.
    pub(crate) package: &'static str,
    pub(crate) tests: &'static [&'static str],
}

const fn on_redis(name: &'static str, suite: &'static str, recipe: Recipe) -> Version {
    let (image_variable, package) = ("LOCKCORE_TEST_REDIS_IMAGE", "lockcore-redis");
    Version { name, suite, recipe, image_variable, package, tests: &["conformance"] }
}

const fn on_etcd(name: &'static str, suite: &'static str) -> Version {
    let (image_variable, package) = ("LOCKCORE_TEST_ETCD_IMAGE", "lockcore-etcd");
    Version { name, suite, recipe: ETCD, image_variable, package, tests: &["conformance"] }
}

const fn on_postgres(
    name: &'static str,
    suite: &'static str,
    tests: &'static [&'static str],
) -> Version {
    let (image_variable, package) = ("LOCKCORE_TEST_POSTGRES_IMAGE", "lockcore-postgres");
    Version { name, suite, recipe: POSTGRES, image_variable, package, tests }
}

pub(crate) const MATRIX: [Version; 10] = [
    on_redis("redis-7.0", "bookworm", REDIS),
    on_redis("redis-8.0", "trixie", REDIS),
    on_redis("valkey-8.1", "trixie", VALKEY),
    on_redis("valkey-9", "forky", VALKEY),
    on_etcd("etcd-3.4", "bookworm"),
    on_etcd("etcd-3.5", "trixie"),
    on_etcd("etcd-3.5-forky", "forky"),
    on_postgres("postgres-15", "bookworm", &["conformance"]),
    on_postgres("postgres-17", "trixie", &["conformance"]),
    // Through the one PgBouncer that this machine has.
    on_postgres("postgres-18", "forky", &["conformance", "pgbouncer"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_names_of_their_own() {
        for (at, version) in MATRIX.iter().enumerate() {
            assert!(MATRIX[..at].iter().all(|other| other.name != version.name));
            let variable = version.image_variable;
            assert!(STORES.iter().any(|store| store.image_variable == variable));
        }
    }
}

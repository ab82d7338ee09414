//! In front of a server from whatever source there is.

use super::*;
use crate::servers::PostgresOptions;
use crate::servers::source::Source;

#[tokio::test]
async fn both_break_and_mend_as_one() {
    if matches!(Source::from_env(), Ok(Source::Url)) {
        return;
    }
    let postgres = PostgresServer::start(PostgresOptions::new().private()).await.unwrap();
    let bouncer = PgBouncer::start(&postgres).await.unwrap();
    let about = bouncer.about();
    assert!(about.starts_with("PgBouncer 1.") && about.contains(" before Postgres 1"), "{about}");
    assert_eq!(bouncer.url(), postgres.url_at(bouncer.addr()));
    assert_ne!(bouncer.addr(), postgres.addr());
    drop(postgres);
    let postgres = bouncer.postgres();
    let psql = |sql: &'static str| postgres.psql_at(bouncer.addr(), sql);
    psql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await.unwrap();

    assert!(bouncer.inflict(Fault::Pause).await);
    assert!(takes_connections(bouncer.addr()).await.is_err());
    assert!(takes_connections(postgres.addr()).await.is_err());
    assert!(bouncer.inflict(Fault::Resume).await);
    assert_eq!(psql("SELECT * FROM t").await.unwrap(), "7");

    assert!(bouncer.inflict(Fault::Kill).await);
    assert!(tokio::net::TcpStream::connect(bouncer.addr()).await.is_err());
    assert!(tokio::net::TcpStream::connect(postgres.addr()).await.is_err());
    assert!(bouncer.inflict(Fault::Restart).await);
    assert_eq!(psql("SELECT * FROM t").await.unwrap(), "7");

    assert!(bouncer.inflict(Fault::Wipe).await);
    assert_eq!(psql("SELECT count(*) FROM t").await.unwrap(), "0");
}

/// Else an error of one test would be taken for a busy port of another.
#[tokio::test]
async fn a_taken_port_is_told() {
    if matches!(Source::from_env(), Ok(Source::Url)) {
        return;
    }
    let postgres = PostgresServer::start(PostgresOptions::new().private()).await.unwrap();
    let user = User::unless_ordinary(&["postgres", "nobody"]).unwrap();
    let folder = Folder::new("pgbouncer", Place::Disk, user).unwrap();
    let folder = folder.with(&files(&postgres, postgres.addr().port(), None)).unwrap();
    let program = local::find(&["pgbouncer"]).unwrap_or_else(|| "/usr/sbin/pgbouncer".into());
    let args = vec!["pgbouncer.ini".to_owned()];
    let launch = Launch { program, args, user, ..Launch::default() };
    let host = Host::Local(Box::new(LocalServer::spawn(launch, folder).unwrap()));
    let never = || async { Err::<(), _>(BoxError::from("not asked")) };
    let error = host.up("pgbouncer", never).await.unwrap_err();
    assert!(crate::servers::host::port_was_taken(&error), "{error}");
}

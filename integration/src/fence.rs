//! The recipes of `docs/guarantees.md` for values that only the latest holder may write, as they
//! stand there.

use leaselock::etcd::etcd_client::{Compare, CompareOp, Txn, TxnOp};
use leaselock::redis::redis;

use crate::store;

/// A value that only the latest holder may write, in the store that a URL names.
#[derive(Clone, Debug)]
pub struct Fence {
    url: String,
    name: String,
}

impl Fence {
    /// The value of this name; it exists from its first use on.
    #[must_use]
    pub fn new(url: &str, name: &str) -> Self {
        Self { url: url.to_owned(), name: name.to_owned() }
    }

    /// Writes for the holder of this token; `false` if a newer one was here.
    ///
    /// # Panics
    ///
    /// If the store answers anything else.
    pub async fn write(&self, token: u64, value: &str) -> bool {
        match self.url.split(':').next() {
            Some("etcd") => self.in_etcd(token, value).await,
            Some("postgres") => self.in_sql(token, value).await,
            _ => self.in_redis(token, value).await,
        }
    }

    async fn in_redis(&self, token: u64, value: &str) -> bool {
        let script = redis::Script::new(recipe("lua"));
        let mut connection = store::redis::connection(&self.url).await;
        let mut call = script.key(&self.name);
        let written = call.arg(token).arg(value).invoke_async::<String>(&mut connection).await;
        match written {
            Ok(now) => {
                assert_eq!(now, value);
                true
            }
            Err(error) => {
                assert_eq!(error.code(), Some("STALE"), "{error}");
                false
            }
        }
    }

    async fn in_sql(&self, token: u64, value: &str) -> bool {
        const TABLE: &str = "CREATE TABLE IF NOT EXISTS account \
            (id text PRIMARY KEY, balance text, fence bigint NOT NULL DEFAULT 0)";
        let client = store::postgres::client(&self.url).await;
        // Two programs at once would create one table twice.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock(1); {TABLE}; COMMIT");
        client.batch_execute(&locked).await.expect("a table");
        let row = "INSERT INTO account (id) VALUES ($1) ON CONFLICT DO NOTHING";
        client.execute(row, &[&self.name]).await.expect("a row");

        let statement = |title: &str| {
            let (_, after) = recipe("sql").split_once(title).expect(title);
            let (statement, _) = after.split_once(';').expect("a statement");
            let numbered = statement.replace(":token", "$1").replace(":id", "$2");
            numbered.replace(":balance", "$3")
        };
        let token = i64::try_from(token).expect("fits");
        let write = statement("-- Write.");
        let written = client.execute(&write, &[&token, &self.name, &value]).await.expect("SQL");
        // Whoever may write may register, and reads what stands.
        let read = client.query(&statement("-- Register and read."), &[&token, &self.name]).await;
        let read = read.expect("SQL");
        assert_eq!(u64::try_from(read.len()), Ok(written));
        assert!(read.iter().all(|row| row.get::<_, &str>(0) == value));
        written == 1
    }

    async fn in_etcd(&self, token: u64, value: &str) -> bool {
        let mut client = store::etcd::client(&self.url).await;
        let words = recipe("etcdctl").replace("account/7", &self.name);
        let words = words.replace("TOKEN+1", &format!("{:020}", token + 1));
        let words = words.replace("TOKEN", &format!("{token:020}")).replace("BALANCE", value);
        let mut parts = words.split("\n\n");
        let mut part =
            || parts.next().expect("three parts").lines().filter(|line| !line.is_empty());

        let (seen, greater) = part().next().and_then(|line| line.split_once(" < ")).expect("less");
        let seen = seen.strip_prefix("value(").and_then(|seen| seen.strip_suffix(')'));
        let seen = unquoted(seen.expect("a value"));
        // Once, with twenty zeros.
        let missing = Compare::create_revision(seen, CompareOp::Equal, 0);
        let create = TxnOp::put(seen, format!("{:020}", 0), None);
        let create = Txn::new().when([missing]).and_then([create]);
        client.txn(create).await.expect("a transaction");

        let done = part().map(operation).collect::<Vec<_>>();
        let refused = part().map(operation).collect::<Vec<_>>();
        let newest = Compare::value(seen, CompareOp::Less, unquoted(greater));
        let write = Txn::new().when([newest]).and_then(done).or_else(refused);
        client.txn(write).await.expect("a transaction").succeeded()
    }
}

/// The recipe in this language.
fn recipe(language: &str) -> &'static str {
    const RECIPES: &str = include_str!("../../docs/guarantees.md");
    let begin = format!("```{language}\n");
    let recipe = RECIPES.split_once(&begin).and_then(|(_, rest)| rest.split_once("```"));
    recipe.expect("a recipe").0
}

/// A line for `etcdctl txn`.
fn operation(line: &str) -> TxnOp {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["put", key, value] => TxnOp::put(key, unquoted(value), None),
        ["get", key] => TxnOp::get(key, None),
        _ => panic!("not understood: {line}"),
    }
}

fn unquoted(word: &str) -> &str {
    word.trim_matches('"')
}

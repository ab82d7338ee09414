//! Acquire: a lease of etcd's, and one transaction that puts the key on it.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use lockcore::{Acquire, BackendError, Claim, Contention, Lease};

use crate::backend::{EtcdBackend, seconds, ttl};
use crate::book::{self, Page, Reached};
use crate::error::{self, Trouble};
use crate::keys;
use crate::memory::{Memory, State};
use crate::record::{Held, Life, Record};

/// How often the base may have moved during one call. Each time another's acquire or raise
/// worked, so a store that is alive lets everyone through long before.
pub(crate) const ROUNDS: usize = 100;

/// What came of an attempt.
enum Attempt {
    Taken(Lease),
    Mine(Held, Memory),
    Others,
    Foreign,
    /// What was known is out of date.
    Moved,
}

/// The etcd lease that an acquire puts its key on.
struct Ground {
    id: i64,
    seconds: u32,
    /// A revision below the one that the key will be created in.
    revision: u64,
    /// Where it was granted, with what had been reached there before; not known where the lease
    /// stood.
    granted: Option<(State, Reached)>,
}

impl Ground {
    /// Whether the store that granted the lease is not the one that wrote this memory, or has
    /// gone back since: a backup was restored.
    fn is_restored(&self, life: &Life) -> bool {
        self.granted.as_ref().is_some_and(|(state, reached)| reached.is_restored(life, *state))
    }
}

impl EtcdBackend {
    pub(crate) async fn take(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let name = self.names.lease(&claim.key);
        // Who waits for the key asks again and again. As long as its release is not signalled a
        // look costs the store less than a lease.
        if self.route.is_watched_in_vain(&name) && self.is_others(claim, &name).await? {
            return Ok(Acquire::Contended(Contention::default()));
        }
        let ground = self.ground(claim).await?;
        self.take_on(claim, ground).await
    }

    async fn is_others(&self, claim: &Claim, name: &str) -> Result<bool, BackendError> {
        let found = self.route.get(name, None).await.map_err(Trouble::of_question)?;
        let held = found.kvs().first().and_then(Held::read);
        Ok(held.is_some_and(|held| held.record.holder != claim.holder))
    }

    /// A lease of etcd's with all of its ttl before it.
    async fn ground(&self, claim: &Claim) -> Result<Ground, BackendError> {
        let seconds = seconds(claim.ttl);
        let id = self.names.lease_id(claim.holder, seconds);
        let reached = self.book.reached();
        match self.route.grant(id, seconds).await {
            Ok(grant) => Ok(Ground {
                id,
                seconds: grant.seconds,
                revision: grant.revision,
                granted: Some((
                    State { cluster: grant.cluster, revision: Some(grant.revision) },
                    reached,
                )),
            }),
            // This holder asks again.
            Err(trouble) if trouble.lease_exists() => match self.route.keep_alive(id).await {
                Ok(true) => Ok(Ground { id, seconds, revision: 0, granted: None }),
                Ok(false) => Err(ended()),
                Err(trouble) => Err(trouble.of_command()),
            },
            Err(trouble) => Err(trouble.of_grant()),
        }
    }

    async fn take_on(&self, claim: &Claim, ground: Ground) -> Result<Acquire, BackendError> {
        let shard = keys::shard(&claim.key);
        for _ in 0..ROUNDS {
            let Some(page) = self.book.page(shard) else {
                self.look_up().await?;
                continue;
            };
            if ground.is_restored(&page.life) {
                self.book.found(&self.route, &self.names, Some(&page.life)).await?;
                continue;
            }
            self.book.ask_age(&self.route, &page.life).await;
            match self.attempt(claim, &ground, &page).await? {
                Attempt::Taken(lease) => return Ok(Acquire::Acquired(lease)),
                Attempt::Others => {
                    // Now it is sure that this holder has nothing and is spent. After an error it
                    // may ask again, and must find its lease.
                    self.route.revoke_behind(ground.id);
                    return Ok(Acquire::Contended(Contention::default()));
                }
                Attempt::Foreign => {
                    self.route.revoke_behind(ground.id);
                    return Err(error::foreign(&self.names.lease(&claim.key)));
                }
                Attempt::Moved => {}
                Attempt::Mine(held, memory) => {
                    // On this very lease it has all of its ttl: it was kept alive before we looked.
                    let (held, memory) = if held.lease == ground.id {
                        (held, memory)
                    } else {
                        self.keep(claim).await?.ok_or_else(ended)?
                    };
                    return Ok(Acquire::Acquired(held.granted(self.told(memory).await)));
                }
            }
        }
        Err(error::unavailable("others were faster, again and again"))
    }

    /// Reads the memory record, and writes one where there is none.
    pub(crate) async fn look_up(&self) -> Result<(), BackendError> {
        let found = self.route.get(self.names.memory(), None).await;
        let found = found.map_err(Trouble::of_question)?;
        match found.kvs().first() {
            Some(found) => self.book.learn_life(&self.names, Some(found)).map(drop),
            None => self.book.found(&self.route, &self.names, None).await,
        }
    }

    async fn attempt(
        &self,
        claim: &Claim,
        ground: &Ground,
        page: &Page,
    ) -> Result<Attempt, BackendError> {
        let name = self.names.lease(&claim.key);
        // Before the transaction, which proves that the store is still in this life.
        let memory = self.book.memory(&page.life);
        let before = self.book.before();
        let record = Record {
            holder: claim.holder,
            seconds: ground.seconds,
            base: page.base(),
            floor: claim.min_token,
            label: claim.label.clone(),
        };
        let on = PutOptions::new().with_lease(ground.id);
        let mut puts = vec![TxnOp::put(name.as_str(), record.write(), Some(on))];
        let raise = page.raise(&self.names, claim.min_token, ground.revision);
        let raise = raise.map(|(put, base)| {
            puts.push(put);
            base
        });
        let [life, raised] = page.compares(&self.names);
        let [get_memory, get_raised] = page.questions(&self.names);
        let free = Compare::create_revision(name.as_str(), CompareOp::Equal, 0);
        let txn = Txn::new().when([free, life, raised]).and_then(puts).or_else([
            TxnOp::get(name.as_str(), None),
            get_memory,
            get_raised,
        ]);
        let done = match self.route.txn(txn).await {
            Ok(done) => done,
            // Revoked meanwhile by a release, or expired: and a key on it went with it.
            Err(trouble) if trouble.lease_not_found() => return Err(ended()),
            Err(trouble) => return Err(trouble.of_command()),
        };
        if done.succeeded() {
            if let Some(base) = raise {
                self.book.note_raise(page.shard, Some(base));
            }
            let created = done.header().and_then(|header| u64::try_from(header.revision()).ok());
            let created = created.ok_or_else(error::unexpected)?;
            self.book.note_revision(&page.life, created);
            let token = created.saturating_add(record.base).max(record.floor);
            let lease = Lease::new(token, ttl(ground.seconds)).with_memory(Some(memory));
            return Ok(Attempt::Taken(lease));
        }
        let [held, life, raised] = book::found(&done)?;
        let life = self.book.learn(&self.names, page, life.as_ref(), raised.as_ref())?;
        let Some(held) = held else { return Ok(Attempt::Moved) };
        Ok(match Held::read(&held) {
            Some(held) if held.record.holder == claim.holder => {
                Attempt::Mine(held, before.judge(life, State::of(done.header())?))
            }
            Some(_) => Attempt::Others,
            None => Attempt::Foreign,
        })
    }
}

/// The holder's lease has ended during its acquire, and its key with it.
fn ended() -> BackendError {
    error::unavailable("the lease ended while the key was asked for")
}

//! Renewals of many leases: their keep-alives on shared streams, and one transaction that proves
//! all of them.

use etcd_client::{Compare, CompareOp, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse};
use lockcore::{BackendError, Claim, Incarnation, Lease, Renew};
use tokio::task::JoinSet;

use crate::backend::EtcdBackend;
use crate::error;
use crate::leases::Known;
use crate::memory::State;
use crate::moment::Moment;
use crate::record::{seconds, ttl};
use crate::trouble::Trouble;

/// Leases in one transaction: etcd takes at most 128 comparisons or operations.
const BATCH: usize = 100;
/// How often keep-alives and proof of a batch are repeated before each lease is renewed by itself.
const ROUNDS: usize = 3;
/// Leases renewed by themselves at once.
const AT_ONCE: usize = 16;

type Answer = Result<Renew, BackendError>;

/// One lease of a batch.
#[derive(Clone, Copy)]
struct Due {
    /// Its claim among all claims.
    n: usize,
    known: Known,
}

/// What is known of the answers so far.
struct Answers<'a> {
    claims: &'a [Claim],
    answers: Vec<Option<Answer>>,
    /// What is to be renewed by itself.
    single: Vec<usize>,
}

impl EtcdBackend {
    pub(crate) async fn extend_many(&self, claims: &[Claim]) -> Vec<Answer> {
        let limits = lockcore::LockBackend::limits(self);
        let answers = claims.iter().map(|_| None).collect();
        let mut all = Answers { claims, answers, single: Vec::new() };
        let mut due = Vec::with_capacity(claims.len());
        for (n, claim) in claims.iter().enumerate() {
            if let Err(input) = limits.check(claim) {
                all.answers[n] = Some(Err(input.into()));
                continue;
            }
            // What is not known, is to be raised, or to be put on a longer lease takes more steps.
            let known = self.leases.known(claim).filter(|known| {
                known.seconds >= seconds(claim.ttl)
                    && known.token >= claim.min_token
                    && !self.leases.is_revoked(known.lease)
            });
            match known {
                Some(known) => due.push(Due { n, known }),
                None => all.single.push(n),
            }
        }
        for batch in due.chunks(BATCH) {
            self.extend_batch(&mut all, batch.to_vec()).await;
        }
        self.extend_each(&mut all).await;
        let missing = || Err(error::unavailable("the renewal ended with its runtime"));
        all.answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    async fn extend_batch(&self, all: &mut Answers<'_>, mut due: Vec<Due>) {
        let asks = due.iter().any(|due| all.claims[due.n].incarnation);
        if asks && let Err(error) = self.get_to_know().await {
            // Each finds out by itself.
            tracing::debug!(%error, "the incarnation of the store is not known");
            all.single.extend(due.iter().map(|due| due.n));
            return;
        }
        for _ in 0..ROUNDS {
            if due.is_empty() {
                return;
            }
            // L3: in this order the leases have all of their ttls when the keys are seen on them.
            let (began, before) = (Moment::now(), self.book.before());
            let ids: Vec<i64> = due.iter().map(|due| due.known.lease).collect();
            let kept = match self.route.keep_alive_all(&ids).await {
                Ok(kept) => kept,
                Err(trouble) => return all.fail(&due, trouble),
            };
            let mut terms = Vec::with_capacity(due.len());
            let mut alive = Vec::with_capacity(due.len());
            for (due, kept) in due.iter().zip(kept) {
                if kept.alive {
                    alive.push(*due);
                    terms.push(kept.term);
                } else {
                    self.leases.forget(&all.claims[due.n]);
                    all.answers[due.n] = Some(Ok(Renew::NotHeld));
                }
            }
            if alive.is_empty() {
                return;
            }
            let done = match self.route.txn(self.proof_of(all.claims, &alive, asks)).await {
                Ok(done) => done,
                // A full store takes no transactions: each is looked at.
                Err(trouble) if trouble.no_space() => {
                    due = alive;
                    break;
                }
                Err(trouble) => return all.fail(&alive, trouble),
            };
            let incarnation = if asks {
                match self.incarnation_in(&done, before).await {
                    Ok(incarnation) => Some(incarnation),
                    Err(error) => {
                        tracing::debug!(%error, "the incarnation of the store is not known");
                        due = alive;
                        break;
                    }
                }
            } else {
                None
            };
            let term = done.header().map_or(0, ResponseHeader::raft_term);
            let mut seen = gets(&done).into_iter();
            due = Vec::new();
            for (one, kept_in) in alive.into_iter().zip(terms) {
                let claim = &all.claims[one.n];
                if !done.succeeded() {
                    // One of the keys was changed or has gone: this one or another.
                    match self.mine(claim, seen.next().flatten()) {
                        Ok(Some(held)) if Known::from(&held) == one.known => {}
                        Ok(Some(held)) => {
                            self.leases.saw(claim, Known::from(&held));
                            all.single.push(one.n);
                            continue;
                        }
                        Ok(None) => {
                            self.leases.forget(claim);
                            all.answers[one.n] = Some(Ok(Renew::NotHeld));
                            continue;
                        }
                        Err(error) => {
                            all.answers[one.n] = Some(Err(error));
                            continue;
                        }
                    }
                }
                // S11: a leader that was stopped answers in its old term, and renews nothing.
                if kept_in != term {
                    due.push(one);
                    continue;
                }
                self.leases.kept(claim, one.known.lease, began, kept_in);
                let lease = Lease::new(one.known.token, ttl(one.known.seconds));
                let told = incarnation.filter(|_| claim.incarnation);
                all.answers[one.n] = Some(Ok(Renew::Renewed(lease.with_incarnation(told))));
            }
        }
        all.single.extend(due.iter().map(|due| due.n));
    }

    /// A transaction that succeeds while each key is as it was seen last, and so on its lease.
    /// Otherwise it shows all of them. It goes through the log, as that of a writer does, because
    /// its second branch could write.
    fn proof_of(&self, claims: &[Claim], alive: &[Due], asks: bool) -> Txn {
        let names: Vec<_> = alive.iter().map(|due| self.names.lease(&claims[due.n].key)).collect();
        let unchanged = names.iter().zip(alive).map(|(name, due)| {
            Compare::mod_revision(name.as_str(), CompareOp::Equal, due.known.modified)
        });
        let unchanged: Vec<_> = unchanged.collect();
        let memory = asks.then(|| TxnOp::get(self.names.memory(), None));
        let mut looks: Vec<_> = names.iter().map(|name| TxnOp::get(name.as_str(), None)).collect();
        looks.extend(memory.clone());
        looks.push(TxnOp::delete(self.names.never(), None));
        Txn::new().when(unchanged).and_then(memory.into_iter().collect::<Vec<_>>()).or_else(looks)
    }

    /// What a transaction showed of the memory record, which it asked for last.
    async fn incarnation_in(
        &self,
        done: &TxnResponse,
        before: crate::memory::Before,
    ) -> Result<Incarnation, BackendError> {
        let life = gets(done).pop().ok_or_else(error::unexpected)?;
        let life = self.book.learn_life(&self.names, life.as_ref())?;
        let memory = before.judge(life, State::of(done.header())?);
        Ok(self.told(memory).await)
    }

    async fn extend_each(&self, all: &mut Answers<'_>) {
        let mut renewals = JoinSet::new();
        for n in std::mem::take(&mut all.single) {
            if renewals.len() == AT_ONCE
                && let Some(Ok((n, answer))) = renewals.join_next().await
            {
                all.answers[n] = Some(answer);
            }
            let (backend, claim) = (self.clone(), all.claims[n].clone());
            renewals.spawn(async move { (n, backend.extend(&claim).await) });
        }
        while let Some(done) = renewals.join_next().await {
            if let Ok((n, answer)) = done {
                all.answers[n] = Some(answer);
            }
        }
    }
}

impl Answers<'_> {
    fn fail(&mut self, due: &[Due], trouble: Trouble) {
        let error = trouble.of_commands();
        for due in due {
            self.answers[due.n] = Some(Err(error()));
        }
    }
}

/// What each question of a transaction found.
fn gets(done: &TxnResponse) -> Vec<Option<etcd_client::KeyValue>> {
    let found = done.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut get) => Some(get.take_kvs().into_iter().next()),
        _ => None,
    });
    found.collect()
}

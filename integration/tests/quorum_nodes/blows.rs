//! What is done to the nodes in a storm.

use std::collections::BTreeMap;

use integration::store::redis::{ask, connection};
use integration::storm::KEYS;
use lockcore_conformance::Fault;
use lockcore_conformance::proxy::{Mode, Proxy};
use tokio::time::sleep;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Clocks agree, as they do on one machine, and data is lost.
    Losing,
    /// Data is kept, and clocks jump. Redis takes the machine's clock. What one that was ahead for
    /// a moment leaves behind are counters that are ahead, so these are raised.
    WrongClocks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blow {
    Kill,
    Restart,
    Pause,
    /// One that fails loses its data.
    Empty,
    /// All that fail lose their data, at once.
    EmptyAll,
    Slow,
    BlackHole,
    Cut,
    /// A clock is ahead for a moment, anybody's.
    Jump,
    /// The nodes that are well are no longer as far away as they were, but near.
    Sway,
    Mend,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Up,
    Paused,
    Killed,
}

/// What is done to the nodes, and how often each was.
pub(crate) struct Storm {
    nodes: Nodes,
    proxies: Vec<Proxy>,
    pub(crate) kinds: Vec<Blow>,
    left: Vec<Blow>,
    /// Those that fail.
    states: BTreeMap<usize, State>,
    random: fastrand::Rng,
    pub(crate) done: BTreeMap<Blow, usize>,
}

impl Storm {
    pub(crate) async fn new(
        kind: Kind,
        nodes: Nodes,
        failing: &[usize],
        random: fastrand::Rng,
    ) -> Self {
        use Blow::{BlackHole, Cut, Empty, EmptyAll, Jump, Kill, Mend, Pause, Restart, Slow, Sway};

        let mut kinds = vec![Kill, Restart, Pause, Slow, BlackHole, Cut, Sway, Mend, Mend];
        kinds.extend(match kind {
            Kind::Losing => [Empty, EmptyAll],
            Kind::WrongClocks => [Jump, Jump],
        });
        let mut proxies = Vec::new();
        for n in 0..nodes.count() {
            proxies.push(Proxy::start(nodes.server(n).addr()).await.expect("a port"));
        }
        let states = failing.iter().map(|n| (*n, State::Up)).collect();
        let done = BTreeMap::new();
        let mut storm = Self { nodes, proxies, kinds, left: Vec::new(), states, random, done };
        if kind == Kind::WrongClocks {
            for n in 0..storm.nodes.count() {
                storm.jump(n).await;
            }
        }
        storm
    }

    /// The nodes as clients reach them.
    pub(crate) fn urls(&self) -> Vec<String> {
        let proxies = self.proxies.iter().enumerate();
        proxies.map(|(n, proxy)| self.nodes.server(n).url_at(proxy.addr())).collect()
    }

    /// Breaks or mends something, and lets some time pass. Each kind has its turn.
    pub(crate) async fn blow(&mut self) {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.random.shuffle(&mut self.left);
        }
        let Some(blow) = self.left.pop() else { return };
        let n = self.one_that_fails();
        match blow {
            Blow::Kill => {
                self.nodes.inflict(n, Fault::Kill).await;
                self.states.insert(n, State::Killed);
            }
            Blow::Restart => {
                self.nodes.inflict(n, Fault::Restart).await;
                self.states.insert(n, State::Up);
            }
            Blow::Pause => {
                self.up(n).await;
                self.nodes.inflict(n, Fault::Pause).await;
                self.states.insert(n, State::Paused);
            }
            Blow::Empty => self.empty(&[n]).await,
            Blow::EmptyAll => self.empty(&self.states.keys().copied().collect::<Vec<_>>()).await,
            Blow::Slow => {
                let slow = Duration::from_millis(self.random.u64(25..300));
                self.proxies[n].set_both(Mode::Delay(slow));
            }
            Blow::BlackHole => self.proxies[n].set_both(Mode::Swallow),
            Blow::Cut => self.proxies[n].cut(),
            Blow::Jump => {
                let any = self.random.usize(..self.nodes.count());
                let reached = self.states.get(&any).is_none_or(|state| *state == State::Up);
                self.jump(if reached { any } else { self.one_that_is_well() }).await;
            }
            Blow::Sway => {
                for (n, proxy) in self.proxies.iter().enumerate() {
                    if !self.states.contains_key(&n) {
                        let far = Duration::from_millis(self.random.u64(..15));
                        proxy.set_both(Mode::Delay(far));
                    }
                }
            }
            Blow::Mend => {
                self.proxies[n].heal();
                self.up(n).await;
            }
        }
        *self.done.entry(blow).or_default() += 1;
        sleep(Duration::from_millis(self.random.u64(20..700))).await;
    }

    /// Mends everything, and gives the nodes back.
    pub(crate) async fn calm(&mut self) -> &Nodes {
        self.proxies.iter().for_each(Proxy::heal);
        for n in self.states.keys().copied().collect::<Vec<_>>() {
            self.up(n).await;
        }
        &self.nodes
    }

    fn one_that_fails(&mut self) -> usize {
        self.random.choice(self.states.keys().copied()).expect("some fail")
    }

    fn one_that_is_well(&self) -> usize {
        (0..).find(|n| !self.states.contains_key(n)).expect("most are")
    }

    async fn up(&mut self, n: usize) {
        match self.states.insert(n, State::Up) {
            Some(State::Paused) => self.nodes.inflict(n, Fault::Resume).await,
            Some(State::Killed) => self.nodes.inflict(n, Fault::Restart).await,
            Some(State::Up) | None => {}
        }
    }

    async fn empty(&mut self, which: &[usize]) {
        for n in which {
            self.up(*n).await;
        }
        for n in which {
            self.nodes.inflict(*n, Fault::Wipe).await;
        }
    }

    /// Sets the counters of a node far ahead.
    async fn jump(&mut self, n: usize) {
        // What a clock that was ahead leaves behind: a token alone, which outlives the test. A lease
        // that stands keeps its own.
        const RAISE: &str = "local record = redis.call('GET', KEYS[1]) or '0'
            if string.find(record, '|', 1, true) then return 0 end
            local at = redis.call('TIME')[1] * 1000000 + ARGV[1]
            local token = string.format('%016.0f', math.max(tonumber(record), at))
            redis.call('SET', KEYS[1], token, 'PX', 86400000)
            return 1";

        let mut connection = connection(&self.nodes.url(n)).await;
        for key in KEYS {
            let ahead = Duration::from_secs(self.random.u64(..4 * 3600)).as_micros().to_string();
            let record = format!("leaselock:{{{key}}}");
            let words = ["EVAL", RAISE, "1", &record, &ahead];
            for _ in 0..100 {
                if ask::<i64>(&mut connection, &words).await.expect("a server") == 1 {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

//! The move: all processes, one by one, from phase to phase.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leaselock::{ErrorKind, LockBackend, Phase, Status};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::args::Args;
use crate::register::{At, IDLE, Registers};
use crate::report::Report;
use crate::worker::{Desk, Job, Worker};
use crate::{Failure, processes};

/// The pause of a rolling deploy between two processes.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a step is waited for.
const LONGEST: Duration = Duration::from_secs(30);

/// Moves a fleet under load, and says what became of it.
pub(crate) async fn moved(args: &Args) -> Result<Report, Failure> {
    let began = Instant::now();
    let say = |text: &str| {
        if !args.json {
            println!("{text}");
        }
    };
    let mut fleet = Fleet::of(args).await?;
    for number in 0..args.processes {
        let process = fleet.start(number, Phase::Old).await?;
        fleet.processes.push(process);
    }
    let mut way = vec![Phase::Old, Phase::Both, Phase::New];
    if args.back {
        way.extend([Phase::Both, Phase::Old]);
    }
    for step in way.windows(2) {
        let [from, to] = step else { continue };
        sleep(args.stay).await;
        let all = [(*from, args.processes)];
        let status = fleet.ready(*to, &all).await?;
        say(&format!("All are in phase `{from}`. Before the step to `{to}`:\n{status}"));
        let refusal = fleet.roll(*from, *to).await?;
        say(&format!("One by one they went from `{from}` to `{to}`. Halfway one was turned away:"));
        say(&format!("{refusal}\n"));
    }
    sleep(args.stay).await;
    say(&format!("Arrived:\n{}", fleet.status().await?));
    for process in std::mem::take(&mut fleet.processes) {
        process.leave().await?;
    }
    Ok(Report::new(args.processes, &way, &fleet.registers.tally(), began.elapsed()))
}

/// All processes, and what they protect.
struct Fleet<'a> {
    args: &'a Args,
    registers: Arc<Registers>,
    processes: Vec<Process>,
    /// For the status. Looking needs no phase.
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
}

impl<'a> Fleet<'a> {
    async fn of(args: &'a Args) -> Result<Self, Failure> {
        let (old, new) = args.stores.open().await?;
        Ok(Self { args, registers: Arc::default(), processes: Vec::new(), old, new })
    }

    async fn status(&self) -> Result<Status, Failure> {
        Ok(Status::of(&*self.old, &*self.new).await?)
    }

    /// Waits until nothing speaks against a step: the phase before the last stands for a while after
    /// all have left it.
    async fn ready(&self, to: Phase, all: &[(Phase, usize)]) -> Result<Status, Failure> {
        let end = Instant::now() + LONGEST;
        loop {
            let status = self.status().await?;
            let objections = status.objections(to, all);
            if objections.is_empty() {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(format!("phase `{to}` cannot be entered: {objections:?}").into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Starts a process in a phase. It takes locks from then on.
    async fn start(&self, number: usize, phase: Phase) -> Result<Process, Failure> {
        let job = Job {
            stores: self.args.stores.clone(),
            phase,
            label: format!("process {}", number + 1),
        };
        let seat = Seat {
            phase,
            registers: self.registers.clone(),
            leaving: Arc::default(),
            report: AtomicBool::new(number.is_multiple_of(4)),
            holder: Mutex::default(),
        };
        let leaving = seat.leaving.clone();
        let mut running = JoinSet::new();
        if self.args.tasks {
            let worker = Worker::start(&job).await?;
            running.spawn(async move { worker.work(&Desk::Here(seat)).await });
        } else {
            let child = processes::Child::start(&job).await?;
            running.spawn(child.serve(seat));
        }
        Ok(Process { leaving, running })
    }

    /// Lets each process finish and leave, and starts one in the next phase for it. Halfway one
    /// comes too early or too late: what it is told.
    async fn roll(&mut self, from: Phase, to: Phase) -> Result<String, Failure> {
        let half = self.args.processes / 2;
        let mut refusal = String::new();
        for number in 0..self.args.processes {
            if number == half {
                // Some are in the one phase, some in the next. The third is the opposite of one.
                refusal = match self.start(number, third(from, to)).await {
                    Ok(_) => return Err("opposite phases ran at once".into()),
                    Err(error) if is_refusal(&error) => error.to_string(),
                    Err(error) => return Err(error),
                };
            }
            let next = self.processes.remove(0);
            next.leave().await?;
            let process = self.start(number, to).await?;
            self.processes.push(process);
            sleep(PAUSE).await;
        }
        Ok(refusal)
    }
}

/// The phase that is neither.
fn third(from: Phase, to: Phase) -> Phase {
    if from == Phase::Old || to == Phase::Old { Phase::New } else { Phase::Old }
}

fn is_refusal(error: &Failure) -> bool {
    let error = error.downcast_ref::<leaselock::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::Rejected)
}

/// A process at work, or a task that stands for one. Dropping it ends it.
struct Process {
    leaving: Arc<AtomicBool>,
    running: JoinSet<Result<(), Failure>>,
}

impl Process {
    /// It finishes the lock that it has and leaves its phase.
    async fn leave(mut self) -> Result<(), Failure> {
        self.leaving.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// A process as this one sees it: where its questions are answered.
pub(crate) struct Seat {
    phase: Phase,
    registers: Arc<Registers>,
    leaving: Arc<AtomicBool>,
    /// Whether it is still to write the report.
    report: AtomicBool,
    /// Its number at the register of the key that it holds.
    holder: Mutex<Option<u64>>,
}

impl Seat {
    /// See [`Desk`] for the words.
    pub(crate) fn answer(&self, line: &str) -> Result<String, Failure> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |taken: bool| if taken { "taken" } else { "refused" }.to_owned();
        let words: Vec<_> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["next"] => self.next(),
            ["come", key, token] => {
                *holder = self.registers.come(self.phase, key, token.parse()?);
                taken(holder.is_some())
            }
            ["go", key, token] => {
                let holder = holder.take().ok_or("it goes and did not come")?;
                taken(self.registers.go(key, token.parse()?, holder))
            }
            [at @ ("coming" | "going"), guard @ ("valid" | "lost")] => {
                let at = if at == "coming" { At::Coming } else { At::Going };
                self.registers.refused(at, guard == "valid");
                "noted".to_owned()
            }
            ["failed"] => {
                self.registers.failed();
                "noted".to_owned()
            }
            _ => return Err("a process said something else".into()),
        })
    }

    /// What to lock now, and for how long.
    fn next(&self) -> String {
        if self.leaving.load(Ordering::Relaxed) {
            return "leave".to_owned();
        }
        if self.report.swap(false, Ordering::Relaxed) {
            // Long enough to be renewed, and to be held while others change their phase.
            return "lock report 2500".to_owned();
        }
        if self.phase != Phase::Both && fastrand::u32(..10) == 0 {
            return format!("lock {IDLE} 1");
        }
        format!("lock orders/{} {}", fastrand::u32(..4), fastrand::u32(..10))
    }
}

//! How the network and the store behave at the moment.

use std::time::Duration;

use crate::plan::{CLIENTS, LATEST, Plan, Shape};

/// What a cut swallows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    None,
    Requests,
    Answers,
    Both,
}

impl Cut {
    pub(crate) fn swallows_requests(self) -> bool {
        matches!(self, Self::Requests | Self::Both)
    }

    pub(crate) fn swallows_answers(self) -> bool {
        matches!(self, Self::Answers | Self::Both)
    }
}

/// Whether the store serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Up,
    /// It is down, and its machine says so.
    Refusing,
    /// It is down, and nobody says so.
    Silent,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    None,
    LoseRequest,
    LoseAnswer,
    Refuse,
    Reset,
    /// It arrives this much later, and is not answered.
    Straggle(Duration),
    /// It arrives once more, this much later.
    Repeat(Duration),
}

/// One request's way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) there: Duration,
    pub(crate) back: Duration,
    pub(crate) mishap: Mishap,
    /// Which one of a batch is not served, if one is.
    pub(crate) odd: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Network {
    random: fastrand::Rng,
    delay: Duration,
    /// Of a thousand requests: how many are lost, and how many of their answers.
    lost: u16,
    refused: u16,
    late: u16,
    latest: Duration,
    /// How much faster than the clients' clocks the store's clock runs.
    pub(crate) rate: f64,
    /// Whether the store has lines.
    pub(crate) lines: bool,
    pub(crate) cuts: [Cut; CLIENTS],
    pub(crate) mood: Mood,
}

impl Network {
    /// Seeds differ in how bad things are.
    pub(crate) fn draw(random: &mut fastrand::Rng, plan: &Plan) -> Self {
        let pick =
            |random: &mut fastrand::Rng, choices: &[u16]| choices[random.usize(..choices.len())];
        let calm = plan.shape == Shape::Stalls;
        Self {
            delay: Duration::from_millis(pick(random, &[30, 300, 1500]).into()),
            lost: if calm { 0 } else { pick(random, &[0, 20, 50, 50]) },
            refused: if calm { 0 } else { pick(random, &[0, 10, 30]) },
            late: match plan.shape {
                Shape::Any => pick(random, &[0, 20, 50, 150]),
                Shape::LateCopies => 450,
                Shape::Stalls => 0,
            },
            latest: LATEST,
            lines: random.u8(..4) > 0,
            rate: [0.991, 1.0, 1.009][random.usize(..3)],
            cuts: [Cut::None; CLIENTS],
            mood: Mood::Up,
            random: random.fork(),
        }
    }

    /// No more mishaps.
    pub(crate) fn calm(&mut self) {
        self.delay = Duration::from_millis(50);
        (self.lost, self.refused, self.late) = (0, 0, 0);
        self.cuts = [Cut::None; CLIENTS];
        self.mood = Mood::Up;
    }

    /// A ttl as the clients' clocks see it pass.
    pub(crate) fn scaled(&self, ttl: Duration) -> Duration {
        ttl.div_f64(self.rate)
    }

    pub(crate) fn fate(&mut self) -> Fate {
        let (there, back) = (self.way(), self.way());
        let late = self.latest.mul_f64(self.random.f64());
        let mut dice = self.random.u16(..1000);
        let chances = [
            (self.lost, Mishap::LoseRequest),
            (self.lost, Mishap::LoseAnswer),
            (self.refused, Mishap::Refuse),
            (self.refused, Mishap::Reset),
            (self.late, Mishap::Straggle(late)),
            (self.late, Mishap::Repeat(late)),
        ];
        let mut mishap = Mishap::None;
        for (chance, possible) in chances {
            if dice < chance {
                mishap = possible;
                break;
            }
            dice -= chance;
        }
        let odd = (self.refused > 0 && self.random.u8(..8) == 0).then(|| self.random.usize(..));
        Fate { there, back, mishap, odd }
    }

    /// How long a message takes; most are faster than the slowest by far.
    fn way(&mut self) -> Duration {
        let slow = self.random.u8(..4) == 0;
        let most = if slow { self.delay } else { self.delay / 5 };
        most.mul_f64(self.random.f64())
    }
}

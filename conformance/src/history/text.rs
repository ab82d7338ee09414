//! Histories as text: one line for each event, to be read by people and by the checker.

use std::fmt;
use std::str::FromStr;

use super::{Answer, Call, Event, Log, Relied, Verb};
use crate::case::Failure;

impl Log {
    fn header(&self) -> String {
        let combined = if self.combined { " combined" } else { "" };
        format!("history 1 seed={} lag={} slack={}{combined}", self.seed, self.lag, self.slack)
    }

    pub(super) fn tail(&self, lines: usize) -> String {
        let left_out = self.events.len().saturating_sub(lines);
        let mut text = self.header();
        if left_out > 0 {
            text += &format!("\n# {left_out} earlier ones are left out");
        }
        for event in &self.events[left_out..] {
            text += &format!("\n{event}");
        }
        text
    }

    /// What concerns one key, and the faults.
    pub(super) fn of_key(&self, key: usize) -> Self {
        let concerned = |event: &&Event| match event {
            Event::Call(call) => call.key == key,
            Event::Relied(relied) => relied.key == key,
            Event::Fault { .. } => true,
        };
        Self { events: self.events.iter().filter(concerned).cloned().collect(), ..*self }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tail(usize::MAX))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => call.fmt(f),
            Self::Relied(relied) => relied.fmt(f),
            Self::Fault { began, done, what } => write!(f, "{began}..{} fault {what}", Or(*done)),
        }
    }
}

/// A time, or nothing.
struct Or(Option<u64>);

impl fmt::Display for Or {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |time| time.fmt(f))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Acquire => "acquire",
            Verb::Renew => "renew",
            Verb::Release => "release",
            Verb::HandOver => "hand-over",
            Verb::TakeOver => "take-over",
        };
        let (invoked, answered) = (self.invoked, Or(self.answered));
        write!(f, "{invoked}..{answered} c{} {verb} k{}", self.client, self.key)?;
        write!(f, " h{} ttl={} floor={} ", self.holder, self.ttl, self.floor)?;
        if self.wait > 0 {
            write!(f, "wait={} ", self.wait)?;
        }
        f.write_str(match self.answer {
            Answer::Granted { token, ttl } => return write!(f, "granted token={token} ttl={ttl}"),
            Answer::Open => "open",
            Answer::Contended => "contended",
            Answer::Released { token: Some(token) } => return write!(f, "released token={token}"),
            Answer::Released { token: None } => "released",
            Answer::NotHeld => "not-held",
            Answer::Ambiguous => "ambiguous",
            Answer::Unavailable => "unavailable",
            Answer::Refused => "refused",
        })
    }
}

impl fmt::Display for Relied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} w{} relied k{}", self.began, self.ended, self.who, self.key)?;
        write!(f, " token={} asked={}", self.token, self.asked)
    }
}

impl FromStr for Log {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        // What is indented was said about it.
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(' '));
        let wrong = |line: &str| Failure::new(format!("no line of a history: {line:?}"));
        let head = lines.next().unwrap_or_default();
        let mut log = header(head).ok_or_else(|| wrong(head))?;
        for line in lines.filter(|line| !line.starts_with('#')) {
            log.events.push(event(line).ok_or_else(|| wrong(line))?);
        }
        Ok(log)
    }
}

fn header(line: &str) -> Option<Log> {
    let mut words = line.strip_prefix("history 1 ")?.split(' ');
    let mut number = |name| number(words.next()?, name);
    let (seed, lag, slack) = (number("seed=")?, number("lag=")?, number("slack=")?);
    let combined = words.next() == Some("combined");
    Some(Log { seed, lag, slack, combined, events: Vec::new() })
}

/// A word that is a prefix and a number.
fn number<N: FromStr>(word: &str, prefix: &str) -> Option<N> {
    word.strip_prefix(prefix)?.parse().ok()
}

fn event(line: &str) -> Option<Event> {
    let words: Vec<_> = line.split(' ').collect();
    let (times, words) = words.split_first()?;
    let (began, ended) = times.split_once("..")?;
    let began = began.parse().ok()?;
    let ended = if ended.is_empty() { None } else { Some(ended.parse().ok()?) };
    Some(match *words {
        ["fault", ref what @ ..] => Event::Fault { began, done: ended, what: what.join(" ") },
        [who, "relied", key, token, asked] => Event::Relied(Relied {
            began,
            ended: ended?,
            who: number(who, "w")?,
            key: number(key, "k")?,
            token: number(token, "token=")?,
            asked: number(asked, "asked=")?,
        }),
        [client, verb, key, holder, ttl, floor, ref rest @ ..] => Event::Call(Call {
            invoked: began,
            answered: ended,
            client: number(client, "c")?,
            verb: match verb {
                "acquire" => Verb::Acquire,
                "renew" => Verb::Renew,
                "release" => Verb::Release,
                "hand-over" => Verb::HandOver,
                "take-over" => Verb::TakeOver,
                _ => return None,
            },
            key: number(key, "k")?,
            holder: number(holder, "h")?,
            ttl: number(ttl, "ttl=")?,
            floor: number(floor, "floor=")?,
            wait: rest.first().and_then(|word| number(word, "wait=")).unwrap_or(0),
            answer: answer(rest)?,
        }),
        _ => return None,
    })
}

/// The answer of a call, behind what was asked.
fn answer(words: &[&str]) -> Option<Answer> {
    Some(match *words {
        [wait, ref answer_of @ ..] if wait.starts_with("wait=") => return answer(answer_of),
        ["granted", token, ttl] => {
            Answer::Granted { token: number(token, "token=")?, ttl: number(ttl, "ttl=")? }
        }
        ["released", token] => Answer::Released { token: Some(number(token, "token=")?) },
        ["released"] => Answer::Released { token: None },
        ["open"] => Answer::Open,
        ["contended"] => Answer::Contended,
        ["not-held"] => Answer::NotHeld,
        ["ambiguous"] => Answer::Ambiguous,
        ["unavailable"] => Answer::Unavailable,
        ["refused"] => Answer::Refused,
        _ => return None,
    })
}

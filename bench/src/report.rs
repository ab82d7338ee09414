//! The report: tables with a pass mark per line, plots, and all figures as JSON.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::bench::Bench;
use crate::marks::{Bound, Mark, Verdict, marks};
use crate::plot::{Panel, svg};
use crate::results::{Id, Results};
use crate::rows::Row;
use crate::stores::{
    DIRECT, DISTRIBUTED_LOCK, LOCK_SERVICE, OURS, PLAIN, POLLING, RAW, RSLOCK, SWAP,
};

mod method;

const HEAD: &str = "<!-- Written by `cargo xtask bench`. Changes by hand are lost. -->

# Performance

";

/// The whole page.
pub(crate) struct Report {
    page: String,
    plots: Vec<(&'static str, String)>,
    figures: Value,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.page)
    }
}

impl Report {
    pub(crate) fn new(bench: &Bench, rows: &[&Row]) -> Result<Self> {
        let (results, marks) = (&bench.results, marks());
        let mut page = HEAD.to_owned();
        page.push_str(&method::text(bench));
        summary(&mut page, results, rows, &marks);
        let mut plots = Vec::new();
        for row in rows {
            let _ = write!(page, "\n## {}\n\n{}\n\n", row.title, row.note);
            for plot in PLOTS.iter().filter(|plot| plot.row == row.name) {
                if let Some(drawn) = plot.draw(results) {
                    let _ = write!(page, "![{}](performance/{})\n\n", plot.title, plot.file);
                    plots.push((plot.file, drawn));
                }
            }
            table(&mut page, results, row);
            let of_row = marks.iter().filter(|mark| mark.of.row == row.name);
            marks_table(&mut page, results, &of_row.collect::<Vec<_>>());
        }
        if !results.missing().is_empty() {
            page.push_str("\n## What could not be measured\n\n");
            for missing in results.missing() {
                let _ = writeln!(page, "- {missing}");
            }
        }
        let all = results.all().map(|(id, figures)| {
            let place = [id.row, id.store, &id.setup, &id.contender, &id.name].join("/");
            json!({ "place": place, "figures": figures })
        });
        Ok(Self { page, plots, figures: all.collect() })
    }

    /// Writes the page and its plots, and all figures.
    pub(crate) fn write(self, docs: &Path, figures: &Path) -> Result<Self> {
        if !figures.as_os_str().is_empty() {
            fs::write(figures, format!("{:#}\n", self.figures))?;
        }
        if !docs.as_os_str().is_empty() {
            let folder = docs.join("performance");
            fs::create_dir_all(&folder)?;
            fs::write(docs.join("performance.md"), &self.page)?;
            for (file, drawn) in &self.plots {
                fs::write(folder.join(file), drawn)?;
            }
        }
        Ok(self)
    }
}

fn summary(page: &mut String, results: &Results, rows: &[&Row], marks: &[Mark]) {
    page.push_str(
        "\n## Pass marks\n\n| Work | Met | Not met | Not measured |\n|---|---:|---:|---:|\n",
    );
    let mut all = [0; 3];
    for row in rows {
        let mut counts = [0; 3];
        for mark in marks.iter().filter(|mark| mark.of.row == row.name) {
            let place = match mark.verdict(results) {
                Verdict::Met(_) => 0,
                Verdict::NotMet(_) => 1,
                Verdict::NotMeasured => 2,
            };
            counts[place] += 1;
            all[place] += 1;
        }
        let [met, not_met, not_measured] = counts;
        let _ = writeln!(page, "| {} | {met} | {not_met} | {not_measured} |", row.title);
    }
    let [met, not_met, not_measured] = all;
    let _ = writeln!(page, "| All | {met} | {not_met} | {not_measured} |");
}

/// Ratios are to the first of these that was measured.
const BASES: [&str; 3] = [RAW, SWAP, DIRECT];

/// The order of the lines of one setup.
const CONTENDERS: [&str; 9] =
    [RAW, SWAP, DIRECT, PLAIN, OURS, POLLING, RSLOCK, DISTRIBUTED_LOCK, LOCK_SERVICE];

fn table(page: &mut String, results: &Results, row: &Row) {
    let mut places: Vec<(&str, &str, &str)> = Vec::new();
    for (id, _) in results.all().filter(|(id, _)| id.row == row.name) {
        let place = (id.store, id.setup.as_str(), id.contender.as_str());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    // The order of stores and setups stays; within them the bases come first.
    let setups: Vec<_> = places.iter().map(|place| (place.0, place.1)).collect();
    places.sort_by_key(|(store, setup, contender)| {
        let setup = setups.iter().position(|known| known == &(*store, *setup));
        (setup, CONTENDERS.iter().position(|known| known == contender))
    });
    let id = |(store, setup, contender): (&'static str, &str, &str), name: &str| {
        Id::new(row.name, store, setup, contender, name)
    };
    let first = row.columns[0].0;
    let base = |place: (&'static str, &str, &str)| {
        let bases = BASES.iter().map(|base| id((place.0, place.1, base), first));
        bases.into_iter().find(|base| results.median(base).is_some())
    };
    let columns: Vec<_> = row
        .columns
        .iter()
        .filter(|(name, _)| places.iter().any(|place| results.median(&id(*place, name)).is_some()))
        .collect();
    let with_ratio = places.iter().any(|place| base(*place).is_some());
    let mut head = "| Store | Setup | Contender |".to_owned();
    let mut rule = "|---|---|---|".to_owned();
    for (_, heading) in &columns {
        let _ = write!(head, " {heading} |");
        rule.push_str("---:|");
    }
    if with_ratio {
        let _ = write!(head, " ratio of {} (least to greatest) |", row.columns[0].1);
        rule.push_str("---:|");
    }
    let _ = writeln!(page, "{head}\n{rule}");
    for place in places {
        let _ = write!(page, "| {} | {} | {} |", place.0, place.1, place.2);
        for (name, _) in &columns {
            let figure = results.median(&id(place, name)).map(shown);
            let _ = write!(page, " {} |", figure.unwrap_or_else(|| "–".to_owned()));
        }
        if with_ratio {
            let ratio = base(place).and_then(|base| results.ratio(&id(place, first), &base));
            let ratio = ratio.map(|[median, least, most]| {
                format!("{} ({} to {})", shown(median), shown(least), shown(most))
            });
            let _ = write!(page, " {} |", ratio.unwrap_or_else(|| "–".to_owned()));
        }
        page.push('\n');
    }
}

fn marks_table(page: &mut String, results: &Results, marks: &[&Mark]) {
    if marks.is_empty() {
        return;
    }
    page.push_str(
        "\n| Pass mark | Compared with | Target | Measured | |\n|---|---|---:|---:|---|\n",
    );
    for mark in marks {
        let of = &mark.of;
        let compared = match &mark.over {
            None if mark.worst => "the worst repeat".to_owned(),
            None => "–".to_owned(),
            Some(over) if over.contender != of.contender => over.contender.clone(),
            Some(over) => over.setup.clone(),
        };
        let target = match mark.bound {
            Bound::AtMost(most) => format!("≤ {}", shown(most)),
            Bound::AtLeast(least) => format!("≥ {}", shown(least)),
        };
        let (measured, verdict) = match mark.verdict(results) {
            Verdict::Met(figure) => (shown(figure), "met".to_owned()),
            Verdict::NotMet(figure) => (shown(figure), "**not met**".to_owned()),
            Verdict::NotMeasured => ("–".to_owned(), not_measured(results, mark)),
        };
        let who = if of.contender == OURS { "" } else { ", polling" };
        let _ = writeln!(
            page,
            "| {}, {}{who}: {} | {compared} | {target} | {measured} | {verdict} |",
            of.store, of.setup, of.name
        );
    }
}

fn not_measured(results: &Results, mark: &Mark) -> String {
    let of = &mark.of;
    let why = results.missing().iter().find(|missing| {
        missing.row == of.row && missing.store == of.store && missing.setup == of.setup
    });
    let why = why.map_or("left out of this run", |missing| missing.why.trim());
    format!("not measured ({})", why.replace('\n', " "))
}

/// A figure with as many digits as it is good for.
fn shown(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        ..0.095 => format!("{figure:.3}"),
        ..9.95 => format!("{figure:.2}"),
        ..99.5 => format!("{figure:.1}"),
        _ => {
            let digits = format!("{figure:.0}");
            let mut grouped = String::new();
            for (n, digit) in digits.chars().enumerate() {
                if n > 0 && (digits.len() - n) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

/// One plot: a figure of a row against the number that its setups begin with.
struct Plot {
    file: &'static str,
    title: &'static str,
    row: &'static str,
    /// Only setups that end so.
    setups: &'static str,
    figure: &'static str,
    x: &'static str,
    y: &'static str,
}

const PLOTS: [Plot; 5] = [
    Plot {
        file: "tasks.svg",
        title: "Many tasks, a key each",
        row: "tasks",
        setups: ", mt",
        figure: "ops/s",
        x: "tasks",
        y: "cycles a second",
    },
    Plot {
        file: "hand-over.svg",
        title: "Hand-over between processes",
        row: "hand-over",
        setups: " waiting",
        figure: "p50",
        x: "waiting processes",
        y: "p50 in ms",
    },
    Plot {
        file: "held.svg",
        title: "Held locks",
        row: "held",
        setups: " locks",
        figure: "commands",
        x: "held locks",
        y: "commands a second",
    },
    Plot {
        file: "held-cpu.svg",
        title: "Held locks",
        row: "held",
        setups: " locks",
        figure: "cpu",
        x: "held locks",
        y: "client CPU in 20 s, in s",
    },
    Plot {
        file: "keys.svg",
        title: "Keys ever used",
        row: "keys",
        setups: " keys",
        figure: "p50",
        x: "keys",
        y: "p50 of acquire and release in µs",
    },
];

impl Plot {
    /// A panel for each store; `None` if there is nothing to see.
    fn draw(&self, results: &Results) -> Option<String> {
        let mut panels: Vec<Panel> = Vec::new();
        for (id, _) in results.all() {
            if id.row != self.row || id.name != self.figure || !id.setup.ends_with(self.setups) {
                continue;
            }
            let x = id.setup.split(' ').next().and_then(|number| number.parse().ok());
            // Neither axis has a zero.
            let y = results.median(id).map(|figure| figure.max(0.001));
            let Some(point) = x.zip(y) else { continue };
            let panel = match panels.iter().position(|panel| panel.title == id.store) {
                Some(place) => &mut panels[place],
                None => {
                    panels.push(Panel { title: id.store.to_owned(), lines: Vec::new() });
                    panels.last_mut()?
                }
            };
            match panel.lines.iter_mut().find(|(name, _)| *name == id.contender) {
                Some((_, points)) => points.push(point),
                None => panel.lines.push((id.contender.clone(), vec![point])),
            }
        }
        for (_, points) in panels.iter_mut().flat_map(|panel| &mut panel.lines) {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        (!panels.is_empty()).then(|| svg(self.title, self.x, self.y, &panels))
    }
}

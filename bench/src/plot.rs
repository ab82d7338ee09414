//! Plots as SVG, readable on light and on dark pages.

use std::fmt::Write as _;

/// One drawing of a plot.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Each with its name and points, which are positive.
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 44.0;
const LINE: f64 = 16.0;

/// Colours with contrast on white and on black, in the order of the lines.
const COLOURS: [&str; 7] =
    ["#d9480f", "#1c7ed6", "#2b8a3e", "#9c36b5", "#b08800", "#0b7285", "#868e96"];

const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.axis{stroke:#8c959f;stroke-width:1}\
    .grid{stroke:#8c959f;stroke-width:1;opacity:.25}.line{fill:none;stroke-width:2}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}}";

/// Panels beside each other, both axes in powers of ten.
pub(crate) fn svg(title: &str, x: &str, y: &str, panels: &[Panel]) -> String {
    // One colour for one name, in all panels.
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in panels.iter().flat_map(|panel| &panel.lines) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let legend = names.len().div_ceil(3) as f64 * LINE;
    let (width, height) = (WIDTH * panels.len() as f64, HEIGHT + legend + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n"
    );
    text(&mut svg, width / 2.0, 16.0, "middle", &format!("{title}: {y}"));
    for (n, panel) in panels.iter().enumerate() {
        draw(&mut svg, n as f64 * WIDTH, x, panel, &names);
    }
    for (n, name) in names.iter().enumerate() {
        let (at, row) = (LEFT + (n % 3) as f64 * width / 3.2, (n / 3) as f64);
        let y = HEIGHT + 10.0 + row * LINE;
        let colour = COLOURS[n % COLOURS.len()];
        let _ = writeln!(svg, "<circle cx=\"{at}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/>", y - 4.0);
        text(&mut svg, at + 10.0, y, "start", name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The whole powers of ten around all values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value.log10()), most.max(value.log10()))
    });
    if least > most {
        return (0.0, 1.0);
    }
    (least.floor(), most.ceil().max(least.floor() + 1.0))
}

fn draw(svg: &mut String, offset: f64, label: &str, panel: &Panel, names: &[&str]) {
    let points = || panel.lines.iter().flat_map(|(_, points)| points);
    let (x_range, y_range) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
    let (left, right) = (offset + LEFT, offset + WIDTH - RIGHT);
    let (top, bottom) = (TOP, HEIGHT - BOTTOM);
    let x_of = |x: f64| left + (x.log10() - x_range.0) / (x_range.1 - x_range.0) * (right - left);
    let y_of = |y: f64| bottom - (y.log10() - y_range.0) / (y_range.1 - y_range.0) * (bottom - top);
    text(svg, f64::midpoint(left, right), TOP - 10.0, "middle", &panel.title);
    text(svg, f64::midpoint(left, right), HEIGHT - 8.0, "middle", label);
    for power in ticks(y_range) {
        let y = y_of(10_f64.powf(power));
        line(svg, "grid", (left, y), (right, y));
        text(svg, left - 6.0, y + 4.0, "end", &number(power));
    }
    for power in ticks(x_range) {
        let x = x_of(10_f64.powf(power));
        line(svg, "grid", (x, top), (x, bottom));
        text(svg, x, bottom + 16.0, "middle", &number(power));
    }
    line(svg, "axis", (left, bottom), (right, bottom));
    line(svg, "axis", (left, top), (left, bottom));
    for (name, points) in &panel.lines {
        let place = names.iter().position(|known| known == name).unwrap_or(0);
        let colour = COLOURS[place % COLOURS.len()];
        let places: Vec<_> = points.iter().map(|&(x, y)| (x_of(x), y_of(y))).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let path = path.join(" ");
        let _ = writeln!(svg, "<polyline class=\"line\" stroke=\"{colour}\" points=\"{path}\"/>");
        for (x, y) in places {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
}

fn ticks(range: (f64, f64)) -> impl Iterator<Item = f64> {
    (range.0 as i32..=range.1 as i32).map(f64::from)
}

fn number(power: f64) -> String {
    match power as i32 {
        power @ 0..=3 => format!("{}", 10_i32.pow(power.unsigned_abs())),
        power @ 4..=5 => format!("{}k", 10_i32.pow(power.unsigned_abs() - 3)),
        power @ 6.. => format!("{}M", 10_i64.pow(power.unsigned_abs() - 6)),
        power => format!("{:.*}", power.unsigned_abs() as usize, 10_f64.powi(power)),
    }
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

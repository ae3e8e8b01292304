//! A chart as SVG: rate and 99th percentile of each contender, one panel each, over what was varied; all axes are logarithmic.
//!
//! There is no background, and colours are of middle brightness: a picture in a README is not told whether its page is light or dark.

use std::fmt::Write;

pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What was varied, with its unit.
    pub(crate) varied: &'a str,
    /// Its values, from small to large, and how they are written. The first may be 0.
    pub(crate) stops: Vec<(f64, &'a str)>,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// One for each stop.
    pub(crate) points: Vec<Point>,
}

pub(crate) struct Point {
    pub(crate) rate: f64,
    pub(crate) p99_ms: f64,
    pub(crate) has_errors: bool,
}

/// What a panel shows: its name, and which part of a point.
type Panel = (&'static str, fn(&Point) -> f64);

const PANELS: [Panel; 2] = [("requests/s", |point| point.rate), ("p99, ms", |point| point.p99_ms)];

/// Pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 736.0;
const TOP: f64 = 84.0;
const PANEL: f64 = 190.0;
const GAP: f64 = 40.0;
const HEIGHT: f64 = TOP + 2.0 * PANEL + GAP + 56.0;

const INK: &str = "#768390";
const COLOURS: [&str; 4] = ["#e5652e", "#2f81f7", "#2da44e", "#a475f9"];

/// Where 0 stands, which has no logarithm: so many times to the left of the smallest value that has one.
const ZERO: f64 = 6.0;

/// More ticks than this are too many for a panel.
const TICKS: usize = 10;

impl Chart<'_> {
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n<title>{0}</title>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\">{0}</text>\n",
            self.title
        );
        self.legend(&mut svg);
        for (number, panel) in PANELS.iter().enumerate() {
            self.panel(&mut svg, panel, TOP + number as f64 * (PANEL + GAP));
        }
        self.foot(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut x = LEFT;
        for (line, number) in self.lines.iter().zip(0..) {
            let _ = writeln!(svg, "<path d=\"M{x} 48h26\" stroke=\"{}\" stroke-width=\"2\"/>", colour(number));
            marker(svg, number, (x + 13.0, 48.0), false);
            let _ = writeln!(svg, "<text x=\"{}\" y=\"52.5\">{}</text>", x + 34.0, line.name);
            // Letters are 7 pixels wide, or less.
            x += 58.0 + 7.0 * line.name.len() as f64;
        }
        if self.lines.iter().flat_map(|line| &line.points).any(|point| point.has_errors) {
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"52.5\">hollow: with errors</text>");
        }
    }

    fn panel(&self, svg: &mut String, (name, part): &Panel, top: f64) {
        let values = self.lines.iter().flat_map(|line| line.points.iter().map(part)).filter(|value| *value > 0.0);
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return;
        }
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">{name}</text>", top - 10.0);
        let ticks = ticks(least, most);
        let (x, y) = (self.scale(), Scale::new((ticks[0], ticks[ticks.len() - 1]), (top + PANEL, top)));
        for tick in ticks {
            let (at, label) = (y.at(tick), written(tick));
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"{INK}\" stroke-opacity=\".35\"/>");
            let (right, middle) = (LEFT - 8.0, at + 4.5);
            let _ = writeln!(svg, "<text x=\"{right}\" y=\"{middle:.1}\" text-anchor=\"end\">{label}</text>");
        }
        for (value, _) in &self.stops {
            let (at, bottom) = (x.at(*value), top + PANEL);
            let _ = writeln!(svg, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"{INK}\" stroke-opacity=\".15\"/>");
        }
        for (line, number) in self.lines.iter().zip(0..) {
            let points = self.stops.iter().zip(&line.points).filter(|(_, point)| part(point) > 0.0);
            let points = points.map(|((stop, _), point)| ((x.at(*stop), y.at(part(point))), point.has_errors));
            let points: Vec<((f64, f64), bool)> = points.collect();
            let path: Vec<String> = points.iter().map(|((x, y), _)| format!("{x:.1} {y:.1}")).collect();
            let (path, colour) = (path.join("L"), colour(number));
            let _ = writeln!(svg, "<path d=\"M{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            for (at, is_hollow) in points {
                marker(svg, number, at, is_hollow);
            }
        }
    }

    /// What was varied, below the last panel.
    fn foot(&self, svg: &mut String) {
        let (x, below) = (self.scale(), HEIGHT - 36.0);
        for (value, label) in &self.stops {
            let at = x.at(*value);
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>");
        }
        let (middle, below) = (f64::midpoint(LEFT, RIGHT), HEIGHT - 12.0);
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", self.varied);
    }

    fn scale(&self) -> Scale {
        let least = self.stops.iter().map(|(value, _)| *value).find(|value| *value > 0.0).unwrap_or(1.0);
        let first = self.stops.first().map_or(least, |(value, _)| if *value > 0.0 { *value } else { least / ZERO });
        let last = self.stops.last().map_or(least, |(value, _)| *value);
        // Not upon the edges.
        Scale::new((first, last), (LEFT + 16.0, RIGHT - 16.0))
    }
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

/// A circle, a square, a triangle or a diamond: who sees no colours sees those.
fn marker(svg: &mut String, number: usize, (x, y): (f64, f64), is_hollow: bool) {
    let outline = ["m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "m-4-4h8v8h-8z", "m0-5l5 9h-10z", "m0-5l5 5l-5 5l-5-5z"];
    let (outline, colour) = (outline[number % outline.len()], colour(number));
    let fill = if is_hollow { "none" } else { colour };
    let _ =
        writeln!(svg, "<path d=\"M{x:.1} {y:.1}{outline}\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
}

/// From values to pixels, by their logarithms.
struct Scale {
    from: f64,
    decades: f64,
    start: f64,
    length: f64,
}

impl Scale {
    fn new((from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self { from, decades: (to / from).log10(), start, length: end - start }
    }

    /// What is below the first value is put upon it.
    fn at(&self, value: f64) -> f64 {
        let decades = (value.max(self.from) / self.from).log10();
        if self.decades > 0.0 { self.start + self.length * decades / self.decades } else { self.start }
    }
}

/// 1, 2 and 5 in each decade, or 1 only where that would be many; the first and the last have all values between them.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let steps = |in_decade: &[f64]| {
        let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
        let all = decades.flat_map(|decade| in_decade.iter().map(move |step| step * 10_f64.powi(decade)));
        let all: Vec<f64> = all.collect();
        let first = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1);
        // At least two, or there is no axis.
        all[first..=last.max(first + 1).min(all.len() - 1)].to_vec()
    };
    let fine = steps(&[1.0, 2.0, 5.0]);
    if fine.len() <= TICKS { fine } else { steps(&[1.0]) }
}

/// `20,000`, `5`, `0.02`
fn written(value: f64) -> String {
    if value < 1.0 {
        return format!("{value:.6}").trim_end_matches('0').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut written = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_hold_all_values_between_them_and_are_few() {
        let shown = |least, most| ticks(least, most).into_iter().map(written).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(11_000.0, 130_000.0), "10,000 20,000 50,000 100,000 200,000");
        assert_eq!(shown(0.03, 0.4), "0.02 0.05 0.1 0.2 0.5");
        assert_eq!(shown(0.2, 900.0), "0.1 1 10 100 1,000");
        assert_eq!(shown(100.0, 100.0), "100 200");
    }

    #[test]
    fn a_decade_has_the_same_length_everywhere() {
        let scale = Scale::new((1.0, 10_000.0), (100.0, 500.0));
        assert_eq!([1.0, 10.0, 100.0, 10_000.0].map(|value| scale.at(value).round()), [100.0, 200.0, 300.0, 500.0]);
        assert_eq!(scale.at(0.0), 100.0);
    }

    #[test]
    fn a_chart_has_a_line_in_each_panel_and_one_scale_below_them() {
        let point = |rate, p99_ms, has_errors| Point { rate, p99_ms, has_errors };
        let ours = Line { name: "ours", points: vec![point(50_000.0, 0.5, false), point(9.0, 400.0, true)] };
        let chart =
            Chart { title: "Hello", varied: "bytes", stops: vec![(0.0, "0"), (1024.0, "1 KiB")], lines: vec![ours] };
        let svg = chart.svg();
        assert_eq!(svg.matches("fill=\"none\" stroke=\"#e5652e\" stroke-width=\"2\"").count(), 2);
        assert_eq!(svg.matches(">1 KiB<").count(), 1);
        assert!(svg.contains("hollow: with errors") && !svg.contains("NaN"));
    }
}

//! Charts as inline SVG: numbers and escaped text, nothing that runs and nothing from elsewhere.

use super::super::page::escape;

/// Width of a chart, in its own units.
const WIDTH: f64 = 760.0;

/// Room for names at the left.
const LEFT: f64 = 190.0;

/// Colours that are told apart by light and by dark, and by most who see few.
const BLUE: &str = "#3b82c4";
const ORANGE: &str = "#d97a1f";
const GREEN: &str = "#3f9a57";
const GREY: &str = "#8a8a8a";
const RED: &str = "#c4463b";

/// A bar with what it is uncertain by.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// Bounds of an interval around it.
    pub(super) spread: Option<(f64, f64)>,
}

/// Bars beside each other, with a line at a value that they are compared with. What is no number is left
/// out.
pub(super) fn bars(caption: &str, unit: &str, bars: &[Bar], line: Option<(&str, f64)>) -> String {
    let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.value.is_finite()).collect();
    let line = line.filter(|(_, value)| value.is_finite());
    let highest = bars
        .iter()
        .map(|bar| {
            bar.spread
                .map_or(bar.value, |(_, high)| bar.value.max(high))
        })
        .chain(line.map(|(_, value)| value))
        .fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    const ROW: f64 = 26.0;
    let room = WIDTH - LEFT - 90.0;
    let x = |value: f64| LEFT + value.max(0.0) / highest * room;
    let height = ROW * bars.len() as f64 + 34.0;
    let mut svg = String::new();
    for (at, bar) in bars.iter().enumerate() {
        let top = 8.0 + ROW * at as f64;
        let middle = top + 9.0;
        svg += &text(LEFT - 8.0, middle + 4.0, "end", &bar.name);
        svg += &format!(
            "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"18\" fill=\"{BLUE}\"/>\n",
            x(bar.value) - LEFT
        );
        if let Some((low, high)) = bar.spread {
            svg += &stroke(x(low), middle, x(high), middle, "currentColor", "");
        }
        let end = bar
            .spread
            .map_or(bar.value, |(_, high)| high.max(bar.value));
        let shown = format!("{:.4} {unit}", bar.value);
        svg += &text(x(end) + 6.0, middle + 4.0, "start", &shown);
    }
    if let Some((name, value)) = line {
        svg += &stroke(x(value), 2.0, x(value), height - 24.0, RED, "4 3");
        let shown = format!("{name}: {value:.4} {unit}");
        svg += &text(x(value), height - 8.0, "middle", &shown);
    }
    figure(caption, height, &svg)
}

/// What is held between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Band {
    Nothing,
    Starting,
    Bid,
    OnDemand,
    Paused,
}

impl Band {
    const ALL: [Self; 4] = [Self::Bid, Self::OnDemand, Self::Starting, Self::Paused];

    /// The band of a phase's word.
    pub(super) fn named(word: &str) -> Self {
        match word {
            "bid" => Self::Bid,
            "on-demand" => Self::OnDemand,
            "starting" => Self::Starting,
            "paused" => Self::Paused,
            _ => Self::Nothing,
        }
    }

    fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Nothing => ("none", "nothing"),
            Self::Starting => (GREY, "starting"),
            Self::Bid => (GREEN, "runs at a bid"),
            Self::OnDemand => (BLUE, "runs on demand"),
            Self::Paused => (ORANGE, "stands still"),
        }
    }
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Hours from the beginning.
    pub(super) hours: f64,
    pub(super) band: Band,
    /// What is paid, and what the market asks, in $/h.
    pub(super) price: Option<f64>,
    pub(super) floor: Option<f64>,
    /// Work done, in the unit of the whole.
    pub(super) done: f64,
}

/// One run: what is paid and what the market asks, what is held, how far the work is, and the deadline.
pub(super) struct Timeline {
    pub(super) points: Vec<Point>,
    /// Hours of all of it.
    pub(super) hours: f64,
    /// Hours from the beginning to the deadline, where there is one.
    pub(super) deadline: Option<f64>,
    /// All of the work; `None`: not known.
    pub(super) work: Option<f64>,
}

const PRICES: (f64, f64) = (10.0, 130.0);
const BANDS: (f64, f64) = (142.0, 166.0);
const WORK: (f64, f64) = (178.0, 278.0);

pub(super) fn timeline(caption: &str, run: &Timeline) -> String {
    if run.points.is_empty() || run.hours <= 0.0 {
        return String::new();
    }
    let left = 70.0;
    let x = |hours: f64| left + hours.clamp(0.0, run.hours) / run.hours * (WIDTH - left - 20.0);
    let mut svg = prices(run, &x) + &bands(run, &x) + &work(run, &x);
    if let Some(deadline) = run.deadline.filter(|at| (0.0..=run.hours).contains(at)) {
        svg += &stroke(x(deadline), PRICES.0, x(deadline), WORK.1, RED, "4 3");
        svg += &text(x(deadline) - 4.0, WORK.0 + 12.0, "end", "deadline");
    }
    svg += &stroke(left, WORK.1, WIDTH - 20.0, WORK.1, "currentColor", "");
    for part in 0..=4 {
        let hours = run.hours * f64::from(part) / 4.0;
        svg += &text(x(hours), WORK.1 + 16.0, "middle", &format!("{hours:.1} h"));
    }
    svg += &legend(WORK.1 + 36.0);
    figure(caption, WORK.1 + 46.0, &svg)
}

type Along<'a> = &'a dyn Fn(f64) -> f64;

/// Each point with the hours at which the next one is.
fn spans(run: &Timeline) -> impl Iterator<Item = (&Point, f64)> {
    let next = run.points.iter().skip(1).map(|point| point.hours);
    run.points.iter().zip(next.chain([run.hours]))
}

fn prices(run: &Timeline, x: Along<'_>) -> String {
    let of = |point: &Point| point.price.into_iter().chain(point.floor);
    let highest = run.points.iter().flat_map(of).fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    let y = |price: f64| PRICES.1 - price / highest * (PRICES.1 - PRICES.0);
    let mut svg = text(64.0, PRICES.0 + 10.0, "end", &format!("${highest:.3}/h"));
    svg += &text(64.0, PRICES.1, "end", "0");
    let steps = |value: &dyn Fn(&Point) -> Option<f64>, colour: &str, dashes: &str| -> String {
        let runs = spans(run).filter_map(|(point, to)| Some((point.hours, to, value(point)?)));
        let lines = runs
            .map(|(from, to, value)| stroke(x(from), y(value), x(to), y(value), colour, dashes));
        lines.collect()
    };
    svg += &steps(&|point| point.floor, GREY, "2 2");
    svg += &steps(&|point| point.price, ORANGE, "");
    svg
}

fn bands(run: &Timeline, x: Along<'_>) -> String {
    let shown = spans(run).filter(|(point, _)| point.band != Band::Nothing);
    let bands = shown.map(|(point, to)| {
        format!(
            "<rect x=\"{:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\" fill=\"{}\"/>\n",
            x(point.hours),
            BANDS.0,
            x(to) - x(point.hours),
            BANDS.1 - BANDS.0,
            point.band.look().0
        )
    });
    text(64.0, BANDS.1 - 7.0, "end", "held") + &bands.collect::<String>()
}

fn work(run: &Timeline, x: Along<'_>) -> String {
    let most = run
        .points
        .iter()
        .map(|point| point.done)
        .fold(0.0, f64::max);
    let all = run.work.unwrap_or(most).max(most);
    if all <= 0.0 {
        return String::new();
    }
    let y = |done: f64| WORK.1 - done / all * (WORK.1 - WORK.0 - 4.0);
    let mut line: Vec<String> = run
        .points
        .iter()
        .map(|point| format!("{:.2},{:.2}", x(point.hours), y(point.done)))
        .collect();
    if let Some(last) = run.points.last() {
        line.push(format!("{:.2},{:.2}", x(run.hours), y(last.done)));
    }
    format!(
        "{}{}<polyline fill=\"none\" stroke=\"{GREEN}\" stroke-width=\"2\" points=\"{}\"/>\n",
        text(64.0, WORK.0 + 12.0, "end", &format!("{all:.1}")),
        text(64.0, WORK.1, "end", "work"),
        line.join(" ")
    )
}

fn legend(y: f64) -> String {
    let mut svg = String::new();
    let mut at = 70.0;
    let lines = [(ORANGE, "paid"), (GREY, "floor")];
    for (colour, name) in Band::ALL.map(Band::look).into_iter().chain(lines) {
        svg += &format!(
            "<rect x=\"{at}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n",
            y - 9.0
        );
        svg += &text(at + 14.0, y, "start", name);
        at += 112.0;
    }
    svg
}

fn text(x: f64, y: f64, anchor: &str, shown: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
        escape(shown)
    )
}

fn stroke(x1: f64, y1: f64, x2: f64, y2: f64, colour: &str, dashes: &str) -> String {
    let dashes = if dashes.is_empty() {
        String::new()
    } else {
        format!(" stroke-dasharray=\"{dashes}\"")
    };
    format!(
        "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" stroke=\"{colour}\" \
         stroke-width=\"1.5\"{dashes}/>\n"
    )
}

fn figure(caption: &str, height: f64, svg: &str) -> String {
    let caption = escape(caption);
    format!(
        "<figure>\n<figcaption>{caption}</figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{caption}\">\n{svg}</svg>\n</figure>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64) -> Bar {
        Bar {
            name: name.to_owned(),
            value,
            spread: None,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_names_are_text() {
        let svg = bars(
            "a <b> & c",
            "$",
            &[bar("<i>", 1.0), bar("half", 0.5)],
            Some(("x\"y", 0.25)),
        );
        assert!(
            svg.contains("a &lt;b&gt; &amp; c") && svg.contains("&lt;i&gt;"),
            "{svg}"
        );
        assert!(svg.contains("x&quot;y: 0.2500 $"), "{svg}");
        let width = |at: usize| -> f64 {
            let rect = svg.split("<rect ").nth(at).unwrap();
            rect.split("width=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!((width(1) - 2.0 * width(2)).abs() < 0.2, "{svg}");
        assert_eq!(
            bars("none", "$", &[bar("a", f64::NAN), bar("b", 0.0)], None),
            ""
        );
    }

    #[test]
    fn a_timeline_shows_what_is_paid_held_and_done() {
        let point = |hours: f64, band, price, done| Point {
            hours,
            band,
            price,
            floor: Some(0.1),
            done,
        };
        let mut run = Timeline {
            points: vec![
                point(0.0, Band::Starting, Some(0.2), 0.0),
                point(1.0, Band::Bid, Some(0.2), 0.0),
                point(3.0, Band::Paused, None, 2.0),
            ],
            hours: 4.0,
            deadline: Some(3.5),
            work: Some(4.0),
        };
        let svg = timeline("one run", &run);
        for part in ["$0.200/h", "deadline", "<polyline", GREEN, "stands still"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        // The band of two hours is half as wide as all four.
        let bands: Vec<f64> = svg
            .split("<rect ")
            .filter(|rect| rect.contains("height=\"24\""))
            .map(|rect| {
                rect.split("width=\"")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!(bands.len(), 3);
        assert!((bands[1] - 2.0 * bands[0]).abs() < 0.1, "{bands:?}");
        run.deadline = Some(9.0);
        assert!(
            !timeline("later", &run).contains("deadline"),
            "it is not in the picture"
        );
        run.points.clear();
        assert_eq!(timeline("nothing", &run), "");
    }
}

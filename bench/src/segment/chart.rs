//! Recall against QPS as an SVG that is read on light and on dark ground.

use std::fmt::Write;

use super::curve::Point;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 460.0;

/// Recalls that have a line. The axis is stretched towards 1: as far from 0.8 to 0.9 as from 0.98 to 0.99.
const RECALLS: [f64; 8] = [0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998];
/// Recalls outside are not drawn.
const LOWEST: f64 = 0.8;
const HIGHEST: f64 = 0.9985;

/// Told apart on both grounds, and by people who do not see all colours.
const COLOURS: [&str; 8] =
    ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#b07c4f", "#8a8a8a", "#7a6ff0"];
const DASHES: [&str; 2] = ["", "6 4"];

const STYLE: &str = "<style>\
    text { font: 13px system-ui, sans-serif; fill: #24292f }\
    .grid { stroke: #d0d7de; stroke-width: 1 }\
    .ours { stroke: #d1242f; fill: #d1242f }\
    @media (prefers-color-scheme: dark) {\
    text { fill: #e6edf3 } .grid { stroke: #3d444d } .ours { stroke: #ff6b6b; fill: #ff6b6b } }\
    </style>";

/// Where a recall lies.
fn x(recall: f64) -> f64 {
    let stretched = |recall: f64| -(1.0 - recall).ln();
    let share = (stretched(recall) - stretched(LOWEST)) / (stretched(HIGHEST) - stretched(LOWEST));
    LEFT + share * (RIGHT - LEFT)
}

/// Where a QPS lies between the least and the most that are drawn.
fn y(qps: f64, (least, most): (f64, f64)) -> f64 {
    BOTTOM - (qps / least).ln() / (most / least).ln() * (BOTTOM - TOP)
}

fn is_drawn(point: &&Point) -> bool {
    (LOWEST..=HIGHEST).contains(&point.recall) && point.qps > 0.0
}

/// 1, 2 and 5 times powers of ten around all that is drawn: the ends of the axis and what lies between.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let powers = (least.log10().floor() as i32)..=(most.log10().ceil() as i32);
    let all: Vec<f64> = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power))).collect();
    let first = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1).max(first + 1);
    all[first..=last].to_vec()
}

/// Draws each series, given by its name, whether it is ours, and its points by growing ef.
pub(crate) fn svg(title: &str, series: &[(&str, bool, &[Point])]) -> String {
    let drawn = || series.iter().flat_map(|(_, _, points)| points.iter().filter(is_drawn));
    let least = drawn().map(|point| point.qps).fold(f64::MAX, f64::min).min(1e9);
    let most = drawn().map(|point| point.qps).fold(1.0, f64::max);
    let ticks = ticks(least.min(most), most);
    let range = (ticks[0], ticks[ticks.len() - 1]);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{STYLE}\n\
         <text x=\"{LEFT}\" y=\"26\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    // writing to a string cannot fail
    let mut line = |text: String| writeln!(out, "{text}").unwrap_or_default();
    for recall in RECALLS {
        let x = x(recall);
        line(format!("<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>"));
        line(format!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{recall}</text>", BOTTOM + 20.0));
    }
    for tick in &ticks {
        let y = y(*tick, range);
        line(format!("<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>"));
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", LEFT - 8.0, y + 4.0));
    }
    let middle = (LEFT + RIGHT) / 2.0;
    line(format!("<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">recall@10</text>", BOTTOM + 44.0));
    let middle = (TOP + BOTTOM) / 2.0;
    line(format!(
        "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">queries a second</text>"
    ));
    let mut peers = 0;
    for (at, (name, ours, points)) in series.iter().enumerate() {
        let colour = COLOURS[peers % COLOURS.len()];
        let dash = DASHES[peers / COLOURS.len() % DASHES.len()];
        let look = match ours {
            true => "class=\"ours\" stroke-width=\"3.5\"".to_owned(),
            false => format!(
                "stroke=\"{colour}\" fill=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\""
            ),
        };
        peers += usize::from(!ours);
        let places: Vec<(f64, f64)> =
            points.iter().filter(is_drawn).map(|point| (x(point.recall), y(point.qps, range))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        line(format!("<g {look}><polyline points=\"{}\" style=\"fill: none\"/>", path.join(" ")));
        for (x, y) in &places {
            line(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>"));
        }
        let y = TOP + 8.0 + at as f64 * 22.0;
        let (from, to) = (RIGHT + 24.0, RIGHT + 54.0);
        line(format!("<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\"/></g>"));
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", to + 8.0, y + 4.0, escaped(name)));
    }
    line("</svg>".into());
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recall_axis_gives_equal_room_to_equal_shares_of_what_is_missing() {
        assert!((x(LOWEST) - LEFT).abs() < 1e-9 && (x(HIGHEST) - RIGHT).abs() < 1e-9);
        assert!(((x(0.9) - x(0.8)) - (x(0.99) - x(0.98))).abs() < 1e-6);
    }

    #[test]
    fn the_qps_axis_is_logarithmic_and_grows_upwards() {
        let range = (100.0, 10_000.0);
        assert_eq!((y(100.0, range), y(10_000.0, range)), (BOTTOM, TOP));
        assert!((y(1000.0, range) - (TOP + BOTTOM) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_enclose_what_is_drawn() {
        assert_eq!(ticks(120.0, 900.0), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(ticks(100.0, 100.0), [100.0, 200.0]);
        assert_eq!(ticks(0.3, 3.0), [0.2, 0.5, 1.0, 2.0, 5.0]);
    }

    #[test]
    fn every_system_is_in_the_chart_and_every_point_within_it() {
        let point = |ef, recall, qps| Point { ef, recall, qps };
        let ours = [point(10, 0.85, 50_000.0), point(50, 0.97, 20_000.0), point(400, 0.9999, 900.0)];
        let text =
            svg("<set>", &[("sluice", true, &ours), ("a & b", false, &ours[..1]), ("none", false, &[])]);
        assert!(text.contains("&lt;set&gt;") && text.contains("a &amp; b") && text.contains("none"));
        // one of the three points lies beyond the axis
        assert_eq!(text.matches("<circle").count(), 3);
        for place in text.split("cy=\"").skip(1) {
            let y: f64 = place.split('"').next().unwrap().parse().unwrap();
            assert!((TOP..=BOTTOM).contains(&y), "{y}");
        }
        assert!(svg("nothing", &[]).ends_with("</svg>\n"));
    }
}

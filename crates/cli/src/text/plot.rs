//! Usage over time as line charts: one chart per counter, two side by side.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::number::group_digits;
use crate::text::table::printable;

/// Steps between the lowest and the highest line of a chart.
const HEIGHT: f64 = 10.0;

/// The most points that a chart shows; more are averaged down to this many.
const MAX_POINTS: usize = 60;

/// Blanks between two charts.
const GAP: &str = "    ";

/// The heading of the charts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title<'a> {
    /// The resource that was spent.
    pub(crate) resource: &'a str,
    /// The kind of window, such as `hourly`.
    pub(crate) window_type: &'a str,
    /// The entity.
    pub(crate) entity: &'a str,
}

/// The counters of one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point<'a> {
    /// When the window began, as stored.
    pub(crate) window_start: &'a str,
    /// What each limit's counter stood at; one that is missing counts as 0.
    pub(crate) counters: &'a BTreeMap<String, i128>,
}

/// Draws the charts of points in chronological order. Begins with a blank line and does not end in a line
/// break; without points it is empty.
pub(crate) fn plot(title: &Title<'_>, points: &[Point<'_>]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let names: BTreeSet<&str> = points
        .iter()
        .flat_map(|point| point.counters.keys())
        .map(String::as_str)
        .collect();
    if names.is_empty() {
        return "No counter data to plot".to_owned();
    }

    let mut lines = vec![
        String::new(),
        format!(
            "Usage Plot: {} ({})",
            printable(title.resource),
            printable(title.window_type)
        ),
        format!("Entity: {}", printable(title.entity)),
    ];
    if points.len() > MAX_POINTS {
        lines.push(format!(
            "Note: {} points downsampled to {MAX_POINTS}",
            points.len()
        ));
    }
    lines.push("=".repeat(80));

    let charts: Vec<Chart> = names.iter().map(|name| Chart::of_counter(name, points)).collect();
    for pair in charts.chunks(2) {
        lines.push(String::new());
        match pair {
            [left, right] => side_by_side(left, right, &mut lines),
            alone => lines.extend(
                alone
                    .iter()
                    .flat_map(|chart| chart.with_heading().map(str::to_owned)),
            ),
        }
    }

    lines.push(String::new());
    lines.push(format!(
        "Time range: {} to {}",
        printable(first.window_start),
        printable(last.window_start)
    ));
    lines.push(format!("Data points: {}", points.len()));
    lines.join("\n")
}

/// Puts two charts next to each other, line by line from the top.
fn side_by_side(left: &Chart, right: &Chart, lines: &mut Vec<String>) {
    let mut lefts = left.with_heading();
    let mut rights = right.with_heading();
    loop {
        let pair = (lefts.next(), rights.next());
        if pair == (None, None) {
            break;
        }
        let (l, r) = (pair.0.unwrap_or_default(), pair.1.unwrap_or_default());
        lines.push(format!("{l:<width$}{GAP}{r}", width = left.width));
    }
}

/// One counter's chart.
struct Chart {
    name: String,
    rule: String,
    width: usize,
    lines: Vec<String>,
}

impl Chart {
    /// The chart of one counter over all points.
    fn of_counter(name: &str, points: &[Point<'_>]) -> Self {
        let values = points
            .iter()
            .map(|point| point.counters.get(name).map_or(0.0, |value| *value as f64));
        let lines = draw(&thin_out(values.collect()));
        let width = lines
            .iter()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or_default();
        Self {
            name: printable(&name.to_uppercase()).into_owned(),
            rule: "-".repeat(width),
            width,
            lines,
        }
    }

    /// The lines of the chart under its name and a rule.
    fn with_heading(&self) -> impl Iterator<Item = &str> {
        let heading = [self.name.as_str(), self.rule.as_str()];
        heading.into_iter().chain(self.lines.iter().map(String::as_str))
    }
}

/// Averages services until at most [`MAX_POINTS`] values are left.
fn thin_out(values: Vec<f64>) -> Vec<f64> {
    let count = values.len();
    if count <= MAX_POINTS {
        return values;
    }
    let step = count as f64 / MAX_POINTS as f64;
    // Bounds are cut in floating point, as other clients cut them. Only the last one is set, since rounding
    // may put it before the newest value, which would then be missing.
    let bound = |i: usize| match i {
        MAX_POINTS => count,
        i => (i as f64 * step) as usize,
    };
    (0..MAX_POINTS)
        .filter_map(|i| values.get(bound(i)..bound(i + 1)))
        .map(|part| part.iter().sum::<f64>() / part.len() as f64)
        .collect()
}

/// Draws a series: a labelled axis, and a line from each value to the next.
fn draw(series: &[f64]) -> Vec<String> {
    let Some(first) = series.first() else {
        return Vec::new();
    };
    let low = series.iter().copied().fold(*first, f64::min);
    let high = series.iter().copied().fold(*first, f64::max);
    let span = high - low;
    let scale = if span > 0.0 { HEIGHT / span } else { 1.0 };
    let bottom = (low * scale).floor();
    let top = (high * scale).ceil();
    let steps = top - bottom;

    // Every level lies between 0 and `steps`, both of which are a few dozen at most.
    let levels: Vec<usize> = series
        .iter()
        .map(|value| ((value * scale).round_ties_even() - bottom) as usize)
        .collect();
    let first_level = levels.first().copied();
    let zero_mark = (bottom <= 0.0 && top >= 0.0).then_some(-bottom as usize);
    let label_width = label(high).len();

    let lines = (0..=steps as usize).map(|row| {
        let level = steps as usize - row;
        let value = high - row as f64 * span / steps.max(1.0);
        let value = format!("{:>label_width$}", label(value));
        let marked = first_level == Some(level) || zero_mark == Some(row);
        let axis = if marked { '┼' } else { '┤' };
        let mut line = match value.len() {
            1 => format!(" {value} {axis}"),
            _ => format!("{value}  {axis}"),
        };
        line.extend(levels.windows(2).map(|pair| match pair {
            [from, to] => stroke(*from, *to, level),
            _ => ' ',
        }));
        line.truncate(line.trim_end().len());
        line
    });
    lines.collect()
}

/// A value as it stands at the axis.
fn label(value: f64) -> String {
    group_digits(&format!("{value:.0}"))
}

/// What the line from one level to another leaves at a level.
fn stroke(from: usize, to: usize, at: usize) -> char {
    let rising = to > from;
    if from == to {
        if at == from { '─' } else { ' ' }
    } else if at == from {
        if rising { '╯' } else { '╮' }
    } else if at == to {
        if rising { '╭' } else { '╰' }
    } else if (from.min(to)..from.max(to)).contains(&at) {
        '│'
    } else {
        ' '
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plots series of equal length, whose points are an hour apart.
    fn plotted(series: &[(&str, Vec<i128>)]) -> String {
        let count = series.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let windows: Vec<(String, BTreeMap<String, i128>)> = (0..count)
            .map(|i| {
                let counters = series
                    .iter()
                    .map(|(name, values)| ((*name).to_owned(), values[i]));
                (format!("2026-01-15T{i:02}:00:00Z"), counters.collect())
            })
            .collect();
        let points: Vec<Point<'_>> = windows
            .iter()
            .map(|(window_start, counters)| Point {
                window_start,
                counters,
            })
            .collect();
        let title = Title {
            resource: "gpt-4",
            window_type: "hourly",
            entity: "user-123",
        };
        plot(&title, &points)
    }

    /// Checks what stands between the double rule and the time range.
    #[track_caller]
    fn check(series: &[(&str, Vec<i128>)], expected: &str) {
        let plot = plotted(series);
        let (_, charts) = plot.split_once(&"=".repeat(80)).unwrap();
        let (charts, _) = charts.split_once("\nTime range: ").unwrap();
        assert_eq!(charts, expected, "\n{charts}");
    }

    #[test]
    fn two_counters_over_a_day() {
        let requests = [
            5, 5, 5, 5, 5, 9, 9, 14, 23, 32, 41, 46, 51, 46, 41, 32, 23, 14, 9, 9, 5, 5, 5, 5,
        ];
        let tokens = [
            500, 500, 500, 500, 500, 920, 920, 1380, 2300, 3220, 4140, 4600, 5100, 4600, 4140, 3220, 2300,
            1380, 920, 920, 500, 500, 500, 500,
        ];
        let plot = plotted(&[("tpm", tokens.to_vec()), ("rpm", requests.to_vec())]);
        let expected = "
Usage Plot: gpt-4 (hourly)
Entity: user-123
================================================================================

RPM                             TPM
----------------------------    -------------------------------
51  ┤                           5,100  ┤
47  ┤           ╭╮              4,682  ┤           ╭╮
43  ┤          ╭╯╰╮             4,264  ┤          ╭╯╰╮
38  ┤         ╭╯  ╰╮            3,845  ┤         ╭╯  ╰╮
34  ┤         │    │            3,427  ┤         │    │
30  ┤        ╭╯    ╰╮           3,009  ┤        ╭╯    ╰╮
26  ┤        │      │           2,591  ┤        │      │
22  ┤       ╭╯      ╰╮          2,173  ┤       ╭╯      ╰╮
18  ┤       │        │          1,755  ┤       │        │
13  ┤      ╭╯        ╰╮         1,336  ┤      ╭╯        ╰╮
 9  ┤    ╭─╯          ╰─╮         918  ┤    ╭─╯          ╰─╮
 5  ┼────╯              ╰───      500  ┼────╯              ╰───

Time range: 2026-01-15T00:00:00Z to 2026-01-15T23:00:00Z
Data points: 24";
        assert_eq!(plot, expected, "\n{plot}");
    }

    #[test]
    fn flat_series_have_one_line() {
        check(&[("rpm", vec![5])], "\n\nRPM\n----\n 5 ┼\n");
        check(&[("rpm", vec![0, 0, 0])], "\n\nRPM\n------\n 0 ┼──\n");
        check(&[("tpm", vec![1500, 1500])], "\n\nTPM\n---------\n1,500  ┼─\n");
        check(&[("rpm", vec![-7; 2])], "\n\nRPM\n------\n-7  ┼─\n");
    }

    #[test]
    fn two_points_make_one_stroke() {
        check(
            &[("rpm", vec![3, 9])],
            "

RPM
-----
 9 ┤╭
 8 ┤│
 8 ┤│
 7 ┤│
 7 ┤│
 6 ┤│
 5 ┤│
 5 ┤│
 4 ┤│
 4 ┤│
 3 ┼╯
",
        );
    }

    #[test]
    fn negative_values_widen_their_own_lines() {
        check(
            &[("rpm", vec![-2, 3, -7, 0, 8, 8, -7])],
            "

RPM
-----------
 8 ┤
 7 ┤   ╭─╮
 5 ┤   │ │
 4 ┤   │ │
 3 ┤╭╮ │ │
 1 ┼││ │ │
-0  ┤││╭╯ │
-2  ┼╯││  │
-3  ┤ ││  │
-4  ┤ ││  │
-6  ┤ ││  │
-7  ┤ ╰╯  ╰
",
        );
    }

    #[test]
    fn charts_of_unequal_height_and_an_odd_last_one() {
        check(
            &[
                ("a", vec![7, 7, 7]),
                ("b", vec![0, 4, 2]),
                ("c", vec![-15_000, 2500, -1]),
            ],
            "

A         B
------    ------
 7 ┼──     4 ┼╭╮
           4 ┤││
           3 ┤││
           3 ┤││
           2 ┤││
           2 ┤│╰
           2 ┤│
           1 ┤│
           1 ┤│
           0 ┤│
           0 ┼╯

C
-----------
2,500  ┤
  909  ┤╭╮
 -682  ┤│╰
-2,273  ┤│
-3,864  ┤│
-5,455  ┤│
-7,045  ┤│
-8,636  ┤│
-10,227  ┤│
-11,818  ┼│
-13,409  ┤│
-15,000  ┼╯
",
        );
    }

    #[test]
    fn large_values_label_a_wide_axis() {
        const MAX: i128 = 1_000_000_000_000_000;
        check(
            &[("big", vec![MAX, -MAX, 0, MAX - 1])],
            "

BIG
---------------------------
1,000,000,000,000,000  ┼╮ ╭
  800,000,000,000,000  ┤│ │
  600,000,000,000,000  ┤│ │
  400,000,000,000,000  ┤│ │
  200,000,000,000,000  ┤│ │
                    0  ┼│╭╯
 -200,000,000,000,000  ┤││
 -400,000,000,000,000  ┤││
 -600,000,000,000,000  ┤││
 -800,000,000,000,000  ┤││
-1,000,000,000,000,000  ┤╰╯
",
        );
    }

    #[test]
    fn many_points_are_averaged() {
        let values: Vec<i128> = (0..130).map(|i| i * i * 37 % 1000 - 200).collect();
        let plot = plotted(&[("tpm", values.clone())]);
        assert!(plot.contains("\nEntity: user-123\nNote: 130 points downsampled to 60\n===="));
        assert!(plot.ends_with("\nData points: 130"));
        check(
            &[("tpm", values)],
            "

TPM
-----------------------------------------------------------------
758  ┤
673  ┤                        ╭╮                 ╭╮
588  ┼       ╭╮               ││           ╭╮    ││         ╭╮╭╮
502  ┤ ╭╮    ││               ││          ╭╯│    ││     ╭╮  ││││
417  ┤ ││╭╮  ││       ╭╮      ││╭╮    ╭╮  │ │    ││ ╭╮╭╮││  │╰╯│
331  ┤ │╰╯│  │╰─╮   ╭─╯│  ╭╮  ││││╭╮  ││  │ │    ││ │╰╯╰╯│╭╮│  │╭
246  ┤ │  ╰╮ │  │╭╮ │  │ ╭╯╰──╯││╰╯│  ││ ╭╯ │   ╭╯│ │    ││╰╯  ││
160  ┤ │   │╭╯  │││╭╯  │ │     ││  │  │╰─╯  │╭─╮│ │ │    ││    ││
 75  ┤ │   ╰╯   ╰╯││   │ │     ││  ╰╮ │     ││ ╰╯ │╭╯    ╰╯    ╰╯
-11  ┤╭╯          ││   ╰─╯     ││   │╭╯     ╰╯    ╰╯
-96  ┤│           ╰╯           ╰╯   ╰╯
-182  ┼╯
",
        );
    }

    #[test]
    fn up_to_sixty_points_stand_for_themselves() {
        assert!(!plotted(&[("rpm", vec![1; 60])]).contains("downsampled"));
        assert!(plotted(&[("rpm", vec![1; 61])]).contains("61 points downsampled to 60"));
    }

    #[test]
    fn averaging_keeps_the_newest_value() {
        for count in MAX_POINTS + 1..2000 {
            let mut values = vec![0.0; count];
            values[count - 1] = 1.0;
            let thinned = thin_out(values);
            assert_eq!(thinned.len(), MAX_POINTS);
            assert!(thinned[MAX_POINTS - 1] > 0.0, "{count}");
        }
    }

    #[test]
    fn missing_counters_count_as_zero() {
        let (with, without) = (BTreeMap::from([("rpm".to_owned(), 5)]), BTreeMap::new());
        let points = [&with, &without].map(|counters| Point {
            window_start: "w",
            counters,
        });
        let title = Title {
            resource: "a\nb",
            window_type: "daily",
            entity: "e",
        };
        let plot = plot(&title, &points);
        assert!(plot.contains("\n 5 ┼╮\n"), "{plot}");
        assert!(plot.contains("\n 0 ┤╰\n"), "{plot}");
        assert!(plot.contains("\nUsage Plot: a\\u{a}b (daily)\n"), "{plot}");
    }

    #[test]
    fn without_data_there_is_no_chart() {
        assert_eq!(plotted(&[]), "");
        let counters = BTreeMap::new();
        let points = [Point {
            window_start: "w",
            counters: &counters,
        }];
        let title = Title {
            resource: "r",
            window_type: "daily",
            entity: "e",
        };
        assert_eq!(plot(&title, &points), "No counter data to plot");
    }

    proptest! {
        #[test]
        fn every_column_is_one_stroke(values in prop::collection::vec(any::<i64>(), 1..80)) {
            let levels = draw(&thin_out(values.iter().map(|value| *value as f64).collect()));
            prop_assert!((1..=12).contains(&levels.len()));
            let tails: Vec<Vec<char>> = levels
                .iter()
                .map(|line| line.chars().skip_while(|c| !"┼┤".contains(*c)).skip(1).collect())
                .collect();
            for column in 0..values.len().min(MAX_POINTS) - 1 {
                let drawn: String = tails.iter().filter_map(|tail| tail.get(column)).collect();
                let stroke = drawn.trim().replace('│', "");
                prop_assert!(["─", "╭╯", "╮╰"].contains(&stroke.as_str()), "{drawn:?}");
            }
        }

        #[test]
        fn nothing_panics(
            values in prop::collection::vec(any::<i128>(), 1..200),
            near in any::<i128>(),
        ) {
            let _ = plotted(&[("a", values.clone())]);
            let close = values.iter().map(|value| near.saturating_add(value % 100)).collect();
            let _ = plotted(&[("a", close)]);
        }
    }
}

//! The report of a load test as a page that needs nothing else: no script, no other file.

use std::fmt::{self, Write as _};

use zae_limiter_loadtest::function::Ran;
use zae_limiter_loadtest::{Event, Point, Report, Series};

use super::report::{PerAcquire, latency};
use crate::text::number::grouped;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --a: #2a78d6; --b: #d9822b; --c: #c23b3b; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th.name, td.name { text-align: left; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
svg .grid { stroke: var(--line); } svg polyline { fill: none; stroke-width: 1.6; }
svg .a { stroke: var(--a); } svg .b { stroke: var(--b); } svg .c { stroke: var(--c); }
i.a { background: var(--a); } i.b { background: var(--b); } i.c { background: var(--c); }
.key { display: inline-block; width: .8rem; height: .2rem; margin: 0 .3rem .2rem 1rem; }
.warning { border-left: 3px solid var(--b); padding-left: .7rem; }
";

/// The size of a chart.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 200.0;

/// The room around it, for labels.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 25.0;

/// Text in which nothing is markup.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A line of a chart.
struct Line<'a> {
    name: &'a str,
    /// Its style.
    class: char,
    value: fn(&Point) -> f64,
}

/// Renders the page. `title` says what was tested.
pub(super) fn page(title: &str, ran: &Ran, report: &Report, warnings: &[String], points: &[Point]) -> String {
    let mut page = String::new();
    // A string takes everything.
    let _ = write_page(&mut page, title, ran, report, warnings, points);
    page
}

fn write_page(
    to: &mut String,
    title: &str,
    ran: &Ran,
    report: &Report,
    warnings: &[String],
    points: &[Point],
) -> fmt::Result {
    let title = Escaped(title);
    writeln!(
        to,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Load test: {title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Load test: {title}</h1>"
    )?;
    write_head(to, ran, report)?;
    for warning in warnings {
        writeln!(to, "<p class=\"warning\">{}</p>", Escaped(warning))?;
    }
    write_rows(to, report)?;
    chart(
        to,
        "Calls per second",
        points,
        &[
            Line {
                name: "all",
                class: 'a',
                value: |point| point.calls,
            },
            Line {
                name: "refused",
                class: 'b',
                value: |point| point.refused,
            },
            Line {
                name: "failed",
                class: 'c',
                value: |point| point.failures,
            },
        ],
    )?;
    chart(
        to,
        "Latency in milliseconds",
        points,
        &[
            Line {
                name: "p50",
                class: 'a',
                value: |point| point.p50.as_secs_f64() * 1000.0,
            },
            Line {
                name: "p95",
                class: 'b',
                value: |point| point.p95.as_secs_f64() * 1000.0,
            },
            Line {
                name: "p99",
                class: 'c',
                value: |point| point.p99.as_secs_f64() * 1000.0,
            },
        ],
    )?;
    chart(
        to,
        "Users",
        points,
        &[Line {
            name: "users",
            class: 'a',
            value: |point| point.users as f64,
        }],
    )?;
    writeln!(to, "</body>\n</html>")
}

fn write_head(to: &mut String, ran: &Ran, report: &Report) -> fmt::Result {
    let total = report.stats.total();
    let per_acquire = PerAcquire::of(report);
    let loop_kind = match ran.rate {
        Some(rate) => format!("open loop, {rate} calls due in a second"),
        None => "closed loop".to_owned(),
    };
    let rows = [
        (
            "Scenario",
            format!("{}: {}", ran.scenario, ran.user_classes.join(", ")),
        ),
        (
            "Users",
            format!("{} ({loop_kind})", grouped(report.users as i128)),
        ),
        (
            "Duration",
            format!(
                "{:.1} s{}",
                report.elapsed.as_secs_f64(),
                if report.interrupted { ", interrupted" } else { "" }
            ),
        ),
        ("Seed", ran.seed.to_string()),
        ("Calls", grouped(total.calls().into())),
        ("Calls per second", format!("{:.1}", report.per_second())),
        ("Failures", grouped(total.failures().into())),
        (
            "Refused acquires",
            grouped(
                report
                    .stats
                    .of(|event| event == Event::RateLimited)
                    .calls()
                    .into(),
            ),
        ),
        (
            "Per acquire",
            format!(
                "{:.2} writes, {:.2} reads, {:.2} write units, {:.2} read units",
                per_acquire.writes, per_acquire.reads, per_acquire.write_units, per_acquire.read_units
            ),
        ),
        (
            "A million acquires",
            format!("${:.2} on demand in us-east-1", per_acquire.dollars()),
        ),
    ];
    writeln!(to, "<table>")?;
    for (name, value) in rows {
        writeln!(
            to,
            "<tr><th class=\"name\">{name}</th><td class=\"name\">{}</td></tr>",
            Escaped(&value)
        )?;
    }
    writeln!(to, "</table>")
}

fn write_rows(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        to,
        "<h2>Calls</h2>\n<table>\n<tr><th class=\"name\">Type</th><th class=\"name\">Name</th>"
    )?;
    for name in [
        "Calls",
        "Failures",
        "Per second",
        "Mean",
        "p50",
        "p95",
        "p99",
        "Max",
    ] {
        write!(to, "<th>{name}</th>")?;
    }
    writeln!(to, "</tr>")?;
    for (event, name, series) in report.stats.series() {
        write_row(to, event.name(), name, series, report)?;
    }
    write_row(to, "", "all", &report.stats.total(), report)?;
    writeln!(to, "</table>")?;
    for (error, count) in report.stats.errors() {
        writeln!(
            to,
            "<p class=\"warning\">{} x {}</p>",
            grouped(count.into()),
            Escaped(error)
        )?;
    }
    Ok(())
}

fn write_row(to: &mut String, event: &str, name: &str, series: &Series, report: &Report) -> fmt::Result {
    write!(
        to,
        "<tr><td class=\"name\">{event}</td><td class=\"name\">{}</td>",
        Escaped(name)
    )?;
    for cell in [
        grouped(series.calls().into()),
        grouped(series.failures().into()),
        format!("{:.1}", series.per_second(report.elapsed)),
        latency(series.mean()),
        latency(series.quantile(0.5)),
        latency(series.quantile(0.95)),
        latency(series.quantile(0.99)),
        latency(series.max()),
    ] {
        write!(to, "<td>{cell}</td>")?;
    }
    writeln!(to, "</tr>")
}

/// A round number that is not below `value`: 1, 2 or 5 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let rounds = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    rounds.into_iter().find(|round| *round >= value).unwrap_or(value)
}

fn chart(to: &mut String, title: &str, points: &[Point], lines: &[Line<'_>]) -> fmt::Result {
    write!(to, "<h2>{title}")?;
    for line in lines {
        write!(
            to,
            "<i class=\"key {}\"></i><small>{}</small>",
            line.class, line.name
        )?;
    }
    writeln!(to, "</h2>")?;
    let (Some(last), true) = (points.last(), points.len() > 1) else {
        return writeln!(to, "<p>The test was too short for a chart.</p>");
    };
    let values = points
        .iter()
        .flat_map(|point| lines.iter().map(|line| (line.value)(point)));
    let top = ceiling(values.fold(0.0, f64::max));
    let x = |at: f64| LEFT + at / last.at.max(1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    writeln!(
        to,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    )?;
    for step in 0..=5 {
        let part = f64::from(step) / 5.0;
        let (at, value) = (last.at * part, top * part);
        writeln!(
            to,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}s</text>",
            WIDTH - RIGHT,
            y(value),
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            label(value, top),
            x(at),
            HEIGHT - 6.0,
            at
        )?;
    }
    for line in lines {
        write!(to, "<polyline class=\"{}\" points=\"", line.class)?;
        for point in points {
            write!(to, "{:.1},{:.1} ", x(point.at), y((line.value)(point)))?;
        }
        writeln!(to, "\"><title>{}</title></polyline>", line.name)?;
    }
    writeln!(to, "</svg>")
}

/// A value of an axis that ends at `top`.
fn label(value: f64, top: f64) -> String {
    if top >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 1.1, 47.0, 501.0, f64::NAN].map(|value| ceiling(value).to_string());
        assert_eq!(ends, ["1", "0.5", "1", "2", "50", "1000", "1"]);
    }

    #[test]
    fn text_is_no_markup() {
        assert_eq!(
            Escaped("<b a='1'>&\"\u{1b}").to_string(),
            "&lt;b a=&#39;1&#39;&gt;&amp;&quot;\u{fffd}"
        );
    }
}

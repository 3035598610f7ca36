//! The report as a page that needs nothing else: no script, no other file.

use std::fmt::{self, Write as _};

use crate::level::DeclaredAt;
use crate::report::{Comparison, KeyRow, LimitRow, Report, Run};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --a: #2a78d6; --b: #c23b3b; --c: #d9822b; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th.name, td.name { text-align: left; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
svg { width: 100%; height: auto; } svg.small { width: 12rem; height: 1.4rem; }
svg text { font-size: 11px; fill: currentColor; } svg .grid { stroke: var(--line); }
svg .a { fill: var(--a); } svg .b { fill: var(--b); } svg .c { fill: var(--c); }
.note { border-left: 3px solid var(--c); padding-left: .7rem; }
";

/// The size of a chart, and the room for labels in it.
const WIDTH: usize = 900;
const HEIGHT: usize = 180;
const LEFT: usize = 60;
const TOP: usize = 10;
const BOTTOM: usize = 25;

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
                c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    f.write_char('\u{fffd}')?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Renders a report as a page. Tables have at most `top` rows.
pub fn page(report: &Report, top: usize) -> String {
    let mut page = String::new();
    // A string takes everything.
    let _ = write_page(&mut page, report, top);
    page
}

/// A time without the day's letters, as in `2026-01-15 09:30:00`.
fn time(at_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A number with commas.
fn grouped(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, c) in digits.char_indices() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(c);
    }
    grouped
}

fn write_page(to: &mut String, report: &Report, top: usize) -> fmt::Result {
    let name = Escaped(&report.trace.name);
    writeln!(
        to,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Replay of {name}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Replay of {name}</h1>"
    )?;
    writeln!(
        to,
        "<p>{} requests from {} to {} UTC. Seed {}.</p>",
        grouped(report.requests),
        time(report.span_ms.0),
        time(report.span_ms.1),
        report.seed
    )?;
    if report.counts.filtered > 0 {
        writeln!(
            to,
            "<p>{} rows were left out by status or method.</p>",
            grouped(report.counts.filtered)
        )?;
    }
    if let Some(bad) = &report.counts.first_bad {
        writeln!(
            to,
            "<p class=\"note\">{} rows cannot be used, and were left out. The first: {}</p>",
            grouped(report.counts.bad),
            Escaped(bad)
        )?;
    }
    for note in &report.trace.notes {
        writeln!(to, "<p class=\"note\">{}</p>", Escaped(note))?;
    }
    if let Some(comparison) = &report.comparison {
        write_comparison(to, report, comparison, top)?;
    }
    for run in &report.runs {
        write_run(to, report, run, top)?;
    }
    writeln!(to, "</body>\n</html>")
}

fn write_run(to: &mut String, report: &Report, run: &Run, top: usize) -> fmt::Result {
    let totals = &run.totals;
    writeln!(
        to,
        "<h2>{}</h2>\n<p>{} admitted ({} after a refusal), {} refused ({} of them larger than a limit can hold), {} failed.</p>",
        Escaped(&run.manifest),
        grouped(totals.admitted),
        grouped(totals.admitted_later),
        grouped(totals.refused),
        grouped(totals.never),
        grouped(totals.failed),
    )?;
    for note in &run.notes {
        writeln!(to, "<p class=\"note\">{}</p>", Escaped(note))?;
    }
    write_chart(to, report, run)?;
    write_limits(to, run, top)?;
    write_keys(to, run, top)
}

/// Arrivals with the refusals in front of them.
fn write_chart(to: &mut String, report: &Report, run: &Run) -> fmt::Result {
    let most = run
        .timeline
        .iter()
        .map(|part| part.arrived.max(part.refused + part.failed))
        .max()
        .unwrap_or(0)
        .max(1);
    let (width, height) = (WIDTH - LEFT, HEIGHT - TOP - BOTTOM);
    let count = run.timeline.len().max(1);
    writeln!(
        to,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"requests and refusals over time\">\n\
         <line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n\
         <text x=\"0\" y=\"{label}\">{}</text><text x=\"0\" y=\"{bottom}\">0</text>",
        grouped(most),
        bottom = HEIGHT - BOTTOM,
        label = TOP + 10,
    )?;
    for (index, part) in run.timeline.iter().enumerate() {
        let (x, next) = (LEFT + index * width / count, LEFT + (index + 1) * width / count);
        let wide = (next - x).saturating_sub(1).max(1);
        let begin = report.begins_ms.get(index).copied().unwrap_or_default();
        let bar = |number: u64| (u128::from(number) * height as u128).div_ceil(u128::from(most)) as usize;
        writeln!(
            to,
            "<g><title>{}: {} requests, {} refusals, {} failures</title>",
            time(begin),
            part.arrived,
            part.refused,
            part.failed
        )?;
        for (class, number) in [
            ('a', part.arrived),
            ('b', part.refused + part.failed),
            ('c', part.failed),
        ] {
            if number > 0 {
                let tall = bar(number);
                let y = HEIGHT - BOTTOM - tall;
                writeln!(
                    to,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{tall}\"/>"
                )?;
            }
        }
        writeln!(to, "</g>")?;
    }
    let (first, last) = (
        report.begins_ms.first().copied(),
        report.begins_ms.last().copied(),
    );
    writeln!(
        to,
        "<text x=\"{LEFT}\" y=\"{y}\">{}</text><text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text>\n</svg>\n\
         <p>Blue: requests that arrive. Red: refusals. Orange: failures. A bar is {}.</p>",
        time(first.unwrap_or_default()),
        time(last.unwrap_or_default()),
        length(report.every_ms),
        y = HEIGHT - 8,
    )
}

/// A length of time in words.
fn length(millis: i64) -> String {
    for (unit, name) in [
        (86_400_000, "days"),
        (3_600_000, "hours"),
        (60_000, "minutes"),
        (1_000, "seconds"),
    ] {
        if millis >= unit && millis % unit == 0 {
            return format!("{} {name}", millis / unit);
        }
    }
    format!("{millis} milliseconds")
}

fn write_head(
    to: &mut String,
    title: &str,
    shown: usize,
    all: usize,
    columns: &[(&str, bool)],
) -> fmt::Result {
    write!(to, "<h3>{}", Escaped(title))?;
    if shown < all {
        write!(to, " ({shown} of {all})")?;
    }
    write!(to, "</h3>\n<div class=\"wide\"><table>\n<tr>")?;
    for (name, is_left) in columns {
        let class = if *is_left { " class=\"name\"" } else { "" };
        write!(to, "<th{class}>{}</th>", Escaped(name))?;
    }
    writeln!(to, "</tr>")
}

fn cell(to: &mut String, text: &str) -> fmt::Result {
    write!(to, "<td>{}</td>", Escaped(text))
}

fn name(to: &mut String, text: &str) -> fmt::Result {
    write!(to, "<td class=\"name\">{}</td>", Escaped(text))
}

fn times(to: &mut String, span: Option<(i64, i64)>) -> fmt::Result {
    cell(to, &span.map_or_else(String::new, |(first, _)| time(first)))?;
    cell(to, &span.map_or_else(String::new, |(_, last)| time(last)))
}

fn write_limits(to: &mut String, run: &Run, top: usize) -> fmt::Result {
    let rows: Vec<&LimitRow> = run.limits.iter().filter(|row| row.refusals > 0).collect();
    if rows.is_empty() {
        return writeln!(to, "<p>No limit refuses a request.</p>");
    }
    let columns = [
        ("Limit", true),
        ("Entity", true),
        ("Resource", true),
        ("Level", true),
        ("Refusals", false),
        ("Tokens refused", false),
        ("First", false),
        ("Last", false),
        ("Longest wait", false),
        ("Peak use", false),
        ("Over time", true),
    ];
    write_head(
        to,
        "Limits that refuse",
        rows.len().min(top),
        rows.len(),
        &columns,
    )?;
    for row in rows.iter().take(top) {
        write!(to, "<tr>")?;
        name(to, row.limit.as_str())?;
        name(to, row.entity.as_str())?;
        name(to, row.resource.as_str())?;
        name(to, row.level.map_or("", DeclaredAt::as_str))?;
        cell(to, &grouped(row.refusals))?;
        cell(to, &grouped(row.tokens_refused))?;
        times(to, row.refusals_ms)?;
        cell(
            to,
            &format!(
                "{}.{:03} s",
                row.longest_wait_ms / 1000,
                row.longest_wait_ms % 1000
            ),
        )?;
        cell(to, &format!("{} %", row.peak_permille / 10))?;
        write!(to, "<td class=\"name\">")?;
        write_small(to, &row.timeline)?;
        writeln!(to, "</td></tr>")?;
    }
    writeln!(to, "</table></div>")
}

/// Refusals over time, within a cell.
fn write_small(to: &mut String, numbers: &[u64]) -> fmt::Result {
    let (count, most) = (
        numbers.len().max(1),
        numbers.iter().copied().max().unwrap_or(0).max(1),
    );
    write!(
        to,
        "<svg class=\"small\" viewBox=\"0 0 {} 20\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        count * 4
    )?;
    for (index, number) in numbers.iter().enumerate().filter(|(_, number)| **number > 0) {
        let tall = (u128::from(*number) * 20).div_ceil(u128::from(most));
        write!(
            to,
            "<rect class=\"b\" x=\"{}\" y=\"{}\" width=\"3\" height=\"{tall}\"/>",
            index * 4,
            20 - tall
        )?;
    }
    write!(to, "</svg>")
}

fn write_keys(to: &mut String, run: &Run, top: usize) -> fmt::Result {
    let rows: Vec<&KeyRow> = run
        .keys
        .iter()
        .filter(|row| row.refused + row.failed > 0)
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [
        ("Entity", true),
        ("Resource", true),
        ("Requests", false),
        ("Admitted", false),
        ("Refused", false),
        ("Failed", false),
        ("First refusal", false),
        ("Last refusal", false),
        ("Failure", true),
    ];
    write_head(
        to,
        "Entities that lose requests",
        rows.len().min(top),
        rows.len(),
        &columns,
    )?;
    for row in rows.iter().take(top) {
        write!(to, "<tr>")?;
        name(to, row.entity.as_str())?;
        name(to, row.resource.as_str())?;
        for number in [row.requests, row.admitted, row.refused, row.failed] {
            cell(to, &grouped(number))?;
        }
        times(to, row.refusals_ms)?;
        name(to, row.failure.as_deref().unwrap_or_default())?;
        writeln!(to, "</tr>")?;
    }
    writeln!(to, "</table></div>")
}

fn write_comparison(to: &mut String, report: &Report, comparison: &Comparison, top: usize) -> fmt::Result {
    let manifest = |index: usize| report.runs.get(index).map_or("", |run| run.manifest.as_str());
    writeln!(
        to,
        "<h2>Comparison</h2>\n<p>Both admit {} requests, neither admits {}. Only {} admits {}, only {} admits {}.</p>",
        grouped(comparison.both_admit),
        grouped(comparison.neither_admits),
        Escaped(manifest(0)),
        grouped(comparison.only_first_admits),
        Escaped(manifest(1)),
        grouped(comparison.only_second_admits),
    )?;
    let rows = &comparison.differences;
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [
        ("Entity", true),
        ("Resource", true),
        ("Lost", false),
        ("Gained", false),
        ("First lost", false),
        ("Last lost", false),
        ("Refused by", true),
    ];
    write_head(
        to,
        "Entities with a difference",
        rows.len().min(top),
        rows.len(),
        &columns,
    )?;
    for row in rows.iter().take(top) {
        write!(to, "<tr>")?;
        name(to, row.entity.as_str())?;
        name(to, row.resource.as_str())?;
        cell(to, &grouped(row.lost))?;
        cell(to, &grouped(row.gained))?;
        times(to, row.lost_ms)?;
        let by: Vec<String> = row
            .lost_by
            .iter()
            .map(|(limit, count)| format!("{limit}: {count}"))
            .collect();
        name(to, &by.join(", "))?;
        writeln!(to, "</tr>")?;
    }
    writeln!(to, "</table></div>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(-123_456), "-123,456");
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000)),
            ("0".into(), "999".into(), "1,000".into())
        );
        assert_eq!(
            Escaped("<a href='x'>&\"\u{1b}\u{202e}").to_string(),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
        assert_eq!(
            (length(5_000), length(3_600_000), length(1_500)),
            ("5 seconds".into(), "1 hours".into(), "1500 milliseconds".into())
        );
    }
}

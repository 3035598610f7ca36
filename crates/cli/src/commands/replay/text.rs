//! The report as text.

use jiff::Timestamp;
use zae_limiter_replay::draw::bars;
use zae_limiter_replay::report::{Comparison, KeyRow, LimitRow, Run};
use zae_limiter_replay::{DeclaredAt, OnRefusal, Report};

use crate::failure::Failure;
use crate::out::Out;
use crate::text::limit::describe;
use crate::text::number::grouped;
use crate::text::table::{Column, Table, printable};

/// The width of a chart.
const WIDTH: usize = 72;

const LIMITS: [Column; 9] = [
    Column::left("Limit", 5),
    Column::left("Entity", 6),
    Column::left("Resource", 8),
    Column::left("Level", 5),
    Column::right("Refusals", 8),
    Column::right("Tokens", 6),
    Column::left("First", 19),
    Column::left("Last", 19),
    Column::right("Longest wait", 12),
];

const KEYS: [Column; 7] = [
    Column::left("Entity", 6),
    Column::left("Resource", 8),
    Column::right("Requests", 8),
    Column::right("Admitted", 8),
    Column::right("Refused", 7),
    Column::right("Failed", 6),
    Column::left("First refusal", 19),
];

const DIFFERENCES: [Column; 6] = [
    Column::left("Entity", 6),
    Column::left("Resource", 8),
    Column::right("Lost", 4),
    Column::right("Gained", 6),
    Column::left("First lost", 19),
    Column::left("Refused by", 10),
];

/// Prints a report, with tables of at most `top` rows.
pub(super) fn print(out: &mut Out, report: &Report, top: usize) -> Result<(), Failure> {
    let trace = &report.trace;
    out.line(format_args!(
        "Replay of {}: {}, {} to {} UTC",
        printable(&trace.name),
        counted(report.requests, "request"),
        time(report.span_ms.0),
        time(report.span_ms.1)
    ))?;
    for amount in &trace.amounts {
        out.line(format_args!("  {}", printable(amount)))?;
    }
    if let OnRefusal::Retry(most) = report.on_refusal {
        out.line(format_args!(
            "  refused requests try again after the wait, {} at most",
            counted(most.into(), "time")
        ))?;
    }
    for note in &trace.notes {
        out.line(format_args!("Note: {}", printable(note)))?;
    }
    if report.counts.filtered > 0 {
        let rows = counted(report.counts.filtered, "row");
        out.line(format_args!("Note: {rows} left out by status or method"))?;
    }
    if let Some(bad) = &report.counts.first_bad {
        let rows = counted(report.counts.bad, "row");
        out.line(format_args!(
            "Note: {rows} left out that cannot be used; the first: {}",
            printable(bad)
        ))?;
    }
    for run in &report.runs {
        print_run(out, report, run, top)?;
    }
    if let Some(comparison) = &report.comparison {
        print_comparison(out, report, comparison, top)?;
    }
    Ok(())
}

fn print_run(out: &mut Out, report: &Report, run: &Run, top: usize) -> Result<(), Failure> {
    let totals = &run.totals;
    let mut parts = vec![format!("{} admitted", grouped(totals.admitted.into()))];
    if totals.admitted_later > 0 {
        parts.push(format!(
            "{} of them after a refusal",
            grouped(totals.admitted_later.into())
        ));
    }
    parts.push(format!(
        "{} refused ({})",
        grouped(totals.refused.into()),
        percent(totals.refused, report.requests)
    ));
    if totals.never > 0 {
        parts.push(format!(
            "{} of them larger than a limit can hold",
            grouped(totals.never.into())
        ));
    }
    if totals.failed > 0 {
        parts.push(format!("{} failed", grouped(totals.failed.into())));
    }
    out.line(format_args!(
        "\n{}: {}",
        printable(&run.manifest),
        parts.join(", ")
    ))?;
    for note in &run.notes {
        out.line(format_args!("Note: {}", printable(note)))?;
    }
    print_chart(out, report, run)?;
    let limits: Vec<&LimitRow> = run.limits.iter().filter(|row| row.refusals > 0).collect();
    if !limits.is_empty() {
        let mut table = Table::ruled(&LIMITS);
        for row in limits.iter().take(top) {
            table.row([
                row.declared
                    .as_ref()
                    .map_or_else(|| row.limit.to_string(), describe),
                row.entity.to_string(),
                row.resource.to_string(),
                row.level.map_or("-", level).to_owned(),
                grouped(row.refusals.into()),
                grouped(i128::try_from(row.tokens_refused).unwrap_or(i128::MAX)),
                row.refusals_ms.map_or_else(String::new, |(first, _)| time(first)),
                row.refusals_ms.map_or_else(String::new, |(_, last)| time(last)),
                wait(row),
            ]);
        }
        out.line(format_args!("\nLimits that refuse\n\n{table}"))?;
        print_more(out, limits.len(), top)?;
    }
    let keys: Vec<&KeyRow> = run
        .keys
        .iter()
        .filter(|row| row.refused + row.failed > 0)
        .collect();
    if !keys.is_empty() {
        let mut table = Table::ruled(&KEYS);
        for row in keys.iter().take(top) {
            table.row([
                row.entity.to_string(),
                row.resource.to_string(),
                grouped(row.requests.into()),
                grouped(row.admitted.into()),
                grouped(row.refused.into()),
                grouped(row.failed.into()),
                row.refusals_ms
                    .map_or_else(|| "-".to_owned(), |(first, _)| time(first)),
            ]);
        }
        out.line(format_args!("\nEntities that lose requests\n\n{table}"))?;
        print_more(out, keys.len(), top)?;
    }
    if let Some((row, why)) = keys.iter().find_map(|row| Some((row, row.failure.as_ref()?))) {
        out.line(format_args!(
            "\nRequests fail, for instance of {}: {}",
            printable(row.entity.as_str()),
            printable(why)
        ))?;
    }
    Ok(())
}

fn print_chart(out: &mut Out, report: &Report, run: &Run) -> Result<(), Failure> {
    let length = length(report.every_ms);
    let numbers = |number: fn(&zae_limiter_replay::report::Part) -> u64| -> Vec<u64> {
        run.timeline.iter().map(number).collect()
    };
    let rows = [
        ("requests", numbers(|part| part.arrived)),
        ("refusals", numbers(|part| part.refused)),
        ("failures", numbers(|part| part.failed)),
    ];
    out.line("")?;
    let mut width = 0;
    for (name, numbers) in &rows {
        let most = numbers.iter().copied().max().unwrap_or(0);
        if most == 0 {
            continue;
        }
        let bars = bars(numbers, most, WIDTH);
        width = bars.chars().count();
        out.line(format_args!(
            "  {name}  {bars}  at most {} in {length}",
            grouped(most.into())
        ))?;
    }
    let (first, last) = (report.begins_ms.first(), report.begins_ms.last());
    let (first, last) = (time(*first.unwrap_or(&0)), time(*last.unwrap_or(&0)));
    let scale = if width >= 2 * first.len() + 2 {
        format!("{first}{last:>rest$}", rest = width - first.len())
    } else {
        format!("{first} to {last}")
    };
    out.line(format_args!("            {scale}"))
}

fn print_comparison(
    out: &mut Out,
    report: &Report,
    comparison: &Comparison,
    top: usize,
) -> Result<(), Failure> {
    let manifest = |index: usize| report.runs.get(index).map_or("", |run| run.manifest.as_str());
    out.line(format_args!(
        "\nCompared: {} admitted by both, {} by neither, {} only by {}, {} only by {}",
        grouped(comparison.both_admit.into()),
        grouped(comparison.neither_admits.into()),
        grouped(comparison.only_first_admits.into()),
        printable(manifest(0)),
        grouped(comparison.only_second_admits.into()),
        printable(manifest(1)),
    ))?;
    if comparison.differences.is_empty() {
        return Ok(());
    }
    let mut table = Table::ruled(&DIFFERENCES);
    for row in comparison.differences.iter().take(top) {
        let by: Vec<String> = row
            .lost_by
            .iter()
            .map(|(limit, count)| format!("{limit}: {}", grouped((*count).into())))
            .collect();
        table.row([
            row.entity.to_string(),
            row.resource.to_string(),
            grouped(row.lost.into()),
            grouped(row.gained.into()),
            row.lost_ms
                .map_or_else(|| "-".to_owned(), |(first, _)| time(first)),
            by.join(", "),
        ]);
    }
    out.line(format_args!("\n{table}"))?;
    print_more(out, comparison.differences.len(), top)
}

fn print_more(out: &mut Out, all: usize, top: usize) -> Result<(), Failure> {
    if all > top {
        out.line(format_args!(
            "and {} more; --top shows them",
            grouped((all - top) as i128)
        ))?;
    }
    Ok(())
}

/// A number of things.
fn counted(number: u64, of: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {of}{ending}", grouped(number.into()))
}

fn level(at: DeclaredAt) -> &'static str {
    match at {
        DeclaredAt::Entity | DeclaredAt::EntityDefault => "entity",
        DeclaredAt::Resource => "resource",
        _ => "system",
    }
}

fn wait(row: &LimitRow) -> String {
    if row.never == row.refusals {
        return "never".to_owned();
    }
    format!(
        "{}.{:03} s",
        row.longest_wait_ms / 1000,
        row.longest_wait_ms % 1000
    )
}

fn time(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn percent(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", permille / 10, permille % 10)
}

fn length(millis: i64) -> String {
    for (unit, name) in [
        (86_400_000, "day"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ] {
        if millis >= unit && millis % unit == 0 {
            return format!("{} {name}", millis / unit);
        }
    }
    format!("{millis} ms")
}

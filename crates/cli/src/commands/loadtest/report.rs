//! The report of a load test as text, JSON and CSV; `html` renders it as a page.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zae_limiter_loadtest::{Event, Plan, Report, Series};

use super::html;
use super::timeline::Timeline;
use crate::args::loadtest::Run;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number::grouped;
use crate::text::table::{Table, printable};

/// On-demand prices of us-east-1 for a million write units and a million read units, in dollars (docs/costs.md).
const PRICES: (f64, f64) = (0.625, 0.125);

/// The part of all processors above which the generator, and not the table, may be what is measured.
const BUSY: f64 = 0.9;

/// The tolerated relative difference of the two numbers of users.
const APART: f64 = 0.05;

/// What is printed of a run.
pub(super) struct Shown<'a> {
    args: &'a Run,
    plan: &'a Plan,
}

impl<'a> Shown<'a> {
    pub(super) fn new(args: &'a Run, plan: &'a Plan) -> Self {
        Self { args, plan }
    }

    /// What is about to run.
    pub(super) fn head(&self) -> Result<(), Failure> {
        let mut out = Out::new(&self.args.common.format);
        if out.is_json() {
            return Ok(());
        }
        let (at, schedule) = (&self.args.common.at, &self.plan.schedule);
        let place = at.endpoint_url.as_deref().or(at.region.as_deref());
        out.line(format_args!("\nLocal Run: {}", printable(&at.name)))?;
        if let Some(place) = place {
            out.line(format_args!("  Endpoint: {}", printable(place)))?;
        }
        out.line(format_args!(
            "  Locustfile: {}",
            printable(&self.args.load.locustfile)
        ))?;
        out.line(format_args!("  User classes: {}", self.classes().join(", ")))?;
        if let Some(shape) = self.shape() {
            out.line(format_args!("  Shape: {}", printable(shape)))?;
        }
        let rate = match self.plan.rate {
            Some(rate) => format!("Rate: {rate}/s"),
            None => format!("Spawn Rate: {}/s", self.args.load.spawn_rate),
        };
        out.line(format_args!(
            "  Users: {}, Duration: {}s, {rate}, Seed: {}\n",
            schedule.most(),
            schedule.length().as_secs(),
            self.plan.seed
        ))?;
        out.flush()
    }

    fn shape(&self) -> Option<&str> {
        let mut shapes = self.plan.scenario.shapes.iter().map(|shape| &*shape.name);
        shapes.find(|shape| self.args.load.user_classes.iter().any(|name| name == shape))
    }

    fn classes(&self) -> Vec<&str> {
        self.plan
            .scenario
            .classes
            .iter()
            .map(|class| &*class.name)
            .collect()
    }

    /// What was measured.
    pub(super) fn report(&self, report: &Report, timeline: &Timeline) -> Result<(), Failure> {
        if let Some(file) = &self.args.csv {
            std::fs::write(file, csv(report)).map_err(|err| cannot_write(file, &err))?;
        }
        if let Some(file) = &self.args.html {
            let page = html::page(&self.args.common.at.name, self.plan, report, timeline.points());
            std::fs::write(file, page).map_err(|err| cannot_write(file, &err))?;
        }
        let mut out = Out::new(&self.args.common.format);
        if out.is_json() {
            out.json(&self.json(report))?;
        } else {
            text(report, self.plan, &mut out)?;
        }
        out.flush()
    }

    fn json(&self, report: &Report) -> Value {
        let total = report.stats.total();
        let refused = refused(report);
        let rows = report.stats.series().map(|(event, name, series)| {
            let mut row = json!({ "type": event.name(), "name": name });
            if let (Some(row), Value::Object(figures)) = (row.as_object_mut(), figures(series, report)) {
                row.extend(figures);
            }
            row
        });
        let mut document = json!({
            "scenario": self.plan.scenario.name,
            "user_classes": self.classes(),
            "shape": self.shape(),
            "spawn_rate": self.plan.rate.is_none().then_some(self.args.load.spawn_rate),
            "rate": self.plan.rate,
            "seed": self.plan.seed,
            "interrupted": report.interrupted,
            "users": report.users,
            "mean_users": rounded(report.mean_users()),
            "users_by_littles_law": rounded(report.users_by_littles_law()),
            "duration_seconds": rounded(report.elapsed.as_secs_f64()),
            "warnings": warnings(report, self.plan),
            "acquires": report.acquires(),
            "refused": refused.calls(),
        });
        let per_acquire = PerAcquire::of(report);
        if let (Some(document), Value::Object(figures)) = (document.as_object_mut(), figures(&total, report))
        {
            document.extend(figures);
            document.insert("errors".to_owned(), report.stats.errors().collect());
            document.insert("by_name".to_owned(), rows.collect());
            document.insert(
                "writes_per_acquire".to_owned(),
                json!(rounded(per_acquire.writes)),
            );
            document.insert("reads_per_acquire".to_owned(), json!(rounded(per_acquire.reads)));
            document.insert(
                "write_units_per_acquire".to_owned(),
                json!(rounded(per_acquire.write_units)),
            );
            document.insert(
                "read_units_per_acquire".to_owned(),
                json!(rounded(per_acquire.read_units)),
            );
            document.insert(
                "dollars_per_million_acquires".to_owned(),
                json!(rounded(per_acquire.dollars())),
            );
            document.insert("generator_cpu".to_owned(), json!(busy(report).map(rounded)));
        }
        document
    }
}

/// Makes the file, so that one that cannot be written is reported before the test.
pub(super) fn check_file(file: &Path) -> Result<(), Failure> {
    // Its content stays until there is a new one. What is not a file may block.
    if file.exists() && !file.is_dir() && !file.is_file() {
        return Ok(());
    }
    let opened = File::options().append(true).create(true).open(file);
    opened.map(drop).map_err(|err| cannot_write(file, &err))
}

fn cannot_write(file: &Path, err: &std::io::Error) -> Failure {
    Failure::error(format!("Cannot write '{}': {err}", file.display()))
}

/// What users asked of the table, for each acquire.
pub(super) struct PerAcquire {
    pub(super) writes: f64,
    pub(super) reads: f64,
    pub(super) write_units: f64,
    pub(super) read_units: f64,
}

impl PerAcquire {
    pub(super) fn of(report: &Report) -> Self {
        let acquires = report.acquires().max(1) as f64;
        let cost = &report.cost;
        Self {
            writes: (cost.requests() - cost.reads()) as f64 / acquires,
            reads: cost.reads() as f64 / acquires,
            write_units: cost.write_units / acquires,
            read_units: cost.read_units / acquires,
        }
    }

    /// For a million acquires: a unit of each costs what a million units cost together.
    pub(super) fn dollars(&self) -> f64 {
        self.write_units * PRICES.0 + self.read_units * PRICES.1
    }
}

fn refused(report: &Report) -> Series {
    report.stats.of(|event| event == Event::RateLimited)
}

/// The part of all processors that the generator has used.
fn busy(report: &Report) -> Option<f64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = report.elapsed.as_secs_f64() * cores as f64;
    report
        .cpu
        .filter(|_| all > 0.0)
        .map(|cpu| cpu.as_secs_f64() / all)
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(super) fn millis(latency: Duration) -> f64 {
    rounded(latency.as_secs_f64() * 1000.0)
}

pub(super) fn per_second(series: &Series, report: &Report) -> f64 {
    let elapsed = report.elapsed.as_secs_f64();
    if elapsed > 0.0 {
        series.calls() as f64 / elapsed
    } else {
        0.0
    }
}

fn percent(part: u64, of: u64) -> f64 {
    part as f64 * 100.0 / of.max(1) as f64
}

fn figures(series: &Series, report: &Report) -> Value {
    json!({
        "total_requests": series.calls(),
        "total_failures": series.failures(),
        "failure_rate": rounded(percent(series.failures(), series.calls()) / 100.0),
        "requests_per_second": rounded(per_second(series, report)),
        "avg_response_time": millis(series.mean()),
        "min_response_time": millis(series.min()),
        "max_response_time": millis(series.max()),
        "p50": millis(series.quantile(0.5)),
        "p95": millis(series.quantile(0.95)),
        "p99": millis(series.quantile(0.99)),
    })
}

/// What makes the figures less useful than they look.
pub(super) fn warnings(report: &Report, plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    let most = plan.schedule.most();
    if report.users < most && !report.interrupted {
        warnings.push(format!(
            "Only {} of {} users were started. Use a higher --spawn-rate, or a longer --duration.",
            grouped(report.users as i128),
            grouped(most as i128)
        ));
    }
    if report.acquires() == 0 {
        warnings.push("There was no acquire.".to_owned());
    }
    if plan
        .rate
        .is_some_and(|rate| report.tasks_per_second() < rate * (1.0 - APART))
    {
        warnings.push(
            "All users were busy, and calls that were due have not begun. Use more --users, or a lower --rate."
                .to_owned(),
        );
    }
    if busy(report).is_some_and(|busy| busy >= BUSY) {
        warnings.push(
            "The generator used almost all of this machine's processors, so the latencies are its own as much as the \
             table's. Use fewer users, or more machines."
                .to_owned(),
        );
    }
    let (mean, law) = (report.mean_users(), report.users_by_littles_law());
    if mean > 0.0 && (law / mean - 1.0).abs() > APART {
        warnings.push(
            "Users waited for something that was not measured; the two numbers of users differ by more than 5%."
                .to_owned(),
        );
    }
    warnings
}

fn text(report: &Report, plan: &Plan, out: &mut Out) -> Result<(), Failure> {
    let total = report.stats.total();
    let refused = refused(report).calls();
    if report.interrupted {
        out.line("Interrupted\nPartial results:")?;
    } else {
        out.line("\nResults:")?;
    }
    let calls = total.calls();
    out.line(format_args!("  Requests: {}", grouped(calls.into())))?;
    out.line(format_args!("  RPS: {:.1}", report.per_second()))?;
    out.line(format_args!(
        "  Failures: {} ({:.1}%)",
        grouped(total.failures().into()),
        percent(total.failures(), calls)
    ))?;
    out.line(format_args!(
        "  Refused: {} ({:.1}% of {} acquires)",
        grouped(refused.into()),
        percent(refused, report.acquires()),
        grouped(report.acquires().into())
    ))?;
    out.line(format_args!("  Avg: {}", latency(total.mean())))?;
    out.line(format_args!(
        "  Min: {} / Max: {}",
        latency(total.min()),
        latency(total.max())
    ))?;
    for (name, part) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        out.line(format_args!("  {name}: {}", latency(total.quantile(part))))?;
    }
    let mut table = Table::grid(&["Type", "Name", "Requests", "Failures", "RPS", "p50", "p95", "p99"]);
    for (event, name, series) in report.stats.series() {
        table.row([
            event.name().to_owned(),
            printable(name).into_owned(),
            grouped(series.calls().into()),
            grouped(series.failures().into()),
            format!("{:.1}", per_second(series, report)),
            latency(series.quantile(0.5)),
            latency(series.quantile(0.95)),
            latency(series.quantile(0.99)),
        ]);
    }
    out.line(format_args!("\n{table}"))?;
    let per_acquire = PerAcquire::of(report);
    out.line(format_args!(
        "\nPer acquire: {:.2} writes, {:.2} reads, {:.2} write units, {:.2} read units; ${:.2} per million on demand in us-east-1",
        per_acquire.writes,
        per_acquire.reads,
        per_acquire.write_units,
        per_acquire.read_units,
        per_acquire.dollars()
    ))?;
    let (mean, law) = (report.mean_users(), report.users_by_littles_law());
    match plan.rate {
        None => out.line(format_args!(
            "Users: {mean:.1} on average, {law:.1} by Little's law (closed loop: throughput x (latency + pause))"
        ))?,
        Some(rate) => {
            out.line(format_args!(
                "Users: {mean:.1} on average, {law:.1} by Little's law (throughput x (latency - lateness + pause))"
            ))?;
            let begun = report.tasks_per_second();
            out.line(format_args!(
                "Rate: {begun:.1} of {rate}/s (open loop: latencies count from when a call was due)"
            ))?;
        }
    }
    if let Some(busy) = busy(report) {
        out.line(format_args!(
            "Generator: {:.0}% of this machine's processors",
            busy * 100.0
        ))?;
    }
    for warning in warnings(report, plan) {
        crate::say(&format!("Warning: {warning}"));
    }
    for (error, count) in report.stats.errors() {
        crate::say(&format!("Error: {} x {error}", grouped(count.into())));
    }
    Ok(())
}

/// A latency, with as many digits as say something.
pub(super) fn latency(latency: Duration) -> String {
    let millis = latency.as_secs_f64() * 1000.0;
    if millis >= 10.0 {
        format!("{millis:.0}ms")
    } else {
        format!("{millis:.2}ms")
    }
}

fn csv(report: &Report) -> String {
    let mut text =
        String::from("type,name,requests,failures,rps,avg_ms,min_ms,max_ms,p50_ms,p95_ms,p99_ms\n");
    let total = report.stats.total();
    let rows = report
        .stats
        .series()
        .map(|(event, name, series)| (event.name(), name, series));
    for (event, name, series) in rows.chain([("", "Aggregated", &total)]) {
        let _ = writeln!(
            text,
            "{event},{},{},{},{:.1},{},{},{},{},{},{}",
            quoted(name),
            series.calls(),
            series.failures(),
            per_second(series, report),
            millis(series.mean()),
            millis(series.min()),
            millis(series.max()),
            millis(series.quantile(0.5)),
            millis(series.quantile(0.95)),
            millis(series.quantile(0.99)),
        );
    }
    text
}

/// A field by RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_digits_that_say_something() {
        let shown = |micros| latency(Duration::from_micros(micros));
        assert_eq!(
            [shown(0), shown(427), shown(9_994), shown(10_000), shown(47_400)],
            ["0.00ms", "0.43ms", "9.99ms", "10ms", "47ms"]
        );
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(
            [quoted("api-1/acquire"), quoted("a,\"b\"")],
            ["api-1/acquire", "\"a,\"\"b\"\"\""]
        );
    }
}

//! The report of a load test as text, JSON and CSV; `html` renders it as a page.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zae_limiter_infra::{MasterSize, names};
use zae_limiter_loadtest::figures::Figures;
use zae_limiter_loadtest::function::Ran;
use zae_limiter_loadtest::{Event, Plan, Point, Report, Series};

pub(super) use zae_limiter_loadtest::figures::{millis, rounded};

use super::html;
use super::lambda::Worker;
use crate::args::loadtest::Run;
use crate::connect;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number::grouped;
use crate::text::table::{Table, printable};

/// On-demand prices of us-east-1 for a million write units and a million read units, in dollars (docs/costs.md).
const PRICES: (f64, f64) = (0.625, 0.125);

/// The part of all processors above which the generator, and not the table, may be what is measured.
const BUSY: f64 = 0.9;

/// The percentage of refusals above which figures of all calls say little.
const REFUSED_PERCENT: f64 = 5.0;

/// The tolerated relative difference of the two numbers of users.
const APART: f64 = 0.05;

/// What is printed of a run.
pub(super) struct Shown<'a> {
    args: &'a Run,
    ran: Ran,
    /// The function that ran it; none if this machine did.
    worker: Option<&'a Worker>,
    /// How many workers there were, and how many of them were lost.
    workers: Option<(usize, usize)>,
}

impl<'a> Shown<'a> {
    /// A run of this machine.
    pub(super) fn new(args: &'a Run, plan: &Plan, shape: Option<String>) -> Self {
        Self {
            args,
            ran: Ran::of(plan, shape),
            worker: None,
            workers: None,
        }
    }

    /// Users are in this many workers, of which so many were lost.
    pub(super) fn workers(&mut self, workers: usize, lost: usize) {
        self.workers = Some((workers, lost));
    }

    /// Prints a line as it is, if the output is a text.
    pub(super) fn line(&self, line: &str) -> Result<(), Failure> {
        Out::new(&self.args.common.format).tell(line)
    }

    /// Users start in workers.
    pub(super) fn start(&self) -> Result<(), Failure> {
        let rate = match self.args.rate {
            Some(rate) => format!("at {rate}/s"),
            None => format!("{}/s spawn", self.args.load.spawn_rate),
        };
        self.line(&format!(
            "\nStarting test: {} users, {rate}, {}s...\n  Test started. Polling stats...\n",
            self.ran.users,
            self.ran.duration_seconds.floor()
        ))
    }

    /// A run of workers that are calls of a function.
    pub(super) fn of_workers(
        args: &'a Run,
        plan: &Plan,
        shape: Option<String>,
        worker: &'a Worker,
        workers: usize,
    ) -> Self {
        Self {
            worker: Some(worker),
            workers: Some((workers, 0)),
            ..Self::new(args, plan, shape)
        }
    }

    /// A run of a function.
    pub(super) fn of_function(args: &'a Run, ran: Ran, worker: &'a Worker) -> Self {
        Self {
            args,
            ran,
            worker: Some(worker),
            workers: None,
        }
    }

    /// What is about to run.
    pub(super) fn head(&self) -> Result<(), Failure> {
        let mut out = Out::new(&self.args.common.format);
        if out.is_json() {
            return Ok(());
        }
        let at = &self.args.common.at;
        out.line(format_args!("\nLocal Run: {}", printable(&at.name)))?;
        let endpoint = connect::endpoint(at);
        for (what, place) in [("Endpoint", endpoint.as_ref()), ("Region", at.region.as_ref())] {
            if let Some(place) = place {
                out.line(format_args!("  {what}: {}", printable(place)))?;
            }
        }
        out.line(format_args!(
            "  Locustfile: {}",
            printable(&self.args.load.locustfile)
        ))?;
        out.line(format_args!(
            "  User classes: {}",
            self.ran.user_classes.join(", ")
        ))?;
        if let Some((workers, _)) = self.workers {
            out.line(format_args!("  Workers: {workers} processes"))?;
        }
        if let Some(shape) = &self.ran.shape {
            out.line(format_args!("  Shape: {}", printable(shape)))?;
        }
        let rate = rate(self.args);
        out.line(format_args!(
            "  Users: {}, Duration: {}s, {rate}, Seed: {}\n",
            self.ran.users,
            self.ran.duration_seconds.floor(),
            self.ran.seed
        ))?;
        out.flush()
    }

    /// What is about to run, with a master of this size.
    pub(super) fn head_of_master(&self, size: MasterSize) -> Result<(), Failure> {
        let (workers, _) = self.workers.unwrap_or_default();
        let shape = self.ran.shape.as_deref();
        self.line(&format!(
            "\nDistributed Benchmark: {}\n  CPU: {} units ({:.1} vCPU)\n  Memory: {} MB\n  Workers: {workers} Lambda\n  Locustfile: {}{}\n  \
             Users: {}, Duration: {}s, {}\n",
            names::load::master(&self.args.common.at.name),
            size.cpu,
            f64::from(size.cpu) / 1024.0,
            size.memory_mb,
            self.args.load.locustfile,
            shape.map_or_else(String::new, |shape| format!("\n  Shape: {shape}")),
            self.ran.users,
            self.ran.duration_seconds.floor(),
            rate(self.args)
        ))
    }

    /// What was measured.
    pub(super) fn report(&self, report: &Report, points: &[Point]) -> Result<(), Failure> {
        // The measured values are printed, whether the files can be written or not.
        let written = self.write_files(report, points);
        let mut out = Out::new(&self.args.common.format);
        if out.is_json() {
            out.json(&self.json(report))?;
        } else {
            self.text(report, &mut out)?;
        }
        out.flush()?;
        written
    }

    fn write_files(&self, report: &Report, points: &[Point]) -> Result<(), Failure> {
        let of_csv = self.args.csv.as_ref().map(|file| write(file, &csv(report)));
        let of_html = self.args.html.as_ref().map(|file| {
            let at = &self.args.common.at;
            let page = html::page(&at.name, &self.ran, report, &self.all_warnings(report), points);
            write(file, &page)
        });
        of_csv.unwrap_or(Ok(())).and(of_html.unwrap_or(Ok(())))
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
            "scenario": self.ran.scenario,
            "user_classes": self.ran.user_classes,
            "shape": self.ran.shape,
            "spawn_rate": self.ran.rate.is_none().then_some(self.args.load.spawn_rate),
            "rate": self.ran.rate,
            "seed": self.ran.seed,
            "interrupted": report.interrupted,
            "users": report.users,
            "mean_users": rounded(report.mean_users()),
            "users_by_littles_law": rounded(report.users_by_littles_law()),
            "duration_seconds": rounded(report.elapsed.as_secs_f64()),
            "warnings": self.all_warnings(report),
            "acquires": report.acquires(),
            "admitted": admitted(report),
            "admitted_per_second": rounded(per_second(admitted(report), report)),
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
            document.insert("generator_cpu".to_owned(), json!(self.busy(report).map(rounded)));
            if let Some((workers, lost)) = self.workers {
                document.insert("workers".to_owned(), json!(workers));
                document.insert("workers_lost".to_owned(), json!(lost));
            }
            if let Some(worker) = self.worker {
                document.insert("function".to_owned(), json!(worker.name));
                document.insert("memory_mb".to_owned(), json!(worker.memory_mb));
                document.insert("timeout_seconds".to_owned(), json!(worker.timeout.as_secs()));
            }
        }
        document
    }

    /// The generator's processors, for messages.
    fn processors(&self) -> String {
        match self.worker {
            Some(worker) => match self.workers {
                Some((workers, _)) => format!("{workers} workers with {:.2} vCPU each", worker.vcpus()),
                None => format!("the function's {:.2} vCPU", worker.vcpus()),
            },
            None => "this machine's processors".to_owned(),
        }
    }

    /// The part of its processors that the generator has used.
    fn busy(&self, report: &Report) -> Option<f64> {
        let processors = match self.worker {
            Some(worker) => worker.vcpus() * self.workers.map_or(1, |(workers, _)| workers) as f64,
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64,
        };
        let all = report.elapsed.as_secs_f64() * processors;
        report
            .cpu
            .filter(|_| all > 0.0)
            .map(|cpu| cpu.as_secs_f64() / all)
    }

    /// [`warnings`](Self::warnings), and that workers were lost, which a text names one by one.
    fn all_warnings(&self, report: &Report) -> Vec<String> {
        let mut warnings = self.warnings(report);
        if let Some((_, lost)) = self.workers.filter(|(_, lost)| *lost > 0) {
            warnings.push(format!(
                "{lost} worker(s) were lost; what they did after their last message is missing."
            ));
        }
        warnings
    }

    /// What makes the figures less useful than they look.
    fn warnings(&self, report: &Report) -> Vec<String> {
        let mut warnings = Vec::new();
        let most = self.ran.users;
        if report.users < most && !report.interrupted {
            warnings.push(format!(
                "Only {} of {} users were started. Use a higher --spawn-rate, or a longer --duration.",
                grouped(report.users as i128),
                grouped(most as i128)
            ));
        }
        let (acquires, refused) = (report.acquires(), refused(report).calls());
        if acquires == 0 {
            warnings.push("There was no acquire.".to_owned());
        }
        if percent(refused, acquires) > REFUSED_PERCENT {
            warnings.push(format!(
                "{:.0}% of the acquires were refused. Refusals count as requests, and repeated ones send nothing to the table: \
                 requests per second and latencies of all calls say little. See the row ACQUIRE.",
                percent(refused, acquires)
            ));
        }
        if self
            .ran
            .rate
            .is_some_and(|rate| report.tasks_per_second() < rate * (1.0 - APART))
        {
            warnings.push(
                "All users were busy, and a part of the tasks that were due has not begun. With more --users or a lower --rate they \
                 begin in time."
                    .to_owned(),
            );
        }
        if self.busy(report).is_some_and(|busy| busy >= BUSY) {
            let instead = match self.worker {
                Some(_) if self.workers.is_some() => "more workers",
                Some(_) => "a function with more memory",
                None => "more machines",
            };
            warnings.push(format!(
                "The generator used almost all of {}, so the latencies are its own as much as the table's. Use fewer users, or \
                 {instead}.",
                self.processors()
            ));
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

    /// The lines of all calls together: those of the Python tool, and how many calls were refused.
    fn totals(&self, report: &Report, out: &mut Out) -> Result<(), Failure> {
        let total = report.stats.total();
        let refused = refused(report).calls();
        let refused = format!(
            "  Refused: {} ({:.1}% of {} acquires)",
            grouped(refused.into()),
            percent(refused, report.acquires()),
            grouped(report.acquires().into())
        );
        let shown = if self.worker.is_some() { whole } else { latency };
        let calls = total.calls();
        out.line(format_args!("  Requests: {}", grouped(calls.into())))?;
        out.line(format_args!("  RPS: {:.1}", report.per_second()))?;
        out.line(format_args!(
            "  Failures: {} ({:.1}%)",
            grouped(total.failures().into()),
            percent(total.failures(), calls)
        ))?;
        if self.worker.is_none() {
            out.line(&refused)?;
        }
        out.line(format_args!("  Avg: {}", shown(total.mean())))?;
        out.line(format_args!(
            "  Min: {} / Max: {}",
            shown(total.min()),
            shown(total.max())
        ))?;
        for (name, part) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            out.line(format_args!("  {name}: {}", shown(total.quantile(part))))?;
        }
        // The lines of a function are those of the Python tool, and nothing comes between them.
        if self.worker.is_some() {
            out.line(&refused)?;
        }
        Ok(())
    }

    fn text(&self, report: &Report, out: &mut Out) -> Result<(), Failure> {
        if report.interrupted && (self.worker.is_none() || self.workers.is_some()) {
            out.line("Interrupted\nPartial results:")?;
        } else {
            out.line("\nResults:")?;
        }
        self.totals(report, out)?;
        let mut table = Table::grid(&["Type", "Name", "Requests", "Failures", "RPS", "p50", "p95", "p99"]);
        for (event, name, series) in report.stats.series() {
            table.row([
                event.name().to_owned(),
                printable(name).into_owned(),
                grouped(series.calls().into()),
                grouped(series.failures().into()),
                format!("{:.1}", series.per_second(report.elapsed)),
                latency(series.quantile(0.5)),
                latency(series.quantile(0.95)),
                latency(series.quantile(0.99)),
            ]);
        }
        out.line(format_args!("\n{table}"))?;
        let per_acquire = PerAcquire::of(report);
        out.line(format_args!(
            "\nAdmitted: {} acquires, {:.1} per second",
            grouped(admitted(report).into()),
            per_second(admitted(report), report)
        ))?;
        out.line(format_args!(
            "Per admitted acquire: {:.2} writes, {:.2} reads, {:.2} write units, {:.2} read units; ${:.2} per million on demand in us-east-1",
            per_acquire.writes,
            per_acquire.reads,
            per_acquire.write_units,
            per_acquire.read_units,
            per_acquire.dollars()
        ))?;
        let (mean, law) = (report.mean_users(), report.users_by_littles_law());
        match self.ran.rate {
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
        if let Some(busy) = self.busy(report) {
            out.line(format_args!(
                "Generator: {:.0}% of {}",
                busy * 100.0,
                self.processors()
            ))?;
        }
        for warning in self.warnings(report) {
            crate::say(&format!("Warning: {warning}"));
        }
        for (error, count) in report.stats.errors() {
            crate::say(&format!("Error: {} x {error}", grouped(count.into())));
        }
        Ok(())
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

/// Writes a file. A pipe that is not read is an error, and is not waited for.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let written = open(file).and_then(|mut to| to.write_all(text.as_bytes()));
    written.map_err(|err| cannot_write(file, &err))
}

#[cfg(unix)]
fn open(file: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    if !file.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
        return File::create(file);
    }
    let opened = File::options()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(file);
    let pipe = opened.map_err(|err| match err.raw_os_error() {
        Some(code) if code == nix::errno::Errno::ENXIO as i32 => {
            std::io::Error::other("nothing reads this pipe")
        }
        _ => err,
    })?;
    // What was opened has a reader, which may be slow.
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(pipe)
}

#[cfg(not(unix))]
fn open(file: &Path) -> std::io::Result<File> {
    File::create(file)
}

fn cannot_write(file: &Path, err: &std::io::Error) -> Failure {
    Failure::error(format!("Cannot write '{}': {err}", file.display()))
}

/// What users asked of the table, for each admitted acquire: refusals and failures cost, too.
pub(super) struct PerAcquire {
    pub(super) writes: f64,
    pub(super) reads: f64,
    pub(super) write_units: f64,
    pub(super) read_units: f64,
}

impl PerAcquire {
    pub(super) fn of(report: &Report) -> Self {
        let acquires = admitted(report).max(1) as f64;
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

/// The acquires that were admitted.
fn admitted(report: &Report) -> u64 {
    let acquired = report.stats.of(|event| event == Event::Acquire);
    acquired.calls().saturating_sub(acquired.failures())
}

fn per_second(count: u64, report: &Report) -> f64 {
    let seconds = report.elapsed.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

fn percent(part: u64, of: u64) -> f64 {
    part as f64 * 100.0 / of.max(1) as f64
}

fn figures(series: &Series, report: &Report) -> Value {
    json!(Figures::of(series, report.elapsed))
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

/// A latency in whole milliseconds, as the Python tool shows it.
pub(super) fn whole(latency: Duration) -> String {
    format!("{:.0}ms", latency.as_secs_f64() * 1000.0)
}

/// How fast users start, or how many calls are due.
pub(super) fn rate(args: &Run) -> String {
    match args.rate {
        Some(rate) => format!("Rate: {rate}/s"),
        None => format!("Spawn Rate: {}/s", args.load.spawn_rate),
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
            series.per_second(report.elapsed),
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

//! `loadtest`: users on this machine or in a function of AWS Lambda, in a namespace of their own.

mod desk;
mod distributed;
mod fargate;
mod html;
mod infrastructure;
mod interrupts;
mod lambda;
mod live;
mod report;
mod test_namespace;
mod tune;
mod ui;
mod worker;

use std::path::Path;
use std::time::Duration;

use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::selection::{self, Selection, SelectionError};
use zae_limiter_loadtest::{Plan, Schedule, Timeline, file, shipped};

use super::{Outcome, failed, print_schema};
use crate::args::OutputFormat;
use crate::args::loadtest::{Load, LoadtestCommand, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::say;
use crate::signals::Ending;
use interrupts::Interrupts;
use live::Live;
use report::Shown;
use test_namespace::TestNamespace;

pub(crate) use lambda::handler;

/// The length of a test without a shape.
const DURATION: Duration = Duration::from_mins(1);

const WHAT: &str = "run the load test";

/// Runs a command whose users need all processors.
pub(crate) fn on_all_processors(command: LoadtestCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(run(command));
    runtime.shutdown_background();
    outcome
}

pub(crate) async fn run(command: LoadtestCommand) -> Outcome {
    match command {
        LoadtestCommand::Delete(args) => infrastructure::delete(args).await,
        LoadtestCommand::Deploy(args) => infrastructure::deploy(*args).await,
        LoadtestCommand::List(args) => infrastructure::list(args).await,
        LoadtestCommand::Master(args) => fargate::master(*args).await,
        LoadtestCommand::Push(args) => infrastructure::push(args).await,
        LoadtestCommand::Run(args) if args.load.local => run_here(args).await,
        LoadtestCommand::Run(args) => match args.workers() {
            Some(workers) => Box::pin(fargate::run(args, workers)).await,
            None => lambda::run(args).await,
        },
        LoadtestCommand::Schema(_) => print_schema(file::SCHEMA),
        LoadtestCommand::Tune(args) => tune::tune(args).await,
        LoadtestCommand::Ui(args) => ui::ui(args).await,
        LoadtestCommand::Worker(args) => worker::run(args).await,
    }
}

async fn run_here(args: Run) -> Outcome {
    refuse_unused(&args)?;
    if args.workers().is_some() {
        let option = args.workers_option();
        distributed::check_shared(&args.common.at, option, &format!("leave out {option}"))?;
    }
    let selection = chosen(&args.load)?;
    refuse_shape_at_rate(&args, &selection)?;
    let stages = selection.stages(args.users(), args.duration(), DURATION);
    check_files(&args)?;
    let length = stages.iter().map(|stage| stage.length).sum();
    let mut live = Live::new(args.common.format.output == OutputFormat::Json, length);
    // Only the page has charts.
    let mut timeline = args.html.is_some().then(|| Timeline::new(length));
    let plan = Plan {
        scenario: selection.scenario,
        schedule: Schedule::new(stages, spawn_rate(args.rate, args.load.spawn_rate.unsigned_abs())),
        rate: args.rate,
        warm_up: Duration::ZERO,
        seed: args.load.seed(),
        // Each time, all that was measured is added up.
        every: timeline.as_ref().map_or(live.every(), |_| Timeline::EVERY),
    };
    let shown = Shown::new(&args, &plan, selection.shape);
    if let Some(workers) = args.workers() {
        return distributed::run(&args, workers, &plan, shown).await;
    }
    let interrupts = Interrupts::catch()?;
    let at = &args.common.at;
    let namespace = TestNamespace::open(at, &interrupts, || shown.head()).await?;
    let stop = interrupts.first();
    let ran = zae_limiter_loadtest::run(namespace.limiter(), &plan, stop, |progress| {
        live.show(progress);
        if let Some(timeline) = &mut timeline {
            timeline.add(progress);
        }
    })
    .await;
    drop(live);
    let ran = ran.map_err(failed(at, WHAT));
    // Before the namespace is removed, which takes long on a slow table.
    let printed =
        ran.and_then(|report| shown.report(&report, timeline.as_ref().map_or(&[], Timeline::points)));
    let cleared = namespace.clear(&interrupts).await;
    ended(printed, cleared, interrupts.heard())
}

/// How a command ends whose namespace was to be removed, and which a signal may have ended.
fn ended(printed: Result<(), Failure>, cleared: Result<(), Failure>, ending: Option<Ending>) -> Outcome {
    if let (Err(_), Err(Failure::Message { text, .. })) = (&printed, &cleared) {
        say(text);
    }
    printed?;
    cleared?;
    match ending {
        Some(ending) if !ending.is_interrupt() => Err(ending.into_failure()),
        Some(_) => Ok(Exit::Failure),
        None => Ok(Exit::Success),
    }
}

/// Refuses options that are for Fargate tasks.
fn refuse_unused(args: &Run) -> Result<(), Failure> {
    let given = [
        ("--cpu", args.cpu),
        ("--memory", args.memory),
        ("--port", args.port),
    ];
    match given.iter().find_map(|(name, value)| Some((name, (*value)?))) {
        Some((name, value)) => Err(Failure::error(format!(
            "{name} {value} has no effect here: it is for tests whose master runs on Fargate. Leave it out."
        ))),
        None => Ok(()),
    }
}

/// The users that start in a second. In an open loop they are there to take calls, and all of them start at once.
fn spawn_rate(rate: Option<f64>, given: u64) -> f64 {
    rate.map_or(given as f64, |_| f64::MAX)
}

fn refuse_shape_at_rate(args: &Run, selection: &Selection) -> Result<(), Failure> {
    if selection.shape.is_some() && args.rate.is_some() {
        return Err(Failure::error(
            "A shape sets the number of users over time, and --rate the number of calls. Leave one of them out.",
        ));
    }
    Ok(())
}

/// Makes the files of the result before the test, as the result has no other place.
fn check_files(args: &Run) -> Result<(), Failure> {
    if let (Some(csv), Some(html)) = (&args.csv, &args.html)
        && csv == html
    {
        return Err(Failure::error(format!(
            "--csv and --html have the same file, '{}'. Name two.",
            csv.display()
        )));
    }
    let mut files = [&args.csv, &args.html].into_iter().flatten();
    files.try_for_each(|file| report::check_file(file))
}

/// A scenario, and the text of the file that it comes from.
struct Found {
    scenario: Scenario,
    text: Option<String>,
}

/// A scenario of the program, or of a file.
fn found(name: &str) -> Result<Found, Failure> {
    let path = Path::new(name);
    if let Some(scenario) = shipped::find(name) {
        check_classes(path, &scenario)?;
        return Ok(Found { scenario, text: None });
    }
    let read = || {
        if !selection::is_file(name) {
            return Err(selection::unknown(name));
        }
        let text = selection::read_text(path)?;
        let scenario = selection::read(name, &text)?;
        Ok(Found {
            scenario,
            text: Some(text),
        })
    };
    read().map_err(|err| refused(&err))
}

fn refused(err: &SelectionError) -> Failure {
    Failure::error(err.to_string())
}

/// Refuses a Python file that has the name of a scenario, and classes of its own.
fn check_classes(path: &Path, scenario: &Scenario) -> Result<(), Failure> {
    let Ok(text) = selection::read_text(path) else {
        return Ok(());
    };
    let classes = text.lines().filter_map(|line| line.strip_prefix("class "));
    let mut names = classes.filter_map(|rest| rest.split(['(', ':']).next());
    let is_known = |name: &str| {
        let mut known = scenario.classes.iter().map(|class| &class.name);
        known.any(|known| known == name) || scenario.shapes.iter().any(|shape| shape.name == name)
    };
    match names.find(|name| !is_known(name.trim())) {
        None => Ok(()),
        Some(own) => Err(Failure::error(format!(
            "'{}' has a class of its own, '{own}'. Python files with users of your own cannot be run; describe them in a YAML file, \
             see docs/loadtest.md. The scenario of the program is '-f {}'.",
            path.display(),
            scenario.name
        ))),
    }
}

/// The scenario with the classes and the shape that were chosen.
fn chosen(args: &Load) -> Result<Selection, Failure> {
    selected(found(&args.locustfile)?, args)
}

fn selected(found: Found, args: &Load) -> Result<Selection, Failure> {
    Selection::new(found.scenario, &args.user_classes).map_err(|err| refused(&err))
}

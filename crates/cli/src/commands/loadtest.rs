//! `loadtest`: users on this machine, in a namespace of their own.

mod html;
mod interrupts;
mod live;
mod report;
mod test_namespace;
mod timeline;
mod tune;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::{Plan, Schedule, Stage, file, shipped};

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
use timeline::Timeline;

/// The length of a test without a shape, in seconds.
const DURATION: u64 = 60;

/// The largest file with a scenario, in bytes.
const LARGEST: u64 = 1 << 20;

const WHAT: &str = "run the load test";

/// Runs the command on all processors.
pub(crate) fn run(command: LoadtestCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(async {
        match command {
            LoadtestCommand::Run(args) => run_here(args).await,
            LoadtestCommand::Schema(_) => print_schema(file::SCHEMA),
            LoadtestCommand::Tune(args) => tune::tune(args).await,
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Refuses load from anywhere but this machine.
fn check_local(load: &Load) -> Result<(), Failure> {
    if load.local {
        return Ok(());
    }
    Err(Failure::error(
        "Load from Lambda functions or Fargate tasks is not supported yet. Add --local to run the users on this machine.",
    ))
}

async fn run_here(args: Run) -> Outcome {
    check_local(&args.load)?;
    let (scenario, stages) = chosen(&args.load)?;
    if stages.is_some() && args.rate.is_some() {
        return Err(Failure::error(
            "A shape sets the number of users over time, and --rate the number of calls. Leave one of them out.",
        ));
    }
    let stages = match (stages, args.duration) {
        (None, duration) => vec![Stage {
            users: usize::try_from(args.users).unwrap_or(usize::MAX),
            length: Duration::from_secs(duration.map_or(DURATION, i64::unsigned_abs)),
        }],
        (Some(stages), None) => stages,
        (Some(stages), Some(duration)) => cut(stages, Duration::from_secs(duration.unsigned_abs())),
    };
    for file in [&args.csv, &args.html].into_iter().flatten() {
        // Before the test, as its result has no other place.
        report::check_file(file)?;
    }
    let interrupts = Interrupts::catch()?;
    let at = &args.common.at;
    let length = stages.iter().map(|stage| stage.length).sum();
    let mut live = Live::new(args.common.format.output == OutputFormat::Json, length);
    let mut timeline = Timeline::new(length);
    let plan = Plan {
        scenario,
        // In an open loop users are there to take calls, and all of them start at once.
        schedule: Schedule::new(
            stages,
            args.rate.map_or(args.load.spawn_rate as f64, |_| f64::MAX),
        ),
        rate: args.rate,
        warm_up: Duration::ZERO,
        seed: args.load.seed(),
        every: timeline::EVERY,
    };
    let shown = Shown::new(&args, &plan);
    let namespace = TestNamespace::open(at, &interrupts, || shown.head()).await?;
    let stop = interrupts.first();
    let ran = zae_limiter_loadtest::run(&namespace.limiter, &plan, stop, |progress| {
        live.show(progress);
        timeline.add(progress);
    })
    .await;
    drop(live);
    let ran = ran.map_err(failed(at, WHAT));
    // Before the namespace is removed, which takes long on a slow table.
    let printed = ran.and_then(|report| shown.report(&report, &timeline));
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

/// A scenario of the program, or of a file.
fn found(name: &str) -> Result<Scenario, Failure> {
    let path = Path::new(name);
    if let Some(scenario) = shipped::find(name) {
        check_classes(path, &scenario)?;
        return Ok(scenario);
    }
    let is_of = |ends: &[&str]| {
        let end = path.extension().unwrap_or_default();
        ends.iter().any(|known| end.eq_ignore_ascii_case(known))
    };
    if is_of(&["yaml", "yml"]) {
        let text = read_text(path).map_err(|err| Failure::error(format!("Cannot read '{name}': {err}")))?;
        let title = path
            .file_stem()
            .map_or(name.into(), |stem| stem.to_string_lossy());
        return file::read(&title, &text).map_err(|err| Failure::error(format!("{name}: {err}")));
    }
    let hint = if is_of(&["py"]) {
        " Python files with users of your own cannot be run; describe them in a YAML file, see docs/loadtest.md."
    } else {
        " A file of your own ends in .yaml."
    };
    Err(Failure::error(format!(
        "Unknown scenario '{name}'. Scenarios are {}.{hint}",
        shipped::NAMES.join(", ")
    )))
}

/// Refuses a Python file that has the name of a scenario, and classes of its own.
fn check_classes(path: &Path, scenario: &Scenario) -> Result<(), Failure> {
    let Ok(text) = read_text(path) else {
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

/// The text of a file that is not larger than any scenario.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        let why = format!("it has more than {LARGEST} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

/// The scenario with the classes that were chosen, and the stages of a shape.
fn chosen(args: &Load) -> Result<(Scenario, Option<Vec<Stage>>), Failure> {
    let mut scenario = found(&args.locustfile)?;
    let mut stages = None;
    let mut classes = Vec::new();
    for name in &args.user_classes {
        if let Some(class) = scenario.classes.iter().find(|class| class.name == *name) {
            if !classes.contains(&class.name) {
                classes.push(class.name.clone());
            }
        } else if let Some(shape) = scenario.shapes.iter().find(|shape| shape.name == *name) {
            if stages.replace(shape.stages.clone()).is_some() {
                return Err(Failure::error(format!(
                    "Only one shape can be run at a time; '{name}' is the second."
                )));
            }
        } else {
            let known = scenario.classes.iter().map(|class| &*class.name);
            let known: Vec<_> = known
                .chain(scenario.shapes.iter().map(|shape| &*shape.name))
                .collect();
            return Err(Failure::error(format!(
                "User class '{name}' not found in {}. Its classes are {}.",
                scenario.name,
                known.join(", ")
            )));
        }
    }
    if !classes.is_empty() {
        scenario.classes.retain(|class| classes.contains(&class.name));
    }
    Ok((scenario, stages))
}

/// The stages, as far as they fit.
fn cut(stages: Vec<Stage>, mut left: Duration) -> Vec<Stage> {
    let fit = |stage: Stage| {
        let length = stage.length.min(left);
        left -= length;
        Stage { length, ..stage }
    };
    stages
        .into_iter()
        .map(fit)
        .filter(|stage| !stage.length.is_zero())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> Run {
        let words = line.split_whitespace();
        let cli = Cli::read(
            ["zae-limiter", "loadtest", "run", "--local"]
                .into_iter()
                .chain(words),
        )
        .unwrap();
        let Command::Loadtest(LoadtestCommand::Run(args)) = cli.command else {
            unreachable!()
        };
        args
    }

    #[test]
    fn classes_and_shapes_are_chosen_by_name() {
        let chosen = |line: &str| {
            let (scenario, stages) = chosen(&args(line).load).ok().unwrap();
            let names: Vec<_> = scenario.classes.iter().map(|class| &*class.name).collect();
            (
                names.join(" "),
                stages.map(|stages| Schedule::new(stages, 1.0).most()),
            )
        };
        let both = "MaxRpsUser MaxRpsCascadeUser".to_owned();
        assert_eq!(chosen("-f locustfiles/max_rps.py"), (both.clone(), None));
        assert_eq!(chosen("-f max_rps MaxRpsCascadeUser MaxRpsUser"), (both, None));
        assert_eq!(
            chosen("-f max_rps MaxRpsUser MaxRpsUser"),
            ("MaxRpsUser".to_owned(), None)
        );
        let real = "LLMGatewayUserReal".to_owned();
        assert_eq!(
            chosen("-f llm_production MorningSpike LLMGatewayUserReal"),
            (real, Some(150))
        );
    }

    #[test]
    fn a_shape_is_cut_where_the_test_ends() {
        let (_, stages) = chosen(&args("-f llm_production MorningSpike").load).ok().unwrap();
        let lengths = |secs| {
            let stages = cut(stages.clone().unwrap(), Duration::from_secs(secs));
            stages
                .iter()
                .map(|stage| stage.length.as_secs())
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(1000), [600, 400]);
        assert_eq!(lengths(600), [600]);
        assert_eq!(lengths(9999), [600, 600, 1800, 600]);
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_exist() {
        let refused = |line: &str| match chosen(&args(line).load) {
            Err(Failure::Message { text, .. }) => text,
            _ => String::new(),
        };
        assert_eq!(
            refused("-f users/mine.py"),
            "Error: Unknown scenario 'users/mine.py'. Scenarios are simple, max_rps, llm_gateway, llm_production, stress. \
             Python files with users of your own cannot be run; describe them in a YAML file, see docs/loadtest.md."
        );
        assert_eq!(
            refused("-f simple Simple"),
            "Error: User class 'Simple' not found in simple. Its classes are SimpleUser, SimpleCascadeUser."
        );
        assert_eq!(
            refused("-f llm_production MorningSpike ProductionDailyLoad"),
            "Error: Only one shape can be run at a time; 'ProductionDailyLoad' is the second."
        );
    }
}

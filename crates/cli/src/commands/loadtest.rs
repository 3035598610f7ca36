//! `loadtest`: users on this machine, in a namespace of their own.

mod report;

use std::path::Path;
use std::time::Duration;

use zae_limiter::{RateLimiter, Repository, Stack};
use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::{Plan, Progress, Schedule, Stage, shipped};

use super::{Outcome, failed};
use crate::args::Connection;
use crate::args::loadtest::{LoadtestCommand, Run};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Failure, options};
use crate::say;
use crate::signals::{Catch, Signals};
use report::{Shown, latency};

/// The length of a test without a shape, in seconds.
const DURATION: u64 = 60;

/// How often a line tells how far the test is.
const EVERY: Duration = Duration::from_secs(5);

const WHAT: &str = "run the load test";

/// Runs the command on all processors.
pub(crate) fn run(command: LoadtestCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let LoadtestCommand::Run(args) = command;
    let outcome = runtime.block_on(run_here(args));
    runtime.shutdown_background();
    outcome
}

async fn run_here(args: Run) -> Outcome {
    if !args.local {
        return Err(Failure::error(
            "Load from Lambda functions or Fargate tasks is not supported yet. Add --local to run the users on this machine.",
        ));
    }
    let (scenario, schedule) = chosen(&args)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    if let Some(csv) = &args.csv {
        // A test must not run for an hour and then have no place for its result.
        report::check_file(csv)?;
    }
    let mut signals = Signals::catch(Catch::Ends)?;
    let at = &args.common.at;
    let plan = Plan {
        scenario,
        schedule,
        seed,
        every: EVERY,
    };
    let shown = Shown::new(&args, &plan);
    let stack = connect::measured_stack(at, WHAT).await?;
    stack.check_compatible().await.map_err(failed(at, WHAT))?;
    // While there is nothing to remove, in case that the output is closed.
    shown.head()?;
    let name = format!("loadtest-{:08x}", fastrand::u32(..));
    let repo = stack.open(name.as_str()).await.map_err(failed(at, WHAT))?;
    connect::warn_of_clock();
    let mut ending = None;
    let stop = async { ending = Some(signals.ending().await) };
    let limiter = RateLimiter::new(repo.clone());
    let ran = zae_limiter_loadtest::run(&limiter, &plan, stop, |progress| {
        if !shown.is_json() {
            say(&line_of(progress));
        }
    });
    let ran = ran.await;
    drop(limiter);
    // Once more Ctrl-C ends the program at once.
    let removed = tokio::select! {
        biased;
        _ = signals.ending() => Err("interrupted".to_owned()),
        removed = remove(&stack, repo) => removed.map_err(|err| err.to_string()),
    };
    let report = ran.map_err(failed(at, WHAT));
    let printed = report.and_then(|report| shown.report(&report, args.csv.as_deref()));
    if let Err(why) = removed {
        say(&left_over(&name, &why, at));
        printed?;
        return Ok(Exit::Failure);
    }
    printed?;
    match ending {
        Some(ending) if !ending.is_interrupt() => Err(ending.into_failure()),
        Some(_) => Ok(Exit::Failure),
        None => Ok(Exit::Success),
    }
}

/// Removes the namespace and all that is in it.
async fn remove(stack: &Stack, repo: Repository) -> Result<(), zae_limiter::Error> {
    repo.drain().await;
    let (name, id) = (repo.namespace_name().to_owned(), repo.namespace_id().clone());
    drop(repo);
    stack.delete_namespace(name.as_str()).await?;
    stack.purge_namespace(&id, &|_| ()).await?;
    Ok(())
}

fn left_over(name: &str, why: &str, at: &Connection) -> String {
    let options = options(at);
    format!(
        "Error: The namespace '{name}' was not removed: {why}. Remove it with 'zae-limiter namespace delete {name}{options}' \
         and 'zae-limiter namespace purge ID{options}', where ID is what 'zae-limiter namespace orphans{options}' shows."
    )
}

/// The scenario with the classes that were chosen, and the number of users over time.
fn chosen(args: &Run) -> Result<(Scenario, Schedule), Failure> {
    let Some(mut scenario) = shipped::find(&args.locustfile) else {
        let is_python = Path::new(&args.locustfile)
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("py"));
        let hint = if is_python {
            " Python files with users of your own cannot be run."
        } else {
            ""
        };
        return Err(Failure::error(format!(
            "Unknown scenario '{}'. Scenarios are {}.{hint}",
            args.locustfile,
            shipped::NAMES.join(", ")
        )));
    };
    let mut stages = None;
    let mut classes = Vec::new();
    for name in &args.user_classes {
        if let Some(class) = scenario.classes.iter().find(|class| class.name == name) {
            if !classes.contains(&class.name) {
                classes.push(class.name);
            }
        } else if let Some(shape) = scenario.shapes.iter().find(|shape| shape.name == name) {
            if stages.replace(shape.stages.clone()).is_some() {
                return Err(Failure::error(format!(
                    "Only one shape can be run at a time; '{name}' is the second."
                )));
            }
        } else {
            let known = scenario.classes.iter().map(|class| class.name);
            let known: Vec<_> = known
                .chain(scenario.shapes.iter().map(|shape| shape.name))
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
    let stages = match (stages, args.duration) {
        (None, duration) => vec![Stage {
            users: usize::try_from(args.users).unwrap_or(usize::MAX),
            length: Duration::from_secs(duration.map_or(DURATION, i64::unsigned_abs)),
        }],
        (Some(stages), None) => stages,
        (Some(stages), Some(duration)) => cut(stages, Duration::from_secs(duration.unsigned_abs())),
    };
    Ok((scenario, Schedule::new(stages, args.spawn_rate as f64)))
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

fn line_of(progress: &Progress) -> String {
    let cores = progress
        .cores
        .map_or(String::new(), |cores| format!(", cpu={cores:.2} cores"));
    format!(
        "  [{}s] users={}, rps={:.1}, p50={}, p95={}, p99={}, refused={}, failures={}{cores}",
        progress.elapsed.as_secs(),
        progress.users,
        progress.per_second,
        latency(progress.total.quantile(0.5)),
        latency(progress.total.quantile(0.95)),
        latency(progress.total.quantile(0.99)),
        progress.refused,
        progress.total.failures(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    fn chosen_by(line: &str) -> Result<(Scenario, Schedule), String> {
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
        chosen(&args).map_err(|err| match err {
            Failure::Message { text, .. } => text,
            Failure::NobodyReads => String::new(),
        })
    }

    #[test]
    fn classes_and_shapes_are_chosen_by_name() {
        let classes = |line: &str| {
            let (scenario, schedule) = chosen_by(line).unwrap();
            let names: Vec<_> = scenario.classes.iter().map(|class| class.name).collect();
            (names.join(" "), schedule.most(), schedule.length().as_secs())
        };
        let both = "MaxRpsUser MaxRpsCascadeUser".to_owned();
        assert_eq!(classes("-f locustfiles/max_rps.py"), (both.clone(), 20, 60));
        assert_eq!(classes("-f max_rps MaxRpsCascadeUser MaxRpsUser"), (both, 20, 60));
        assert_eq!(
            classes("-f max_rps MaxRpsUser MaxRpsUser --users 7 --duration 9"),
            ("MaxRpsUser".to_owned(), 7, 9)
        );
        let real = "LLMGatewayUserReal".to_owned();
        assert_eq!(
            classes("-f llm_production MorningSpike LLMGatewayUserReal"),
            (real.clone(), 150, 3600)
        );
        assert_eq!(
            classes("-f llm_production MorningSpike LLMGatewayUserReal --duration 700"),
            (real, 150, 700)
        );
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_exist() {
        let refused = |line: &str| chosen_by(line).unwrap_err();
        assert_eq!(
            refused("-f users/mine.py"),
            "Error: Unknown scenario 'users/mine.py'. Scenarios are simple, max_rps, llm_gateway, llm_production, stress. \
             Python files with users of your own cannot be run."
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

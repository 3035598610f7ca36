//! `loadtest run` in a function.

use std::time::Duration;

use zae_limiter_loadtest::{JOINED, Stage};

use super::super::interrupts::Interrupts;
use super::super::report::{Shown, rate};
use super::super::{DURATION, check_files, ended, refuse_shape_at_rate, refuse_unused};
use super::{Chosen, Worker};
use crate::args::OutputFormat;
use crate::args::loadtest::Run;
use crate::commands::Outcome;
use crate::failure::Failure;
use crate::out::Out;
use crate::say;
use crate::text::table::printable;

/// Has the function run one test.
pub(in super::super) async fn run(args: Run) -> Outcome {
    refuse_unused(&args)?;
    let (load, at) = (&args.load, &args.common.at);
    let chosen = Chosen::of(load)?;
    if let Some(selection) = &chosen.selection {
        refuse_shape_at_rate(&args, selection)?;
    }
    // The length of a shape that only the function knows is not known here.
    let is_shaped = chosen
        .selection
        .as_ref()
        .is_some_and(|selection| selection.shape.is_some());
    let duration = args.duration().or((!is_shaped).then_some(DURATION));
    let mut test = chosen.test(load, args.users.unsigned_abs(), duration, load.seed());
    test.rate = args.rate;
    let planned = match &chosen.selection {
        Some(selection) => selection.stages(args.users(), duration, DURATION),
        None => vec![Stage {
            users: args.users(),
            length: args.duration().unwrap_or(DURATION),
        }],
    };
    check_files(&args)?;
    let interrupts = Interrupts::catch()?;
    let worker = Worker::find(at, &interrupts).await?;
    let length = planned
        .iter()
        .fold(Duration::ZERO, |all, stage| all + stage.length);
    let is_warned = worker.warn_of_length(length);
    let users = planned.iter().map(|stage| stage.users).max().unwrap_or(0);
    let shape = chosen
        .selection
        .as_ref()
        .and_then(|selection| selection.shape.as_deref());
    head(&args, &worker, users, length, shape)?;
    let answer = worker.ask(at, &test, &interrupts).await?;
    let is_json = args.common.format.output == OutputFormat::Json;
    let shown = Shown::of_function(&args, answer.ran.clone(), &worker);
    let printed = shown.report(&answer.report, &answer.timeline);
    if answer.stopped_early && !is_warned && !is_json {
        say("Warning: The test was stopped before its end, because the function's time was over.");
    }
    if answer.names_joined && !is_json {
        say(&format!(
            "Note: The names with the fewest calls are joined as '{JOINED}', because the answer of a function is limited to 6 MB."
        ));
    }
    let cleared = worker.clear(at, &answer).await;
    ended(printed, cleared, None)
}

fn head(
    args: &Run,
    worker: &Worker,
    users: usize,
    length: Duration,
    shape: Option<&str>,
) -> Result<(), Failure> {
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        return Ok(());
    }
    worker.head(&mut out, "Lambda Run")?;
    out.line(format_args!("  Locustfile: {}", printable(&args.load.locustfile)))?;
    if let Some(shape) = shape {
        out.line(format_args!("  Shape: {}", printable(shape)))?;
    }
    out.line(format_args!(
        "  Users: {users}, Duration: {}s, {}",
        length.as_secs(),
        rate(args)
    ))?;
    out.line("\nInvoking Lambda (this may take a while)...")?;
    out.flush()
}

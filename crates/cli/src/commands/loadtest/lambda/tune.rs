//! `loadtest tune` in a function: each step is one call of it.

use std::time::Duration;

use super::super::ended;
use super::super::interrupts::Interrupts;
use super::super::tune::{self, Told, warm_up};
use super::{Chosen, Worker};
use crate::args::loadtest::Tune;
use crate::commands::Outcome;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::table::printable;

/// How much of its time a function is not measured for, when the measurement with one user is lengthened.
const SPARE: Duration = Duration::from_secs(30);

/// Searches with calls of the function.
pub(in super::super) async fn tune(args: Tune) -> Outcome {
    let (load, at) = (&args.load, &args.common.at);
    let chosen = Chosen::of(load)?;
    if let Some(selection) = &chosen.selection {
        tune::refuse_shape(selection)?;
    }
    let interrupts = Interrupts::catch()?;
    let worker = Worker::find(at, &interrupts).await?;
    let most = tune::most(&args);
    let spawning = warm_up(load, most);
    if spawning >= worker.effective() {
        return Err(Failure::error(format!(
            "With --spawn-rate {} it takes {} s until {most} users have started; a call of '{}' is stopped after {} s. Use a higher \
             --spawn-rate, or lower --max-users.",
            load.spawn_rate,
            spawning.as_secs(),
            worker.name,
            worker.effective().as_secs()
        )));
    }
    worker.warn_of_length(tune::baseline(&args).max(spawning + tune::step(&args)));
    head(&args, &worker)?;
    let mut seed = load.seed();
    let measure = async |users: u32, length: Duration| {
        let spawning = warm_up(load, users);
        let mut test = chosen.test(load, users.into(), Some(spawning + length), seed);
        test.warm_up = spawning;
        seed = seed.wrapping_add(1) & ((1 << 53) - 1);
        let answer = worker.ask(at, &test, &interrupts).await?;
        worker.clear(at, &answer).await?;
        Ok(Some(answer.report))
    };
    let told = Told::of_function(&args, &worker);
    let longest = worker.timeout.saturating_sub(SPARE);
    let printed = match tune::search(&told, longest, measure).await? {
        Some((tuned, is_interrupted)) => told.result(&tuned, is_interrupted),
        None => Ok(()),
    };
    ended(printed, Ok(()), interrupts.heard())
}

fn head(args: &Tune, worker: &Worker) -> Result<(), Failure> {
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        return Ok(());
    }
    worker.head(&mut out, "Lambda Tune")?;
    out.line(format_args!("  Locustfile: {}", printable(&args.load.locustfile)))?;
    out.line(format_args!("  Threshold: {:.0}%", args.threshold * 100.0))?;
    out.line(format_args!("  Search range: [1, {}]\n", args.max_users))?;
    out.flush()
}

//! `loadtest ui --local`: a master with a page in this process, and workers in others.

use std::time::Duration;

use zae_limiter_loadtest::cluster::Scaling;

use super::desk::{self, Desk};
use super::interrupts::Interrupts;
use super::{WHAT, distributed, fargate, found};
use crate::args::loadtest::Ui;
use crate::commands::{Outcome, failed};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{names, say};

pub(super) async fn ui(args: Ui) -> Outcome {
    if args.local {
        here(args).await
    } else {
        Box::pin(fargate::ui(args)).await
    }
}

async fn here(args: Ui) -> Outcome {
    let scaling = checked(&args)?;
    let scenario = found(&args.locustfile)?.scenario;
    let at = &args.at;
    // A table that cannot be reached is reported before anything is started.
    let stack = connect::measured_stack(at, WHAT).await?;
    stack.check_compatible().await.map_err(failed(at, WHAT))?;
    let interrupts = Interrupts::catch()?;
    let least = scaling.min_workers;
    let (page, asked) = desk::page(at, &scenario, args.port).await?;
    let options = desk::options(scaling.max_workers);
    let cluster = distributed::open(at, scaling, options).await?;
    say(&format!(
        "Load test of '{}' at http://localhost:{}/ - Ctrl-C ends it.",
        at.name,
        page.address().port()
    ));
    let mut desk = Desk {
        at,
        scenario,
        page,
        asked,
        cluster,
        least,
        interrupts,
        idle: None,
    };
    let is_clean = desk.work().await;
    desk.cluster.close().end().await;
    match desk.interrupts.heard() {
        Some(ending) if !ending.is_interrupt() => Err(ending.into_failure()),
        _ => {
            say("Interrupted");
            Ok(if is_clean { Exit::Success } else { Exit::Failure })
        }
    }
}

/// Refuses what has no effect, and returns how many workers there are.
fn checked(args: &Ui) -> Result<Scaling, Failure> {
    names::stack(&args.at.name)?;
    let others = [
        ("--destroy", args.destroy),
        ("--force", args.force),
        ("--cpu", args.cpu.is_some()),
        ("--memory", args.memory.is_some()),
        ("--pool-connections", args.pool_connections.is_some()),
    ];
    if let Some((option, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::error(format!(
            "{option} is for a Fargate task and has no effect with --local. Leave it out."
        )));
    }
    distributed::check_shared(
        &args.at,
        "The page",
        "put the load on it with 'loadtest run --local'",
    )?;
    let number = |given: Option<i64>| given.map(|given| usize::try_from(given).unwrap_or(usize::MAX));
    let scales = [
        args.max_workers,
        args.min_workers,
        args.users_per_worker,
        args.startup_lead_time,
    ];
    if scales.iter().all(Option::is_none) {
        return Ok(Scaling::fixed(number(args.workers).unwrap_or(1)));
    }
    let default = Scaling::default();
    let scaling = Scaling {
        min_workers: number(args.min_workers).unwrap_or(default.min_workers),
        max_workers: number(args.max_workers),
        users_per_worker: number(args.users_per_worker).unwrap_or(default.users_per_worker),
        startup_lead_time: args.startup_lead_time.map_or(default.startup_lead_time, |secs| {
            Duration::from_secs(secs.unsigned_abs())
        }),
        ..default
    };
    match scaling.max_workers {
        Some(most) if most < scaling.min_workers => Err(Failure::error(format!(
            "--max-workers {most} is less than --min-workers {}.",
            scaling.min_workers
        ))),
        _ => Ok(scaling),
    }
}

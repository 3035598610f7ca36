//! `loadtest ui` without `--local`.

use std::time::Duration;

use tokio::time::sleep;
use zae_limiter_infra::{MasterOptions, MasterTask, StackManager};

use super::super::infrastructure::failure;
use super::super::interrupts::Interrupts;
use super::super::{ended, found};
use super::tunnel::{self, Tunnel};
use super::{environment, run, task};
use crate::args::loadtest::Ui;
use crate::args::{Connection, Format, OutputFormat};
use crate::commands::Outcome;
use crate::failure::Failure;
use crate::out::Out;
use crate::{connect, names, say};

/// How often the tunnel is opened, and the pause before the next time.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(5);

fn tell(line: &str) -> Result<(), Failure> {
    let text = Format {
        output: OutputFormat::Text,
    };
    Out::new(&text).tell(line)
}

pub(in super::super) async fn ui(args: Ui) -> Outcome {
    let at = &args.at;
    names::stack(&at.name)?;
    connect::needs_stack(at, "Add --local to run master and workers on this machine.")?;
    if let Some(workers) = args.workers {
        return Err(Failure::error(format!(
            "--workers {workers} is for --local. Use --min-workers and --max-workers, or add --local."
        )));
    }
    if args.port == 0 {
        return Err(Failure::error(
            "--port 0 is for --local: the tunnel needs a port from 1 to 65535.",
        ));
    }
    let found = found(&args.locustfile)?;
    let mut environment = environment::of_scenario(&args.locustfile, &found);
    environment.extend(scaling(&args)?);
    let wanted = MasterOptions {
        size: run::size(args.cpu.map(i64::from), args.memory.map(i64::from))?,
        environment,
    };
    tunnel::check(args.port)?;
    if let Some(connections) = args.pool_connections {
        say(&format!(
            "Warning: --pool-connections {connections} has no effect: a worker opens as many connections as its users need."
        ));
    }
    let interrupts = Interrupts::catch()?;
    let manager = interrupts.unless(Box::pin(connect::manager(at))).await?;
    let region = manager.region().map_err(|err| failure(&err, at))?.to_owned();
    let running = interrupts.during(manager.masters(&at.name)).await?;
    let running = running.map_err(|err| match err {
        zae_limiter_infra::Error::NotFound { .. } => task::no_stack(at),
        err => failure(&err, at),
    })?;
    let session = Session {
        args: &args,
        manager,
        region,
        interrupts,
    };
    let (task, is_own) = session.task(running, &wanted).await?;
    let connected = session.connect(&task).await;
    let heard = session.interrupts.heard();
    if heard.is_some() {
        let _ = tell("\nInterrupted");
    }
    let stopped = if is_own || args.destroy {
        task::stop_at_end(&session.manager, at, &task, &tell).await
    } else {
        let _ = tell("Disconnected (Fargate task still running, use --destroy to stop)");
        Ok(())
    };
    session.interrupts.leaves(None);
    // Ctrl-C is how the page is left.
    let ending = heard.filter(|ending| !ending.is_interrupt());
    let connected = if heard.is_some() { Ok(()) } else { connected };
    ended(connected, stopped, ending)
}

/// The variables of the options that the stack has other values for.
fn scaling(args: &Ui) -> Result<Vec<(&'static str, String)>, Failure> {
    if let (Some(least), Some(most)) = (args.min_workers, args.max_workers)
        && most < least
    {
        return Err(Failure::error(format!(
            "--max-workers {most} is less than --min-workers {least}."
        )));
    }
    let options = [
        ("MAX_WORKERS", args.max_workers),
        ("MIN_WORKERS", args.min_workers),
        ("USERS_PER_WORKER", args.users_per_worker),
        ("STARTUP_LEAD_TIME", args.startup_lead_time),
    ];
    let given = options
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.to_string())));
    Ok(given.collect())
}

/// What is needed to reach a master.
struct Session<'a> {
    args: &'a Ui,
    manager: StackManager,
    region: String,
    interrupts: Interrupts,
}

impl Session<'_> {
    fn at(&self) -> &Connection {
        &self.args.at
    }

    /// The task to connect to, and whether this command has started it.
    async fn task(
        &self,
        running: Vec<MasterTask>,
        wanted: &MasterOptions,
    ) -> Result<(MasterTask, bool), Failure> {
        let at = self.at();
        let service = zae_limiter_infra::names::load::master(&at.name);
        if let Some(found) = running.first().filter(|_| !self.args.force) {
            tell(&format!("Found running Fargate task: {}", found.id()))?;
            say("Warning: Task already running. Use --force to restart with new config.");
            tell("Connecting to existing task (overrides ignored)...")?;
            return Ok((found.clone(), false));
        }
        for old in &running {
            tell(&format!("Stopping existing task: {}", old.id()))?;
            tell("  Waiting for old task to stop...")?;
            task::stop(&self.manager, at, old).await?;
        }
        let how = if running.is_empty() {
            "Starting Fargate master"
        } else {
            "Starting new Fargate task with overrides"
        };
        tell(&format!("{how}: {service}"))?;
        self.interrupts.leaves(Some(task::may_run(at)));
        let started = task::start(&self.manager, at, wanted).await?;
        let left = task::still_runs(at, &started, "interrupted");
        self.interrupts.leaves(Some(format!("Error: {left}")));
        Ok((started, true))
    }

    /// Keeps a tunnel open until a signal, or until it cannot be opened.
    async fn connect(&self, task: &MasterTask) -> Result<(), Failure> {
        tell("  Waiting for task to start...")?;
        let told = |line: &str| {
            tell(line)?;
            if line.starts_with("  Task running") {
                tell("  Waiting for SSM agent...")?;
            }
            Ok(())
        };
        let session = task::reachable(&self.manager, self.at(), task, &self.interrupts, &told).await?;
        let port = self.args.port;
        tell(&format!("  Connecting to http://localhost:{port} ..."))?;
        for attempt in 1..=TRIES {
            let mut tunnel = Tunnel::open(&session, &self.region, port, true)?;
            let status = self.interrupts.during(tunnel.wait()).await?;
            if status.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            if attempt < TRIES {
                tell(&format!(
                    "  SSM connection failed, retrying ({attempt}/{TRIES})..."
                ))?;
                self.interrupts.during(sleep(TRY_AGAIN)).await?;
            }
        }
        Err(Failure::error(format!(
            "SSM tunnel failed after {TRIES} attempts"
        )))
    }
}

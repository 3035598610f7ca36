//! Runs simulations: `cargo run --release -p zae-limiter-sim -- [--seed N] [--runs N] [--rates | --shapes | --places] [--without-operators] [--verbose]`.
//! Each seed is played five times: see [`plans`]; with `--places` once, by [`places`].
//!
//! Exits with 1 at the first violation, after printing the seed, the last events, the shortest plan that
//! still fails and how to replay it; with 2 when it does not understand its arguments.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command prints, and measures how fast it was"
)]

use std::process::ExitCode;
use std::time::Instant;

use zae_limiter_sim::{Plan, Stats, Violation, places, plans, run, run_and_tell, shrink};

const USAGE: &str = "usage: zae-limiter-sim [--seed N] [--runs N] [--rates | --shapes | --places] [--without-operators] [--verbose]

  --seed N   the first seed (default 0)
  --runs N   how many seeds to run, each with all of its plans (default 1 with --seed, else 10000)
  --rates    leave out the plans whose limits have shapes
  --shapes   leave out the others
  --places   play places in flight instead
  --without-operators
             leave out plans in which operators set bypasses, reset buckets or top them up
  --verbose  print the plan, the events and the counters of every run";

/// How many of the last events a report shows unless `--verbose` is given.
const LAST_EVENTS: usize = 60;

struct Args {
    seed: u64,
    runs: u64,
    /// Whether the limits of all plans that are played have shapes, if only such or only others are.
    shapes: Option<bool>,
    places: bool,
    operators: bool,
    verbose: bool,
}

fn parse(args: impl Iterator<Item = String>) -> Option<Args> {
    let (mut seed, mut runs, mut shapes) = (None, None, None);
    let (mut places, mut operators, mut verbose) = (false, true, false);
    let mut args = args.skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => seed = Some(args.next()?.parse().ok()?),
            "--runs" => runs = Some(args.next()?.parse().ok()?),
            "--rates" if shapes.is_none() && !places => shapes = Some(false),
            "--shapes" if shapes.is_none() && !places => shapes = Some(true),
            "--places" if shapes.is_none() && operators => places = true,
            "--without-operators" if !places => operators = false,
            "--verbose" => verbose = true,
            _ => return None,
        }
    }
    Some(Args {
        seed: seed.unwrap_or(0),
        runs: runs.unwrap_or(if seed.is_some() { 1 } else { 10_000 }),
        shapes,
        places,
        operators,
        verbose,
    })
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if args.places {
        return play_places(&args);
    }
    let (mut total, started) = (Stats::default(), Instant::now());
    let all = (args.seed..args.seed.saturating_add(args.runs)).flat_map(plans);
    let is_played = |plan: &Plan| {
        let has_limits = args.shapes.is_none_or(|shapes| plan.shapes == shapes);
        has_limits && (args.operators || !plan.has_operators())
    };
    for plan in all.filter(is_played) {
        if args.verbose {
            println!("{}", plan.describe());
        }
        let outcome = if args.verbose {
            run_and_tell(&plan)
        } else {
            run(&plan)
        };
        total.add(&outcome.stats);
        if args.verbose {
            outcome.log.iter().for_each(|line| println!("{line}"));
            println!("{}", outcome.stats);
        }
        if let Some(violation) = outcome.violation {
            report(&plan, &violation, args.verbose);
            return ExitCode::FAILURE;
        }
    }
    let secs = started.elapsed().as_secs_f64();
    println!("{total}");
    println!(
        "{} runs without a violation in {secs:.1} s: {:.0} runs/s, {:.0} events/s",
        total.runs,
        total.runs as f64 / secs,
        total.steps as f64 / secs
    );
    ExitCode::SUCCESS
}

/// Plays places in flight.
fn play_places(args: &Args) -> ExitCode {
    let (mut total, started) = (places::world::Counts::default(), Instant::now());
    for seed in args.seed..args.seed.saturating_add(args.runs) {
        let plan = places::Plan::of(seed);
        let mut outcome = places::run(&plan, args.verbose);
        if outcome.violation.is_some() && !args.verbose {
            outcome = places::run(&plan, true);
        }
        total.add(&outcome.counts);
        if args.verbose {
            println!("{plan:#?}");
            outcome.log.iter().for_each(|line| println!("{line}"));
        }
        if let Some(violation) = &outcome.violation {
            let log = &outcome.log;
            let last = log.iter().skip(log.len().saturating_sub(LAST_EVENTS));
            last.for_each(|line| println!("  {line}"));
            println!("VIOLATION in seed {seed} of places in flight: {violation}");
            println!("replay: cargo run --release -p zae-limiter-sim -- --places --seed {seed} --verbose");
            return ExitCode::FAILURE;
        }
    }
    let secs = started.elapsed().as_secs_f64();
    println!("{total}");
    println!(
        "{} runs of places in flight without a violation in {secs:.1} s",
        args.runs
    );
    ExitCode::SUCCESS
}

fn report(plan: &Plan, violation: &Violation, all_events: bool) {
    let how = match (plan.groups, plan.rides) {
        (false, _) => "without group commit",
        (true, false) => "with group commit",
        (true, true) => "with group commit that carries corrections",
    };
    let limits = if plan.shapes { ", limits with shapes" } else { "" };
    println!("VIOLATION in seed {} {how}{limits}", plan.seed);
    print_violation(violation);
    println!("shrinking ...\n");
    let (shortest, _) = shrink::shrink(plan);
    let outcome = run_and_tell(&shortest);
    println!("The shortest failing plan found:\n{}", shortest.describe());
    if let Some(violation) = &outcome.violation {
        print_violation(violation);
    }
    let log: Vec<&String> = outcome
        .log
        .iter()
        .filter(|line| !line.ends_with("Nothing"))
        .collect();
    let shown = if all_events { log.len() } else { LAST_EVENTS };
    for line in log.iter().skip(log.len().saturating_sub(shown)) {
        println!("  {line}");
    }
    println!(
        "\nreplay: cargo run --release -p zae-limiter-sim -- --seed {} --verbose",
        plan.seed
    );
}

fn print_violation(violation: &Violation) {
    println!(
        "at step {}, {:.3} ms: {}",
        violation.step,
        violation.at_us as f64 / 1000.0,
        violation.message
    );
}

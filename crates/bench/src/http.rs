//! Cases over HTTP: requests are signed and go to an endpoint in another process.

use std::path::PathBuf;
use std::sync::Arc;

use zae_limiter::RepositoryBuilder;
use zae_limiter::table::RequestCost;

use crate::measure::Round;
use crate::original::Original;
use crate::{
    Case, KEYS, Options, Outcome, World, acquire_round, bare_round, by_hand, compared, make_children,
    measured_usage, one_update_each, refill_round, scale,
};

/// All of them, but those that are not wanted.
pub(crate) async fn cases(options: &Options, url: &str) -> Outcome<Vec<Case>> {
    let mut cases = Vec::new();
    for concurrency in [1, 8, 32] {
        if options.wants(&["update by hand, HTTP", "bare update, HTTP", "acquire, HTTP"]) {
            cases.extend(beside_bare(options, url, concurrency).await?);
        }
    }
    if options.wants(&[ALONE, CASCADE, REFILL]) {
        cases.extend(beside_one(options, url).await?);
    }
    if options.wants(&[NOT_JOINED, JOINED]) {
        cases.extend(one_bucket(options, url).await?);
    }
    Ok(cases)
}

/// An acquire beside the bare update.
async fn beside_bare(options: &Options, url: &str, concurrency: usize) -> Outcome<Vec<Case>> {
    let world = Arc::new(World::over_http(url, |builder| builder).await?);
    let (mut hand, mut bare, mut acquire, mut python) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let start = |venv: &PathBuf| Original::start(venv, &world, url);
    let mut original = options.python.as_ref().map(start).transpose()?;
    for _ in 0..=options.rounds {
        if let Some(original) = &mut original {
            // It takes many times as long.
            python.push(original.round(options.ops.div_ceil(5), concurrency)?);
        }
        if options.floor {
            world.refresh().await?;
            hand.push(by_hand::round(&world, url, options.ops, concurrency).await?);
        }
        world.refresh().await?;
        bare.push(bare_round(&world, options.ops, concurrency).await?);
        world.refresh().await?;
        acquire.push(acquire_round(&world, KEYS, options.ops, concurrency).await);
    }
    let ops = (options.ops * options.rounds) as u64;
    let usage = one_update_each(ops);
    let mut cases = Vec::new();
    if options.floor {
        let [_, by_hand] = compared(["", "update by hand, HTTP"], concurrency, &bare, &hand, usage);
        cases.push(by_hand);
    }
    let names = ["bare update, HTTP", "acquire, HTTP"];
    cases.extend(compared(names, concurrency, &bare, &acquire, usage));
    if !python.is_empty() {
        // Its requests are not counted. A warm acquire sends one update, too.
        let ops = Round::joined(&python[1..]).ops() as u64;
        let usage = one_update_each(ops);
        let [_, of_python] = compared(["", "acquire, HTTP, Python"], concurrency, &bare, &python, usage);
        cases.push(of_python);
    }
    Ok(cases)
}

const ALONE: &str = "one acquire, HTTP";
const CASCADE: &str = "acquire, cascade, HTTP";
const REFILL: &str = "acquire, refill due, HTTP";

/// Beside an acquire of one bucket: one of two, and one of a bucket that another process has changed. Ratios are to the first.
async fn beside_one(options: &Options, url: &str) -> Outcome<[Case; 3]> {
    let alone = Arc::new(World::over_http(url, |builder| builder).await?);
    let family = Arc::new(World::over_http(url, |builder| builder).await?);
    make_children(&family).await?;
    let foreign = Arc::new(World::over_http(url, RepositoryBuilder::measure).await?);
    let (mut one, mut both, mut refilled) = (Vec::new(), Vec::new(), Vec::new());
    // The first round creates the buckets of the parents.
    acquire_round(&family, KEYS, KEYS, 1).await;
    let mut refills = RequestCost::default();
    for _ in 0..=options.rounds {
        alone.refresh().await?;
        one.push(acquire_round(&alone, KEYS, options.ops, 1).await);
        family.refresh_family().await?;
        both.push(acquire_round(&family, KEYS, options.ops, 1).await);
        let (round, cost) = refill_round(&foreign).await?;
        refilled.push(round);
        refills = cost;
    }
    let world = World::over_http(url, RepositoryBuilder::measure).await?;
    let mut usage = measured_usage(world, true, options.ops).await?;
    for usage in [&mut usage, &mut refills] {
        // Of one round.
        scale(usage, options.rounds as f64);
    }
    let [alone, cascade] = compared([ALONE, CASCADE], 1, &one, &both, usage);
    let [_, refill] = compared([ALONE, REFILL], 1, &one, &refilled, refills);
    Ok([alone, cascade, refill])
}

const NOT_JOINED: &str = "one bucket, HTTP, no group commit";
const JOINED: &str = "one bucket, HTTP, group commit";

/// Many callers of one bucket, without and with group commit.
async fn one_bucket(options: &Options, url: &str) -> Outcome<[Case; 2]> {
    const CALLERS: usize = 256;
    let mut worlds = Vec::new();
    for joins in [false, true] {
        let world = World::over_http(url, |builder| builder.measure().group_commit(joins)).await?;
        worlds.push((Arc::new(world), Vec::new(), RequestCost::default()));
    }
    for _ in 0..=options.rounds {
        for (world, rounds, usage) in &mut worlds {
            world.refresh().await?;
            let before = world.repo().request_cost();
            rounds.push(acquire_round(world, 1, options.ops, CALLERS).await);
            *usage = world.repo().request_cost().since(&before);
        }
    }
    let [(_, without, alone), (_, with, joined)] = <[_; 2]>::try_from(worlds).map_err(|_| "two worlds")?;
    let mut cases = compared([NOT_JOINED, JOINED], CALLERS, &without, &with, joined);
    cases[0].usage = alone;
    for case in &mut cases {
        // Of the last round.
        scale(&mut case.usage, options.rounds as f64);
    }
    Ok(cases)
}

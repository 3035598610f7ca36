//! Places in flight: seeds hold, and together they leave nothing out.

use zae_limiter_sim::places::world::Counts;
use zae_limiter_sim::places::{Plan, run};

#[test]
fn seeds_hold_and_cover_everything() {
    let mut total = Counts::default();
    for seed in 0..400 {
        let outcome = run(&Plan::of(seed), false);
        assert_eq!(outcome.violation, None, "seed {seed}");
        total.add(&outcome.counts);
    }
    let Counts {
        events: _,
        held,
        given,
        full,
        renewed,
        removed,
        lost,
        crashed,
        refused,
        unheard,
    } = total;
    let all = [
        held, given, full, renewed, removed, lost, crashed, refused, unheard,
    ];
    assert!(all.iter().all(|count| *count > 50), "{total}");
}

#[test]
fn a_seed_replays() {
    let plan = Plan::of(7);
    let (first, second) = (run(&plan, true), run(&plan, true));
    assert!(first.log.len() > 100 && first.log == second.log);
}

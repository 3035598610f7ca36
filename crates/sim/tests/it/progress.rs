//! Slow tables and stalls: requests within the limit are still admitted.

use zae_limiter_sim::progress::{Demand, Progress};

/// A limit of 1,000 a second, asked by 60 callers of 4 processes.
const FAST: Demand = Demand {
    capacity: 1000,
    refill: 1000,
    callers: 60,
    processes: 4,
    round_trip_ms: 5,
    secs: 8,
    stall_secs: None,
    groups: false,
    seed: 0,
};

#[track_caller]
fn run(demand: Demand) -> Progress {
    let progress = demand.run();
    assert!(
        progress.outcome.violation.is_none(),
        "{demand:?}: {:?}",
        progress.outcome.violation
    );
    progress
}

/// The demand is below the limit, so nearly all of it is admitted, and no request needs more than two or three.
#[track_caller]
fn check_all_admitted(demand: Demand) {
    for seed in 0..3 {
        let progress = run(Demand { seed, ..demand });
        let (begun, admitted) = progress.total();
        let requests = progress.requests_per_admission();
        assert!(
            admitted * 100 >= begun * 99,
            "{demand:?}: {admitted} of {begun}, {:?}",
            progress.outcome.stats
        );
        assert!(requests <= 3.0, "{demand:?}: {requests} requests per admission");
        assert_eq!(progress.outcome.stats.contended, 0, "{demand:?}");
    }
}

#[test]
fn a_fast_limit_on_a_slow_table_admits_what_is_asked() {
    for round_trip_ms in [5, 50, 150, 300, 600] {
        check_all_admitted(Demand {
            round_trip_ms,
            ..FAST
        });
    }
}

#[test]
fn a_small_fast_bucket_admits_what_is_asked() {
    for (capacity, callers) in [(100, 40), (20, 40)] {
        check_all_admitted(Demand {
            capacity,
            callers,
            ..FAST
        });
    }
}

#[test]
fn a_demand_above_the_limit_gets_the_limit() {
    // 600 a second are asked of 200.
    let progress = run(Demand {
        capacity: 200,
        refill: 200,
        ..FAST
    });
    let (_, admitted) = progress.total();
    assert!((1600..=2000).contains(&admitted), "{admitted}");
}

#[test]
fn after_a_stall_the_rate_is_back_within_two_seconds() {
    let progress = run(Demand {
        callers: 50,
        secs: 20,
        stall_secs: Some((5, 5)),
        ..FAST
    });
    let all = |second: usize| progress.by_second[second];
    for second in (0..4).chain(12..20) {
        let (begun, admitted) = all(second);
        assert_eq!(begun, admitted, "second {second}: {:?}", progress.by_second);
    }
}

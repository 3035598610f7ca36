//! Usage, from snapshots as the table's functions write them.

use std::time::{Duration, SystemTime};

use zae_limiter::{Error, UsageQuery, UsageSnapshot, UsageTotal, Window};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::table::{Item, Value};

use crate::admin::{Admin, put_all, snapshot};
use crate::world::START;

/// The start of an hour of 2027-01-15.
fn hour(n: i64) -> SystemTime {
    EpochMillis(START + (n - 8) * 3_600_000).into()
}

fn text(n: i64) -> String {
    EpochMillis::from(hour(n)).to_text()
}

/// Two entities, two resources, hours 8 to 12, a day and a month; everywhere as many `rpm` as the hour says.
async fn history() -> Admin {
    let a = Admin::new().await;
    let ns = a.repo.namespace_id().as_str();
    let mut items = Vec::new();
    for entity in ["u", "u2"] {
        for resource in ["gpt-4", "gpt-4o"] {
            let of = (ns, entity, resource);
            items.extend((8..=12).map(|n| snapshot(of, ("hourly", &text(n), ""), &[("rpm", n)])));
            items.push(snapshot(
                of,
                ("daily", &text(0), "#daily"),
                &[("rpm", 100), ("tpm", -5)],
            ));
            items.push(snapshot(of, ("hourly", &text(0), ""), &[("rpm", 0)]));
            let month = "2027-01-01T00:00:00Z";
            items.push(snapshot(of, ("monthly", month, ""), &[("rpm", 1000)]));
        }
    }
    put_all(&*a.repo.table(), items).await;
    a
}

async fn read(a: &Admin, query: UsageQuery) -> Vec<UsageSnapshot> {
    a.repo
        .admin()
        .usage_snapshots(query)
        .unwrap()
        .all()
        .await
        .unwrap()
}

/// Whose they are, and their `rpm`.
fn brief(snapshots: &[UsageSnapshot]) -> Vec<(&str, &str, i128)> {
    let brief = |s: &'_ UsageSnapshot| s.counters["rpm"];
    snapshots
        .iter()
        .map(|s| (s.entity.as_str(), s.resource.as_str(), brief(s)))
        .collect()
}

fn starts(snapshots: &[UsageSnapshot]) -> Vec<SystemTime> {
    snapshots.iter().map(|s| s.window_start).collect()
}

#[tokio::test]
async fn the_latest_of_a_namespace_are_found_whatever_they_belong_to() {
    let a = history().await;
    let latest = async |query: UsageQuery, most| a.repo.admin().latest_usage(query, most).await.unwrap();
    let all = latest(UsageQuery::all(), 1000).await;
    assert_eq!(all.len(), 32);
    assert!(all.is_sorted_by(|one, next| one.window_start >= next.window_start));
    for most in [0, 1, 3, 8, 31, 32, 33] {
        assert_eq!(latest(UsageQuery::all(), most).await, all[..most.min(32)]);
    }
    // Keys of days and months of other clients look like those of hours.
    for window in [Window::Hourly, Window::Daily, Window::Monthly] {
        let wanted: Vec<_> = all
            .iter()
            .filter(|s| s.window == window.as_str())
            .cloned()
            .collect();
        assert!(!wanted.is_empty());
        for most in [1, 2, wanted.len(), 100] {
            let found = latest(UsageQuery::all().window(window), most).await;
            assert_eq!(found, wanted[..most.min(wanted.len())], "{window} {most}");
        }
    }
    let span = latest(UsageQuery::all().from(hour(9)).until(hour(10)), 100).await;
    assert_eq!(
        span.iter().map(|s| s.counters["rpm"]).collect::<Vec<_>>(),
        [10, 10, 10, 10, 9, 9, 9, 9]
    );
    assert!(
        latest(UsageQuery::all().from(hour(10)).until(hour(9)), 100)
            .await
            .is_empty()
    );
    // Those of one entity, as by pages.
    let of_one = UsageQuery::entity("u");
    assert_eq!(latest(of_one.clone(), 5).await, read(&a, of_one).await[..5]);
    let pages = a.repo.admin().usage_snapshots(UsageQuery::all());
    assert!(matches!(pages, Err(Error::InvalidInput(_))), "{pages:?}");
}

#[tokio::test]
async fn the_use_of_one_resource_by_one_entity_comes_latest_first() {
    let a = history().await;
    let both = || UsageQuery::entity("u").resource("gpt-4");
    let all = read(&a, both()).await;
    assert!(
        all.iter()
            .all(|s| (s.entity.as_str(), s.resource.as_str()) == ("u", "gpt-4"))
    );
    let rpm: Vec<_> = all.iter().map(|s| s.counters["rpm"]).collect();
    assert_eq!(rpm[..5], [12, 11, 10, 9, 8]);
    assert_eq!(
        rpm.len(),
        8,
        "a day and an hour that start at once are both found"
    );
    assert_eq!((rpm[5] + rpm[6], rpm[7]), (100, 1000));
    for (window, count) in [(Window::Hourly, 6), (Window::Daily, 1), (Window::Monthly, 1)] {
        let found = read(&a, both().window(window)).await;
        assert_eq!(found.len(), count, "{window}");
        assert!(found.iter().all(|s| s.window == window.as_str()));
    }
}

#[tokio::test]
async fn both_ends_of_a_range_are_included() {
    let a = history().await;
    let hours = |query: UsageQuery| {
        let query = query.window(Window::Hourly);
        let a = &a;
        async move {
            let found = read(a, query).await;
            found.iter().map(|s| s.counters["rpm"]).collect::<Vec<_>>()
        }
    };
    for query in [
        UsageQuery::entity("u").resource("gpt-4"),
        UsageQuery::entity("u2").resource("gpt-4o"),
    ] {
        let query = || query.clone();
        assert_eq!(hours(query().from(hour(9)).until(hour(11))).await, [11, 10, 9]);
        assert_eq!(hours(query().from(hour(11))).await, [12, 11]);
        assert_eq!(hours(query().until(hour(8))).await, [8, 0]);
        assert_eq!(hours(query().from(hour(10)).until(hour(10))).await, [10]);
        // Instants count by the second.
        let later = |n| hour(n) + Duration::from_millis(999);
        assert_eq!(hours(query().from(later(11)).until(later(12))).await, [12, 11]);
        let later = |n| hour(n) + Duration::from_secs(1);
        assert_eq!(hours(query().from(later(11)).until(later(12))).await, [12]);
        // Nothing is between, or before its own beginning.
        assert!(
            hours(query().from(later(9)).until(hour(10) - Duration::from_secs(1)))
                .await
                .is_empty()
        );
        assert!(hours(query().from(hour(12)).until(hour(9))).await.is_empty());
        assert!(hours(query().from(hour(200))).await.is_empty());
    }
}

#[tokio::test]
async fn an_entity_has_all_its_resources_and_nobody_elses() {
    let a = history().await;
    let all = read(&a, UsageQuery::entity("u")).await;
    assert_eq!(all.len(), 16);
    assert!(all.iter().all(|s| s.entity == "u"));
    let found = read(&a, UsageQuery::entity("u").from(hour(11)).until(hour(12))).await;
    let (four, omni) = (("u", "gpt-4"), ("u", "gpt-4o"));
    let of = |(entity, resource): (&'static str, &'static str), rpm| (entity, resource, rpm);
    let mut by_resource = brief(&found);
    assert_eq!(starts(&found), [hour(12), hour(11), hour(12), hour(11)]);
    by_resource.sort_unstable();
    assert_eq!(
        by_resource,
        [of(four, 11), of(four, 12), of(omni, 11), of(omni, 12)]
    );
    assert!(
        read(&a, UsageQuery::entity("u").from(hour(12)).until(hour(11)))
            .await
            .is_empty()
    );
    assert!(read(&a, UsageQuery::entity("nobody")).await.is_empty());
}

#[tokio::test]
async fn a_resource_has_all_its_entities_latest_first() {
    let a = history().await;
    let resource = || UsageQuery::of_resource("gpt-4");
    let all = read(&a, resource()).await;
    assert_eq!(all.len(), 16);
    assert!(all.iter().all(|s| s.resource == "gpt-4"));
    assert!(starts(&all).is_sorted_by(|a, b| a >= b), "{:?}", starts(&all));
    let found = read(&a, resource().from(hour(10)).until(hour(11))).await;
    assert_eq!(starts(&found), [hour(11), hour(11), hour(10), hour(10)]);
    let days = read(&a, resource().window(Window::Daily).from(hour(0)).until(hour(0))).await;
    assert_eq!(
        brief(&days).len(),
        2,
        "a suffix of the key keeps none from being found"
    );
    assert!(
        read(&a, resource().from(hour(11)).until(hour(10)))
            .await
            .is_empty()
    );
    // Buckets of the resource are in the same index, and are not usage.
    put_all(
        &*a.repo.table(),
        [crate::admin::bucket(&a.id("u", "gpt-4"), 0, 1, 9, 3)],
    )
    .await;
    assert_eq!(read(&a, resource()).await, all);
    assert_eq!(read(&a, resource().until(hour(200))).await, all);
}

#[tokio::test]
async fn only_numbers_that_are_nothing_else_are_counters() {
    let a = Admin::new().await;
    let ns = a.repo.namespace_id().as_str();
    let counters = [("rpm", 3), ("rpm#od", 1), ("ttl-limit", 4), ("negative", -2)];
    let mut item = snapshot((ns, "u", "gpt-4"), ("hourly", &text(9), ""), &counters);
    item.insert("note".into(), Value::text("5"));
    item.insert("total_events".into(), Value::int(7));
    put_all(&*a.repo.table(), [item]).await;
    let found = &read(&a, UsageQuery::entity("u")).await[0];
    let expected = [("negative", -2), ("rpm", 3), ("ttl-limit", 4)];
    let counters: Vec<_> = found
        .counters
        .iter()
        .map(|(name, n)| (name.as_str(), *n))
        .collect();
    assert_eq!((counters.as_slice(), found.total_events), (&expected[..], 7));
    assert_eq!(found.window_end(), hour(10) - Duration::from_secs(1));
}

#[tokio::test]
async fn damaged_snapshots_are_left_out() {
    let a = history().await;
    let ns = a.repo.namespace_id().as_str();
    let before = read(&a, UsageQuery::of_resource("gpt-4")).await;
    let damage = |n: i64, harm: fn(&mut Item)| {
        let mut item = snapshot((ns, "u", "gpt-4"), ("hourly", &text(n), "#bad"), &[("rpm", 1)]);
        harm(&mut item);
        item
    };
    let damaged = [
        damage(9, |item| drop(item.remove("entity_id"))),
        damage(10, |item| drop(item.remove("window_start"))),
        damage(10, |item| {
            drop(item.insert("window_start".into(), Value::text("soon")));
        }),
        damage(11, |item| drop(item.insert("resource".into(), Value::int(1)))),
    ];
    put_all(&*a.repo.table(), damaged).await;
    assert_eq!(read(&a, UsageQuery::of_resource("gpt-4")).await, before);
    let both = UsageQuery::entity("u").resource("gpt-4");
    assert_eq!(read(&a, both).await.len(), 8);
    // A window of an unknown kind is still usage.
    let odd = snapshot((ns, "u", "gpt-4"), ("weekly", &text(9), "#odd"), &[("rpm", 1)]);
    put_all(&*a.repo.table(), [odd]).await;
    let found = read(&a, UsageQuery::of_resource("gpt-4")).await;
    let odd = found.iter().find(|s| s.window == "weekly").unwrap();
    assert_eq!(odd.window_end(), odd.window_start);
}

#[tokio::test]
async fn a_summary_adds_up_what_matches_and_counts_what_knows_the_limit() {
    let a = history().await;
    let both = || UsageQuery::entity("u").resource("gpt-4");
    let summary = a
        .repo
        .admin()
        .usage_summary(both().window(Window::Hourly))
        .await
        .unwrap();
    assert_eq!(summary.snapshots, 6);
    let total = |total, snapshots| UsageTotal { total, snapshots };
    assert_eq!(summary.limits.len(), 1);
    assert_eq!(summary.limits["rpm"], total(50, 6));
    assert_eq!((summary.first, summary.last), (Some(hour(0)), Some(hour(12))));

    let summary = a
        .repo
        .admin()
        .usage_summary(UsageQuery::of_resource("gpt-4").from(hour(0)))
        .await
        .unwrap();
    // Days contain the same hours again.
    assert_eq!(summary.window.as_deref(), Some("hourly"));
    assert_eq!(summary.other_windows, ["daily"]);
    assert_eq!(summary.snapshots, 12);
    assert_eq!(summary.limits["rpm"], total(100, 12));
    let daily = UsageQuery::of_resource("gpt-4").window(Window::Daily);
    let summary = a.repo.admin().usage_summary(daily).await.unwrap();
    assert_eq!(summary.limits["rpm"], total(200, 2));
    assert_eq!(summary.limits["tpm"], total(-10, 2));
    assert!(summary.other_windows.is_empty());

    for nothing in [both().from(hour(12)).until(hour(9)), UsageQuery::entity("nobody")] {
        let summary = a.repo.admin().usage_summary(nothing).await.unwrap();
        assert_eq!(summary, zae_limiter::UsageSummary::default());
    }
}

#[tokio::test]
async fn bad_names_are_refused_by_field() {
    let a = Admin::new().await;
    for (query, field) in [
        (UsageQuery::entity("a#b"), "entity_id"),
        (UsageQuery::entity("u").resource("9"), "resource"),
        (UsageQuery::of_resource(""), "resource"),
        (UsageQuery::default(), "entity_id"),
    ] {
        let Err(Error::InvalidInput(input)) = a.repo.admin().usage_snapshots(query.clone()) else {
            panic!("{query:?} was accepted")
        };
        assert_eq!(input.field(), field);
        assert!(a.repo.admin().usage_summary(query).await.is_err());
    }
}

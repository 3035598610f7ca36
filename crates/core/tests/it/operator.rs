//! Resets and top-ups: what each does to each shape of limit, what other writers do in between, and what a repetition finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::acquire::{AcquireError, Decision, Settings};
use zae_limiter_core::operator::{
    Change, Operation, OperationKey, OperationRecord, OperationResult, Plan, Recorded, Replaces, Shards,
    read_shards,
};
use zae_limiter_core::table::{Answer, Cancelled, Item, Op, Part, Value};
use zae_limiter_core::{EpochMillis, Limit, LimitBuilder, LimitName};

use crate::drive::{Desk, per_minute};

fn at(text: &str) -> i64 {
    EpochMillis::parse(text).unwrap().0
}

/// 100 a day.
fn daily() -> LimitBuilder {
    Limit::quota("rpd", 100).resets("0 0 * * *", "UTC")
}

/// 50 in five hours.
fn session() -> LimitBuilder {
    Limit::session("ses", 50, Duration::from_hours(5))
}

fn desk(limits: &[LimitBuilder]) -> Desk {
    let limits: Vec<Limit> = limits
        .iter()
        .map(|limit| limit.clone().build().unwrap())
        .collect();
    let mut desk = Desk::with(&limits);
    desk.now = at("2027-03-10T08:30:00Z");
    desk
}

fn reset(limits: &[&str]) -> Change {
    Change::Reset(
        limits
            .iter()
            .map(|limit| LimitName::new(limit).unwrap())
            .collect(),
    )
}

fn top_up(amounts: &[(&str, u64)]) -> Change {
    let named = |(limit, amount): &(&str, u64)| (LimitName::new(limit).unwrap(), *amount);
    Change::TopUp(amounts.iter().map(named).collect())
}

fn operation(desk: &mut Desk, change: Change) -> Result<Operation, AcquireError> {
    let id = desk.id("u");
    let config = desk.config(&id.entity, true).unwrap().config;
    let settings = Settings {
        bucket_ttl_multiplier: desk.ttl_multiplier,
        ..Settings::default()
    };
    Operation::new(id, change, config, settings)
}

/// The shards as they are now.
fn read(desk: &Desk) -> Shards {
    let prefix = "dSkXlbmmfyU/BUCKET#u#";
    let items = desk.table.items();
    let items: Vec<Item> = items
        .filter(|(key, _)| key.pk.starts_with(prefix))
        .map(|(_, item)| item.clone())
        .collect();
    read_shards(&items).unwrap()
}

fn planned(desk: &mut Desk, change: Change) -> Plan {
    let operation = operation(desk, change).unwrap();
    let shards = read(desk);
    let now = EpochMillis(desk.now);
    if shards.is_empty() && matches!(operation.change(), Change::TopUp(_)) {
        return operation.create(now, &mut desk.dice);
    }
    operation.plan(&shards, now).unwrap()
}

fn send(desk: &mut Desk, plan: &Plan) -> Answer {
    desk.table.call(&Op::Transact(plan.parts.clone())).unwrap()
}

#[track_caller]
fn operate(desk: &mut Desk, change: Change) -> BTreeMap<String, i64> {
    let plan = planned(desk, change);
    if !plan.parts.is_empty() {
        assert_eq!(send(desk, &plan), Answer::Applied(None));
    }
    let amounts = plan.result.amounts.into_iter();
    amounts
        .map(|(limit, amount)| (limit.to_string(), amount))
        .collect()
}

fn told(amounts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    amounts
        .iter()
        .map(|(limit, amount)| ((*limit).to_owned(), *amount))
        .collect()
}

fn ints(desk: &Desk, shard: u32, attrs: &[&str]) -> Vec<Option<i128>> {
    let item = desk.item("u", shard);
    attrs
        .iter()
        .map(|attr| item.get(*attr).and_then(Value::as_int))
        .collect()
}

#[test]
fn a_rate_is_full_again_and_its_debt_is_forgiven() {
    let mut desk = desk(&[Limit::per_minute("rpm", 60), Limit::per_hour("tph", 60)]);
    let grants = desk.admitted("u", &[("rpm", 60), ("tph", 10)]);
    desk.credit(&grants[0], &[("rpm", -30)]);
    desk.now += 1_000;
    // One token was earned.
    assert_eq!(operate(&mut desk, reset(&["rpm"])), told(&[("rpm", 89)]));
    assert_eq!(
        ints(&desk, 0, &["b_rpm_tk", "b_rpm_tc", "rf", "vu"]),
        [Some(60_000), Some(90_000), Some(desk.now.into()), Some(0)]
    );
    // The other one has what it had, and what it has earned: a sixtieth, of which the fraction is kept.
    assert_eq!(ints(&desk, 0, &["b_tph_tk"]), [Some(50_016)]);
    assert_eq!(
        desk.item("u", 0)["fr"],
        Value::text(format!("{} tph:2400000/3600000", desk.now))
    );
    desk.admitted("u", &[("rpm", 60)]);
    desk.rejected("u", &[("rpm", 1)]);
    // All of them, if none is named. Of `tph`, 50 tokens were left and a bit, and `rpm` has earned a thousandth of one.
    assert_eq!(operate(&mut desk, reset(&[])), told(&[("rpm", 59), ("tph", 9)]));
}

#[test]
fn a_quota_begins_again_without_what_was_added() {
    let mut desk = desk(&[daily()]);
    let grants = desk.admitted("u", &[("rpd", 70)]);
    assert_eq!(operate(&mut desk, top_up(&[("rpd", 25)])), told(&[("rpd", 25)]));
    let attrs = ["b_rpd_tk", "b_rpd_tu", "b_rpd_gc", "b_rpd_rn", "b_rpd_tc"];
    assert_eq!(
        ints(&desk, 0, &attrs),
        [Some(55_000), Some(25_000), Some(1), None, Some(70_000)]
    );
    assert_eq!(operate(&mut desk, reset(&["rpd"])), told(&[("rpd", 45)]));
    assert_eq!(
        ints(&desk, 0, &attrs),
        [Some(100_000), None, Some(1), Some(1), Some(70_000)]
    );
    // A lease from before the reset gives nothing back.
    desk.credit(&grants[0], &[("rpd", 70)]);
    assert_eq!(ints(&desk, 0, &attrs)[0], Some(100_000));
    desk.admitted("u", &[("rpd", 100)]);
    desk.rejected("u", &[("rpd", 1)]);
    assert_eq!(operate(&mut desk, reset(&["rpd"])), told(&[("rpd", 100)]));
    assert_eq!(ints(&desk, 0, &attrs)[3], Some(2));
}

#[test]
fn what_is_added_to_a_quota_lasts_until_its_reset() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 100)]);
    operate(&mut desk, top_up(&[("rpd", 30)]));
    operate(&mut desk, top_up(&[("rpd", 20)]));
    assert_eq!(ints(&desk, 0, &["b_rpd_tu"]), [Some(50_000)]);
    let grants = desk.admitted("u", &[("rpd", 40)]);
    // It is given back, too, up to what there was.
    desk.credit(&grants[0], &[("rpd", 40)]);
    assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(50_000)]);
    desk.admitted("u", &[("rpd", 50)]);
    desk.rejected("u", &[("rpd", 1)]);
    desk.now = at("2027-03-11T00:00:00Z");
    desk.admitted("u", &[("rpd", 100)]);
    assert_eq!(ints(&desk, 0, &["b_rpd_tk", "b_rpd_tu"]), [Some(0), None]);
    desk.rejected("u", &[("rpd", 1)]);
    // More at once than the quota is.
    operate(&mut desk, top_up(&[("rpd", 500)]));
    desk.admitted("u", &[("rpd", 400)]);
}

#[test]
fn a_reset_that_has_come_is_applied_before_tokens_are_added() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 90)]);
    operate(&mut desk, top_up(&[("rpd", 500)]));
    desk.now = at("2027-03-11T10:00:00Z");
    operate(&mut desk, top_up(&[("rpd", 5)]));
    assert_eq!(
        ints(&desk, 0, &["b_rpd_tk", "b_rpd_tu", "b_rpd_gc"]),
        [Some(105_000), Some(5_000), Some(1)]
    );
    desk.admitted("u", &[("rpd", 105)]);
    desk.rejected("u", &[("rpd", 1)]);
}

#[test]
fn a_reset_is_not_lost_between_two_clocks() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 90)]);
    // A clock that is ahead has refilled the bucket in the last millisecond of the day.
    let midnight = at("2027-03-11T00:00:00Z");
    desk.poke("u", 0, &[("rf", Value::int(midnight - 1))]);
    desk.now = midnight - 3;
    operate(&mut desk, top_up(&[("rpd", 5)]));
    desk.now = midnight + 10;
    desk.admitted("u", &[("rpd", 100)]);
}

#[test]
fn a_limit_that_is_gained_meanwhile_loses_no_reset() {
    let rpm = Limit::per_minute("rpm", 60);
    let mut desk = desk(std::slice::from_ref(&rpm));
    let midnight = at("2027-03-11T00:00:00Z");
    desk.now = midnight - 3;
    desk.admitted("u", &[("rpm", 10)]);
    let limits = [rpm, daily()].map(|limit| limit.build().unwrap());
    desk.configure_resource(&limits);
    // By the operator's clock the day is over.
    desk.now = midnight + 10;
    let plan = planned(&mut desk, top_up(&[("rpm", 5)]));
    // By another one the bucket has been refilled this very millisecond.
    desk.now = midnight - 3;
    desk.admitted("u", &[("rpd", 90)]);
    let cancelled = send(&mut desk, &plan);
    assert!(matches!(cancelled, Answer::Cancelled(_)), "{cancelled:?}");
    desk.now = midnight + 10;
    assert_eq!(operate(&mut desk, top_up(&[("rpm", 5)])), told(&[("rpm", 5)]));
    desk.admitted("u", &[("rpd", 100)]);
}

/// All of an ended session comes back, so a debit in between would come back untold.
#[test]
fn the_end_of_a_session_gives_back_what_it_tells() {
    let mut desk = desk(&[session()]);
    desk.admitted("u", &[("ses", 2)]);
    let plan = planned(&mut desk, reset(&["ses"]));
    desk.admitted("u", &[("ses", 5)]);
    assert!(matches!(send(&mut desk, &plan), Answer::Cancelled(_)));
    assert_eq!(operate(&mut desk, reset(&["ses"])), told(&[("ses", 7)]));
}

#[test]
fn a_session_ends_and_the_next_request_begins_another() {
    let mut desk = desk(&[session(), Limit::per_day("rpd", 1000)]);
    let grants = desk.admitted("u", &[("ses", 30), ("rpd", 1)]);
    desk.now += 60_000;
    assert_eq!(operate(&mut desk, reset(&["ses"])), told(&[("ses", 30)]));
    let ended = i128::from(desk.now - 5 * 3_600_000);
    assert_eq!(
        ints(&desk, 0, &["b_ses_ws", "b_ses_wa", "b_ses_tk", "b_ses_rsa"]),
        [Some(ended), Some(ended), Some(20_000), Some(18_000)]
    );
    desk.credit(&grants[0], &[("ses", 30)]);
    assert_eq!(
        ints(&desk, 0, &["b_ses_tk"]),
        [Some(20_000)],
        "of the session that is over"
    );
    desk.now += 60_000;
    desk.admitted("u", &[("ses", 50)]);
    assert_eq!(
        ints(&desk, 0, &["b_ses_ws", "b_ses_tk"]),
        [Some(desk.now.into()), Some(0)]
    );
    desk.rejected("u", &[("ses", 1)]);
    desk.now += 5 * 3_600_000;
    desk.admitted("u", &[("ses", 50)]);
}

#[test]
fn what_is_added_to_a_session_begins_it() {
    let mut desk = desk(&[session()]);
    desk.admitted("u", &[("ses", 50)]);
    // While it lasts.
    operate(&mut desk, top_up(&[("ses", 10)]));
    let begun = i128::from(desk.now);
    assert_eq!(
        ints(&desk, 0, &["b_ses_ws", "b_ses_tk", "b_ses_tu"]),
        [Some(begun), Some(10_000), Some(10_000)]
    );
    // When it is over.
    desk.now += 6 * 3_600_000;
    assert_eq!(operate(&mut desk, top_up(&[("ses", 7)])), told(&[("ses", 7)]));
    assert_eq!(
        ints(
            &desk,
            0,
            &["b_ses_ws", "b_ses_wa", "b_ses_tk", "b_ses_tu", "b_ses_gc"]
        ),
        [
            Some(desk.now.into()),
            Some(desk.now.into()),
            Some(57_000),
            Some(7_000),
            Some(1)
        ]
    );
    assert!(
        ints(&desk, 0, &["ttl"])[0].unwrap() >= i128::from((desk.now + 5 * 3_600_000) / 1000),
        "it is kept as long as what was added lasts"
    );
    desk.now += 3_600_000;
    desk.admitted("u", &[("ses", 57)]);
    desk.rejected("u", &[("ses", 1)]);
    desk.now += 4 * 3_600_000;
    desk.admitted("u", &[("ses", 50)]);
    desk.rejected("u", &[("ses", 1)]);
}

#[test]
fn a_rate_is_filled_up_and_not_beyond() {
    let mut desk = desk(&[Limit::per_day("rpd", 100), Limit::per_day("tpd", 100)]);
    desk.admitted("u", &[("rpd", 30)]);
    desk.admitted("u", &[("tpd", 60)]);
    let added = operate(&mut desk, top_up(&[("rpd", 500), ("tpd", 20)]));
    assert_eq!(added, told(&[("rpd", 30), ("tpd", 20)]));
    assert_eq!(
        ints(&desk, 0, &["b_rpd_tk", "b_tpd_tk", "b_rpd_tu"]),
        [Some(100_000), Some(60_000), None]
    );
    assert_eq!(operate(&mut desk, top_up(&[("rpd", 1)])), told(&[("rpd", 0)]));
}

#[test]
fn a_schedule_says_what_full_is() {
    let night = zae_limiter_core::schedule::ScheduleEntry::on("* 0-6 * * *").scale(0.5);
    let mut desk = desk(&[Limit::per_day("rpd", 100).scheduled([night.clone()])]);
    desk.admitted("u", &[("rpd", 100)]);
    desk.now = at("2027-03-11T02:00:00Z");
    operate(&mut desk, reset(&[]));
    assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(50_000)]);
    let mut desk = self::desk(&[Limit::quota("rpd", 100)
        .resets("0 0 * * *", "UTC")
        .scheduled([night])]);
    desk.admitted("u", &[("rpd", 100)]);
    desk.now = at("2027-03-11T02:00:00Z");
    operate(&mut desk, top_up(&[("rpd", 10)]));
    assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(60_000)]);
    desk.now = at("2027-03-11T09:00:00Z");
    operate(&mut desk, reset(&[]));
    assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(100_000)]);
}

#[test]
fn a_bucket_that_is_missing() {
    let mut desk = desk(&[daily(), session(), Limit::per_day("tpd", 10)]);
    assert_eq!(planned(&mut desk, reset(&[])).parts, []);
    let plan = planned(&mut desk, top_up(&[("tpd", 5)]));
    assert_eq!((plan.parts.len(), plan.result.shards), (0, 0));
    assert_eq!(plan.result.amounts[&LimitName::new("tpd").unwrap()], 0);
    let plan = planned(&mut desk, top_up(&[("rpd", 5), ("tpd", 3), ("ses", 2)]));
    assert!(plan.raises_ceiling);
    assert_eq!(send(&mut desk, &plan), Answer::Applied(None));
    let amounts: Vec<i64> = plan.result.amounts.into_values().collect();
    assert_eq!((plan.result.shards, amounts), (1, vec![5, 2, 0]));
    assert_eq!(
        ints(
            &desk,
            0,
            &[
                "b_rpd_tk", "b_rpd_tu", "b_ses_tk", "b_ses_tu", "b_tpd_tk", "b_tpd_tu", "b_ses_ws"
            ]
        ),
        [
            Some(105_000),
            Some(5_000),
            Some(52_000),
            Some(2_000),
            Some(10_000),
            None,
            Some(desk.now.into())
        ]
    );
    desk.admitted("u", &[("rpd", 105), ("ses", 52), ("tpd", 10)]);
    desk.rejected("u", &[("rpd", 1)]);
    // Another client that creates it at the same time keeps it from happening.
    let mut desk = self::desk(&[daily()]);
    let plan = planned(&mut desk, top_up(&[("rpd", 5)]));
    desk.admitted("u", &[("rpd", 1)]);
    assert!(matches!(send(&mut desk, &plan), Answer::Cancelled(_)));
    // And so does one that creates the entity.
    let mut desk = self::desk(&[daily()]);
    let plan = planned(&mut desk, top_up(&[("rpd", 5)]));
    desk.entity("u", None, false);
    assert!(matches!(send(&mut desk, &plan), Answer::Cancelled(_)));
}

#[test]
fn a_limit_that_is_not_on_the_bucket() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    let limits = [daily().build().unwrap(), per_minute("new", 10)];
    desk.configure_resource(&limits);
    assert_eq!(
        operate(&mut desk, reset(&[])),
        told(&[("new", 0), ("rpd", 1)]),
        "the first request finds it full"
    );
    let operation = operation(&mut desk, top_up(&[("new", 1)])).unwrap();
    let err = operation.plan(&read(&desk), EpochMillis(desk.now)).unwrap_err();
    assert!(err.to_string().contains("not on this bucket yet"), "{err}");
}

#[test]
fn what_is_not_configured_or_out_of_range() {
    let mut desk = desk(&[daily()]);
    for (change, part) in [
        (
            reset(&["nope"]),
            "invalid limits 'nope': no limit of this name is configured",
        ),
        (
            top_up(&[("nope", 1)]),
            "invalid amounts 'nope': no limit of this name is configured",
        ),
        (
            top_up(&[("rpd", 0)]),
            "invalid amounts.rpd '0': must be between 1 and 1000000000000000 tokens",
        ),
        (top_up(&[("rpd", 10_u64.pow(15) + 1)]), "must be between 1 and"),
        (
            top_up(&[("rpd", 6 * 10_u64.pow(14)), ("rpd", 6 * 10_u64.pow(14))]),
            "must be between 1 and",
        ),
        (top_up(&[]), "name at least one limit"),
    ] {
        let err = operation(&mut desk, change.clone()).unwrap_err().to_string();
        assert!(err.contains(part), "{change:?}: {err}");
    }
    // As much as the format holds, and not one more.
    operate(&mut desk, top_up(&[("rpd", 10_u64.pow(15))]));
    let operation = operation(&mut desk, top_up(&[("rpd", 1)])).unwrap();
    let err = operation.plan(&read(&desk), EpochMillis(desk.now)).unwrap_err();
    assert!(err.to_string().contains("what was added before"), "{err}");
    desk.configure_resource(&[]);
    let err = self::operation(&mut desk, reset(&[])).unwrap_err();
    assert!(matches!(err, AcquireError::NotConfigured { .. }), "{err}");
}

#[test]
fn an_unknown_attribute_is_an_error() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    desk.poke("u", 0, &[("shiny", Value::int(1))]);
    let err = read_shards(&[desk.item("u", 0).clone()]).unwrap_err();
    assert!(err.to_string().contains("'shiny'"), "{err}");
}

/// A bucket that another client has split: shard 0 was granted its part of one, the others theirs of more.
fn split(desk: &mut Desk, shards: &[(u32, i64, i64, Option<i64>)]) {
    let first = desk.item("u", 0).clone();
    let id = desk.id("u");
    for (shard, count, tokens, granted) in shards {
        let mut item = first.clone();
        item.extend(id.key_attributes(*shard));
        for limit in ["rpd", "ses"] {
            if !item.contains_key(&format!("b_{limit}_tk")) {
                continue;
            }
            item.insert(format!("b_{limit}_tk"), Value::int(*tokens * 1000));
            match granted {
                Some(granted) => item.insert(format!("b_{limit}_gc"), Value::int(*granted)),
                None => item.remove(&format!("b_{limit}_gc")),
            };
        }
        item.insert("shard_count".into(), Value::int(*count));
        desk.table.insert(item).unwrap();
    }
}

#[test]
fn a_quota_that_another_client_has_split() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    // 100 of one, then 50 and 25 of those that were created later; the second one does not know of the last doubling.
    split(&mut desk, &[(0, 4, 20, Some(1)), (1, 2, 30, Some(2))]);
    let added = operate(&mut desk, top_up(&[("rpd", 100)]));
    assert_eq!(added, told(&[("rpd", 100)]));
    // Shard 0 has a part of one in four, which is four of them; shard 1 one of two.
    let attrs = ["b_rpd_tk", "b_rpd_tu", "b_rpd_gc", "shard_count"];
    assert_eq!(
        ints(&desk, 0, &attrs),
        [Some(87_000), Some(67_000), Some(1), Some(4)]
    );
    assert_eq!(
        ints(&desk, 1, &attrs),
        [Some(63_000), Some(33_000), Some(2), Some(4)]
    );
    // Each gets its part of four. The parts of those that do not exist are theirs when they are created.
    assert_eq!(operate(&mut desk, reset(&[])), told(&[("rpd", -100)]));
    assert_eq!(ints(&desk, 0, &attrs), [Some(25_000), None, Some(4), Some(4)]);
    assert_eq!(ints(&desk, 1, &attrs), [Some(25_000), None, Some(4), Some(4)]);
    assert_eq!(ints(&desk, 1, &["b_rpd_rn"]), [Some(1)]);
    desk.remember_only_the_count("u", 4);
    let mut admitted = 0;
    // A request looks at three shards of four.
    for _ in 0..400 {
        admitted += i32::from(matches!(desk.acquire("u", &[("rpd", 1)]), Decision::Admitted(_)));
    }
    assert_eq!(admitted, 50);
}

#[test]
fn a_part_without_a_count_is_one_of_the_item_s_count_which_is_then_stored() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    // 40 tokens are more than the part. If they were kept, each shard could be one that keeps as many.
    split(&mut desk, &[(0, 4, 40, None), (1, 4, 20, None)]);
    operate(&mut desk, top_up(&[("rpd", 30)]));
    let attrs = ["b_rpd_tk", "b_rpd_tu", "b_rpd_gc"];
    assert_eq!(ints(&desk, 0, &attrs), [Some(40_000), Some(15_000), Some(4)]);
    assert_eq!(ints(&desk, 1, &attrs), [Some(35_000), Some(15_000), Some(4)]);
    // So it is where a count is raised, of a quota that is not named.
    let mut desk = self::desk(&[daily(), Limit::per_day("tpd", 100)]);
    desk.admitted("u", &[("rpd", 1), ("tpd", 1)]);
    split(&mut desk, &[(0, 2, 40, Some(2)), (1, 1, 60, None)]);
    operate(&mut desk, reset(&["tpd"]));
    let attrs = ["b_rpd_tk", "b_rpd_gc", "b_tpd_tk", "shard_count"];
    assert_eq!(
        ints(&desk, 1, &attrs),
        [Some(60_000), Some(1), Some(50_000), Some(2)]
    );
}

#[test]
fn a_session_of_several_shards() {
    let mut desk = desk(&[session()]);
    desk.admitted("u", &[("ses", 1)]);
    split(&mut desk, &[(0, 2, 5, Some(2)), (1, 2, 15, Some(2))]);
    // Another shard's use has begun a session that this one does not have yet; since then, 3 were taken.
    let begun = desk.now + 60_000;
    desk.poke(
        "u",
        1,
        &[
            ("b_ses_ws", Value::int(begun)),
            ("b_ses_wtc", Value::int(7_000)),
            ("b_ses_tc", Value::int(10_000)),
        ],
    );
    desk.poke(
        "u",
        0,
        &[("b_ses_ws", Value::int(begun)), ("b_ses_wa", Value::int(begun))],
    );
    desk.now += 120_000;
    operate(&mut desk, top_up(&[("ses", 9)]));
    let attrs = ["b_ses_tk", "b_ses_tu", "b_ses_gc", "b_ses_ws", "b_ses_wa"];
    let begun = Some(begun.into());
    assert_eq!(
        ints(&desk, 0, &attrs),
        [Some(10_000), Some(5_000), Some(2), begun, begun]
    );
    assert_eq!(
        ints(&desk, 1, &attrs),
        [Some(26_000), Some(4_000), Some(2), begun, begun]
    );
    operate(&mut desk, reset(&[]));
    let ended = Some(i128::from(desk.now - 5 * 3_600_000));
    for shard in [0, 1] {
        assert_eq!(
            ints(&desk, shard, &["b_ses_ws", "b_ses_wa", "b_ses_wtc"]),
            [ended, ended, None]
        );
    }
}

/// What others do between the read and the write.
#[test]
fn debits_refunds_and_refills_in_between() {
    for change in [reset(&["rpd"]), top_up(&[("rpd", 20)])] {
        // A debit stays.
        let mut desk = desk(&[daily()]);
        let grants = desk.admitted("u", &[("rpd", 90)]);
        let plan = planned(&mut desk, change.clone());
        desk.admitted("u", &[("rpd", 6)]);
        assert_eq!(desk.ops.len(), 1, "a plain debit");
        assert_eq!(send(&mut desk, &plan), Answer::Applied(None));
        let left = if change == reset(&["rpd"]) { 94 } else { 24 };
        assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(left * 1000)]);
        desk.admitted("u", &[("rpd", i64::try_from(left).unwrap())]);
        desk.rejected("u", &[("rpd", 1)]);
        // A refund is not stacked on a reset, and not lost on a top-up.
        let mut desk = self::desk(&[daily()]);
        let _ = grants;
        let grants = desk.admitted("u", &[("rpd", 90)]);
        let plan = planned(&mut desk, change.clone());
        desk.credit(&grants[0], &[("rpd", 90)]);
        assert_eq!(send(&mut desk, &plan), Answer::Applied(None));
        let most = if change == reset(&["rpd"]) { 100 } else { 120 };
        desk.admitted("u", &[("rpd", most)]);
        desk.rejected("u", &[("rpd", 1)]);
        // A refilling write keeps it from happening: the next plan sees it.
        let mut desk = self::desk(&[daily()]);
        desk.admitted("u", &[("rpd", 90)]);
        let plan = planned(&mut desk, change.clone());
        desk.now = at("2027-03-11T01:00:00Z");
        desk.admitted("u", &[("rpd", 1)]);
        let before = desk.item("u", 0).clone();
        assert!(matches!(send(&mut desk, &plan), Answer::Cancelled(_)));
        assert_eq!(desk.item("u", 0), &before);
        // And so does another operation that was planned from the same images.
        let mut desk = self::desk(&[daily()]);
        desk.admitted("u", &[("rpd", 90)]);
        let (one, other) = (
            planned(&mut desk, change.clone()),
            planned(&mut desk, change.clone()),
        );
        assert_eq!(send(&mut desk, &one), Answer::Applied(None));
        assert!(matches!(send(&mut desk, &other), Answer::Cancelled(_)));
        // A doubling, too.
        let mut desk = self::desk(&[daily()]);
        desk.admitted("u", &[("rpd", 90)]);
        let plan = planned(&mut desk, change);
        desk.poke("u", 0, &[("shard_count", Value::int(2))]);
        assert!(matches!(send(&mut desk, &plan), Answer::Cancelled(_)));
    }
}

#[test]
fn all_shards_are_written_or_none() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    split(&mut desk, &[(0, 2, 0, Some(2)), (1, 2, 0, Some(2))]);
    let plan = planned(&mut desk, reset(&[]));
    assert_eq!(plan.parts.len(), 2);
    let now = desk.now;
    desk.poke("u", 1, &[("rf", Value::int(now + 1))]);
    let before = desk.table.clone();
    let Answer::Cancelled(reasons) = send(&mut desk, &plan) else {
        panic!("the second shard has changed")
    };
    assert_eq!(reasons[0], Cancelled::Fine);
    assert!(desk.table.items().eq(before.items()));
}

#[test]
fn a_debit_that_was_planned_before_cannot_spend_what_is_cut_later() {
    // A surplus from a refund in between is there, but `vu` is 0.
    let mut desk = desk(&[Limit::per_day("rpd", 100)]);
    desk.remembers = true;
    let grants = desk.admitted("u", &[("rpd", 90)]);
    let plan = planned(&mut desk, reset(&[]));
    desk.credit(&grants[0], &[("rpd", 90)]);
    assert_eq!(send(&mut desk, &plan), Answer::Applied(None));
    assert_eq!(ints(&desk, 0, &["b_rpd_tk"]), [Some(190_000)]);
    desk.forget_images();
    desk.admitted("u", &[("rpd", 100)]);
    desk.rejected("u", &[("rpd", 1)]);
}

#[test]
fn shards_of_a_rate_are_all_full_and_a_surplus_of_missing_ones_stays() {
    let mut desk = desk(&[Limit::per_day("rpd", 100)]);
    desk.admitted("u", &[("rpd", 20)]);
    split(&mut desk, &[(0, 2, 10, None), (1, 2, 20, None)]);
    assert_eq!(operate(&mut desk, reset(&[])), told(&[("rpd", 70)]));
    for shard in [0, 1] {
        assert_eq!(ints(&desk, shard, &["b_rpd_tk"]), [Some(50_000)]);
    }
    let mut desk = self::desk(&[Limit::per_day("rpd", 100), Limit::per_day("tpd", 100)]);
    desk.admitted("u", &[("rpd", 20), ("tpd", 50)]);
    desk.poke("u", 0, &[("shard_count", Value::int(2))]);
    // Half of its 80 belongs to a shard that does not exist yet.
    assert_eq!(operate(&mut desk, reset(&["tpd"])), told(&[("tpd", 0)]));
    assert_eq!(
        ints(&desk, 0, &["b_rpd_tk", "b_tpd_tk"]),
        [Some(80_000), Some(50_000)]
    );
}

fn record(desk: &Desk, kind: &str, incarnation: &str) -> OperationRecord {
    let id = desk.id("u");
    OperationRecord {
        key: OperationKey::new("order-17").unwrap(),
        kind: kind.into(),
        writer: "80729c5437a3975080729c54".into(),
        incarnation: incarnation.into(),
        result: OperationResult {
            entity: id.entity,
            resource: id.resource,
            shards: 2,
            amounts: BTreeMap::from([(LimitName::new("rpd").unwrap(), -7)]),
        },
    }
}

/// As the original writes it (observed).
#[test]
fn the_record_of_an_operation() {
    let desk = desk(&[daily()]);
    let record = record(&desk, "top_up", "80729c5437a39750");
    let put = record.put(&desk.id("u"), &Replaces::Nothing, EpochMillis(desk.now));
    let expected = [
        ("PK", Value::text("dSkXlbmmfyU/BUCKET#u#gpt-4#0")),
        ("SK", Value::text("#OP#order-17")),
        ("entity_id", Value::text("u")),
        ("resource", Value::text("gpt-4")),
        ("operation", Value::text("top_up")),
        ("writer", Value::text("80729c5437a3975080729c54")),
        ("ent", Value::text("80729c5437a39750")),
        ("shards", Value::int(2)),
        ("amounts", Value::M(Item::from([("rpd".into(), Value::int(-7))]))),
        ("ttl", Value::int(desk.now / 1000 + 259_200)),
        ("GSI4PK", Value::text("dSkXlbmmfyU")),
        ("GSI4SK", Value::text("OP#u#gpt-4#order-17")),
    ];
    let expected: Item = expected
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    assert_eq!(put.item, expected);
    let read = |kind, life| OperationRecord::read(Some(&put.item), kind, life).unwrap();
    assert_eq!(
        read("top_up", "80729c5437a39750"),
        Recorded::Done(record.result.clone())
    );
    assert_eq!(read("top_up", "-"), Recorded::Done(record.result.clone()));
    let earlier = Replaces::EarlierLife(Some("80729c5437a39750".into()));
    assert_eq!(read("top_up", "another"), Recorded::Nothing(earlier));
    let none = OperationRecord::read(None, "top_up", "-").unwrap();
    assert_eq!(none, Recorded::Nothing(Replaces::Nothing));
    let Recorded::Other(err) = read("reset", "-") else {
        panic!("it is of a top-up")
    };
    assert_eq!(
        (err.field(), err.value(), err.reason()),
        (
            "idempotency_key",
            "order-17",
            "was used for a top_up of this entity and resource; use another key for a reset"
        )
    );
    for (attr, value) in [
        ("operation", Value::int(1)),
        ("shards", Value::text("2")),
        (
            "amounts",
            Value::M(Item::from([("rpd".into(), Value::text("x"))])),
        ),
        ("entity_id", Value::text("a#b")),
    ] {
        let mut item = put.item.clone();
        item.insert(attr.into(), value);
        let err = OperationRecord::read(Some(&item), "top_up", "-")
            .unwrap_err()
            .to_string();
        assert!(err.contains(&format!("'{attr}'")), "{err}");
    }
}

/// What a call in this life of the entity finds of the key's record.
fn found(desk: &Desk, incarnation: &str) -> Recorded {
    let key = OperationRecord::table_key(&desk.id("u"), &OperationKey::new("order-17").unwrap());
    OperationRecord::read(desk.table.get(&key), "reset", incarnation).unwrap()
}

fn sends(desk: &mut Desk, incarnation: &str, replaces: &Replaces) -> bool {
    let put = record(desk, "reset", incarnation).put(&desk.id("u"), replaces, EpochMillis(0));
    let answer = desk.table.call(&Op::Transact(vec![Part::Put(put)])).unwrap();
    answer == Answer::Applied(None)
}

fn replaces(desk: &Desk, incarnation: &str) -> Replaces {
    match found(desk, incarnation) {
        Recorded::Nothing(replaces) => replaces,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_is_written_once_in_each_life_of_an_entity() {
    let mut desk = desk(&[daily()]);
    let none = replaces(&desk, "one");
    assert!(sends(&mut desk, "one", &none));
    assert!(!sends(&mut desk, "one", &none));
    assert!(matches!(found(&desk, "one"), Recorded::Done(_)));
    assert!(matches!(found(&desk, "-"), Recorded::Done(_)));
    let earlier = replaces(&desk, "two");
    assert!(sends(&mut desk, "two", &earlier));
    assert!(!sends(&mut desk, "two", &earlier));
    let mut desk = self::desk(&[daily()]);
    assert!(sends(&mut desk, "-", &Replaces::Nothing));
    // It was written before the entity was created, so it is of every life.
    assert!(matches!(found(&desk, "one"), Recorded::Done(_)));
}

/// Simulator seed 46000000496: the call of the new life would be repeated.
#[test]
fn what_arrives_in_a_later_life_does_not_replace_the_record_of_that_life() {
    let mut desk = desk(&[daily()]);
    let late = replaces(&desk, "one");
    assert!(sends(&mut desk, "two", &late));
    assert!(!sends(&mut desk, "one", &late));
    assert!(matches!(found(&desk, "two"), Recorded::Done(_)));
    // So too if both have seen the record of a life before.
    let late = replaces(&desk, "three");
    assert!(sends(&mut desk, "four", &late));
    assert!(!sends(&mut desk, "three", &late));
}

#[test]
fn keys_of_operations() {
    for good in ["a", "Order_17.b:c-d", &"x".repeat(64)] {
        assert_eq!(OperationKey::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "a#b", "a b", "ä", "a\n", &"x".repeat(65)] {
        assert!(OperationKey::new(bad).is_err(), "{bad}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Acquire(i64),
        Refund(usize, i64),
        TopUp(u64),
        Reset,
        /// Plans now and sends after the next steps.
        Plan(bool),
        Send,
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1_i64..60).prop_map(Step::Acquire),
            2 => (0_usize..5, 1_i64..60).prop_map(|(of, amount)| Step::Refund(of, amount)),
            1 => (1_u64..80).prop_map(Step::TopUp),
            1 => Just(Step::Reset),
            2 => any::<bool>().prop_map(Step::Plan),
            2 => Just(Step::Send),
            1 => (0_i64..12 * 3_600_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Between two resets, by the calendar or by an operator, a quota admits no more than its amount and what was added;
        /// refunds deducted.
        #[test]
        fn no_period_admits_more_than_the_quota_and_what_was_added(
            steps in steps(), is_session in any::<bool>(), remembers in any::<bool>(), splits in any::<bool>(),
        ) {
            let (name, quota) = if is_session { ("ses", 50) } else { ("rpd", 100) };
            let mut desk = desk(&[if is_session { session() } else { daily() }]);
            desk.remembers = remembers;
            if splits && !is_session {
                desk.admitted("u", &[(name, 1)]);
                split(&mut desk, &[(0, 4, 40, Some(1)), (1, 4, 25, Some(4)), (2, 4, 20, None)]);
                desk.remember_only_the_count("u", 4);
            }
            let start = ["tk", "tc"].map(|part| format!("b_{name}_{part}"));
            // What may still be admitted in this period, and which period that is.
            let period = |desk: &Desk| {
                let item = desk.table.get(&desk.id("u").key(0));
                let part = |part: &str| item.and_then(|item| item.get(&format!("b_{name}_{part}")).and_then(Value::as_int));
                let day = Some(i128::from(desk.now / 86_400_000));
                (part("rn"), if is_session { part("ws") } else { day })
            };
            let mut before = period(&desk);
            let mut left = i128::from(quota);
            let mut leases = Vec::new();
            let mut waiting: Option<(Plan, u64)> = None;
            let mut added = 0_u64;
            for step in steps {
                match step {
                    Step::Acquire(amount) => {
                        if let Decision::Admitted(grants) = desk.acquire("u", &[(name, amount)]) {
                            if period(&desk) != before {
                                (before, left, added) = (period(&desk), quota.into(), 0);
                                leases.clear();
                            }
                            left -= i128::from(amount);
                            leases.push((grants, amount));
                        }
                    }
                    Step::Refund(of, amount) => {
                        if !leases.is_empty() {
                            let at = of % leases.len();
                            let (grants, held) = &mut leases[at];
                            let amount = amount.min(*held);
                            *held -= amount;
                            let grants = grants.clone();
                            if amount > 0 && grants.len() == 1 {
                                desk.credit(&grants[0], &[(name, amount)]);
                                left += i128::from(amount);
                            }
                        }
                    }
                    Step::TopUp(amount) => {
                        operate(&mut desk, top_up(&[(name, amount)]));
                        if period(&desk) != before {
                            (before, left, added) = (period(&desk), quota.into(), 0);
                            leases.clear();
                        }
                        left += i128::from(amount);
                        added += amount;
                    }
                    Step::Reset => {
                        operate(&mut desk, reset(&[name]));
                    }
                    Step::Plan(is_reset) => {
                        let amount = if is_reset { 0 } else { 7 };
                        let change = if is_reset { reset(&[name]) } else { top_up(&[(name, 7)]) };
                        waiting = Some((planned(&mut desk, change), amount));
                    }
                    Step::Send => {
                        if let Some((plan, amount)) = waiting.take()
                            && !plan.parts.is_empty()
                            && send(&mut desk, &plan) == Answer::Applied(None)
                        {
                            if period(&desk) != before {
                                (before, left, added) = (period(&desk), quota.into(), 0);
                                leases.clear();
                            }
                            left += i128::from(amount);
                            added += amount;
                        }
                    }
                    Step::Wait(millis) => desk.now += millis,
                }
                // A reset, or another period, was begun by a write of this step.
                if period(&desk) != before {
                    (before, left, added) = (period(&desk), quota.into(), 0);
                    leases.clear();
                }
                prop_assert!(left >= 0, "{left} left of {quota} and {added}: {:?}", start);
            }
        }
    }
}

/// The images of a plan are those that were read: shards in the order of their numbers.
#[test]
fn shards_are_read_by_number() {
    let mut desk = desk(&[daily()]);
    desk.admitted("u", &[("rpd", 1)]);
    split(&mut desk, &[(0, 2, 0, Some(2)), (1, 2, 0, Some(2))]);
    let shards = read(&desk);
    assert_eq!(shards.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(Arc::clone(&shards[&1]).shard_count, 2);
}

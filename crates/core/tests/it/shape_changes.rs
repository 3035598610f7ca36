//! Limits that get or lose a shape, and quotas that are not configured any more.

use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::schedule::ScheduleEntry;
use zae_limiter_core::sync::{LimitChange, change_limits};
use zae_limiter_core::table::{Answer, Op, Update};
use zae_limiter_core::{EpochMillis, Level, Limit, LimitBuilder};

use crate::drive::Desk;
use crate::shapes::{at, daily, desk, scheduled, session};

/// An operator gives the bucket these limits.
fn change(desk: &mut Desk, limits: &[Limit]) {
    desk.configure_entity("u", limits);
    let change = LimitChange {
        limits,
        level: Level::Entity,
        may_expire: true,
        stale: &[],
        bucket_ttl_multiplier: 7,
    };
    let update = change_limits(desk.id("u").key(0), &change, limits, EpochMillis(desk.now));
    assert!(matches!(
        desk.table.call(&Op::Update(update)),
        Ok(Answer::Applied(_))
    ));
}

/// Clients that go by stamps enforce a limit without one, by an image alone; one that has passed lets them look.
#[test]
fn a_limit_that_becomes_soft_is_stamped_with_a_deadline_that_has_passed() {
    let rate = Limit::per_minute("rpm", 10);
    let mut desk = desk(std::slice::from_ref(&rate), "2027-03-10T08:00:00Z");
    desk.admitted("u", &[("rpm", 10)]);
    change(&mut desk, &[rate.clone().soft().build().unwrap()]);
    assert_eq!(desk.int("u", 0, "b_rpm_soft"), i128::from(desk.now));
    change(&mut desk, &[rate.build().unwrap()]);
    assert!(!desk.item("u", 0).contains_key("b_rpm_soft"));
}

/// The configured window is ten times as slow, and a bucket may be spent as it stands ten times as long.
#[test]
fn a_bucket_without_the_configured_schedule_is_refilled_as_often_as_its_rate_demands() {
    let rate = Limit::per_second("rpm", 200);
    let slow = ScheduleEntry::on("* * * * *").refill_amount(20);
    let mut desk = desk(std::slice::from_ref(&rate), "2027-03-10T08:00:00Z");
    desk.admitted("u", &[("rpm", 50)]);
    desk.now += 60_000;
    desk.admitted("u", &[("rpm", 100)]);
    let scheduled = rate.scheduled([slow]).build().unwrap();
    desk.configure_resource(&[scheduled]);
    desk.now += 126;
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "rf"), i128::from(desk.now));
}

/// What was taken before the limit became a quota comes back until that is whole again, and not after.
#[test]
fn a_refund_from_before_a_limit_became_a_quota_is_paid_until_its_first_reset() {
    for (named, name, taken) in [(daily(), "rpd", 300), (session(), "ses", 20)] {
        let named = named.build().unwrap();
        let amount = i128::from(named.capacity()) * 1000;
        for is_reset in [false, true] {
            let mut desk = desk(
                &[Limit::per_minute(name, named.capacity())],
                "2027-03-10T22:59:50Z",
            );
            let grants = desk.admitted("u", &[(name, taken)]);
            change(&mut desk, std::slice::from_ref(&named));
            if is_reset {
                desk.now = at("2027-03-10T23:00:00Z");
                desk.admitted("u", &[(name, taken)]);
                assert_eq!(
                    desk.int("u", 0, &format!("b_{name}_tk")),
                    amount - i128::from(taken) * 1000
                );
            }
            let end = desk.credit(&grants[0], &[(name, taken)]);
            assert_eq!(matches!(end, CreditEnd::Gone), is_reset, "{name}: {end:?}");
            assert_eq!(matches!(end, CreditEnd::Applied), !is_reset, "{name}: {end:?}");
        }
    }
}

/// A quota that no level names any more can lose what says when it is reset. Nothing makes it whole then.
#[test]
fn a_refund_is_paid_to_a_quota_that_is_left_over() {
    let mut desk = desk(&[Limit::per_minute("rpm", 600), daily()], "2027-03-10T12:00:00Z");
    desk.admitted("u", &[("rpm", 1), ("rpd", 1)]);
    let mut update = Update::new(desk.id("u").key(0));
    let resets = ["rsched", "b_rpd_rsched"];
    update.remove.extend(resets.map(Into::into));
    desk.table.call(&Op::Update(update)).unwrap();
    let grants = desk.admitted("u", &[("rpm", 100), ("rpd", 10)]);
    // The first sending is refused: the rate is whole again.
    desk.now += 60_000;
    desk.admitted("u", &[("rpm", 1)]);
    let end = desk.credit(&grants[0], &[("rpm", 100), ("rpd", 10)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 999_000);
}

/// It is the same quota.
#[test]
fn a_refund_is_paid_although_the_resets_are_written_another_way() {
    let quota = |resets| Limit::quota("rpd", 1000).resets(resets, "UTC");
    let mut desk = desk(&[quota("28,29 * * * *")], "2027-03-10T12:00:00Z");
    let grants = desk.admitted("u", &[("rpd", 10)]);
    change(&mut desk, &[quota("28-29 * * * *").build().unwrap()]);
    let end = desk.credit(&grants[0], &[("rpd", 10)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 1_000_000);
}

/// The next 31st lies further away than the search for it goes, alone and beside a new year that is found.
#[test]
fn a_refund_is_not_paid_after_a_reset_that_is_far_away() {
    let alone = Limit::quota("rpd", 100).resets("0 0 31 * *", "UTC");
    let beside = Limit::quota("rpd", 100).resets_on([("0 0 31 * *", "UTC"), ("0 0 1 1 *", "UTC")]);
    for (quota, taken, reset) in [
        (alone, "2027-08-31T12:00:00Z", "2027-10-31T00:00:00Z"),
        (beside, "2027-01-31T12:00:00Z", "2027-03-31T00:00:00Z"),
    ] {
        let mut desk = desk(&[quota], taken);
        let grants = desk.admitted("u", &[("rpd", 80)]);
        desk.now = at(reset);
        desk.admitted("u", &[("rpd", 100)]);
        let end = desk.credit(&grants[0], &[("rpd", 80)]);
        assert!(matches!(end, CreditEnd::Gone), "{end:?}");
        assert_eq!(desk.int("u", 0, "b_rpd_tk"), 0);
    }
}

/// A rate with or without a schedule is the same balance.
#[test]
fn a_refund_is_paid_although_a_rate_has_lost_its_schedule() {
    let mut desk = desk(&[scheduled()], "2027-03-10T08:00:00Z");
    let grants = desk.admitted("u", &[("rpm", 100)]);
    change(&mut desk, &[Limit::per_minute("rpm", 600).build().unwrap()]);
    let end = desk.credit(&grants[0], &[("rpm", 100)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 600_000);
}

/// Of the conditions of one write, a quota needs more than a rate. They are removed when they would be whole again.
#[test]
fn quotas_that_are_configured_no_more_do_not_fill_the_write() {
    let named = |prefix: &str| {
        let quotas = (0..8).map(|n| Limit::quota(format!("{prefix}{n}"), 5).resets("0 0 * * *", "UTC"));
        quotas.map(|quota| quota.build().unwrap()).collect::<Vec<_>>()
    };
    let mut desk = desk(&[], "2027-05-05T12:00:00Z");
    for prefix in ["a", "b", "c", "d"] {
        desk.configure_resource(&named(prefix));
        let one = format!("{prefix}0");
        desk.admitted("u", &[(&one, 1)]);
        desk.now += 60_000;
    }
    desk.now += 86_400_000;
    desk.admitted("u", &[("d0", 5)]);
    assert_eq!(desk.int("u", 0, "b_d0_tk"), 0);
    let held = |desk: &Desk| {
        desk.item("u", 0)
            .keys()
            .filter(|attr| attr.ends_with("_tk"))
            .count()
    };
    assert_eq!(held(&desk), 2);
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-05-07T00:00:00Z")));
}

/// Its balance is of the period in which levels named it last. In the next one, an item that is given it again has it whole.
#[test]
fn a_quota_that_is_named_again_admits_no_more_than_itself_in_a_period() {
    let limits = |limits: &[LimitBuilder]| -> Vec<Limit> {
        let limits = limits.iter().map(|limit| limit.clone().build().unwrap());
        limits.collect()
    };
    for (named, name, amount) in [(daily(), "rpd", 1000), (session(), "ses", 50)] {
        let both = limits(&[Limit::per_minute("rpm", 600), named]);
        let mut desk = Desk::with(&both);
        desk.now = at("2027-03-10T12:00:00Z");
        desk.admitted("u", &[("rpm", 1), (name, 10)]);
        // Until it would be whole again, it stays, and the bucket is looked at then.
        desk.configure_resource(&both[..1]);
        desk.now += 60_000;
        desk.admitted("u", &[("rpm", 100)]);
        let held = 1000 * i128::from(amount - 10);
        assert_eq!(desk.int("u", 0, &format!("b_{name}_tk")), held);
        let over = desk.int("u", 0, "vu") as i64;
        assert_eq!(
            over,
            at(if name == "rpd" {
                "2027-03-10T23:00:00Z"
            } else {
                "2027-03-10T17:00:00Z"
            })
        );
        desk.now = over;
        desk.admitted("u", &[("rpm", 1)]);
        let item = desk.item("u", 0);
        let prefix = format!("b_{name}_");
        assert!(!item.keys().any(|attr| attr.starts_with(&prefix)), "{item:?}");
        desk.configure_resource(&both);
        desk.now += 1;
        desk.admitted("u", &[("rpm", 1), (name, amount - 1)]);
        desk.admitted("u", &[(name, 1)]);
        desk.rejected("u", &[(name, 1)]);
        desk.now += 3_600_000;
        desk.rejected("u", &[("rpm", 1), (name, 1)]);
    }
}

/// A client that does not know a quota refills the bucket when the quota's schedule lowers it. One that still knows it must not spend
/// what is above.
#[test]
fn a_quota_that_is_configured_no_more_is_cut_by_its_schedule() {
    let noon = ScheduleEntry::on("* 12-13 * * *")
        .zone("Europe/Berlin")
        .scale(0.5);
    let both = [
        Limit::per_minute("rpm", 600).build().unwrap(),
        daily().scheduled([noon]).build().unwrap(),
    ];
    let mut desk = Desk::with(&both);
    desk.now = at("2027-03-10T10:30:00Z");
    desk.admitted("u", &[("rpm", 1), ("rpd", 100)]);
    desk.configure_resource(&both[..1]);
    desk.now = at("2027-03-10T11:00:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 500_000);
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-03-10T13:00:00Z")));
    desk.configure_resource(&both);
    desk.now += 1;
    desk.admitted("u", &[("rpd", 500)]);
    desk.rejected("u", &[("rpd", 1)]);
}

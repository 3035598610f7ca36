//! Bypasses: what is admitted and counted under them, and when they end.

use std::sync::Arc;

use zae_limiter_core::access::{correct_count, stamp_access};
use zae_limiter_core::acquire::{AcquireError, Decision, statuses_after};
use zae_limiter_core::config::Access;
use zae_limiter_core::table::{Answer, Item, Op, Value};
use zae_limiter_core::{EpochMillis, Millitokens};

use crate::drive::{Desk, per_minute};

const DAY_MS: i64 = 86_400_000;

fn desk() -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 10)]);
    desk.remembers = true;
    desk
}

/// Sets what the configuration of the resource says, and stamps the bucket if there is one, as an operator does.
fn set(desk: &mut Desk, access: Option<Access>) {
    say(desk, access);
    // What was read in the millisecond in which an acquire begins counts as read by it. And an image that was seen before may
    // refuse for a second more.
    desk.now += 1;
    desk.forget_images();
    let key = desk.id("user").key(0);
    let until = EpochMillis(desk.now + 60_000);
    let _ = desk
        .table
        .call(&Op::Update(stamp_access(
            key,
            access.unwrap_or(Access::Enabled),
            until,
        )))
        .unwrap();
}

/// Sets what the configuration of the resource says.
fn say(desk: &mut Desk, access: Option<Access>) {
    let key = zae_limiter_core::schema::resource_config_key(&desk.namespace, &desk.resource);
    let mut item = desk.table.get(&key).unwrap().clone();
    item.remove("disabled");
    item.extend(access.map(|access| ("disabled".to_owned(), access.value())));
    desk.table.insert(item).unwrap();
}

fn balance(desk: &Desk) -> (i128, i128) {
    (desk.int("user", 0, "b_rpm_tk"), desk.int("user", 0, "b_rpm_tc"))
}

#[test]
fn everything_is_admitted_and_counted_and_no_balance_changes() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    desk.rejected("user", &[("rpm", 1)]);
    set(&mut desk, Some(Access::Bypass));
    desk.forget();
    for round in 1..=5 {
        let grants = desk.admitted("user", &[("rpm", 1_000)]);
        assert!(grants[0].is_bypassed);
        assert_eq!(desk.ops.len(), 1, "one write");
        assert_eq!(balance(&desk), (0, 10_000 + round * 1_000_000));
    }
    // An amount that no balance ever covers, and one of nothing.
    desk.admitted("user", &[("rpm", 1_000_000)]);
    desk.admitted("user", &[("rpm", 0)]);
    // Lifted, the limit is enforced at once: with the minute's tokens that were earned meanwhile, and no more.
    set(&mut desk, None);
    desk.rejected("user", &[("rpm", 1)]);
    desk.now += 60_000;
    desk.admitted("user", &[("rpm", 10)]);
    desk.rejected("user", &[("rpm", 1)]);
}

/// A process that knows nothing of a bypass goes by the stamp, and then remembers it.
#[test]
fn a_process_learns_of_a_bypass_by_the_stamp() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    set(&mut desk, Some(Access::Bypass));
    let first = desk.admitted("user", &[("rpm", 3)]);
    assert!(first[0].is_bypassed);
    assert_eq!(desk.ops.len(), 2, "a debit that is refused, and the count");
    assert_eq!(desk.configs_read, 0, "the stamp is proof enough");
    let second = desk.admitted("user", &[("rpm", 3)]);
    assert!(second[0].is_bypassed);
    assert_eq!(desk.ops.len(), 1);
    assert_eq!(balance(&desk), (0, 16_000));
}

/// A stamp is renewed only by a client that has read the configuration, which may have changed while it wrote.
#[test]
fn a_stamp_that_has_passed_is_renewed_from_the_configuration() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    set(&mut desk, Some(Access::Bypass));
    desk.admitted("user", &[("rpm", 1)]);
    desk.now += 61_000;
    let grants = desk.admitted("user", &[("rpm", 1)]);
    assert!(grants[0].is_bypassed);
    assert_eq!(desk.configs_read, 2, "before the stamp and after it");
    let life = desk.int("user", 0, "bypass") - i128::from(desk.now);
    assert!((48_000..=60_000).contains(&life), "{life}");
    let before = desk.now;
    desk.admitted("user", &[("rpm", 1)]);
    assert_eq!((desk.ops.len(), desk.configs_read, desk.now), (1, 0, before));

    // A stamp of unknown type has passed.
    desk.poke("user", 0, &[("bypass", Value::Bool(true))]);
    desk.forget();
    assert!(desk.admitted("user", &[("rpm", 1)])[0].is_bypassed);
    assert!(desk.item("user", 0)["bypass"].as_int().is_some());
}

/// The bypass ends between the look at the configuration and the stamp: the operator has removed all stamps by then, and nothing
/// else would remove the new one.
#[test]
fn a_stamp_that_comes_too_late_is_removed() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    say(&mut desk, Some(Access::Bypass));
    let is_stamp =
        |op: &Op| matches!(op, Op::Update(update) if update.set.iter().any(|(name, _)| name == "bypass"));
    changed_before(&mut desk, is_stamp, |item| drop(item.remove("disabled")));
    desk.rejected("user", &[("rpm", 1)]);
    assert!(!desk.item("user", 0).contains_key("bypass"));
}

/// Simulator seed 46000005762: something answers that it is removed, and does not say what the item is like.
#[test]
fn the_removal_of_a_stamp_is_repeated_if_its_answer_shows_no_item() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    say(&mut desk, Some(Access::Bypass));
    let is_stamp =
        |op: &Op| matches!(op, Op::Update(update) if update.set.iter().any(|(name, _)| name == "bypass"));
    let is_removal =
        |op: &Op| matches!(op, Op::Update(update) if update.remove.iter().any(|name| name == "bypass"));
    changed_before(&mut desk, is_stamp, |item| drop(item.remove("disabled")));
    let mut then = desk.meddle.take().unwrap();
    let mut removals = 0;
    desk.meddle = Some(Box::new(move |number, op, table| {
        removals += i32::from(is_removal(op));
        if is_removal(op) && removals == 1 {
            return Some(Ok(Answer::Applied(Some(Item::new()))));
        }
        then(number, op, table)
    }));
    desk.rejected("user", &[("rpm", 1)]);
    assert!(!desk.item("user", 0).contains_key("bypass"));
}

#[test]
fn a_stamp_without_a_bypass_is_not_gone_by_once_the_configuration_is_known() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    set(&mut desk, Some(Access::Bypass));
    say(&mut desk, None);
    // What this process has read says so.
    desk.forget();
    desk.rejected("user", &[("rpm", 1)]);
    assert!(desk.configs_read > 0);
}

/// Knowing of the bypass from its cache, a process asks again when the stamps are gone.
#[test]
fn a_cached_bypass_is_no_bypass() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    set(&mut desk, Some(Access::Bypass));
    desk.forget();
    desk.admitted("user", &[("rpm", 1)]);
    set(&mut desk, None);
    desk.rejected("user", &[("rpm", 1)]);
    assert_eq!(balance(&desk), (0, 11_000));
}

#[test]
fn a_disabled_bucket_refuses_although_it_is_stamped() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    set(&mut desk, Some(Access::Bypass));
    desk.admitted("user", &[("rpm", 1)]);
    desk.poke("user", 0, &[("disabled", Value::Bool(true))]);
    assert!(matches!(
        desk.acquire("user", &[("rpm", 1)]),
        Decision::Disabled { .. }
    ));
}

#[test]
fn a_bucket_is_created_under_a_bypass_with_all_its_tokens() {
    let mut desk = desk();
    say(&mut desk, Some(Access::Bypass));
    desk.forget();
    let grants = desk.admitted("user", &[("rpm", 500)]);
    assert!(grants[0].is_bypassed);
    assert_eq!(balance(&desk), (10_000, 500_000));
}

/// Has an operator change the configuration of the resource just before a request is executed.
fn changed_before(
    desk: &mut Desk,
    is_moment: impl Fn(&Op) -> bool + 'static,
    change: impl Fn(&mut Item) + 'static,
) {
    let key = zae_limiter_core::schema::resource_config_key(&desk.namespace, &desk.resource);
    desk.meddle = Some(Box::new(move |_, op, table| {
        if is_moment(op) {
            let mut item = table.get(&key).unwrap().clone();
            change(&mut item);
            table.insert(item).unwrap();
        }
        None
    }));
    desk.forget();
}

/// The bypass ends while the bucket is created under it: the operator has looked for buckets by then.
#[test]
fn a_bucket_that_is_created_too_late_loses_its_stamp() {
    let mut desk = desk();
    say(&mut desk, Some(Access::Bypass));
    let is_creation = |op: &Op| matches!(op, Op::Transact(_));
    changed_before(&mut desk, is_creation, |item| drop(item.remove("disabled")));
    desk.rejected("user", &[("rpm", 500)]);
    assert!(!desk.item("user", 0).contains_key("bypass"));
    assert_eq!(balance(&desk), (10_000, 0));
}

/// The limit that the request names goes with the bypass.
#[test]
fn a_bucket_that_is_created_too_late_loses_its_stamp_although_the_request_fails() {
    let mut desk = desk();
    say(&mut desk, Some(Access::Bypass));
    let is_creation = |op: &Op| matches!(op, Op::Transact(_));
    changed_before(&mut desk, is_creation, |item| {
        item.retain(|name, _| name != "disabled" && !name.starts_with("l_"));
    });
    let err = desk.failed("user", &[("rpm", 500)]);
    assert!(matches!(err, AcquireError::NotConfigured { .. }), "{err:?}");
    assert!(!desk.item("user", 0).contains_key("bypass"));
}

/// Simulator seed 46000007247: the shard that was drawn is gone, and the bucket has fewer than was remembered.
#[test]
fn a_request_that_changes_the_shard_is_counted_there() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    desk.poke("user", 0, &[("shard_count", Value::int(4))]);
    desk.forget();
    for _ in 0..40 {
        desk.now += 10_000;
        desk.admitted("user", &[("rpm", 1)]);
    }
    for shard in 1..4 {
        let _ = desk.item("user", shard);
        desk.table.remove(&desk.id("user").key(shard));
    }
    desk.poke(
        "user",
        0,
        &[("shard_count", Value::int(2)), ("b_rpm_tk", Value::int(0))],
    );
    say(&mut desk, Some(Access::Bypass));
    let remembered = desk.images.clone();
    desk.now += 61_000;
    for _ in 0..20 {
        desk.now += 1_000;
        desk.images = remembered.clone();
        let decision = desk.acquire("user", &[("rpm", 1)]);
        assert!(
            matches!(&decision, Decision::Admitted(grants) if grants[0].is_bypassed),
            "{decision:?}"
        );
    }
}

#[test]
fn an_expired_bucket_is_kept() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 10)]);
    say(&mut desk, Some(Access::Bypass));
    desk.now += DAY_MS;
    desk.forget();
    assert!(desk.admitted("user", &[("rpm", 500)])[0].is_bypassed);
    assert!(desk.int("user", 0, "ttl") > i128::from(desk.now / 1000));
    assert_eq!(balance(&desk).0, 10_000);
}

#[test]
fn write_units_refuse_nothing() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    desk.poke("user", 0, &[("b_wcu_tk", Value::int(0))]);
    set(&mut desk, Some(Access::Bypass));
    desk.forget();
    assert!(desk.admitted("user", &[("rpm", 500)])[0].is_bypassed);
}

#[test]
fn the_parent_enforces_its_own_limits() {
    let mut desk = desk();
    desk.configure_entity("parent", &[per_minute("rpm", 5)]);
    desk.entity("user", Some("parent"), true);
    desk.admitted("user", &[("rpm", 1)]);
    let key = desk.entity_config_key("user");
    let mut item = zae_limiter_core::schema::key_item(&key);
    item.insert("disabled".into(), Access::Bypass.value());
    desk.table.insert(item).unwrap();
    desk.forget();
    let grants = desk.admitted("user", &[("rpm", 4)]);
    assert_eq!(
        grants.iter().map(|grant| grant.is_bypassed).collect::<Vec<_>>(),
        [true, false]
    );
    // The entity's own limit is not named, which 500 would exceed.
    let why = desk.rejected("user", &[("rpm", 500)]);
    assert!(
        why.statuses()
            .iter()
            .all(|status| status.entity.as_str() == "parent"),
        "{why:?}"
    );
    let why = desk.rejected("user", &[("rpm", 1)]);
    assert!(
        why.violations().all(|status| status.entity.as_str() == "parent"),
        "{why:?}"
    );
}

/// A request on which limits were imposed by the call: they may not even stand on the item.
#[test]
fn limits_of_a_call_are_bypassed_too() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    set(&mut desk, Some(Access::Bypass));
    desk.limits = Some(vec![per_minute("rpm", 2), per_minute("other", 2)]);
    desk.forget();
    let grants = desk.admitted("user", &[("rpm", 7), ("other", 9)]);
    assert!(grants[0].is_bypassed);
    assert_eq!(grants[0].amounts.len(), 1, "what the item lacks is not counted");
    assert!(!desk.item("user", 0).contains_key("b_other_tc"));
}

#[test]
fn a_large_request_on_a_split_bucket_is_counted_on_one_shard() {
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    desk.poke("user", 0, &[("shard_count", Value::int(2))]);
    desk.remember_only_the_count("user", 2);
    desk.admitted("user", &[("rpm", 4)]);
    set(&mut desk, Some(Access::Bypass));
    for _ in 0..6 {
        desk.remember_only_the_count("user", 2);
        let grants = desk.admitted("user", &[("rpm", 9)]);
        assert_eq!((grants.len(), grants[0].is_bypassed), (1, true));
    }
}

#[test]
fn a_correction_changes_the_count_alone() {
    let mut desk = desk();
    set(&mut desk, None);
    desk.admitted("user", &[("rpm", 1)]);
    set(&mut desk, Some(Access::Bypass));
    desk.admitted("user", &[("rpm", 50)]);
    let key = desk.id("user").key(0);
    let delta = |tokens| [("rpm".into(), Millitokens::from_tokens(tokens))];
    let correct = |desk: &mut Desk, tokens| {
        let update = correct_count(key.clone(), &delta(tokens));
        matches!(desk.table.call(&Op::Update(update)), Ok(Answer::Applied(_)))
    };
    assert!(correct(&mut desk, 30));
    assert!(correct(&mut desk, -5));
    assert_eq!(balance(&desk), (9_000, 26_000));
    // Never creates a limit.
    let update = correct_count(key, &[("gone".into(), Millitokens::from_tokens(1))]);
    assert!(matches!(
        desk.table.call(&Op::Update(update)),
        Ok(Answer::Refused(_))
    ));
}

/// A parent has no bucket to debit if it has none of the limits that are asked for.
#[test]
fn a_disabled_parent_refuses_without_a_limit_in_common() {
    let mut desk = desk();
    desk.entity("project", None, false);
    desk.entity("user", Some("project"), true);
    desk.configure_entity("project", &[per_minute("other", 10)]);
    desk.admitted("user", &[("rpm", 1)]);
    let key = desk.entity_config_key("project");
    let say = |desk: &mut Desk, access: Option<Access>| {
        let mut item = desk.table.get(&key).unwrap().clone();
        item.remove("disabled");
        item.extend(access.map(|access| ("disabled".to_owned(), access.value())));
        desk.table.insert(item).unwrap();
        desk.now += 1;
    };
    say(&mut desk, Some(Access::Disabled));
    desk.forget();
    let before = balance(&desk).0;
    for _ in 0..2 {
        let decision = desk.acquire("user", &[("rpm", 1)]);
        let Decision::Disabled { bucket, .. } = decision else {
            panic!("{decision:?}");
        };
        assert_eq!(bucket.entity.as_str(), "project");
        assert_eq!(
            balance(&desk).0,
            before,
            "what was taken of the key is given back"
        );
    }
    // What the cache holds is looked at again before it refuses.
    say(&mut desk, None);
    desk.admitted("user", &[("rpm", 1)]);
    assert!(desk.table.get(&desk.id("project").key(0)).is_none());
}

/// That an entity is disabled is said before mistakes in the request, which do not matter as long as it is.
#[test]
fn what_is_disabled_is_said_before_what_is_not_configured() {
    let unknown = |desk: &mut Desk| desk.acquire("user", &[("rpm", 1), ("nothing", 1)]);
    let is_mistake = |decision: &Decision| matches!(decision, Decision::Failed(AcquireError::Input(_)));
    let mut desk = desk();
    desk.admitted("user", &[("rpm", 1)]);
    assert!(is_mistake(&unknown(&mut desk)));
    set(&mut desk, Some(Access::Disabled));
    desk.forget();
    assert!(matches!(unknown(&mut desk), Decision::Disabled { .. }));
    // What is cached disables no more: the configuration is read, and the request is what it is.
    set(&mut desk, None);
    desk.now += 1;
    assert!(is_mistake(&unknown(&mut desk)));
    assert_eq!(balance(&desk), (9_000, 1_000));

    // Without any limits.
    set(&mut desk, Some(Access::Disabled));
    let key = zae_limiter_core::schema::resource_config_key(&desk.namespace, &desk.resource);
    let mut item = desk.table.get(&key).unwrap().clone();
    item.retain(|name, _| !name.starts_with("l_"));
    desk.table.insert(item).unwrap();
    desk.forget();
    assert!(matches!(
        desk.acquire("other", &[("rpm", 1)]),
        Decision::Disabled { .. }
    ));
    say(&mut desk, None);
    desk.now += 1;
    let decision = desk.acquire("other", &[("rpm", 1)]);
    let is_right = matches!(decision, Decision::Failed(AcquireError::NotConfigured { .. }));
    assert!(is_right, "{decision:?}");
}

/// A debit that was sent before its client knew of the bypass. Its bucket refuses nothing, so that it has no part in the refusal by
/// another one.
#[test]
fn a_bucket_that_is_stamped_has_no_statuses() {
    let mut desk = desk();
    let mut grants = desk.admitted("user", &[("rpm", 10)]);
    let now = EpochMillis(desk.now);
    assert_eq!(statuses_after(&grants, now).len(), 1);
    let mut image = (*grants[0].image).clone();
    image.bypass = Some(now.plus(1));
    grants[0].image = Arc::new(image);
    assert_eq!(statuses_after(&grants, now), []);
    assert_eq!(statuses_after(&grants, now.plus(1)).len(), 1, "it has passed");
}

//! Tests of [`super`]: the texts, and the aliases behind them.

use std::sync::Arc;

use super::*;
use zae_limiter_core::table::{Key, Value};

#[track_caller]
fn check(condition: Condition, expected: Option<&str>) {
    assert_eq!(
        Renderer::default().condition(condition).unwrap().as_deref(),
        expected
    );
}

fn exists(name: &str) -> Condition {
    Condition::Exists(name.into())
}

#[test]
fn conditions_read_as_expressions() {
    check(Condition::ALWAYS, None);
    check(exists("a b"), Some("attribute_exists(#0)"));
    check(Condition::Is("n".into(), Value::int(1)), Some("#0 = :0"));
    check(
        Condition::IsNot("n".into(), Value::int(1)),
        Some("(attribute_not_exists(#0) OR #0 <> :0)"),
    );
    check(
        Condition::All(vec![
            Condition::AtLeast("n".into(), 1),
            Condition::AtMost("n".into(), 2),
        ]),
        Some("#0 >= :0 AND #0 <= :1"),
    );
    check(
        Condition::All(vec![
            exists("a"),
            Condition::Any(vec![exists("b"), Condition::Absent("a".into())]),
        ]),
        Some("attribute_exists(#0) AND (attribute_exists(#1) OR attribute_not_exists(#0))"),
    );
}

#[test]
fn parts_without_a_say_are_dropped() {
    check(
        Condition::All(vec![Condition::ALWAYS, exists("a"), Condition::ALWAYS]),
        Some("attribute_exists(#0)"),
    );
    check(Condition::Any(vec![exists("a"), Condition::ALWAYS]), None);
    check(
        Condition::Any(vec![exists("a"), Condition::Any(Vec::new())]),
        Some("attribute_exists(#0)"),
    );
    let never = Condition::All(vec![exists("a"), Condition::Any(Vec::new())]);
    let err = Renderer::default().condition(never).unwrap_err();
    assert_eq!((err.kind, err.applied), (FailureKind::BadRequest, Applied::No));
}

#[test]
fn an_update_has_its_sections_in_order_and_shares_aliases_with_its_condition() {
    let mut update = Update {
        set: vec![("s".into(), Value::text("x")), ("t".into(), Value::Null)],
        copy: vec![("copy".into(), "n".into())],
        add: vec![("n".into(), -1)],
        add_to_set: vec![("set".into(), "b".into()), ("set".into(), "a".into())],
        delete_from_set: vec![("old".into(), "z".into())],
        remove: vec!["r".into(), "q".into()],
        ..Update::new(Key {
            pk: "p".into(),
            sk: "s".into(),
        })
    };
    let mut render = Renderer::default();
    let change = render.change(&mut update).unwrap();
    assert_eq!(
        change,
        "SET #0 = :0, #1 = :1, #2 = if_not_exists(#3, :2) ADD #3 :3, #4 :4 DELETE #5 :5 REMOVE #6, #7"
    );
    assert_eq!(
        render
            .condition(Condition::AtLeast("n".into(), 7))
            .unwrap()
            .unwrap(),
        "#3 >= :6"
    );
    let aliases = render.finish();
    let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(aliases.values[4], Value::Ss(both));
    assert_eq!(aliases.values[6], Value::int(7));
    assert_eq!(aliases.names[2..4], ["copy", "n"]);
}

#[test]
fn a_change_may_start_with_any_section() {
    let key = Key {
        pk: "p".into(),
        sk: "s".into(),
    };
    let mut update = Update {
        remove: vec!["r".into()],
        ..Update::new(key.clone())
    };
    assert_eq!(Renderer::default().change(&mut update).unwrap(), "REMOVE #0");
    let mut render = Renderer::default();
    assert_eq!(render.change(&mut Update::new(key)), None);
    let aliases = render.finish();
    assert!(aliases.names.is_empty() && aliases.values.is_empty());
}

#[test]
fn key_ranges_leave_out_an_empty_prefix() {
    let range = |sort| Renderer::default().key_range(("PK", "p".into()), ("SK", sort));
    assert_eq!(range(SortKeys::All), "#0 = :0");
    assert_eq!(range(SortKeys::Prefix(String::new())), "#0 = :0");
    assert_eq!(
        range(SortKeys::Prefix("#A".into())),
        "#0 = :0 AND begins_with(#1, :1)"
    );
    assert_eq!(
        range(SortKeys::Between("a".into(), "b".into())),
        "#0 = :0 AND #1 BETWEEN :1 AND :2"
    );
}

#[test]
fn aliases_go_past_nine_and_ninety_nine() {
    assert_eq!(
        [('#', 0), (':', 10), ('#', 123)].map(|(sigil, i)| {
            let mut text = String::new();
            push_alias(&mut text, sigil, i);
            text
        }),
        ["#0", ":10", "#123"]
    );
}

/// What an acquire of `taken` limits sends for an idle bucket that holds `held` limits, and lacks `seeds` of those asked
/// for; or that it refuses to.
fn refill(held: usize, taken: usize, seeds: usize) -> Option<Update> {
    use zae_limiter_core::acquire::{Acquire, Ask, Decision, Found, Hint, Reply, Request, Settings};
    use zae_limiter_core::config::Config;
    use zae_limiter_core::resolve::{Stored, resolve};
    use zae_limiter_core::schema::BucketId;
    use zae_limiter_core::table::{Answer, Op};
    use zae_limiter_core::{EntityId, EpochMillis, Limit, LimitName, Millitokens, NamespaceId, ResourceName};

    let now = EpochMillis(1_795_290_000_000);
    let id = BucketId {
        namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
        entity: EntityId::new("e").unwrap(),
        resource: ResourceName::new("r").unwrap(),
    };
    let name = |n: usize| LimitName::new(format!("limit-{n}")).unwrap();
    let mut item = id.key_attributes(0);
    item.insert("rf".into(), Value::int(now.0 - 60_000));
    item.insert("parent_id".into(), Value::text("p"));
    item.insert("pgen".into(), Value::int(7));
    item.insert("pinc".into(), Value::text("80729c5437a39750"));
    item.insert("ttl".into(), Value::int(now.0));
    for n in seeds..seeds + held {
        for (part, value) in [
            ("tk", 1),
            ("tc", 1),
            ("cp", 10_000),
            ("ra", 10_000),
            ("rp", 60_000),
        ] {
            item.insert(format!("b_{}_{part}", name(n)), Value::int(value));
        }
    }
    let limits = (0..taken).map(|n| Limit::per_minute(name(n).as_str(), 10).build().unwrap());
    let level = Stored {
        config: Some(Config {
            limits: limits.collect(),
            ..Config::default()
        }),
        ..Stored::default()
    };
    let none = Stored::default();
    let config = resolve(&id.entity, [&none, &none, &none, &none, &level, &none], now);
    let mut acquire = Acquire::new(Request {
        id,
        consume: (0..taken).map(|n| (name(n), Millitokens(1000))).collect(),
        also: Vec::new(),
        limits: None,
        overdraws: false,
        settings: Settings::default(),
        slices: None,
    });
    let random = &mut crate::acquire::draws::FastRandom;
    let config = Arc::new(config);
    let known = |_: &EntityId, _: &ResourceName| {
        Some(Found {
            config: Arc::clone(&config),
            hint: Hint::default(),
        })
    };
    acquire.start(&known, now, random);
    let answer = Reply::Table(Ok(Answer::Refused(Some(item))));
    let calls = acquire.answer(0, answer, now, random);
    match calls.into_iter().next().map(|call| call.ask) {
        Some(Ask::Table(Op::Update(update))) => Some(update),
        Some(Ask::Debit(debit)) => Some(debit.update(now)),
        None => {
            assert!(matches!(acquire.decision(), Some(Decision::Failed(_))));
            None
        }
        other => panic!("{other:?}"),
    }
}

/// DynamoDB takes expressions of up to 4,096 bytes. What would be longer is refused with an error that says why.
#[test]
fn a_refill_of_many_limits_is_short_enough_or_is_not_sent() {
    let mut most = 0;
    for held in 1..60 {
        for taken in [1, held / 2, held, 24] {
            for seeds in [0, taken / 2, taken] {
                if taken == 0 || taken > 24 || held + seeds < taken {
                    continue;
                }
                let Some(mut update) = refill(held, taken, seeds) else {
                    continue;
                };
                let condition = std::mem::replace(&mut update.condition, Condition::ALWAYS);
                let mut renderer = Renderer::default();
                let change = renderer.change(&mut update).unwrap();
                let condition = renderer.condition(condition).unwrap().unwrap();
                assert!(change.len() <= 4096, "{held}, {taken}, {seeds}: {}", change.len());
                assert!(
                    condition.len() <= 4096,
                    "{held}, {taken}, {seeds}: {}",
                    condition.len()
                );
                most = most.max(condition.len());
            }
        }
    }
    assert!(
        most > 3500,
        "the estimate is far too high: the longest condition has {most} bytes"
    );
    assert!(refill(24, 24, 0).is_some());
    assert!(refill(40, 1, 0).is_none());
}

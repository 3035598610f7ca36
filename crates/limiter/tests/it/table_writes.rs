//! Conditions, updates, transactions: bodies of the suite in `table`.

use std::collections::BTreeMap;

use zae_limiter::table::{Table, TableExt as _, Transacted, Write};
use zae_limiter_core::table::{
    Applied, Cancelled, Condition, Delete, FailureKind, Key, Part, Put, Update, Value,
};

use crate::support::{add, item, key, put, set, set_of};

async fn check(table: &dyn Table, key: &Key, condition: Condition, holds: bool) {
    let update = Update {
        condition: condition.clone(),
        ..set(key, "mark", Value::Null)
    };
    assert_eq!(
        table.update(update).await.unwrap().is_applied(),
        holds,
        "{condition:?}"
    );
}

pub(crate) async fn conditions_of_every_kind(table: &dyn Table) {
    use Condition as C;
    let k = key("p", "s");
    let stored = item(
        &k,
        [
            ("n", Value::int(-5)),
            ("s", Value::text("5")),
            ("yes", Value::Bool(true)),
            ("nothing", Value::Null),
            ("set", set_of(&["a", "b"])),
        ],
    );
    assert!(table.put(put(stored)).await.unwrap().is_applied());

    for (condition, holds) in [
        (C::Exists("n".into()), true),
        (C::Exists("x".into()), false),
        (C::Absent("x".into()), true),
        (C::Absent("n".into()), false),
        (C::Is("n".into(), Value::N("-05".into())), true),
        (C::Is("n".into(), Value::text("-5")), false),
        (C::Is("s".into(), Value::text("5")), true),
        (C::Is("s".into(), Value::int(5)), false),
        (C::Is("yes".into(), Value::Bool(true)), true),
        (C::Is("nothing".into(), Value::Null), true),
        (C::Is("set".into(), set_of(&["b", "a"])), true),
        (C::Is("set".into(), set_of(&["a"])), false),
        (C::Is("x".into(), Value::int(0)), false),
        (C::IsNot("n".into(), Value::int(-5)), false),
        (C::IsNot("n".into(), Value::int(5)), true),
        (C::IsNot("s".into(), Value::int(5)), true),
        (C::IsNot("x".into(), Value::int(0)), true),
        (C::AtLeast("n".into(), -5), true),
        (C::AtLeast("n".into(), -4), false),
        (C::AtLeast("s".into(), 0), false),
        (C::AtLeast("x".into(), -100), false),
        (C::AtMost("n".into(), -5), true),
        (C::AtMost("n".into(), -6), false),
        (C::AtMost("x".into(), 100), false),
        (
            C::All(vec![C::Exists("n".into()), C::AtLeast("n".into(), -9), C::ALWAYS]),
            true,
        ),
        (C::All(vec![C::Exists("n".into()), C::Exists("x".into())]), false),
        (C::Any(vec![C::Exists("x".into()), C::Exists("n".into())]), true),
        (
            C::Any(vec![
                C::Exists("x".into()),
                C::Exists("y".into()),
                C::Any(Vec::new()),
            ]),
            false,
        ),
        (C::Any(vec![C::Exists("x".into()), C::ALWAYS]), true),
        // Brackets matter: "or" binds weaker than "and".
        (
            C::All(vec![
                C::Exists("x".into()),
                C::Any(vec![C::Exists("n".into()), C::Exists("s".into())]),
            ]),
            false,
        ),
        (
            C::Any(vec![
                C::Exists("n".into()),
                C::All(vec![C::Exists("x".into()), C::Exists("y".into())]),
            ]),
            true,
        ),
    ] {
        check(table, &k, condition, holds).await;
    }
}

pub(crate) async fn conditions_that_need_no_item(table: &dyn Table) {
    check(table, &key("a", "1"), Condition::Exists("PK".into()), false).await;
    check(
        table,
        &key("a", "2"),
        Condition::Is("n".into(), Value::int(0)),
        false,
    )
    .await;
    check(table, &key("a", "3"), Condition::AtMost("n".into(), 0), false).await;
    check(
        table,
        &key("a", "4"),
        Condition::IsNot("n".into(), Value::int(0)),
        true,
    )
    .await;
    check(table, &key("a", "5"), Condition::Absent("PK".into()), true).await;
    check(table, &key("a", "6"), Condition::ALWAYS, true).await;
    check(table, &key("a", "6"), Condition::Absent("PK".into()), false).await;
}

pub(crate) async fn odd_attribute_names_are_plain_data(table: &dyn Table) {
    let k = key("p", "s");
    let odd = ["b_tok-en.s_tk", "a b", "#0", ":0", "size", "l[0]", "größe", "0"];
    let mut update = Update::new(k.clone());
    update.set = odd.iter().map(|name| ((*name).into(), Value::int(1))).collect();
    assert!(table.update(update).await.unwrap().is_applied());

    let mut update = Update::new(k.clone());
    update.add = odd.iter().map(|name| ((*name).into(), 1)).collect();
    update.condition = Condition::All(
        odd.iter()
            .map(|name| Condition::AtLeast((*name).into(), 1))
            .collect(),
    );
    let Write::Applied(image) = table.update(update).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(image, item(&k, odd.map(|name| (name, Value::int(2)))));

    let remove = Update {
        remove: odd.iter().map(|name| (*name).into()).collect(),
        ..Update::new(k.clone())
    };
    assert_eq!(table.update(remove).await.unwrap(), Write::Applied(item(&k, [])));
}

pub(crate) async fn every_type_of_value_comes_back_as_it_went(table: &dyn Table) {
    let k = key("p", "s");
    let map = BTreeMap::from([
        ("empty".to_owned(), Value::M(BTreeMap::new())),
        (
            "list".to_owned(),
            Value::L(vec![Value::int(1), Value::Null, Value::L(Vec::new())]),
        ),
    ]);
    let stored = item(
        &k,
        [
            ("s", Value::text("tab\t quote\" ünï 🦀")),
            ("empty", Value::text("")),
            ("n", Value::int(-1)),
            ("fraction", Value::N("1.5".into())),
            ("yes", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("null", Value::Null),
            ("m", Value::M(map)),
            ("l", Value::L(vec![Value::text("a"), Value::M(BTreeMap::new())])),
            ("ss", set_of(&["a", "b"])),
        ],
    );
    assert!(table.put(put(stored.clone())).await.unwrap().is_applied());
    assert_eq!(table.get(k.clone(), true).await.unwrap(), Some(stored.clone()));

    let mut update = Update::new(key("p", "t"));
    update.set = stored
        .iter()
        .filter(|(n, _)| *n != "PK" && *n != "SK")
        .map(|(n, v)| (n.into(), v.clone()))
        .collect();
    let Write::Applied(image) = table.update(update).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(image["m"], stored["m"]);
    assert_eq!(image.len(), stored.len());
}

pub(crate) async fn numbers_of_38_digits_are_exact(table: &dyn Table) {
    let k = key("p", "s");
    let most = 10_i128.pow(38) - 1;
    for (delta, sum) in [(most - 1, most - 1), (1, most), (-most, 0), (-most, -most)] {
        let Write::Applied(image) = table.update(add(&k, "n", delta)).await.unwrap() else {
            panic!("refused")
        };
        assert_eq!(image["n"].as_int(), Some(sum));
    }
    check(table, &k, Condition::AtMost("n".into(), -most), true).await;
    check(table, &k, Condition::AtMost("n".into(), -most - 1 + 1), true).await;
    check(table, &k, Condition::AtLeast("n".into(), -most + 1), false).await;
    let err = table.update(add(&k, "n", -2)).await.unwrap_err();
    assert_eq!(
        (err.kind, err.applied),
        (FailureKind::BadRequest, Applied::No),
        "{err}"
    );
}

pub(crate) async fn updates_change_what_they_say_and_return_the_new_image(table: &dyn Table) {
    let k = key("p", "s");
    assert!(
        table
            .put(put(item(&k, [("old", Value::int(1)), ("n", Value::int(10))])))
            .await
            .unwrap()
            .is_applied()
    );
    let update = Update {
        set: vec![
            ("text".into(), Value::text("x")),
            ("flag".into(), Value::Bool(false)),
        ],
        add: vec![("n".into(), -15), ("fresh".into(), -1)],
        add_to_set: vec![
            ("set".into(), "a".into()),
            ("set".into(), "b".into()),
            ("set".into(), "a".into()),
        ],
        delete_from_set: vec![("none".into(), "z".into())],
        remove: vec!["old".into(), "never".into()],
        ..Update::new(k.clone())
    };
    let expected = item(
        &k,
        [
            ("text", Value::text("x")),
            ("flag", Value::Bool(false)),
            ("n", Value::int(-5)),
            ("fresh", Value::int(-1)),
            ("set", set_of(&["a", "b"])),
        ],
    );
    assert_eq!(
        table.update(update).await.unwrap(),
        Write::Applied(expected.clone())
    );
    assert_eq!(table.get(k, true).await.unwrap(), Some(expected));
}

pub(crate) async fn an_update_copies_what_was_there_before(table: &dyn Table) {
    let k = key("p", "s");
    let stored = item(&k, [("n", Value::int(10)), ("old", Value::text("x"))]);
    assert!(table.put(put(stored)).await.unwrap().is_applied());
    let update = Update {
        copy: vec![("before".into(), "n".into())],
        add: vec![("n".into(), 5)],
        ..Update::new(k.clone())
    };
    let Write::Applied(written) = table.update(update.clone()).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(written["before"], Value::int(10));
    assert_eq!(written["n"], Value::int(15));
    let nothing = Update {
        copy: vec![("before".into(), "none".into())],
        ..Update::new(k.clone())
    };
    let Write::Applied(written) = table.update(nothing).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(written["before"], Value::int(0));
    assert_eq!(table.get(k, true).await.unwrap(), Some(written));
}

pub(crate) async fn an_update_of_nothing_creates_the_item(table: &dyn Table) {
    for (sk, update) in [
        ("nothing", Update::new(key("p", "nothing"))),
        (
            "remove",
            Update {
                remove: vec!["x".into()],
                ..Update::new(key("p", "remove"))
            },
        ),
    ] {
        let k = key("p", sk);
        assert_eq!(table.update(update).await.unwrap(), Write::Applied(item(&k, [])));
        assert_eq!(table.get(k.clone(), true).await.unwrap(), Some(item(&k, [])));
    }
}

pub(crate) async fn sets_grow_shrink_and_vanish(table: &dyn Table) {
    let k = key("p", "s");
    let grow = |texts: &[&str]| Update {
        add_to_set: texts
            .iter()
            .map(|text| ("set".into(), (*text).to_owned()))
            .collect(),
        ..Update::new(k.clone())
    };
    let shrink = |texts: &[&str]| Update {
        delete_from_set: texts
            .iter()
            .map(|text| ("set".into(), (*text).to_owned()))
            .collect(),
        ..Update::new(k.clone())
    };
    for (update, expected) in [
        (grow(&["b", "a"]), Some(set_of(&["a", "b"]))),
        (grow(&["b", "c"]), Some(set_of(&["a", "b", "c"]))),
        (shrink(&["a", "z"]), Some(set_of(&["b", "c"]))),
        (shrink(&["b", "c"]), None),
        (shrink(&["b"]), None),
    ] {
        let Write::Applied(image) = table.update(update).await.unwrap() else {
            panic!("refused")
        };
        assert_eq!(image.get("set"), expected.as_ref());
    }
}

pub(crate) async fn refused_writes_return_the_stored_item(table: &dyn Table) {
    let (here, gone) = (key("p", "here"), key("p", "gone"));
    let stored = item(&here, [("n", Value::int(1))]);
    assert!(table.put(put(stored.clone())).await.unwrap().is_applied());
    let never = || Condition::AtLeast("n".into(), 100);

    for (k, image) in [(&here, Some(stored.clone())), (&gone, None)] {
        let update = Update {
            condition: never(),
            ..add(k, "n", 1)
        };
        assert_eq!(table.update(update).await.unwrap(), Write::Refused(image.clone()));
        let replace = Put {
            item: item(k, []),
            condition: never(),
        };
        assert_eq!(table.put(replace).await.unwrap(), Write::Refused(image.clone()));
        let delete = Delete {
            key: k.clone(),
            condition: never(),
        };
        assert_eq!(table.delete(delete).await.unwrap(), Write::Refused(image.clone()));
        assert_eq!(table.get(k.clone(), true).await.unwrap(), image);
    }
    let delete = Delete {
        key: here.clone(),
        condition: Condition::AtLeast("n".into(), 1),
    };
    assert_eq!(table.delete(delete).await.unwrap(), Write::Applied(()));
    let again = Delete {
        key: here,
        condition: Condition::ALWAYS,
    };
    assert_eq!(table.delete(again).await.unwrap(), Write::Applied(()));
}

pub(crate) async fn transactions_happen_as_a_whole(table: &dyn Table) {
    let keys = ["put", "update", "delete", "check"].map(|sk| key("p", sk));
    for k in &keys[1..] {
        assert!(
            table
                .put(put(item(k, [("n", Value::int(1))])))
                .await
                .unwrap()
                .is_applied()
        );
    }
    let parts = vec![
        Part::Put(Put {
            item: item(&keys[0], []),
            condition: Condition::Absent("PK".into()),
        }),
        Part::Update(Update {
            condition: Condition::AtMost("n".into(), 1),
            ..add(&keys[1], "n", 1)
        }),
        Part::Delete(Delete {
            key: keys[2].clone(),
            condition: Condition::Exists("n".into()),
        }),
        Part::Check(keys[3].clone(), Condition::Is("n".into(), Value::int(1))),
    ];
    assert_eq!(table.transact(parts).await.unwrap(), Transacted::Applied);
    let mut found = table.batch_get(keys.to_vec(), true).await.unwrap();
    found.sort_by_key(|item| item["SK"].as_text().map(str::to_owned));
    let expected = [
        item(&keys[3], [("n", Value::int(1))]),
        item(&keys[0], []),
        item(&keys[1], [("n", Value::int(2))]),
    ];
    assert_eq!(found, expected);
}

pub(crate) async fn cancelled_transactions_say_why(table: &dyn Table) {
    let (here, gone, fresh) = (key("p", "here"), key("p", "gone"), key("p", "fresh"));
    let stored = item(&here, [("n", Value::int(1))]);
    assert!(table.put(put(stored.clone())).await.unwrap().is_applied());
    let parts = vec![
        Part::Put(put(item(&fresh, []))),
        Part::Update(Update {
            condition: Condition::AtLeast("n".into(), 2),
            ..add(&here, "n", 1)
        }),
        Part::Check(gone.clone(), Condition::Exists("PK".into())),
        Part::Delete(Delete {
            key: key("p", "other"),
            condition: Condition::ALWAYS,
        }),
    ];
    let expected = Transacted::Cancelled(vec![
        Cancelled::Fine,
        Cancelled::Refused(Some(stored.clone())),
        Cancelled::Refused(None),
        Cancelled::Fine,
    ]);
    assert_eq!(table.transact(parts).await.unwrap(), expected);
    assert_eq!(
        table.batch_get(vec![here, gone, fresh], true).await.unwrap(),
        [stored]
    );
}

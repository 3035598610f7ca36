//! Queries, batches and malformed requests: bodies of the suite in `table`.

use zae_limiter::table::{Table, TableExt as _};
use zae_limiter_core::table::{
    Applied, Condition, FailureKind, Index, Item, Key, Op, Part, Query, Update, Value,
};

use crate::support::{add, fill, item, key, put, query, set, sort_keys};

pub(crate) async fn queries_page_in_both_directions(table: &dyn Table) {
    fill(table, "p", &["e", "a", "d", "b", "c"]).await;
    fill(table, "other", &["x"]).await;
    for descending in [false, true] {
        let mut expected = ["a", "b", "c", "d", "e"];
        if descending {
            expected.reverse();
        }
        let all = Query {
            descending,
            consistent: true,
            ..query(Index::Primary, "p")
        };
        assert_eq!(sort_keys(&table.query_all(all.clone()).await.unwrap()), expected);

        let mut page = Query {
            limit: Some(2),
            ..all.clone()
        };
        let (first, next) = table.query_page(page.clone()).await.unwrap();
        assert_eq!(sort_keys(&first), expected[..2]);
        assert_eq!(next.as_ref(), Some(&item(&key("p", expected[1]), [])));
        page.start = next;
        let (second, _) = table.query_page(page).await.unwrap();
        assert_eq!(sort_keys(&second), expected[2..4]);

        let paged = table
            .query_all(Query {
                limit: Some(2),
                ..all
            })
            .await
            .unwrap();
        assert_eq!(sort_keys(&paged), expected);
    }
    let (none, next) = table.query_page(query(Index::Primary, "nobody")).await.unwrap();
    assert!(none.is_empty() && next.is_none());
}

pub(crate) async fn queries_by_prefix(table: &dyn Table) {
    fill(table, "p", &["#A", "#AB#1", "#AB#2", "#AC", "z"]).await;
    let by = |prefix: &str| query(Index::Primary, "p").prefix(prefix);
    assert_eq!(
        sort_keys(&table.query_all(by("#AB#")).await.unwrap()),
        ["#AB#1", "#AB#2"]
    );
    assert_eq!(
        sort_keys(&table.query_all(by("#")).await.unwrap()),
        ["#A", "#AB#1", "#AB#2", "#AC"]
    );
    let last = Query {
        descending: true,
        limit: Some(1),
        ..by("#A")
    };
    assert_eq!(sort_keys(&table.query_page(last).await.unwrap().0), ["#AC"]);
    assert!(table.query_all(by("y")).await.unwrap().is_empty());

    let between = |first, last| query(Index::Primary, "p").between(first, last);
    assert_eq!(
        sort_keys(&table.query_all(between("#AB", "#AC")).await.unwrap()),
        ["#AB#1", "#AB#2", "#AC"]
    );
    assert!(table.query_all(between("#AD", "y")).await.unwrap().is_empty());
}

pub(crate) async fn global_indexes_hold_items_with_both_keys(table: &dyn Table) {
    for (index, n) in [
        (Index::Gsi1, 1),
        (Index::Gsi2, 2),
        (Index::Gsi3, 3),
        (Index::Gsi4, 4),
    ] {
        let (hash, range) = (format!("GSI{n}PK"), format!("GSI{n}SK"));
        let (both, half) = (key("p", &format!("both{n}")), key("p", &format!("half{n}")));
        let keys = [
            (&*hash, Value::text("h")),
            (&*range, Value::text("r")),
            ("n", Value::int(1)),
        ];
        assert!(table.put(put(item(&both, keys))).await.unwrap().is_applied());
        assert!(
            table
                .put(put(item(&half, [(&*hash, Value::text("h"))])))
                .await
                .unwrap()
                .is_applied()
        );
        let found = table.query_all(query(index, "h")).await.unwrap();
        assert_eq!(sort_keys(&found), [both.sk.as_str()]);

        // An item leaves an index when it loses a key, and enters it when it gains one.
        let leave = Update {
            remove: vec![range.as_str().into()],
            ..Update::new(both)
        };
        assert!(table.update(leave).await.unwrap().is_applied());
        assert!(
            table
                .update(set(&half, &range, Value::text("r")))
                .await
                .unwrap()
                .is_applied()
        );
        let found = table.query_all(query(index, "h")).await.unwrap();
        assert_eq!(sort_keys(&found), [half.sk.as_str()]);
    }
}

pub(crate) async fn keys_only_indexes_project(table: &dyn Table) {
    let k = key("p", "s");
    let mut whole = item(&k, [("n", Value::int(1))]);
    for n in 1..=4 {
        whole.insert(format!("GSI{n}PK"), Value::text(format!("h{n}")));
        whole.insert(format!("GSI{n}SK"), Value::text(format!("r{n}")));
    }
    assert!(table.put(put(whole.clone())).await.unwrap().is_applied());
    for (index, hash) in [(Index::Gsi1, "h1"), (Index::Gsi2, "h2")] {
        assert_eq!(
            table.query_all(query(index, hash)).await.unwrap(),
            [whole.clone()]
        );
    }
    for (index, n) in [(Index::Gsi3, 3), (Index::Gsi4, 4)] {
        let (hash, range) = (format!("GSI{n}PK"), format!("GSI{n}SK"));
        let expected = item(
            &k,
            [
                (&*hash, Value::text(format!("h{n}"))),
                (&*range, Value::text(format!("r{n}"))),
            ],
        );
        assert_eq!(
            table.query_all(query(index, &format!("h{n}"))).await.unwrap(),
            [expected]
        );
    }
}

pub(crate) async fn an_index_can_be_paged(table: &dyn Table) {
    fill(table, "p", &["a", "b", "c"]).await;
    // Items may share all keys of an index; none may be lost or come twice between pages.
    fill(table, "q", &["a", "b"]).await;
    for limit in 1..=6 {
        let paged = Query {
            limit: Some(limit),
            ..query(Index::Gsi4, "ns")
        };
        let found = table.query_all(paged).await.unwrap();
        assert_eq!(sort_keys(&found), ["a", "a", "b", "b", "c"], "pages of {limit}");
    }
}

pub(crate) async fn batches_of_more_than_a_hundred(table: &dyn Table) {
    let keys: Vec<Key> = (0..230).map(|n| key("p", &format!("{n:03}"))).collect();
    for k in keys.iter().step_by(2) {
        assert!(table.put(put(item(k, []))).await.unwrap().is_applied());
    }
    let mut found = table.batch_get(keys.clone(), false).await.unwrap();
    found.sort_by_key(|item| item["SK"].as_text().map(str::to_owned));
    let expected: Vec<Item> = keys.iter().step_by(2).map(|k| item(k, [])).collect();
    assert_eq!(found, expected);
    assert!(table.batch_get(Vec::new(), false).await.unwrap().is_empty());

    table.delete_all(keys[..200].to_vec()).await.unwrap();
    assert_eq!(table.batch_get(keys, true).await.unwrap().len(), 15);
}

pub(crate) async fn malformed_requests_are_bad_requests(table: &dyn Table) {
    let k = key("p", "s");
    assert!(
        table
            .put(put(item(&k, [("s", Value::text("x"))])))
            .await
            .unwrap()
            .is_applied()
    );
    let everything = Update {
        condition: Condition::Any(Vec::new()),
        ..add(&k, "n", 1)
    };
    let twice = Update {
        remove: vec!["n".into()],
        ..add(&k, "n", 1)
    };
    let many: Vec<Key> = (0..101).map(|n| key("p", &n.to_string())).collect();
    for op in [
        Op::Update(everything),
        Op::Update(twice),
        Op::Update(add(&k, "s", 1)),
        Op::Update(set(&k, "PK", Value::text("q"))),
        Op::Update(set(&k, "GSI1PK", Value::int(1))),
        Op::Update(set(&k, "x", Value::Other)),
        Op::Update(set(&k, "x", Value::Ss(std::collections::BTreeSet::new()))),
        Op::Update(set(&k, "x", Value::N("one".into()))),
        Op::Put(put(Item::new())),
        Op::Put(put(item(&key("", "s"), []))),
        Op::Get {
            key: key("p", ""),
            consistent: false,
        },
        Op::BatchGet {
            keys: many.clone(),
            consistent: false,
        },
        Op::BatchGet {
            keys: vec![k.clone(), k.clone()],
            consistent: false,
        },
        Op::BatchDelete(many[..26].to_vec()),
        Op::Query(Query {
            consistent: true,
            ..query(Index::Gsi1, "h")
        }),
        Op::Query(Query {
            limit: Some(0),
            ..query(Index::Primary, "h")
        }),
        Op::Transact(Vec::new()),
        Op::Transact(vec![Part::Check(k.clone(), Condition::ALWAYS)]),
        Op::Transact(vec![Part::Update(Update::new(k.clone()))]),
        Op::Transact(vec![Part::Update(add(&k, "n", 1)), Part::Update(add(&k, "m", 1))]),
    ] {
        let answer = table.call(op.clone()).await;
        let err = answer.expect_err(&format!("{op:?}"));
        assert_eq!(
            (err.kind, err.applied),
            (FailureKind::BadRequest, Applied::No),
            "{op:?}: {err}"
        );
    }
    assert_eq!(
        table.get(k.clone(), true).await.unwrap(),
        Some(item(&k, [("s", Value::text("x"))]))
    );
}

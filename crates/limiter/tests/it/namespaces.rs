//! Namespaces: registered, listed, deleted, recovered, purged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use zae_limiter::table::TableExt as _;
use zae_limiter::{Error, NamespaceId, NamespaceStatus, Repository, Stack};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::NamespaceName;
use zae_limiter_core::schema::{namespace_id_key, namespace_key};
use zae_limiter_core::table::{Delete, Item, Op, Value};

use crate::admin::{Admin, Meanwhile, Ruled, furnish, rpm};
use crate::support::{item, put};
use crate::world::Fault;

const NOW: &str = "2027-01-15T08:00:00Z";

fn forward(name: &str) -> zae_limiter_core::table::Key {
    namespace_key(&NamespaceName::new(name).unwrap())
}

/// A record of a namespace as the format shows it.
fn record(key: &zae_limiter_core::table::Key, name: &str, id: &NamespaceId, status: &str) -> Item {
    item(
        key,
        [
            ("namespace_id", Value::text(id.as_str())),
            ("namespace_name", Value::text(name)),
            ("status", Value::text(status)),
            ("created_at", Value::text(NOW)),
            ("GSI4PK", Value::text("_")),
            ("GSI4SK", Value::text("_/SYSTEM#")),
        ],
    )
}

async fn names(stack: &Stack) -> Vec<String> {
    let all = stack.namespaces().await.unwrap();
    all.into_iter().map(|record| record.name).collect()
}

async fn orphans(stack: &Stack) -> Vec<NamespaceId> {
    let all = stack.orphans().await.unwrap();
    all.into_iter().map(|record| record.id).collect()
}

/// The state that a call complains about.
#[track_caller]
fn state<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result.unwrap_err() {
        Error::NamespaceState { state, .. } => state,
        other => panic!("{other:?}"),
    }
}

/// Two namespaces with entities that have everything: the first deleted, the second in use.
async fn two_full(a: &Admin) -> (Stack, Repository, Repository) {
    let stack = a.repo.stack_handle();
    let (one, two) = (stack.open("one").await.unwrap(), stack.open("two").await.unwrap());
    for repo in [&one, &two] {
        for n in 0..4 {
            furnish(repo, &format!("key-{n}")).await;
        }
        repo.admin().set_resource_defaults("gpt-4", rpm(5)).await.unwrap();
        repo.admin().set_system_defaults(rpm(4), None).await.unwrap();
    }
    assert!(stack.delete_namespace("one").await.unwrap());
    (stack, one, two)
}

#[tokio::test]
async fn registering_writes_both_records_and_gives_the_same_id_again() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let id = stack.register_namespace("team/a b").await.unwrap();
    a.clock.advance(Duration::from_secs(5));
    assert_eq!(stack.register_namespace("team/a b").await.unwrap(), id);
    for key in [forward("team/a b"), namespace_id_key(&id)] {
        let expected = record(&key, "team/a b", &id, "active");
        assert_eq!(a.item(key).await, Some(expected));
    }
}

#[tokio::test]
async fn many_are_registered_at_once_and_listed_in_order() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let known = stack.register_namespace("n07").await.unwrap();
    let wanted: Vec<String> = (0..20).rev().map(|n| format!("n{n:02}")).collect();
    let ids = stack.register_namespaces(&wanted).await.unwrap();
    assert_eq!(ids["n07"], known);
    let distinct: std::collections::BTreeSet<_> = ids.values().map(NamespaceId::as_str).collect();
    assert_eq!((ids.len(), distinct.len()), (20, 20));
    let mut expected = wanted;
    expected.push("default".into());
    expected.sort();
    assert_eq!(names(&stack).await, expected);
    let listed: BTreeMap<_, _> = stack
        .namespaces()
        .await
        .unwrap()
        .into_iter()
        .map(|r| (r.name, r.id))
        .collect();
    assert!(ids.iter().all(|(name, id)| listed[name] == *id));
    assert!(orphans(&stack).await.is_empty());
}

#[tokio::test]
async fn names_are_checked_before_anything_is_written() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let before = a.dump(None).await;
    for bad in ["_", ""] {
        let many = stack.register_namespaces(["good", bad, "fine"]).await;
        let refused = [
            many.map(drop),
            stack.register_namespace(bad).await.map(drop),
            stack.delete_namespace(bad).await.map(drop),
            stack.namespace(bad).await.map(drop),
            stack.open(bad).await.map(drop),
            stack.connect(bad).await.map(drop),
        ];
        for result in refused {
            let Err(Error::InvalidInput(input)) = result else {
                panic!("{bad:?}: {result:?}")
            };
            assert_eq!((input.field(), input.value()), ("namespace", bad));
        }
    }
    assert_eq!(a.dump(None).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_register_one_name_at_once_get_one_id() {
    let a = Admin::new().await;
    let other = a.another().await;
    for round in 0..5 {
        let name = format!("race-{round}");
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let stack = if n % 2 == 0 { &a.repo } else { &other.repo }.stack_handle();
                let name = name.clone();
                tokio::spawn(async move { stack.register_namespace(&name).await.unwrap() })
            })
            .collect();
        let mut ids = Vec::new();
        for task in tasks {
            ids.push(task.await.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
    let dump = a.dump(None).await;
    let ids = dump.keys().filter(|(_, sk)| sk.starts_with("#NSID#")).count();
    assert_eq!(ids, 6, "nobody left a second id behind");
}

/// Both saw no record; the second one's transaction is cancelled, and it takes the id of the first.
#[tokio::test]
async fn a_name_taken_between_look_and_write_gives_the_id_of_who_took_it() {
    let a = Admin::new().await;
    let (stack, taken) = (a.repo.stack_handle(), Arc::new(Mutex::new(None)));
    let took = Arc::clone(&taken);
    let late = Meanwhile::new(&a, |op| matches!(op, Op::Transact(_)), async move {
        let id = stack.register_namespace("team").await.unwrap();
        *took.lock().unwrap() = Some(id);
    });
    let repo = a.over(late, |builder| builder).await;
    let id = repo.register_namespace("team").await.unwrap();
    assert_eq!(Some(id), *taken.lock().unwrap());
}

#[tokio::test]
async fn deleting_frees_the_name_and_keeps_the_data() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let tenant = stack.open("tenant").await.unwrap();
    let id = tenant.namespace_id().clone();
    tenant.admin().set_system_defaults(rpm(5), None).await.unwrap();
    let data = a.others("#NSID#").await;
    a.clock.advance(Duration::from_secs(5));

    assert!(stack.delete_namespace("tenant").await.unwrap());
    assert_eq!(a.item(forward("tenant")).await, None);
    let mut expected = record(&namespace_id_key(&id), "tenant", &id, "deleted");
    expected.insert("deleted_at".into(), Value::text("2027-01-15T08:00:05Z"));
    assert_eq!(a.item(namespace_id_key(&id)).await, Some(expected.clone()));
    let mut kept = data;
    kept.retain(|(_, sk), _| sk != "#NAMESPACE#tenant");
    assert_eq!(a.others("#NSID#").await, kept);

    a.clock.advance(Duration::from_secs(5));
    assert!(!stack.delete_namespace("tenant").await.unwrap());
    assert!(!stack.delete_namespace("never").await.unwrap());
    assert_eq!(
        a.item(namespace_id_key(&id)).await,
        Some(expected),
        "a second delete changes nothing"
    );
    assert!(matches!(
        stack.connect("tenant").await,
        Err(Error::NamespaceNotFound(_))
    ));
    assert_eq!(stack.namespace("tenant").await.unwrap(), None);
    assert_eq!(names(&stack).await, ["default"]);

    let orphan = &stack.orphans().await.unwrap()[0];
    assert_eq!((&orphan.id, orphan.name.as_str()), (&id, "tenant"));
    assert_eq!(
        orphan.deleted_at,
        EpochMillis::parse("2027-01-15T08:00:05Z").map(SystemTime::from)
    );
    // The name is free: who registers it now starts with nothing.
    let next = stack.open("tenant").await.unwrap();
    assert_ne!(next.namespace_id(), &id);
    assert!(next.admin().system_defaults().await.unwrap().0.is_empty());
    assert_eq!(orphans(&stack).await, [id]);
}

#[tokio::test]
async fn a_recovered_namespace_is_as_it_was() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let tenant = stack.open("tenant").await.unwrap();
    let id = tenant.namespace_id().clone();
    furnish(&tenant, "key-1").await;
    let before = a.dump(None).await;
    a.clock.advance(Duration::from_secs(5));
    stack.delete_namespace("tenant").await.unwrap();
    assert_eq!(stack.recover_namespace(id.as_str()).await.unwrap(), "tenant");
    assert_eq!(a.dump(None).await, before);
    assert_eq!(stack.connect("tenant").await.unwrap().namespace_id(), &id);
    let shown = stack.namespace("tenant").await.unwrap().unwrap();
    assert_eq!(
        (shown.status, shown.created_at),
        (
            NamespaceStatus::Active,
            EpochMillis::parse(NOW).map(SystemTime::from)
        )
    );
}

#[tokio::test]
async fn recovery_is_refused_with_the_state_that_stands_against_it() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let first = stack.register_namespace("tenant").await.unwrap();
    assert_eq!(state(stack.recover_namespace(first.as_str()).await), "active");
    for unknown in ["AAAAAAAAAAA", "no id at all", "", "_"] {
        let err = stack.recover_namespace(unknown).await.unwrap_err();
        assert!(matches!(err, Error::NamespaceIdNotFound(id) if id == unknown));
    }
    stack.delete_namespace("tenant").await.unwrap();
    let second = stack.register_namespace("tenant").await.unwrap();
    let before = a.dump(None).await;
    assert_eq!(
        state(stack.recover_namespace(first.as_str()).await),
        "re-registered"
    );
    assert_eq!(a.dump(None).await, before, "a refused recovery writes nothing");

    stack.delete_namespace("tenant").await.unwrap();
    let broken = a.ruled(|op| match op {
        Op::Query(_) => Fault::Denied,
        _ => Fault::None,
    });
    let purge = broken.await.stack_handle();
    // The name needs no query, the data does: the purge has begun and stops there.
    assert!(purge.purge_namespace(first.as_str(), &|_| ()).await.is_err());
    assert_eq!(state(stack.recover_namespace(first.as_str()).await), "purging");
    // What an unfinished purge has left is not forgotten.
    let mut left = [first, second];
    left.sort();
    assert_eq!(orphans(&stack).await, left);
}

#[tokio::test]
async fn a_purge_leaves_nothing_of_the_namespace_and_all_of_the_others() {
    let a = Admin::new().await;
    let (stack, one, _two) = two_full(&a).await;
    let id = one.namespace_id().as_str();
    let others = a.others(id).await;
    let records = a.traces(|pk, _| pk.starts_with(id)).await;
    let records = records.iter().filter(|trace| trace.starts_with("table")).count() as u64;
    let progress = Mutex::new(Vec::new());
    let told = |n| progress.lock().unwrap().push(n);
    assert_eq!(stack.purge_namespace(id, &told).await.unwrap(), records);
    assert_eq!(a.traces_of_namespace(id).await, [""; 0]);
    assert_eq!(a.others(id).await, others);
    let progress = progress.into_inner().unwrap();
    assert!(
        progress.is_sorted() && progress.last() == Some(&records),
        "{progress:?}"
    );
    // There is nothing left to do, or to recover.
    assert_eq!(stack.purge_namespace(id, &|_| ()).await.unwrap(), 0);
    let gone = stack.recover_namespace(id).await;
    assert!(matches!(gone, Err(Error::NamespaceIdNotFound(_))));
}

#[tokio::test]
async fn a_namespace_in_use_is_not_purged() {
    let a = Admin::new().await;
    let (stack, _, two) = two_full(&a).await;
    let id = two.namespace_id();
    let before = a.dump(None).await;
    assert_eq!(state(stack.purge_namespace(id.as_str(), &|_| ()).await), "active");
    assert_eq!(a.dump(None).await, before);
    // Not either when its reverse record was lost.
    let lost = Delete {
        key: namespace_id_key(id),
        condition: zae_limiter_core::table::Condition::ALWAYS,
    };
    assert!(a.repo.table().delete(lost).await.unwrap().is_applied());
    assert_eq!(state(stack.purge_namespace(id.as_str(), &|_| ()).await), "active");
    assert_eq!(two.admin().system_defaults().await.unwrap().0.len(), 1);
    // Deleting it writes the lost record anew, so that it can be recovered.
    assert!(stack.delete_namespace("two").await.unwrap());
    assert_eq!(stack.recover_namespace(id.as_str()).await.unwrap(), "two");
}

#[tokio::test]
async fn an_unknown_id_has_nothing_to_purge() {
    let a = Admin::new().await;
    let (stack, ..) = two_full(&a).await;
    let before = a.dump(None).await;
    for unknown in ["AAAAAAAAAAA", "no id at all", "", "_"] {
        assert_eq!(stack.purge_namespace(unknown, &|_| ()).await.unwrap(), 0);
    }
    assert_eq!(a.dump(None).await, before);
}

/// Stops a purge after each number of writes in turn; the next one finishes it.
#[tokio::test]
async fn a_purge_that_was_interrupted_is_finished_by_the_next() {
    for writes in 0.. {
        let a = Admin::new().await;
        let (stack, one, _two) = two_full(&a).await;
        let id = one.namespace_id().as_str();
        let others = a.others(id).await;
        let left = AtomicI64::new(writes);
        let failing = a.ruled(move |op| match op {
            Op::BatchDelete(_) | Op::Update(_) | Op::Delete(_)
                if left.fetch_sub(1, Ordering::SeqCst) <= 0 =>
            {
                Fault::Denied
            }
            _ => Fault::None,
        });
        let failing = failing.await.stack_handle();
        let first = failing.purge_namespace(id, &|_| ()).await;
        let finished = first.is_ok();
        if !finished {
            assert!(matches!(first, Err(Error::PermissionDenied { .. })), "{first:?}");
            let reverse = a.item(namespace_id_key(one.namespace_id())).await;
            assert!(
                reverse.is_some(),
                "what leads to the rest goes last ({writes} writes)"
            );
            stack.purge_namespace(id, &|_| ()).await.unwrap();
        }
        assert_eq!(a.traces_of_namespace(id).await, [""; 0], "after {writes} writes");
        assert_eq!(a.others(id).await, others);
        if finished {
            assert!(writes >= 4, "it was interrupted in {writes} places only");
            return;
        }
    }
}

#[tokio::test]
async fn the_reverse_record_is_the_last_to_go() {
    let a = Admin::new().await;
    let (_, one, _) = two_full(&a).await;
    let writes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&writes);
    let watched = a.ruled(move |op| {
        match op {
            Op::Update(update) => log.lock().unwrap().push(update.key.sk.to_string()),
            Op::Delete(delete) => log.lock().unwrap().push(delete.key.sk.to_string()),
            Op::BatchDelete(_) => log.lock().unwrap().push("batch".into()),
            _ => {}
        }
        Fault::None
    });
    let stack = watched.await.stack_handle();
    writes.lock().unwrap().clear();
    stack
        .purge_namespace(one.namespace_id().as_str(), &|_| ())
        .await
        .unwrap();
    let writes = writes.lock().unwrap();
    let reverse = format!("#NSID#{}", one.namespace_id());
    assert_eq!((writes.first(), writes.last()), (Some(&reverse), Some(&reverse)));
    assert!(writes[1..writes.len() - 1].iter().all(|write| write == "batch"));
}

/// A third of all requests is throttled, and the answer of every second deletion is lost.
#[tokio::test]
async fn a_purge_waits_out_throttling_and_lost_answers() {
    let a = Admin::new().await;
    let (_, one, _) = two_full(&a).await;
    let id = one.namespace_id().as_str();
    let (calls, deletions) = (AtomicI64::new(0), AtomicI64::new(0));
    let shaky = Ruled::new(a.repo.table(), move |op| {
        if calls.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            Fault::Throttled
        } else if matches!(op, Op::BatchDelete(_)) && deletions.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
            Fault::LostAfter
        } else {
            Fault::None
        }
    });
    let stack = a.over(shaky, |builder| builder).await.stack_handle();
    stack.purge_namespace(id, &|_| ()).await.unwrap();
    assert_eq!(a.traces_of_namespace(id).await, [""; 0]);
}

/// Whether the answer of any single write of a purge is lost: asking again ends it.
#[tokio::test]
async fn a_purge_whose_answer_was_lost_is_done_when_asked_again() {
    for lost in 0.. {
        let a = Admin::new().await;
        let (stack, one, _) = two_full(&a).await;
        let id = one.namespace_id().as_str();
        let writes = Arc::new(AtomicI64::new(0));
        let count = Arc::clone(&writes);
        let lossy = a.ruled(move |op| match op {
            Op::BatchDelete(_) | Op::Update(_) | Op::Delete(_)
                if count.fetch_add(1, Ordering::SeqCst) == lost =>
            {
                Fault::LostAfter
            }
            _ => Fault::None,
        });
        let lossy = lossy.await.stack_handle();
        if lossy.purge_namespace(id, &|_| ()).await.is_err() {
            stack.purge_namespace(id, &|_| ()).await.unwrap();
        }
        assert_eq!(a.traces_of_namespace(id).await, [""; 0], "answer {lost} lost");
        if writes.load(Ordering::SeqCst) <= lost {
            return;
        }
    }
}

/// What a manifest wrote is in no index; only the record of what it manages leads there.
#[tokio::test]
async fn a_purge_finds_what_a_manifest_wrote() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let ns = stack.register_namespace("tenant").await.unwrap();
    let limits = |attr: &'static str| (attr, Value::int(5));
    for (pk, sk) in [
        ("SYSTEM#", "#CONFIG"),
        ("RESOURCE#gpt-4", "#CONFIG"),
        ("RESOURCE#a/b:c", "#CONFIG"),
        ("ENTITY#key-1", "#CONFIG#_default_"),
        ("ENTITY#key-1", "#CONFIG#gpt-4"),
        ("ENTITY#key-2", "#CONFIG#gpt-4"),
    ] {
        let attrs = [
            limits("l_rpm_cp"),
            limits("l_rpm_ra"),
            limits("l_rpm_rp"),
            ("GSI4PK", Value::text(ns.as_str())),
        ];
        a.write(&format!("{ns}/{pk}"), sk, attrs).await;
    }
    let texts = |texts: &[&str]| Value::L(texts.iter().map(|text| Value::text(*text)).collect());
    let entities = Value::M(Item::from([
        ("key-1".into(), texts(&["_default_", "gpt-4"])),
        ("key-2".into(), texts(&["gpt-4"])),
        ("damaged".into(), Value::int(1)),
    ]));
    let state = [
        ("managed_system", Value::Bool(true)),
        ("managed_resources", texts(&["gpt-4", "a/b:c", "gone"])),
        ("managed_entities", entities),
        ("last_applied", Value::text("2027-01-15T08:00:00.123456+00:00")),
        ("applied_hash", Value::text("sha256:00")),
        ("GSI4PK", Value::text(ns.as_str())),
    ];
    a.write(&format!("{ns}/SYSTEM#"), "#PROVISIONER", state).await;
    stack.delete_namespace("tenant").await.unwrap();
    assert_eq!(stack.purge_namespace(ns.as_str(), &|_| ()).await.unwrap(), 7);
    assert_eq!(a.traces_of_namespace(ns.as_str()).await, [""; 0]);
}

/// Old clients delete in three steps. Killed after the first, they leave an id that no name leads to.
#[tokio::test]
async fn what_a_killed_client_left_half_deleted_can_be_recovered_or_purged() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    for (name, recover) in [("first", true), ("second", false)] {
        let tenant = stack.open(name).await.unwrap();
        let id = tenant.namespace_id().clone();
        furnish(&tenant, "key-1").await;
        let half = Delete {
            key: forward(name),
            condition: zae_limiter_core::table::Condition::ALWAYS,
        };
        assert!(a.repo.table().delete(half).await.unwrap().is_applied());
        assert_eq!(orphans(&stack).await, std::slice::from_ref(&id));
        if recover {
            assert_eq!(stack.recover_namespace(id.as_str()).await.unwrap(), name);
            assert_eq!(stack.connect(name).await.unwrap().namespace_id(), &id);
        } else {
            // The name has another owner meanwhile, who keeps it.
            let owner = stack.register_namespace(name).await.unwrap();
            assert_eq!(state(stack.recover_namespace(id.as_str()).await), "re-registered");
            assert!(stack.purge_namespace(id.as_str(), &|_| ()).await.unwrap() > 0);
            assert_eq!(a.traces_of_namespace(id.as_str()).await, [""; 0]);
            assert_eq!(stack.register_namespace(name).await.unwrap(), owner);
        }
        assert!(orphans(&stack).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_gives_up_on_a_namespace_that_others_keep_writing_to() {
    let a = Admin::new().await;
    let (stack, one, _) = two_full(&a).await;
    let id = one.namespace_id().clone();
    let (table, ns) = (a.repo.table(), id.clone());
    let busy = Meddled {
        table: Arc::clone(&table),
        item: item(
            &crate::support::key(&format!("{ns}/ENTITY#busy"), "#META"),
            [
                ("GSI4PK", Value::text(ns.as_str())),
                ("GSI4SK", Value::S(format!("{ns}/ENTITY#busy"))),
            ],
        ),
    };
    let busy = a.over(busy, |builder| builder).await.stack_handle();
    let err = busy.purge_namespace(id.as_str(), &|_| ()).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(why) if why.is_retryable()),
        "{err:?}"
    );
    assert!(a.item(namespace_id_key(&id)).await.is_some());
    assert!(stack.purge_namespace(id.as_str(), &|_| ()).await.unwrap() > 0);
    assert_eq!(a.traces_of_namespace(id.as_str()).await, [""; 0]);
}

/// A table to which another client writes an item after every deletion.
#[derive(Debug)]
struct Meddled {
    table: Arc<dyn zae_limiter::table::Table>,
    item: Item,
}

impl zae_limiter::table::Table for Meddled {
    fn call(&self, op: Op) -> zae_limiter::table::TableFuture {
        let deletion = matches!(op, Op::BatchDelete(_));
        let (table, item) = (Arc::clone(&self.table), self.item.clone());
        Box::pin(async move {
            let answer = table.call(op).await;
            if deletion {
                let _ = table.put(put(item)).await;
            }
            answer
        })
    }
}

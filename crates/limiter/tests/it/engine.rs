//! What is particular to the embedded engine, and to the table made in it.

use zae_limiter::table::embedded::{DATA_FILE, OpenError};
use zae_limiter::table::{DynamoTable, EmbeddedEngine, Table as _, TableExt as _, Write};
use zae_limiter::{Error, Limit, OnUnavailable, RateLimiter, Repository};
use zae_limiter_core::table::{Applied, FailureKind, Index, Op, Part, Value};

use crate::support::{add, item, key, open, put, query, set, sort_keys, table_of};

#[tokio::test]
async fn a_missing_table_is_told_apart() {
    let table = DynamoTable::new(EmbeddedEngine::memory().unwrap().client(), "nowhere");
    let k = key("p", "s");
    for op in [
        Op::Get {
            key: k.clone(),
            consistent: false,
        },
        Op::Update(add(&k, "n", 1)),
        Op::BatchGet {
            keys: vec![k.clone()],
            consistent: false,
        },
        Op::Query(query(Index::Primary, "p")),
        Op::Transact(vec![Part::Update(add(&k, "n", 1))]),
    ] {
        let err = table.call(op).await.unwrap_err();
        assert_eq!(
            (err.kind, err.applied),
            (FailureKind::TableMissing, Applied::No),
            "{err}"
        );
    }
}

#[tokio::test]
async fn creating_a_table_twice_or_at_once_is_fine() {
    let engine = EmbeddedEngine::memory().unwrap();
    let (one, two) = tokio::join!(table_of(&engine), table_of(&engine));
    let table = table_of(&engine).await;
    assert_eq!(
        (one.name(), two.name(), table.name()),
        ("limits", "limits", "limits")
    );
    let client = engine.sdk_client();
    let described = client
        .describe_table()
        .table_name("limits")
        .send()
        .await
        .unwrap()
        .table
        .unwrap();
    assert_eq!(described.attribute_definitions().len(), 15);
    assert_eq!(described.local_secondary_indexes().len(), 5);
    assert_eq!(described.global_secondary_indexes().len(), 4);
    assert!(described.latest_stream_arn().is_some());
    let ttl = client
        .describe_time_to_live()
        .table_name("limits")
        .send()
        .await
        .unwrap();
    assert_eq!(
        ttl.time_to_live_description.unwrap().attribute_name(),
        Some("ttl")
    );
}

#[tokio::test]
async fn data_on_disk_outlives_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/on the way");
    let k = key("p", "s");
    for n in 1..=3 {
        let table = open(&path).await;
        let Write::Applied(image) = table.update(add(&k, "n", 1)).await.unwrap() else {
            panic!("refused")
        };
        assert_eq!(image["n"], Value::int(n));
    }
}

#[tokio::test]
async fn an_engine_in_use_cannot_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path()).await;
    assert!(matches!(
        EmbeddedEngine::open(dir.path()),
        Err(OpenError::InUse { .. })
    ));
    drop(table);
    EmbeddedEngine::open(dir.path()).unwrap();
}

#[test]
fn what_is_wrong_with_a_path_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(EmbeddedEngine::open(&file), Err(OpenError::Io { .. })));
    std::fs::write(
        dir.path().join(DATA_FILE),
        "this is no database, and long enough to look like one",
    )
    .unwrap();
    let err = EmbeddedEngine::open(dir.path()).unwrap_err();
    assert!(matches!(err, OpenError::Corrupt { .. }), "{err:?}");
}

#[tokio::test]
async fn expired_items_go_when_swept() {
    let engine = EmbeddedEngine::memory().unwrap();
    let table = table_of(&engine).await;
    for (sk, ttl) in [("past", 1), ("future", 32_000_000_000_i64)] {
        assert!(
            table
                .put(put(item(&key("p", sk), [("ttl", Value::int(ttl))])))
                .await
                .unwrap()
                .is_applied()
        );
    }
    engine.sweep_expired().unwrap();
    assert_eq!(
        sort_keys(&table.query_all(query(Index::Primary, "p")).await.unwrap()),
        ["future"]
    );
}

/// The engine's own database reads the whole stream for every write to it; ours has an index for that.
#[tokio::test]
async fn writes_to_a_table_with_a_stream_stay_as_fast_as_they_were() {
    let engine = EmbeddedEngine::memory().unwrap();
    let table = table_of(&engine).await;
    let k = key("p", "s");
    let mut rounds = Vec::new();
    for _ in 0..4 {
        let started = tokio::time::Instant::now();
        for _ in 0..500 {
            assert!(table.update(add(&k, "n", 1)).await.unwrap().is_applied());
        }
        rounds.push(started.elapsed());
    }
    assert!(rounds[3] < rounds[0] * 3, "{rounds:?}");
}

#[tokio::test]
async fn the_stream_tells_of_every_write_in_order() {
    let engine = EmbeddedEngine::memory().unwrap();
    let table = table_of(&engine).await;
    for n in 1..=3 {
        assert!(
            table
                .update(set(&key("p", "s"), "n", Value::int(n)))
                .await
                .unwrap()
                .is_applied()
        );
    }
    let ask = |operation: &str, body: &str| {
        let reply = engine.answer(&format!("DynamoDBStreams_20120810.{operation}"), body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    };
    let after = |text: &str, name: &str| {
        let rest = text.split_once(&format!("\"{name}\":\"")).unwrap().1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let arn = after(&ask("ListStreams", "{}"), "StreamArn");
    let shard = after(
        &ask("DescribeStream", &format!("{{\"StreamArn\":\"{arn}\"}}")),
        "ShardId",
    );
    let start =
        format!("{{\"StreamArn\":\"{arn}\",\"ShardId\":\"{shard}\",\"ShardIteratorType\":\"TRIM_HORIZON\"}}");
    let iterator = after(&ask("GetShardIterator", &start), "ShardIterator");
    let records = ask("GetRecords", &format!("{{\"ShardIterator\":\"{iterator}\"}}"));
    let images: Vec<String> = records
        .split("\"NewImage\":")
        .skip(1)
        .map(|image| after(image, "N"))
        .collect();
    assert_eq!(images, ["1", "2", "3"]);
}

/// Where the schema can be read and items cannot, every policy refuses, and the error says which data is damaged.
#[tokio::test]
async fn a_damaged_table_is_an_error_under_every_policy() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Repository::builder().embedded(folder.path());
    let repo = builder().open().await.unwrap();
    let limits = [Limit::per_day("rpm", 5)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let limiter = RateLimiter::new(repo);
    for key in 0..60 {
        let taken = limiter.acquire(format!("k{key}"), "r").consume("rpm", 1).await;
        taken.unwrap().commit().await.unwrap();
    }
    drop(limiter);
    let data = folder.path().join(DATA_FILE);
    let good = std::fs::read(&data).unwrap();
    let mut damaged = 0;
    for from in (16_384..good.len() - 8_192).step_by(16_384) {
        let mut bytes = good.clone();
        bytes[from..from + 8_192].fill(0xa5);
        std::fs::write(&data, &bytes).unwrap();
        let Ok(repo) = builder().on_unavailable(OnUnavailable::Allow).open().await else {
            continue;
        };
        let limiter = RateLimiter::new(repo);
        for key in ["k1", "k30", "k59", "new"] {
            match limiter.acquire(key, "r").consume("rpm", 2).await {
                Ok(lease) => assert!(!lease.is_degraded(), "{from}: {:?}", lease.outage()),
                Err(Error::Unavailable(down)) => {
                    assert!(!down.is_retryable(), "{from}: {down}");
                    assert!(
                        down.to_string().contains(folder.path().to_str().unwrap()),
                        "{down}"
                    );
                    damaged += 1;
                }
                // Also a refusal: what can be read may be wrong.
                Err(_) => {}
            }
        }
    }
    assert!(damaged > 0);
}

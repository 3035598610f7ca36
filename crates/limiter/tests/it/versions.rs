//! The version record: who may use a table.

use std::time::Duration;

use zae_limiter::{Error, Repository, RepositoryBuilder, Stack};
use zae_limiter_core::schema::version_key;
use zae_limiter_core::table::{Item, Value};

use crate::admin::Admin;
use crate::support::set;
use zae_limiter::table::TableExt as _;

fn builder(a: &Admin) -> RepositoryBuilder {
    Repository::builder()
        .custom_table(a.repo.table())
        .clock(a.clock.clone())
}

async fn stack(a: &Admin) -> Stack {
    builder(a).stack_handle().await.unwrap()
}

async fn record(a: &Admin) -> Item {
    a.item(version_key()).await.unwrap()
}

#[tokio::test]
async fn opening_writes_the_record_of_a_new_table_once() {
    let a = Admin::new().await;
    let first = record(&a).await;
    assert_eq!(first["schema_version"], Value::text("0.10.0"));
    assert_eq!(first["client_min_version"], Value::text("0.0.0"));
    assert_eq!(first["lambda_version"], Value::Null);
    assert_eq!(first["updated_at"], Value::text("2027-01-15T08:00:00Z"));
    assert_eq!(
        (&first["GSI4PK"], &first["GSI4SK"]),
        (&Value::text("_"), &Value::text("_/SYSTEM#"))
    );
    a.clock.advance(Duration::from_secs(10));
    builder(&a).open().await.unwrap();
    stack(&a).await.open("another").await.unwrap();
    assert_eq!(record(&a).await, first);
}

#[tokio::test]
async fn opening_never_changes_what_others_wrote() {
    let a = Admin::new().await;
    for (attr, value) in [
        ("client_min_version", Value::text("0.13.0")),
        ("lambda_version", Value::text("0.17.0")),
        ("updated_by", Value::text("client:0.17.0")),
        ("of_the_future", Value::int(1)),
    ] {
        let put = set(&version_key(), attr, value);
        assert!(a.repo.table().update(put).await.unwrap().is_applied());
    }
    let written = record(&a).await;
    a.clock.advance(Duration::from_secs(10));
    builder(&a).open().await.unwrap();
    builder(&a).namespace("new").open().await.unwrap();
    builder(&a).connect().await.unwrap();
    assert_eq!(record(&a).await, written);
    let read = stack(&a).await.version().await.unwrap().unwrap();
    assert_eq!(
        (read.functions.as_deref(), &*read.client_minimum),
        (Some("0.17.0"), "0.13.0")
    );
}

#[tokio::test]
async fn connecting_to_a_table_without_a_record_writes_none() {
    let a = Admin::new().await;
    let gone = zae_limiter_core::table::Delete {
        key: version_key(),
        condition: zae_limiter_core::table::Condition::ALWAYS,
    };
    assert!(a.repo.table().delete(gone).await.unwrap().is_applied());
    let stack = stack(&a).await;
    stack.connect("default").await.unwrap();
    stack.check_compatible().await.unwrap();
    assert_eq!(stack.version().await.unwrap(), None);
    assert_eq!(a.item(version_key()).await, None);
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_refused_everywhere_but_its_version_is_told() {
    for (attr, value, said) in [
        ("client_min_version", "0.17.1", "0.17.1"),
        ("client_min_version", "1.0.0", "1.0.0"),
        ("schema_version", "1.0.0", "Schema version mismatch"),
        ("schema_version", "ten", "ten"),
    ] {
        let a = Admin::new().await;
        let change = set(&version_key(), attr, Value::text(value));
        assert!(a.repo.table().update(change).await.unwrap().is_applied());
        let before = a.dump(None).await;
        let stack = stack(&a).await;
        for refused in [
            builder(&a).open().await.map(drop),
            builder(&a).namespace("new").open().await.map(drop),
            builder(&a).connect().await.map(drop),
            stack.open("default").await.map(drop),
            stack.open("new").await.map(drop),
            stack.connect("default").await.map(drop),
            a.repo.namespace("default").await.map(drop),
            stack.check_compatible().await,
        ] {
            let Err(Error::VersionMismatch(reason)) = refused else {
                panic!("{attr} {value}: {refused:?}")
            };
            assert!(reason.contains(said), "{reason}");
        }
        let version = stack.version().await.unwrap().unwrap();
        let read = if attr == "schema_version" {
            version.schema
        } else {
            version.client_minimum
        };
        assert_eq!(read, value);
        assert_eq!(a.dump(None).await, before, "nothing was written");
    }
}

#[tokio::test]
async fn a_record_without_a_schema_is_of_another_one() {
    let a = Admin::new().await;
    let mut change = zae_limiter_core::table::Update::new(version_key());
    change.remove.push("schema_version".into());
    assert!(a.repo.table().update(change).await.unwrap().is_applied());
    assert!(matches!(builder(&a).open().await, Err(Error::VersionMismatch(_))));
    // Nor is a record of another shape taken for a good one.
    let change = set(&version_key(), "schema_version", Value::int(1));
    assert!(a.repo.table().update(change).await.unwrap().is_applied());
    assert!(matches!(builder(&a).open().await, Err(Error::Corrupt(_))));
}

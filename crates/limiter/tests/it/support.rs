//! Tables to test against, and short ways to write items down.

use std::path::Path;
use std::sync::Arc;

use zae_limiter::table::{DynamoTable, EmbeddedEngine, Table, TableExt as _, definition};
use zae_limiter::testing::TestTable;
use zae_limiter_core::table::{Condition, Index, Item, Key, Put, Query, Update, Value};

/// A table, and what must live as long as it does.
pub(crate) struct Fixture {
    pub(crate) table: Arc<dyn Table>,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) async fn engine_in_memory() -> Fixture {
    let table = table_of(&EmbeddedEngine::memory().unwrap()).await;
    Fixture {
        table: Arc::new(table),
        _dir: None,
    }
}

pub(crate) async fn engine_on_disk() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path()).await;
    Fixture {
        table: Arc::new(table),
        _dir: Some(dir),
    }
}

pub(crate) async fn plain_memory() -> Fixture {
    std::future::ready(()).await;
    Fixture {
        table: Arc::new(TestTable::new()),
        _dir: None,
    }
}

pub(crate) async fn open(path: &Path) -> DynamoTable {
    table_of(&EmbeddedEngine::open(path).unwrap()).await
}

pub(crate) async fn table_of(engine: &EmbeddedEngine) -> DynamoTable {
    let client = engine.client();
    definition::create_table(&client, "limits").await.unwrap();
    DynamoTable::new(client, "limits")
}

pub(crate) fn key(pk: &str, sk: &str) -> Key {
    Key {
        pk: pk.into(),
        sk: sk.into(),
    }
}

/// An item with this key and these attributes.
pub(crate) fn item<const N: usize>(key: &Key, attrs: [(&str, Value); N]) -> Item {
    let mut item = Item::from([
        ("PK".to_owned(), Value::text(&*key.pk)),
        ("SK".to_owned(), Value::text(key.sk.as_str())),
    ]);
    item.extend(attrs.map(|(name, value)| (name.to_owned(), value)));
    item
}

pub(crate) fn put(item: Item) -> Put {
    Put {
        item,
        condition: Condition::ALWAYS,
    }
}

pub(crate) fn add(key: &Key, attr: &str, delta: i128) -> Update {
    Update {
        add: vec![(attr.into(), delta)],
        ..Update::new(key.clone())
    }
}

pub(crate) fn set(key: &Key, attr: &str, value: Value) -> Update {
    Update {
        set: vec![(attr.into(), value)],
        ..Update::new(key.clone())
    }
}

pub(crate) fn set_of(texts: &[&str]) -> Value {
    Value::Ss(texts.iter().map(|text| (*text).to_owned()).collect())
}

pub(crate) fn query(index: Index, hash: &str) -> Query {
    Query::new(index, hash)
}

pub(crate) fn sort_keys(items: &[Item]) -> Vec<&str> {
    items.iter().filter_map(|item| item["SK"].as_text()).collect()
}

pub(crate) async fn fill(table: &dyn Table, hash: &str, sort: &[&str]) {
    for sk in sort {
        let k = key(hash, sk);
        let gsi4 = [
            ("GSI4PK", Value::text("ns")),
            ("GSI4SK", Value::text(*sk)),
            ("n", Value::int(1)),
        ];
        assert!(table.put(put(item(&k, gsi4))).await.unwrap().is_applied());
    }
}

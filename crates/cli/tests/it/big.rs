//! Deletions of very many records that are killed on the way, again and again, and then done.

use std::collections::BTreeMap;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::table::EmbeddedEngine;
use zae_limiter::{Limit, NamespaceId, NewEntity};
use zae_limiter_core::schema::{
    BucketId, add_namespace_index, audit_key, key_item, meta_key, provisioner_key, resource_config_key,
};
use zae_limiter_core::table::{Item, Key, Value};
use zae_limiter_core::{EntityId, ResourceName};

use crate::usage::snapshot;
use crate::world::{World, block_on, embedded_only, ended};

/// How many records are deleted.
const MANY: usize = 50_000;

/// How often a deletion is killed in the middle, later each time.
const KILLS: usize = 5;

/// The table's engine, asked in the protocol's own words: quicker than a client for very many items.
struct Direct {
    engine: EmbeddedEngine,
    table: String,
}

impl Direct {
    fn open(world: &World) -> Self {
        Self {
            engine: EmbeddedEngine::open(world.directory()).unwrap(),
            table: world.stack().to_owned(),
        }
    }

    /// Switches off the table's stream, which is not read here and takes a third of the time.
    fn without_stream(self) -> Self {
        let off = json!({ "StreamEnabled": false });
        self.ask(
            "UpdateTable",
            &json!({ "TableName": self.table, "StreamSpecification": off }),
        );
        self
    }

    fn ask(&self, operation: &str, request: &Json) -> Json {
        let target = format!("DynamoDB_20120810.{operation}");
        let reply = self.engine.answer(&target, request.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    fn put(&self, items: &[Item]) {
        // In transactions, for the engine commits each of them once.
        for some in items.chunks(100) {
            let puts: Vec<Json> = some
                .iter()
                .map(|item| json!({ "Put": { "TableName": self.table, "Item": encoded(item) } }))
                .collect();
            self.ask("TransactWriteItems", &json!({ "TransactItems": puts }));
        }
    }

    /// Every item of the table by its key.
    fn everything(&self) -> BTreeMap<(String, String), Json> {
        let mut all = BTreeMap::new();
        let mut request = json!({ "TableName": self.table });
        loop {
            let page = self.ask("Scan", &request);
            for item in page["Items"].as_array().unwrap() {
                let key = |name: &str| item[name]["S"].as_str().unwrap().to_owned();
                all.insert((key("PK"), key("SK")), item.clone());
            }
            match page.get("LastEvaluatedKey").filter(|key| !key.is_null()) {
                Some(key) => request["ExclusiveStartKey"] = key.clone(),
                None => return all,
            }
        }
    }

    /// How many items the table holds.
    fn count(&self) -> usize {
        let mut count = 0;
        let mut request = json!({ "TableName": self.table, "Select": "COUNT" });
        loop {
            let page = self.ask("Scan", &request);
            count += page["Count"].as_u64().unwrap() as usize;
            match page.get("LastEvaluatedKey").filter(|key| !key.is_null()) {
                Some(key) => request["ExclusiveStartKey"] = key.clone(),
                None => return count,
            }
        }
    }

    /// How many items of an index have a partition key.
    fn count_in(&self, index: &str, hash: &str) -> u64 {
        let page = self.ask(
            "Query",
            &json!({
                "TableName": self.table,
                "IndexName": index,
                "Select": "COUNT",
                "KeyConditionExpression": "#hash = :hash",
                "ExpressionAttributeNames": { "#hash": format!("{index}PK") },
                "ExpressionAttributeValues": { ":hash": { "S": hash } },
            }),
        );
        page["Count"].as_u64().unwrap()
    }
}

/// An item as the protocol has it.
fn encoded(item: &Item) -> Json {
    fn value(value: &Value) -> Json {
        match value {
            Value::S(text) => json!({ "S": text }),
            Value::N(digits) => json!({ "N": digits.as_str() }),
            Value::L(list) => json!({ "L": list.iter().map(self::encoded_value).collect::<Vec<_>>() }),
            Value::M(map) => json!({ "M": encoded(map) }),
            other => panic!("no item of these tests has {other:?}"),
        }
    }
    item.iter()
        .map(|(name, stored)| (name.clone(), value(stored)))
        .collect()
}

fn encoded_value(value: &Value) -> Json {
    match value {
        Value::S(text) => json!({ "S": text }),
        other => panic!("no list of these tests has {other:?}"),
    }
}

fn entity(number: usize) -> EntityId {
    EntityId::new(format!("user-{number}")).unwrap()
}

fn resource(number: usize) -> ResourceName {
    ResourceName::new(format!("model-{number}")).unwrap()
}

/// The number-th hour of a year in months of 28 days.
fn hour(number: usize) -> String {
    let (month, day) = (1 + number / 672, 1 + number / 24 % 28);
    format!("2026-{month:02}-{day:02}T{:02}:00:00Z", number % 24)
}

/// A bucket, as it is stored where keys are concerned.
fn bucket(namespace: &NamespaceId, who: usize, what: usize, shard: u32) -> Item {
    let id = BucketId {
        namespace: namespace.clone(),
        entity: entity(who),
        resource: resource(what),
    };
    let mut item = id.key_attributes(shard);
    item.insert("shard_count".into(), Value::int(2));
    item.insert("b_rpm_tk".into(), Value::int(100_000));
    item.insert("b_rpm_cp".into(), Value::int(100_000));
    item
}

fn event(namespace: &NamespaceId, who: usize, number: usize) -> Item {
    let id = format!("01M7ZTFJRZQM6J5PZ6{number:08}");
    let subject = entity(who);
    let key = audit_key(namespace, subject.as_str(), &id);
    let mut item = key_item(&key);
    item.insert("event_id".into(), Value::text(id));
    item.insert("entity_id".into(), Value::text(subject.as_str()));
    item.insert("action".into(), Value::text("limits_set"));
    add_namespace_index(&mut item, namespace.as_str(), &key.pk);
    item
}

/// `many` items of a namespace of every kind, and those that are in no index.
fn of_every_kind(namespace: &NamespaceId, many: usize) -> Vec<Item> {
    let mut items = Vec::with_capacity(many);
    let indexed = |mut item: Item| {
        let pk = item["PK"].as_text().unwrap().to_owned();
        add_namespace_index(&mut item, namespace.as_str(), &pk);
        item
    };
    for number in 0..many - 4 {
        let (who, what) = (number % 97, number / 97 % 89);
        items.push(match number % 10 {
            0..4 => bucket(namespace, who, what, (number / 10) as u32),
            4..8 => {
                let (who, what) = (entity(who), resource(what));
                let start = hour(number / 10);
                let counters = [("rpm", 1), ("tpm", 1000)];
                snapshot(
                    namespace,
                    who.as_str(),
                    what.as_str(),
                    "hourly",
                    &start,
                    &counters,
                )
            }
            8 => event(namespace, who, number),
            _ => {
                let mut item = indexed(key_item(&meta_key(namespace, &entity(number))));
                item.insert("GSI1PK".into(), Value::text(format!("{namespace}/PARENT#org")));
                item.insert("GSI1SK".into(), Value::text(format!("CHILD#{}", entity(number))));
                item
            }
        });
    }
    // What a manifest manages is in no index; the record that says so leads to it.
    let managed = resource(999);
    let mut provisioner = key_item(&provisioner_key(namespace));
    let list = vec![Value::text(managed.as_str())];
    provisioner.insert("managed_resources".into(), Value::L(list));
    items.push(key_item(&resource_config_key(namespace, &managed)));
    items.push(indexed(provisioner));
    items.push(indexed(key_item(&resource_config_key(namespace, &resource(1)))));
    items.push(indexed(key_item(&resource_config_key(namespace, &resource(2)))));
    items
}

/// Starts a deletion of `many` records, kills it in the middle, and looks, [`KILLS`] times.
fn kill_in_the_middle(world: &World, many: usize, others: usize, start: impl Fn() -> Child) {
    let mut left = Direct::open(world).count();
    assert!(left >= many + others);
    let mut delay = Duration::from_millis(100);
    let mut kills = 0;
    while kills < KILLS {
        let mut child = start();
        sleep(delay);
        child.kill().unwrap();
        ended(child);
        delay *= 2;
        let now = Direct::open(world).count();
        // Otherwise it had not begun.
        if now < left {
            assert!(now > others, "it was done before it could be killed");
            kills += 1;
            left = now;
        }
    }
}

/// What a kill leaves half done stays invisible, and is finished by the next run.
#[test]
fn a_purge_is_killed_and_finished() {
    embedded_only!("a server for tests may take too long for so many items");
    let world = World::new();
    for line in ["register bystander", "register doomed"] {
        let args: Vec<&str> = std::iter::once("namespace").chain(line.split(' ')).collect();
        assert_eq!(world.silently(&args, None).code, Some(0));
    }
    let [bystander, doomed] = ["bystander", "doomed"].map(|name| world.namespace_id(name));
    let direct = Direct::open(&world).without_stream();
    direct.put(&of_every_kind(&bystander, 2000));
    let others: BTreeMap<_, _> = direct
        .everything()
        .into_iter()
        .filter(|((_, sk), _)| sk != "#NAMESPACE#doomed" && *sk != format!("#NSID#{doomed}"))
        .collect();
    direct.put(&of_every_kind(&doomed, MANY));
    assert_eq!(direct.count(), others.len() + 2 + MANY);
    drop(direct);

    world.json("namespace delete doomed --yes");
    let args = ["namespace", "purge", doomed.as_str(), "--yes"];
    kill_in_the_middle(&world, MANY, others.len(), || {
        world.connected(&args).spawn().unwrap()
    });
    // It has begun, so it can only be finished.
    assert_eq!(world.json("namespace orphans")[0]["status"], "purging");
    let recovered = world.silently(&["namespace", "recover", doomed.as_str()], None);
    assert_eq!(recovered.code, Some(1), "{recovered:?}");

    let ran = world.silently(&args, None);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let direct = Direct::open(&world);
    assert_eq!(direct.count_in("GSI4", doomed.as_str()), 0);
    for index in ["GSI2", "GSI3"] {
        assert_eq!(direct.count_in(index, &format!("{doomed}/RESOURCE#model-1")), 0);
        assert_eq!(direct.count_in(index, &format!("{doomed}/ENTITY#user-1")), 0);
    }
    assert_eq!(direct.count_in("GSI1", &format!("{doomed}/PARENT#org")), 0);
    assert_ne!(direct.count_in("GSI1", &format!("{bystander}/PARENT#org")), 0);
    let after = direct.everything();
    assert!(after == others, "{} records, not {}", after.len(), others.len());
    drop(direct);
    assert_eq!(world.json("namespace orphans"), json!([]));
    assert_eq!(world.silently(&args, None).code, Some(0));
}

/// An entity, and limits of its own on so many resources.
fn configured(world: &World, who: usize, resources: usize) {
    let repo = world.repository("default");
    let id = entity(who);
    block_on(async {
        repo.admin()
            .create_entity(NewEntity::new(id.as_str()))
            .await
            .unwrap();
        for number in 0..resources {
            let limits = [Limit::per_minute("rpm", 100)];
            repo.admin()
                .set_entity_limits(id.as_str(), resource(number).as_str(), limits)
                .await
                .unwrap();
        }
    });
}

/// `many` items of an entity: buckets of four shards, receipts of operations on some, and usage.
fn of_an_entity(namespace: &NamespaceId, who: usize, many: usize) -> Vec<Item> {
    let mut items = Vec::with_capacity(many);
    for what in 0..many / 25 {
        items.extend((0..4).map(|shard| bucket(namespace, who, what, shard)));
        // A receipt is found through its bucket's first shard only.
        if what % 10 == 0 {
            let mut receipt = key_item(&Key {
                pk: items[items.len() - 4]["PK"].as_text().unwrap().to_owned(),
                sk: format!("#OP#{what}").into(),
            });
            receipt.insert("op".into(), Value::text("topup"));
            items.push(receipt);
        }
    }
    let id = entity(who);
    for number in 0..many - items.len() {
        let (what, start) = (resource(number / 8000), hour(number % 8000));
        let counters = [("rpm", 1), ("tpm", 1000)];
        let usage = snapshot(namespace, id.as_str(), what.as_str(), "hourly", &start, &counters);
        items.push(usage);
    }
    items
}

/// Likewise for an entity with very much of everything.
#[test]
fn the_deletion_of_an_entity_is_killed_and_finished() {
    const LIMITS: usize = 100;
    const OLD_EVENTS: usize = 100;
    embedded_only!("a server for tests may take too long for so many items");
    let world = World::new();
    let namespace = world.namespace_id("default");
    configured(&world, 2, 50);
    let direct = Direct::open(&world).without_stream();
    direct.put(&of_an_entity(&namespace, 2, 2000));
    let events: Vec<Item> = (0..OLD_EVENTS)
        .map(|number| event(&namespace, 1, number))
        .collect();
    direct.put(&events);
    let others = direct.everything();
    drop(direct);

    configured(&world, 1, LIMITS);
    // Each of its limits and itself.
    let own = LIMITS + 1;
    Direct::open(&world).put(&of_an_entity(&namespace, 1, MANY - own));
    let args = ["entity", "delete", "user-1", "--yes"];
    // Of each of these there is an event, which stays.
    let stay = others.len() + own;
    kill_in_the_middle(&world, MANY, stay, || world.connected(&args).spawn().unwrap());
    let ran = world.silently(&args, None);
    assert_eq!(ran.code, Some(0), "{ran:?}");

    let direct = Direct::open(&world);
    assert_eq!(direct.count_in("GSI3", &format!("{namespace}/ENTITY#user-1")), 0);
    let mut after = direct.everything();
    let log = format!("{namespace}/AUDIT#user-1");
    let logged = after.keys().filter(|(pk, _)| *pk == log).count();
    // Only the run that finished it tells of the deletion.
    assert_eq!(logged, OLD_EVENTS + own + 1);
    after.retain(|key, _| key.0 != log || others.contains_key(key));
    assert!(after == others, "{} records, not {}", after.len(), others.len());
    drop(direct);
    let ran = world.silently(&["entity", "show", "user-1"], None);
    assert_eq!(ran.code, Some(1));
    assert_eq!(world.json("entity delete user-1 --yes")["records_deleted"], 0);
}

//! Foreign bytes: what a table, a stream or a file may hold instead of what this project writes.
//!
//! Each target takes a recorded sample, mutates it, reads it, and does with the result what a client would do. Nothing may
//! panic; built with checks of overflows, no arithmetic may overflow either. Everything follows from the seed.
//!
//! The tests here run a few inputs of each target, the example `hostile-bytes` as many as are asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value as Json, json};
use smol_str::SmolStr;
use zae_limiter_core::acquire::Decision;
use zae_limiter_core::assist;
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::{Config, Resolved};
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::manifest::{Managed, Manifest};
use zae_limiter_core::random::Random as _;
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schedule::{Cron, ResetSchedule, Schedule, Zone, valid_until};
use zae_limiter_core::schema::{BucketId, key_item, key_of, meta_key, provisioner_key, resource_config_key};
use zae_limiter_core::stream::{Sequence, StreamRecord};
use zae_limiter_core::sync::{self, LimitChange};
use zae_limiter_core::table::{Item, Key, Value};
use zae_limiter_core::tally::Tally;
use zae_limiter_core::units::{MAX_TOKENS, check_amount};
use zae_limiter_core::{
    AuditEvent, EntityId, EpochMillis, LimitName, Millitokens, NamespaceId, NamespaceName, NamespaceRecord,
    ResourceName, UsageSnapshot, UsageSummary, VersionRecord, Window, manifest, namespace, version,
};

use crate::drive::{Desk, Dice, NOW, per_minute, per_second};

/// Reads one mutated input; the number tells whether it was taken for a record.
type Target = fn(&mut Samples, &mut Dice) -> bool;

/// What is attacked, by name.
pub(crate) const TARGETS: [(&str, Target); 10] = [
    ("bucket", bucket),
    ("configuration", configuration),
    ("acquire", acquire),
    ("records", records),
    ("managed", managed),
    ("stream", stream),
    ("stored-usage", stored_usage),
    ("manifest-yaml", manifest_yaml),
    ("manifest-json", manifest_json),
    ("texts", texts),
];

/// What came of a target's inputs.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// How many were taken for records.
    pub(crate) taken: u64,
    /// The seeds of the first that panicked. `run(target, seed, 1)` shows one again.
    pub(crate) panicked: Vec<u64>,
}

/// Runs a target on many inputs, whose seeds follow each other.
pub(crate) fn run(target: Target, seed: u64, runs: u64) -> Ran {
    let mut samples = Samples::new();
    let mut ran = Ran::default();
    for seed in seed..seed.saturating_add(runs) {
        let mut dice = Dice(seed.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let input = AssertUnwindSafe(|| target(&mut samples, &mut dice));
        if let Ok(is_taken) = catch_unwind(input) {
            ran.taken += u64::from(is_taken);
        } else {
            ran.panicked.push(seed);
            if ran.panicked.len() == 10 {
                break;
            }
            samples = Samples::new();
        }
    }
    ran
}

/// Records as this project and the Python library write them.
pub(crate) struct Samples {
    desk: Desk,
    items: Vec<Item>,
    buckets: Vec<Item>,
    configs: Vec<Item>,
    managed: Vec<Item>,
    usage: Vec<Item>,
    streams: Vec<Json>,
    /// Attribute names of all of them.
    names: Vec<String>,
}

impl Samples {
    fn new() -> Self {
        let mut desk = Desk::with(&[per_minute("rpm", 100), per_second("tpm", 90_000)]);
        desk.entity("u", Some("p"), true);
        desk.configure_entity("p", &[per_minute("rpm", 1000), per_second("tpm", 10_000)]);
        desk.admitted("u", &[("rpm", 40), ("tpm", 40)]);
        let mut buckets: Vec<Item> = ["u", "p"].map(|who| desk.item(who, 0).clone()).into();
        // What other clients and later events leave.
        buckets.push(with(
            &buckets[0],
            [
                ("b_rpm_sched", Value::text("-")),
                ("b_tpm_rsched", Value::text("0 0 * * *")),
                ("b_tpm_soft", Value::Bool(true)),
                ("vu", Value::int(0)),
                ("cf", Value::text("0123456789abcdef")),
                ("fr", Value::text(format!("{NOW};rpm:59999"))),
                ("shard_count", Value::int(4)),
                ("ttl", Value::int(NOW / 1000 + 60)),
                ("disabled", Value::Bool(true)),
            ],
        ));
        let mut configs = vec![
            desk.table
                .get(&resource_config_key(&desk.namespace, &desk.resource))
                .cloned()
                .unwrap_or_default(),
        ];
        configs.extend(desk.table.get(&desk.entity_config_key("p")).cloned());
        configs.push(with(
            &configs[0],
            [
                ("on_unavailable", Value::text("degrade:50")),
                ("disabled", Value::Bool(true)),
                ("cascade", Value::Bool(false)),
                ("audit_retention_days", Value::int(90)),
                ("l_rpm_sched", Value::text("-")),
            ],
        ));
        let meta = desk
            .table
            .get(&meta_key(&desk.namespace, &desk.id("u").entity))
            .cloned();
        let now = EpochMillis(NOW);
        let name = NamespaceName::new("default").unwrap();
        let mut items: Vec<Item> = meta.into_iter().collect();
        items.extend(puts(namespace::register(&name, &desk.namespace, now)));
        items.push(version::first_version("tester", now).item);
        items.push(event().put(&desk.namespace, now, 90).item);
        let streams: Vec<Json> = (0..buckets.len()).map(|at| stream_record(&buckets, at)).collect();
        let usage = streams.iter().flat_map(counted).collect();
        let managed = records_of_applies(&desk.namespace);
        let mut samples = Self {
            desk,
            items,
            buckets,
            configs,
            managed,
            usage,
            streams,
            names: Vec::new(),
        };
        let all = [
            &samples.items,
            &samples.buckets,
            &samples.configs,
            &samples.managed,
            &samples.usage,
        ];
        let mut names: Vec<String> = all
            .into_iter()
            .flatten()
            .flat_map(|item| item.keys().cloned())
            .collect();
        names.extend(
            [
                "sched_tz", "bypass", "b__tk", "b_tk", "l__cp", "w_s_cp", "b_rpm_ws", "b_a_b_tk", "b_a_b_cp",
                "",
            ]
            .map(str::to_owned),
        );
        names.sort();
        names.dedup();
        samples.names = names;
        samples
    }
}

/// An item with more attributes.
fn with<const N: usize>(item: &Item, more: [(&str, Value); N]) -> Item {
    let mut item = item.clone();
    item.extend(more.map(|(name, value)| (name.to_owned(), value)));
    item
}

fn event() -> AuditEvent {
    AuditEvent {
        id: "01M7ZT4WJXXM3NYR6V7H64WNW5".into(),
        subject: "$RESOURCE:gpt-4".into(),
        action: "limits_set".into(),
        principal: Some("ops".into()),
        resource: Some("gpt-4".into()),
        details: Item::from([(
            "limits".into(),
            Value::L(vec![Value::M(Item::new()), Value::Null]),
        )]),
        timestamp: Some(EpochMillis(NOW).into()),
    }
}

/// Records of managed levels, and of pending updates of live buckets.
fn records_of_applies(namespace: &NamespaceId) -> Vec<Item> {
    let managed = Managed::default().put(namespace, None, None).item;
    let pending = key_item(&Key {
        pk: provisioner_key(namespace).pk,
        sk: "#PROVISIONER#PENDING#sync#entity#u/gpt-4".into(),
    });
    let list = |texts: &[&str]| Value::L(texts.iter().map(|text| Value::text(*text)).collect());
    let share = Value::M(Item::from([("lease".into(), Value::int(NOW))]));
    let entities = Value::M(Item::from([("u".into(), list(&["_default_"]))]));
    let managed = with(
        &managed,
        [
            ("managed_resources", list(&["gpt-4", ""])),
            ("managed_entities", entities),
        ],
    );
    let pending = with(
        &pending,
        [
            ("kind", Value::text("sync")),
            ("level", Value::text("entity")),
            ("target", Value::text("u/gpt-4")),
            ("token", Value::text("t")),
            ("lease_until_ms", Value::int(NOW)),
            ("full", Value::Bool(true)),
            ("stale", Value::Ss(["rpm".to_owned()].into())),
            ("owners", Value::M(Item::from([("t".into(), share)]))),
        ],
    );
    vec![managed, pending]
}

fn puts(parts: Vec<zae_limiter_core::table::Part>) -> impl Iterator<Item = Item> {
    parts.into_iter().filter_map(|part| match part {
        zae_limiter_core::table::Part::Put(put) => Some(put.item),
        _ => None,
    })
}

/// An item as the stream shows it.
fn json_of(item: &Item) -> Json {
    let value = |value: &Value| json_of_value(value);
    item.iter()
        .map(|(name, v)| (name.clone(), value(v)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn json_of_value(value: &Value) -> Json {
    match value {
        Value::S(text) => json!({ "S": text }),
        Value::N(digits) => json!({ "N": digits.as_str() }),
        Value::Bool(truth) => json!({ "BOOL": truth }),
        Value::Null => json!({ "NULL": true }),
        Value::M(map) => json!({ "M": json_of(map) }),
        Value::L(list) => json!({ "L": list.iter().map(json_of_value).collect::<Vec<_>>() }),
        Value::Ss(texts) => json!({ "SS": texts }),
        Value::Other => json!({ "B": "AA==" }),
    }
}

fn stream_record(buckets: &[Item], at: usize) -> Json {
    let mut new = buckets[at].clone();
    new.insert("b_rpm_tc".into(), Value::int(90_000));
    json!({
        "eventID": "1", "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_795_290_198.0,
            "Keys": json_of(&key_item(&key_of(&new).unwrap())),
            "OldImage": json_of(&buckets[at]), "NewImage": json_of(&new),
            "SequenceNumber": "111000000000000000000001", "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    })
}

/// The snapshots that a record is counted in.
fn counted(record: &Json) -> Vec<Item> {
    let mut tally = Tally::default();
    if let Ok(record) = StreamRecord::from_json(record) {
        tally.add(&record, &[Window::Hourly, Window::Daily, Window::Monthly]);
    }
    let write = |addition: zae_limiter_core::tally::Addition| {
        let mut item = key_item(&addition.id.key());
        addition.write(None, 90)?.apply(&mut item);
        Some(item)
    };
    tally.finish().into_iter().filter_map(write).collect()
}

// Mutations.

fn below(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.bits() % bound.max(1) as u64).unwrap_or(0)
}

fn one<'a, T>(dice: &mut Dice, of: &'a [T]) -> &'a T {
    &of[below(dice, of.len())]
}

fn often(dice: &mut Dice, in_of: (usize, usize)) -> bool {
    below(dice, in_of.1) < in_of.0
}

const NUMBERS: [&str; 30] = [
    "0",
    "1",
    "-1",
    "2",
    "31",
    "32",
    "33",
    "4096",
    "4097",
    "999",
    "1000",
    "59999",
    "60000",
    "1795290000000",
    "1795290000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "4294967295",
    "1000000000000000",
    "1000000000000000000",
    "99999999999999999999999999999999999999",
    "-99999999999999999999999999999999999999",
    "170141183460469231731687303715884105727",
    "-170141183460469231731687303715884105728",
    "999999999999999999999999999999999999999999",
    "1.5",
    "1E+100",
    "NaN",
    "-0",
];

const TEXTS: [&str; 37] = [
    "",
    "1h9-17w1-5s500;m*/15h0-6c200a20p30",
    "*/15 9-17 1,15 MAR-OCT/2 MON-FRI",
    "America/New_York",
    " ",
    "-",
    "--",
    ":",
    ";",
    "#",
    "/",
    "_",
    "%",
    ".",
    "0",
    "007",
    "+5",
    "-5",
    "NaN",
    "Infinity",
    "\u{0}",
    "\u{1b}[2J",
    "\u{202e}",
    "\u{feff}",
    "é",
    "💥",
    "٣",
    "a:b:c",
    "1-2:3:4",
    "1-2:ffffffff:0",
    "2026-11-21T19:00:00Z",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "degrade:101",
    "active",
    "b_rpm_tk",
    "n/BUCKET#u#gpt-4#4294967296",
];

fn digits(dice: &mut Dice) -> String {
    match below(dice, 4) {
        0 => (dice.bits().cast_signed()).to_string(),
        1 => {
            let wide = i128::from(dice.bits().cast_signed()) << below(dice, 63);
            wide.to_string()
        }
        _ => (*one(dice, &NUMBERS)).to_owned(),
    }
}

fn text(dice: &mut Dice) -> String {
    match below(dice, 12) {
        0 => "x".repeat(below(dice, 3000)),
        1 => (0..below(dice, 12))
            .filter_map(|_| char::from_u32((dice.bits() % 0x11_0000) as u32))
            .collect(),
        2 | 3 => digits(dice),
        _ => (*one(dice, &TEXTS)).to_owned(),
    }
}

/// A text with a piece cut out, doubled, replaced or moved.
fn edited(dice: &mut Dice, old: &str) -> String {
    let mut chars: Vec<char> = old.chars().collect();
    for _ in 0..=below(dice, 3) {
        let (from, to) = (below(dice, chars.len() + 1), below(dice, chars.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let piece: Vec<char> = match below(dice, 5) {
            0 => Vec::new(),
            1 => chars[from..to].iter().chain(&chars[from..to]).copied().collect(),
            2 => text(dice).chars().collect(),
            3 => chars[from..to].iter().rev().copied().collect(),
            _ => {
                chars.truncate(to);
                continue;
            }
        };
        chars.splice(from..to, piece);
    }
    chars.into_iter().take(10_000).collect()
}

fn value(dice: &mut Dice, depth: usize) -> Value {
    match below(dice, if depth > 0 { 11 } else { 8 }) {
        0..=3 => Value::N(digits(dice).into()),
        4 | 5 => Value::S(text(dice)),
        6 => Value::Bool(often(dice, (1, 2))),
        7 => one(dice, &[Value::Null, Value::Other]).clone(),
        8 => Value::M(
            (0..below(dice, 4))
                .map(|_| (text(dice), value(dice, depth - 1)))
                .collect(),
        ),
        9 => Value::L((0..below(dice, 4)).map(|_| value(dice, depth - 1)).collect()),
        _ => {
            // As deep as DynamoDB allows.
            let mut deep = value(dice, 0);
            for _ in 0..31 {
                deep = Value::L(vec![deep]);
            }
            deep
        }
    }
}

/// A value near the old one.
fn near(dice: &mut Dice, old: &Value) -> Value {
    match old {
        Value::S(text) => Value::S(edited(dice, text)),
        Value::N(digits) if often(dice, (1, 3)) => Value::N(edited(dice, digits).into()),
        Value::N(digits) => {
            let by = i128::from(dice.bits().cast_signed() >> below(dice, 64));
            Value::int(digits.parse::<i128>().unwrap_or(0).saturating_add(by))
        }
        Value::M(map) => {
            let mut map = map.clone();
            if let Some(name) = map.keys().nth(below(dice, map.len().max(1))).cloned() {
                let old = map.remove(&name).unwrap_or(Value::Null);
                let name = if often(dice, (1, 3)) {
                    edited(dice, &name)
                } else {
                    name
                };
                map.insert(name, near(dice, &old));
            }
            Value::M(map)
        }
        Value::L(list) => {
            let mut list = list.clone();
            let at = below(dice, list.len().max(1));
            if let Some(old) = list.get_mut(at) {
                *old = near(dice, old);
            }
            list.extend(often(dice, (1, 3)).then(|| value(dice, 2)));
            Value::L(list)
        }
        _ => value(dice, 3),
    }
}

/// A sample with a few attributes changed.
fn mutated(dice: &mut Dice, names: &[String], samples: &[Item]) -> Item {
    let mut item = one(dice, samples).clone();
    for _ in 0..=below(dice, 4) {
        let present = item
            .keys()
            .nth(below(dice, item.len().max(1)))
            .cloned()
            .unwrap_or_default();
        match below(dice, 9) {
            0 => drop(item.remove(&present)),
            1 => drop(item.insert(one(dice, names).clone(), value(dice, 3))),
            2 => {
                // Under another name, or twice.
                let moved = item.get(&present).cloned().unwrap_or(Value::Null);
                let name = if often(dice, (1, 2)) {
                    edited(dice, &present)
                } else {
                    one(dice, names).clone()
                };
                item.insert(name, moved);
            }
            3 | 4 => drop(item.insert(present, value(dice, 3))),
            _ => {
                let old = item.get(&present).cloned().unwrap_or(Value::Null);
                item.insert(present, near(dice, &old));
            }
        }
    }
    item
}

fn mutated_json(dice: &mut Dice, json: &mut Json, depth: usize) {
    let inner = !often(dice, (1, 6)) && depth < 12;
    match json {
        Json::Object(map) if inner && !map.is_empty() => {
            let name = map
                .keys()
                .nth(below(dice, map.len()))
                .cloned()
                .unwrap_or_default();
            match below(dice, 12) {
                0 => drop(map.remove(&name)),
                1 => {
                    let moved = map.get(&name).cloned().unwrap_or(Json::Null);
                    map.insert(edited(dice, &name), moved);
                }
                _ => {
                    if let Some(inner) = map.get_mut(&name) {
                        mutated_json(dice, inner, depth + 1);
                    }
                }
            }
        }
        Json::Array(list) if inner && !list.is_empty() => {
            let at = below(dice, list.len());
            mutated_json(dice, &mut list[at], depth + 1);
        }
        Json::String(old) if often(dice, (2, 3)) => {
            *old = if often(dice, (1, 2)) {
                edited(dice, old)
            } else {
                digits(dice)
            }
        }
        other => *other = any_json(dice),
    }
}

fn any_json(dice: &mut Dice) -> Json {
    match below(dice, 9) {
        0 => Json::Null,
        1 => json!(often(dice, (1, 2))),
        2 => json!(dice.bits().cast_signed()),
        3 => json!(dice.bits()),
        4 => json!(f64::from_bits(dice.bits())),
        5 => json!(text(dice)),
        6 => json!([text(dice), digits(dice)]),
        7 => json!({ text(dice): digits(dice) }),
        _ => {
            let mut deep = json!(digits(dice));
            for _ in 0..below(dice, 120) {
                deep = json!([deep]);
            }
            deep
        }
    }
}

fn instant(dice: &mut Dice) -> EpochMillis {
    match below(dice, 4) {
        0 => EpochMillis(*one(dice, &[0, -1, i64::MIN, i64::MAX, i64::MAX - 1, NOW - 1])),
        1 => EpochMillis(dice.bits().cast_signed()),
        _ => EpochMillis(NOW + (dice.bits() % 100_000_000).cast_signed()),
    }
}

fn amount(dice: &mut Dice) -> Millitokens {
    let tokens = *one(dice, &[0, 1, 40, 60, 100, 1000, MAX_TOKENS]);
    check_amount("consume", tokens).unwrap_or_default()
}

// Targets.

fn bucket(samples: &mut Samples, dice: &mut Dice) -> bool {
    let item = mutated(dice, &samples.names, &samples.buckets);
    let Ok(bucket) = Bucket::decode(&item) else {
        return false;
    };
    let now = instant(dice);
    let id = samples.desk.id("u");
    for limit in bucket.limits.iter().chain(&bucket.wcu) {
        let terms = bucket.terms(limit);
        let refilled = bucket.refilled(limit, now);
        let _ = terms.wait(refilled, amount(dice), instant(dice));
        let _ = bucket.wait(limit, amount(dice), now);
        let _ = (terms.valid_until(now), terms.resets_at(now), terms.fill_secs());
        let _ = (refilled.tokens.floor_tokens(), refilled.tokens.to_string());
    }
    let _ = (bucket.is_expired(now), bucket.is_valid(now), bucket.is_ahead(now));
    let _ = (
        bucket.expires_in_debt(now),
        bucket.needed_until(*one(dice, &[0, 7, u32::MAX]), now),
    );
    let spent: assist::Consumed = [
        (SmolStr::new("rpm"), amount(dice)),
        (SmolStr::new("tpm"), amount(dice)),
    ]
    .into();
    let _ = assist::refill(&id, 0, &bucket, &spent, now).map(|update| update.apply(&mut item.clone()));
    let _ = assist::split(&id, &bucket, now).map(|(update, _)| update.apply(&mut item.clone()));
    let _ = assist::propagate(&id, bucket.shard_count, bucket.shard_count.saturating_mul(2));
    let config = resolved(samples, dice);
    sync::reconcile(id.key(0), &bucket, &config, 7, now).apply(&mut item.clone());
    let stale: Vec<SmolStr> = bucket.limits.iter().map(|limit| limit.name.clone()).collect();
    let change = LimitChange {
        limits: &config.limits,
        level: config.level,
        may_expire: often(dice, (1, 2)),
        stale: &stale,
        bucket_ttl_multiplier: *one(dice, &[0, 7, u32::MAX]),
    };
    for piece in change.pieces() {
        sync::change_limits(id.key(0), &piece, &config.limits, now).apply(&mut item.clone());
    }
    true
}

/// A configuration out of mutated records, as far as they can be read.
fn resolved(samples: &Samples, dice: &mut Dice) -> Resolved {
    let mut stored = |slot| {
        let of = if slot == Slot::Meta {
            &samples.items[..1]
        } else {
            &samples.configs
        };
        let item = mutated(dice, &samples.names, of);
        Stored::decode(slot, Some(&item)).unwrap_or_default()
    };
    let stored = Slot::ALL.map(&mut stored);
    let id = samples.desk.id("u");
    resolve(&id.entity, stored.each_ref(), EpochMillis(NOW))
}

fn configuration(samples: &mut Samples, dice: &mut Dice) -> bool {
    let item = mutated(dice, &samples.names, &samples.configs);
    let decoded = Config::decode(&item);
    let _ = manifest::LevelState::of(&item).to_json();
    let config = resolved(samples, dice);
    let _ = config.bucket_ttl_secs(*one(dice, &[0, 7, u32::MAX]));
    for limit in &config.limits {
        let _ = (limit.params(), limit.refill_rate(), limit.time_to_fill());
    }
    decoded.is_ok()
}

/// Whole acquires and a refund on a table with mutated rows.
fn acquire(samples: &mut Samples, dice: &mut Dice) -> bool {
    let before = samples.desk.table.clone();
    let names = &samples.names;
    for who in ["u", "p"] {
        if often(dice, (2, 3)) {
            let stored = [samples.desk.item(who, 0).clone()];
            let of = if often(dice, (3, 4)) {
                &stored[..]
            } else {
                &samples.buckets
            };
            let mut item = mutated(dice, names, of);
            if often(dice, (3, 4)) {
                item.extend(key_item(&samples.desk.id(who).key(0)));
            }
            // What DynamoDB itself refuses cannot be there.
            let _ = samples.desk.table.insert(item);
        }
    }
    if often(dice, (1, 4)) {
        let rows: Vec<Item> = samples.desk.table.items().map(|(_, item)| item.clone()).collect();
        let item = mutated(dice, names, &rows);
        let _ = samples.desk.table.insert(item);
    }
    let desk = &mut samples.desk;
    desk.dice = Dice(dice.bits());
    desk.remembers = often(dice, (1, 2));
    desk.limits =
        often(dice, (1, 8)).then(|| vec![per_minute("rpm", 50), per_minute("tpm", MAX_TOKENS.cast_signed())]);
    desk.ttl_multiplier = *one(dice, &[0, 7, 7, u32::MAX]);
    desk.forget();
    let mut is_admitted = false;
    for _ in 0..2 {
        desk.now = instant(dice).0;
        let asked = *one(dice, &[0, 1, 60, 100, 5000, MAX_TOKENS.cast_signed()]);
        match desk.acquire("u", &[("rpm", asked), ("tpm", 1)]) {
            Decision::Admitted(grants) => {
                is_admitted = true;
                for grant in &grants {
                    let back = *one(
                        dice,
                        &[1, -1, MAX_TOKENS.cast_signed(), -MAX_TOKENS.cast_signed()],
                    );
                    let _ = desk.credit(grant, &[("rpm", back), ("tpm", 1)]);
                }
            }
            Decision::Rejected(refused) => {
                let _ = (
                    refused.to_json(),
                    refused.retry_after(),
                    refused.retry_after_header(),
                );
                let _ = refused.to_string();
            }
            Decision::Failed(err) => drop(err.to_string()),
            Decision::Disabled { .. } => {}
        }
    }
    desk.now = NOW;
    desk.table = before;
    is_admitted
}

fn records(samples: &mut Samples, dice: &mut Dice) -> bool {
    let item = mutated(dice, &samples.names, &samples.items);
    let meta = MetaRecord::decode(&item);
    if let Ok(meta) = &meta {
        let _ = (
            meta.encode(&samples.desk.namespace),
            meta.unchanged(),
            meta.owner(None),
        );
    }
    let record = NamespaceRecord::decode(&item);
    if let Ok(record) = &record {
        let now = instant(dice);
        let _ = (
            record.delete(now),
            record.recover(),
            record.start_purge(now),
            record.finish_purge(),
        );
    }
    let _ = namespace::active_id(&item);
    if let Ok(record) = VersionRecord::decode(&item) {
        let _ = record.compatibility().refusal();
    }
    let event = AuditEvent::decode(&item);
    let _ = event.put(
        &samples.desk.namespace,
        instant(dice),
        *one(dice, &[0, 90, i64::MAX, i64::MIN]),
    );
    let _ = key_of(&item).and_then(|key| BucketId::parse(&key));
    meta.is_ok() || record.is_ok()
}

fn managed(samples: &mut Samples, dice: &mut Dice) -> bool {
    let item = mutated(dice, &samples.names, &samples.managed);
    let namespace = &samples.desk.namespace;
    let now = instant(dice);
    let decoded = Managed::decode(&item);
    let is_record = decoded.is_ok();
    if let Ok(mut managed) = decoded {
        for target in managed.targets() {
            let _ = (target.key(namespace), target.name(), managed.contains(&target));
        }
        let _ = managed.take_impossible(namespace);
        let put = managed.put(namespace, Some(&item), None);
        let _ = manifest::managed::size_of(&put.item);
    }
    if let Ok(managed) = manifest::ManagedSettings::decode(&item) {
        for setting in managed.settings() {
            let _ = (
                setting.read(&item),
                setting.write(namespace, Some(2), Some(&item)),
            );
        }
        let _ = managed.put(namespace, Some(&item));
    }
    if let Some(pending) = manifest::pending::Pending::decode(item) {
        let _ = (
            pending.work(),
            pending.stale(),
            pending.is_of_others(now),
            pending.is_owned_by("t"),
        );
        let _ = (pending.release("t", now), pending.expire("t", now));
    }
    is_record
}

fn stream(samples: &mut Samples, dice: &mut Dice) -> bool {
    let mut tally = Tally::default();
    let mut is_record = false;
    for _ in 0..=below(dice, 3) {
        let mut json = one(dice, &samples.streams).clone();
        for _ in 0..=below(dice, 3) {
            mutated_json(dice, &mut json, 0);
        }
        if let Ok(record) = StreamRecord::from_json(&json) {
            is_record = true;
            let _ = record.key();
            tally.add(&record, &[Window::Hourly, Window::Daily, Window::Monthly]);
            if let Some(image) = record.new.as_ref().and_then(|item| Bucket::decode(item).ok()) {
                let _ = assist::split(&samples.desk.id("u"), &image, record.at);
            }
        }
    }
    let _ = (tally.changes(), tally.take_unusable());
    for addition in tally.finish() {
        let _ = addition.first_record();
        let stored = mutated(dice, &samples.names, &samples.usage);
        let _ = addition.write(Some(&stored), *one(dice, &[0, 90, i64::MAX, i64::MIN]));
    }
    is_record
}

fn stored_usage(samples: &mut Samples, dice: &mut Dice) -> bool {
    let mut summary = UsageSummary::default();
    let mut is_record = false;
    for _ in 0..2 {
        let item = mutated(dice, &samples.names, &samples.usage);
        if let Some(snapshot) = UsageSnapshot::decode(&item) {
            is_record = true;
            let _ = snapshot.window_end();
            summary.add(&snapshot);
        }
        let mut tally = Tally::default();
        if let Ok(record) = StreamRecord::from_json(one(dice, &samples.streams)) {
            tally.add(&record, &[Window::Hourly]);
        }
        for addition in tally.finish() {
            let _ = addition
                .write(Some(&item), 90)
                .map(|update| update.apply(&mut item.clone()));
        }
    }
    is_record
}

const YAML: &str = "namespace: tenant-1 # a comment\nsystem:\n  on_unavailable: allow\n  limits: {rpm: {capacity: 100}}\n\
    resources:\n  gpt-4:\n    limits:\n      rpm: {capacity: 500, refill_amount: 5, refill_period: 10}\n      \"tpm\": \n        \
    capacity: 1_000\nentities:\n  'user-1':\n    resources:\n      _default_: &a\n        limits: {rpm: {capacity: 0x10}}\n      \
    gpt-4: *a\n";

const YAML_PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "&a ",
    "*a",
    "!!str ",
    "!!int ",
    "|\n",
    ">\n",
    "'",
    "\"",
    "\\x",
    "\\u0000",
    "%YAML 1.2\n---\n",
    "---\n",
    "...\n",
    "<<: ",
    "? ",
    "0o17",
    ".inf",
    "~",
    "#",
    "\u{feff}",
    "\r",
];

fn manifest_yaml(samples: &mut Samples, dice: &mut Dice) -> bool {
    let _ = samples;
    let mut bytes = YAML.as_bytes().to_vec();
    for _ in 0..=below(dice, 5) {
        let at = below(dice, bytes.len() + 1);
        match below(dice, 8) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(dice, 8);
                }
            }
            1 => bytes.truncate(at),
            2 => {
                let to = (at + below(dice, 40)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                let there = below(dice, bytes.len() + 1);
                bytes.splice(there..there, piece);
            }
            3 => drop(bytes.splice(at..(at + below(dice, 20)).min(bytes.len()), [])),
            4 => drop(bytes.splice(at..at, text(dice).into_bytes())),
            5 if often(dice, (1, 20)) => {
                let piece = one(dice, &YAML_PIECES).repeat(below(dice, 400));
                bytes.splice(at..at, piece.into_bytes());
            }
            6 => drop(bytes.splice(at..at, digits(dice).into_bytes())),
            _ => drop(bytes.splice(at..at, one(dice, &YAML_PIECES).bytes())),
        }
    }
    read_yaml(&bytes)
}

#[cfg(feature = "yaml")]
fn read_yaml(bytes: &[u8]) -> bool {
    read(Manifest::from_yaml(bytes))
}

/// There is nothing that reads it.
#[cfg(not(feature = "yaml"))]
fn read_yaml(_bytes: &[u8]) -> bool {
    true
}

fn manifest_json(samples: &mut Samples, dice: &mut Dice) -> bool {
    let _ = samples;
    let mut json = json!({
        "namespace": "tenant-1",
        "system": {"on_unavailable": "allow", "cascade_depth": 4, "limits": {"rpm": {"capacity": 100}}},
        "resources": {"gpt-4": {
            "concurrency": 50, "limits": {"rpm": {"capacity": 500, "refill_amount": 5, "refill_period": 10}},
        }},
        "entities": {"user-1": {"resources": {
            "_default_": {"limits": {"tpm": {"capacity": "1000"}}}, "gpt-4": {"concurrency": 2},
        }}},
    });
    for _ in 0..=below(dice, 3) {
        mutated_json(dice, &mut json, 0);
    }
    let _ = read(Manifest::from_properties(&json));
    read(Manifest::from_json(&json))
}

fn read(manifest: Result<Manifest, manifest::Problems>) -> bool {
    match manifest {
        Ok(manifest) => {
            let _ = (
                manifest.to_json(),
                manifest.to_properties(),
                manifest.hash(),
                manifest.levels(),
            );
            true
        }
        Err(problems) => {
            let _ = problems.to_string();
            false
        }
    }
}

fn texts(samples: &mut Samples, dice: &mut Dice) -> bool {
    let sample = (*one(dice, &TEXTS)).to_owned();
    let text = edited(dice, &sample);
    let window = *one(dice, &[Window::Hourly, Window::Daily, Window::Monthly]);
    let _ = (EpochMillis::parse(&text), Window::parse(&text));
    let at = instant(dice);
    let _ = (window.start(at.into()), window.next(at.into()), at.to_text());
    let _ = window.end(at.into());
    let _ = version::Version::parse(&text).map(|version| version.to_string());
    let names = [
        EntityId::new(&*text).is_ok(),
        ResourceName::new(&*text).is_ok(),
        LimitName::new(&*text).is_ok(),
        Sequence::parse(&text).is_some(),
    ];
    let key = Key {
        pk: format!(
            "{}{text}",
            *one(dice, &["", "n/BUCKET#", "n/BUCKET#u#", "n/BUCKET#u#gpt-4#"])
        ),
        sk: SmolStr::new(*one(dice, &["", "#STATE", "#META"])),
    };
    let _ = BucketId::parse(&key);
    let _ = manifest::Target::parse(&text, &sample);
    let _ = Zone::named(&text).map(|zone| scheduled(&sample, &zone, at));
    scheduled(&text, &Zone::UTC, at);
    let _ = samples;
    names.contains(&true)
}

/// Reads a text as what schedules are written as, and evaluates it.
fn scheduled(text: &str, zone: &Zone, at: EpochMillis) {
    if let Ok(cron) = Cron::parse(text) {
        let _ = (cron.matches(zone, at), cron.to_string());
    }
    let schedule = Schedule::decode(text, zone).ok();
    let resets = ResetSchedule::decode(text, zone).ok();
    let _ = valid_until(schedule.as_ref(), resets.as_ref(), at);
    let _ = resets.map(|resets| (resets.last_edge(at), resets.next_edge(at), resets.encode()));
    let _ = schedule.map(|schedule| (schedule.active(at), schedule.encode()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str) {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        // Whole acquires take their time without optimisation.
        let runs = if name == "acquire" { 4_000 } else { 20_000 };
        let ran = run(*target, 0, runs);
        assert_eq!(ran.panicked, [] as [u64; 0], "{name}");
        // Else the mutations are so wild that nothing behind the reading is reached.
        assert!(ran.taken > runs / 50, "{name}: {ran:?}");
    }

    macro_rules! checks {
        ($($test:ident $name:literal),*) => {
            $(#[test] fn $test() { check($name); })*
            #[test]
            fn every_target_is_checked() {
                assert_eq!(TARGETS.map(|(name, _)| name).to_vec(), [$($name),*]);
            }
        };
    }

    checks!(
        buckets "bucket",
        configurations "configuration",
        acquires "acquire",
        other_records "records",
        records_of_applies "managed",
        stream_records "stream",
        snapshots "stored-usage",
        manifests_in_yaml "manifest-yaml",
        manifests_in_json "manifest-json",
        names_and_instants "texts"
    );
}

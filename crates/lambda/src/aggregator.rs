//! The stream's function: counts usage, reports it, refills and splits hot buckets, archives expired audit events.
//!
//! ```text
//! records ─► archive expired audit events ─► S3           first: what is archived twice does no harm
//!         ─► tally ─► one write a snapshot ─► table       counted once, however often a batch comes
//!         ─► thresholds of use crossed ─► a mark each ─► table, then a line of the log
//!         ─► last image of each shard ─► refill, split ─► table     pinned, as a client's writes
//!         ─► a count that has risen ─► tell siblings, create shards ─► table
//! ```
//!
//! What fails for a reason that may pass is reported as the record it comes from, and Lambda delivers the batch
//! again from there. What will never succeed is logged, and listed in the answer. Refills, splits and new shards
//! are help that clients can do without: their failures are logged, and nothing is delivered again for them.

mod alerts;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value as Json, json};
use zae_limiter::clock::Clock;
use zae_limiter::{Error, Stack};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::alerts::Crossing;
use zae_limiter_core::assist::{self, Consumed};
use zae_limiter_core::bucket::{Bucket as Image, MAX_SHARDS};
use zae_limiter_core::name::WCU;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::stream::{Change, Sequence, StreamRecord};
use zae_limiter_core::table::{Answer, FailureKind, Item, Op, TableError, Update, Value};
use zae_limiter_core::tally::{Addition, SnapshotId, Tally, consumption};
use zae_limiter_core::{Millitokens, bucket::limit_attr};

use self::alerts::Reported;
use crate::archive::{Bucket, Collector};
use crate::log::Log;
use crate::settings::AggregatorSettings;

const HANDLER: &str = "zae_limiter_aggregator.handler";
const PROCESSOR: &str = "zae_limiter_aggregator.processor";
const ARCHIVER: &str = "zae_limiter_aggregator.archiver";

/// How many writes are on their way at once.
const IN_FLIGHT: usize = 32;

/// How often a snapshot is looked at again because another function writes it too.
const RACES: u32 = 20;

/// Marks of how many snapshots are remembered between invocations, and as many of alerts.
const REMEMBERED: usize = 20_000;

/// The most errors that an answer lists.
const MOST_ERRORS: usize = 100;

/// Lambda's facts about one invocation.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// Its id.
    pub request_id: String,
    /// The function's name.
    pub function: String,
}

impl From<&lambda_runtime::Context> for Invocation {
    fn from(context: &lambda_runtime::Context) -> Self {
        Self {
            request_id: context.request_id.clone(),
            function: context.env_config.function_name.clone(),
        }
    }
}

/// The outcome of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records received.
    pub processed: usize,
    /// Snapshots written.
    pub snapshots_updated: usize,
    /// Shards refilled.
    pub refills_written: usize,
    /// Audit events put into the archive.
    pub events_archived: usize,
    /// Limits reported because of their use.
    pub alerts: Vec<Crossing>,
    /// The failure, as text.
    pub errors: Vec<String>,
    /// The records to be delivered again, by sequence number.
    pub failed: Vec<String>,
}

impl Report {
    /// The answer to Lambda. An empty list of failures means that the batch is done.
    pub fn to_json(&self) -> Json {
        let failures: Vec<Json> = self
            .failed
            .iter()
            .map(|name| json!({ "itemIdentifier": name }))
            .collect();
        json!({
            "batchItemFailures": failures,
            "statusCode": 200,
            "body": {
                "processed": self.processed,
                "snapshots_updated": self.snapshots_updated,
                "refills_written": self.refills_written,
                "events_archived": self.events_archived,
                "errors": self.errors.iter().take(MOST_ERRORS).collect::<Vec<_>>(),
            },
        })
    }
}

/// A shard as the batch showed it last.
struct Hot {
    shard_count_before: Option<u32>,
    image: Item,
    consumed: Consumed,
}

/// One piece of help to a bucket.
enum Help {
    Refill(BucketId, Update),
    Split {
        id: BucketId,
        update: Update,
        count: u32,
        left: f64,
    },
    Spread {
        id: BucketId,
        from: u32,
        count: u32,
    },
}

/// Serves the stream of one table.
pub struct Aggregator {
    stack: Stack,
    settings: AggregatorSettings,
    archive: Option<Bucket>,
    clock: Arc<dyn Clock>,
    log: Log,
    /// The content of snapshots when they were last written, for a first guess. Each write is pinned to it.
    known: Mutex<HashMap<SnapshotId, Item>>,
    /// Alerts that were reported.
    reported: Reported,
}

impl fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregator")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Aggregator {
    /// A function for a table. Without `archive`, expired audit events are gone.
    pub fn new(
        stack: Stack,
        settings: AggregatorSettings,
        archive: Option<Bucket>,
        clock: Arc<dyn Clock>,
        log: Log,
    ) -> Self {
        Self {
            stack,
            settings,
            archive,
            clock,
            log,
            known: Mutex::default(),
            reported: Reported::default(),
        }
    }

    /// Serves one invocation: an event with `Records`, as Lambda sends it. Gives the answer to Lambda.
    pub async fn handle(&self, event: &Json, invocation: &Invocation) -> Json {
        let empty = Vec::new();
        let records = event["Records"].as_array().unwrap_or(&empty);
        let started = tokio::time::Instant::now();
        let windows: Vec<&str> = self
            .settings
            .windows
            .iter()
            .map(|window| window.as_str())
            .collect();
        self.log.info(
            HANDLER,
            "Lambda invocation started",
            &[
                ("request_id", json!(invocation.request_id)),
                ("function_name", json!(invocation.function)),
                ("record_count", json!(records.len())),
                ("table_name", json!(self.settings.table)),
                ("snapshot_windows", json!(windows)),
                ("enable_archival", json!(self.archive.is_some())),
                ("archive_bucket", json!(self.archive.as_ref().map(Bucket::name))),
            ],
        );
        let report = self.process(records).await;
        let millis = (started.elapsed().as_secs_f64() * 100_000.0).round() / 100.0;
        self.log.info(
            HANDLER,
            "Lambda invocation completed",
            &[
                ("request_id", json!(invocation.request_id)),
                ("processed", json!(report.processed)),
                ("snapshots_updated", json!(report.snapshots_updated)),
                ("refills_written", json!(report.refills_written)),
                ("events_archived", json!(report.events_archived)),
                (
                    "s3_objects_created",
                    json!(usize::from(report.events_archived > 0)),
                ),
                ("error_count", json!(report.errors.len())),
                ("processing_time_ms", json!(millis)),
            ],
        );
        self.log.metrics(
            &self.settings.table,
            &[
                ("RecordsProcessed", report.processed as f64),
                ("SnapshotsUpdated", report.snapshots_updated as f64),
                ("RefillsWritten", report.refills_written as f64),
                ("EventsArchived", report.events_archived as f64),
                ("RecordsFailed", report.failed.len() as f64),
                ("Errors", report.errors.len() as f64),
                ("ProcessingMilliseconds", millis),
            ],
        );
        report.to_json()
    }

    /// Does everything that a batch of records calls for.
    pub async fn process(&self, records: &[Json]) -> Report {
        let mut report = Report {
            processed: records.len(),
            ..Report::default()
        };
        let records = self.read(records, &mut report);
        let mut failed: Vec<Sequence> = Vec::new();
        failed.extend(self.archive(&records, &mut report).await);
        failed.extend(self.count(&records, &mut report).await);
        failed.extend(self.alert(&records, &mut report).await);
        self.help(&records, &mut report).await;
        // Lambda continues from the first failure: one is enough.
        if let Some(first) = failed.into_iter().min() {
            let name = records.iter().find(|record| record.sequence == first);
            report.failed.extend(name.map(|record| record.name.clone()));
        }
        report
    }

    fn read(&self, records: &[Json], report: &mut Report) -> Vec<StreamRecord> {
        let mut read = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            match StreamRecord::from_json(record) {
                Ok(record) => read.push(record),
                Err(err) => {
                    self.log.warning(
                        PROCESSOR,
                        "Error processing record",
                        &[
                            ("record_index", json!(index)),
                            ("exception", json!(err.to_string())),
                        ],
                    );
                    report
                        .errors
                        .push(format!("Error processing record {index}: {err}"));
                }
            }
        }
        read
    }

    /// Keeps expired audit events. Gives the first record of what could not be kept.
    async fn archive(&self, records: &[StreamRecord], report: &mut Report) -> Option<Sequence> {
        let archive = self.archive.as_ref()?;
        let mut collector = Collector::default();
        for record in records {
            collector.add(record);
        }
        let object = match collector.finish(self.clock.now().into()) {
            Ok(object) => object?,
            Err(err) => {
                report.errors.push(format!("Error creating JSONL: {err}"));
                return records.iter().map(|record| record.sequence.clone()).min();
            }
        };
        match archive.put(&object).await {
            Ok(()) => {
                report.events_archived = object.events;
                self.log.info(
                    ARCHIVER,
                    "S3 object created",
                    &[
                        ("bucket", json!(archive.name())),
                        ("key", json!(object.key)),
                        ("events_count", json!(object.events)),
                        ("size_bytes", json!(object.body.len())),
                    ],
                );
                None
            }
            Err(err) => {
                self.log.error(
                    ARCHIVER,
                    "Error writing to S3",
                    &[
                        ("bucket", json!(archive.name())),
                        ("key", json!(object.key)),
                        ("exception", json!(err)),
                    ],
                );
                report.errors.push(format!("Error writing to S3: {err}"));
                Some(object.first_record)
            }
        }
    }

    /// Counts usage. Gives the first records of what could not be counted, but may be another time.
    async fn count(&self, records: &[StreamRecord], report: &mut Report) -> Vec<Sequence> {
        let mut tally = Tally::default();
        for record in records {
            tally.add(record, &self.settings.windows);
        }
        for problem in tally.take_unusable() {
            self.log.warning(
                PROCESSOR,
                "Error updating snapshot",
                &[("exception", json!(problem))],
            );
            report.errors.push(format!("Error updating snapshot: {problem}"));
        }
        let additions = tally.finish();
        let writes: Vec<BoxFuture<'_, _>> = additions
            .iter()
            .map(|addition| -> BoxFuture<'_, _> { Box::pin(self.add(addition)) })
            .collect();
        let outcomes: Vec<_> = stream::iter(writes).buffered(IN_FLIGHT).collect().await;
        let mut failed = Vec::new();
        for (addition, outcome) in additions.iter().zip(outcomes) {
            let bucket = &addition.id.bucket;
            match outcome {
                Ok(true) => {
                    report.snapshots_updated += 1;
                    self.log.debug(
                        PROCESSOR,
                        "Snapshot updated",
                        &[
                            ("entity_id", json!(bucket.entity.as_str())),
                            ("resource", json!(bucket.resource.as_str())),
                            ("window", json!(addition.id.window.as_str())),
                            ("window_key", json!(addition.id.start.to_text())),
                        ],
                    );
                }
                // It was all counted before.
                Ok(false) => {}
                Err(err) => {
                    self.complain(report, "Error updating snapshot", bucket, &err.to_string());
                    if err.kind != FailureKind::BadRequest {
                        failed.extend(addition.first_record().cloned());
                    }
                }
            }
        }
        failed
    }

    /// Writes one snapshot. Returns whether there was anything left to count.
    async fn add(&self, addition: &Addition) -> Result<bool, TableError> {
        let mut stored = self.remembered(&addition.id);
        for _ in 0..RACES {
            let Some(update) = addition.write(stored.as_ref(), self.settings.retention_days) else {
                return Ok(false);
            };
            match self.stack.insist(Op::Update(update)).await? {
                Answer::Applied(Some(image)) => {
                    self.remember(&addition.id, image);
                    return Ok(true);
                }
                Answer::Refused(image) => stored = image,
                _ => return Ok(true),
            }
        }
        Err(TableError::new(
            FailureKind::Conflict,
            zae_limiter_core::table::Applied::No,
            "other functions keep writing the same snapshot",
        ))
    }

    fn remembered(&self, id: &SnapshotId) -> Option<Item> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).cloned()
    }

    fn remember(&self, id: &SnapshotId, mut image: Item) {
        image.retain(|name, _| name.starts_with("applied#"));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id.clone(), image);
    }

    /// Refills and splits hot buckets, and brings new shards about.
    async fn help(&self, records: &[StreamRecord], report: &mut Report) {
        let hot = hot(records);
        let now = EpochMillis::from(self.clock.now());
        let mut help = Vec::new();
        for ((id, shard), hot) in hot {
            match Image::decode(&hot.image) {
                Ok(image) => help.extend(wanted(&id, shard, &hot, &image, now)),
                Err(err) => self.complain(report, "Error processing record", &id, &err.to_string()),
            }
        }
        let work: Vec<BoxFuture<'_, _>> = help
            .into_iter()
            .map(|help| -> BoxFuture<'_, _> { Box::pin(self.give(help)) })
            .collect();
        let outcomes: Vec<_> = stream::iter(work).buffer_unordered(IN_FLIGHT).collect().await;
        for outcome in outcomes {
            match outcome {
                Ok(refills) => report.refills_written += refills,
                Err((what, id, err)) => self.complain(report, what, &id, &err),
            }
        }
    }

    /// Does one piece of help. Gives how many refills were written.
    async fn give(&self, help: Help) -> Result<usize, (&'static str, BucketId, String)> {
        match help {
            Help::Refill(id, update) => {
                let written = self.stack.insist(Op::Update(update)).await;
                let written =
                    written.map_err(|err| ("Error refilling bucket", id.clone(), err.to_string()))?;
                let (message, refills) = match written {
                    Answer::Applied(_) => ("Bucket refilled", 1),
                    _ => ("Refill skipped - concurrent rf update", 0),
                };
                self.log.debug(PROCESSOR, message, &of(&id));
                Ok(refills)
            }
            Help::Split {
                id,
                update,
                count,
                left,
            } => {
                let written = self.stack.insist(Op::Update(update)).await;
                let written =
                    written.map_err(|err| ("Error in proactive sharding", id.clone(), err.to_string()))?;
                if matches!(written, Answer::Applied(_)) {
                    let mut fields = of(&id).to_vec();
                    fields.push(("old_count", json!(count / 2)));
                    fields.push(("new_count", json!(count)));
                    fields.push(("token_ratio", json!(left)));
                    self.log.info(PROCESSOR, "Proactive shard doubling", &fields);
                    if count >= MAX_SHARDS {
                        let mut fields = of(&id).to_vec();
                        fields.push(("shard_count", json!(count)));
                        fields.push(("threshold", json!(MAX_SHARDS)));
                        self.log
                            .warning(PROCESSOR, "High shard count after proactive doubling", &fields);
                    }
                }
                Ok(0)
            }
            Help::Spread { id, from, count } => {
                let failed = |err: String| ("Error propagating shard_count", id.clone(), err);
                let mut touched = 0;
                for update in assist::propagate(&id, from, count) {
                    let written = self.stack.insist(Op::Update(update)).await;
                    let written = written.map_err(|err| failed(err.to_string()))?;
                    touched += u32::from(matches!(written, Answer::Applied(_)));
                }
                match self.stack.create_shards(&id, from..count, count).await {
                    Ok(created) => touched += created,
                    // Its limits came with the calls: only they can create its shards.
                    Err(Error::NotConfigured { .. }) => {}
                    Err(err) => return Err(failed(err.to_string())),
                }
                if touched > 0 {
                    let mut fields = of(&id).to_vec();
                    fields.push(("new_count", json!(count)));
                    fields.push(("shards_updated", json!(touched)));
                    self.log.info(PROCESSOR, "Shard count propagated", &fields);
                }
                Ok(0)
            }
        }
    }

    fn complain(&self, report: &mut Report, what: &str, id: &BucketId, err: &str) {
        let mut fields = of(id).to_vec();
        fields.push(("exception", json!(err)));
        self.log.warning(PROCESSOR, what, &fields);
        report
            .errors
            .push(format!("{what} of {} on {}: {err}", id.entity, id.resource));
    }
}

fn of(id: &BucketId) -> [(&'static str, Json); 2] {
    [
        ("entity_id", json!(id.entity.as_str())),
        ("resource", json!(id.resource.as_str())),
    ]
}

/// The last image of each shard in the batch, and what was consumed of it.
fn hot(records: &[StreamRecord]) -> BTreeMap<(BucketId, u32), Hot> {
    let mut hot: BTreeMap<(BucketId, u32), Hot> = BTreeMap::new();
    for record in records {
        let Some(place) = record.key().and_then(|key| BucketId::parse(&key)) else {
            continue;
        };
        let Some(new) = record.new.as_ref().filter(|_| record.change != Change::Remove) else {
            hot.remove(&place);
            continue;
        };
        let count = |item: &Item| item.get("shard_count").and_then(Value::as_int);
        let old = record.old.as_ref();
        let found = hot.entry(place).or_insert_with(|| Hot {
            shard_count_before: old.and_then(count).and_then(|count| u32::try_from(count).ok()),
            image: Item::new(),
            consumed: Consumed::new(),
        });
        for (name, value) in consumption(new) {
            let was = old
                .and_then(|old| old.get(limit_attr(name, "tc").as_str()))
                .and_then(Value::as_int);
            let delta = value.saturating_sub(was.unwrap_or(0));
            let sum = found.consumed.entry(name.into()).or_insert(Millitokens::ZERO);
            sum.0 = sum.0.saturating_add(delta);
        }
        found.image = new.clone();
    }
    hot
}

/// The help for a shard.
fn wanted(id: &BucketId, shard: u32, hot: &Hot, image: &Image, now: EpochMillis) -> Vec<Help> {
    let mut help = Vec::new();
    if let Some(update) = assist::refill(id, shard, image, &hot.consumed, now) {
        help.push(Help::Refill(id.clone(), update));
    }
    if shard != 0 {
        return help;
    }
    let has_grown = hot
        .shard_count_before
        .is_some_and(|before| before < image.shard_count);
    // A count that has just been doubled must first do its work: the doubling itself shows the same low balance.
    let is_written = hot
        .consumed
        .get(WCU)
        .is_some_and(|spent| *spent > Millitokens::ZERO);
    if is_written
        && !has_grown
        && let Some((update, count)) = assist::split(id, image, now)
    {
        let left = image.wcu.as_ref().map_or(0.0, |wcu| {
            wcu.balance.0 as f64 / (wcu.params.capacity.max(1)) as f64
        });
        help.push(Help::Split {
            id: id.clone(),
            update,
            count,
            left,
        });
    }
    if let Some(before) = hot.shard_count_before
        && before < image.shard_count
        && image.shard_count <= MAX_SHARDS
    {
        help.push(Help::Spread {
            id: id.clone(),
            from: before,
            count: image.shard_count,
        });
    }
    help
}

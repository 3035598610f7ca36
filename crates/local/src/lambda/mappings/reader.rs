//! Reading a stream for a mapping: what passes its filters, gathered into parcels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::delivery::Record;
use super::pattern::Pattern;
use super::record::Mapping;
use crate::lambda::Pace;
use crate::tables::Tables;
use crate::wire::Refusal;

/// How many records are read at once.
const PAGE: usize = 1_000;

/// How many bytes of records a parcel may have; an event may have 6 MB.
const LARGEST: usize = 5_500_000;

/// Records for the function, and how far the stream was read for them.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) records: Vec<Record>,
    /// The sequence number of the last record read, whether it passed the filters or not.
    pub(crate) up_to: String,
    pub(crate) shard: Arc<str>,
}

/// Reads one mapping's stream.
#[derive(Debug)]
pub(crate) struct Reader {
    tables: Tables,
    mapping: Arc<Mapping>,
    filters: Vec<Pattern>,
    pace: Pace,
    /// The last record that was read.
    read: Option<String>,
    cursor: Option<Cursor>,
    /// Records that were read and are not in a batch yet; `None` stands for a record that did not pass.
    backlog: VecDeque<(String, Option<Record>)>,
    /// Whether the last page was full.
    more: bool,
}

#[derive(Debug)]
struct Cursor {
    shard: Arc<str>,
    iterator: String,
}

/// A parcel that is being filled.
#[derive(Debug, Default)]
struct Open {
    records: Vec<Record>,
    bytes: usize,
    up_to: Option<String>,
    since: Option<Instant>,
}

impl Open {
    fn is_full(&self, most: usize) -> bool {
        self.records.len() >= most || self.bytes >= LARGEST
    }
}

impl Reader {
    /// A reader that begins after a record, or at the stream's beginning.
    pub(crate) fn new(
        tables: Tables,
        mapping: Arc<Mapping>,
        pace: Pace,
        read: Option<String>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            filters: mapping.filters()?,
            tables,
            mapping,
            pace,
            read,
            cursor: None,
            backlog: VecDeque::new(),
            more: false,
        })
    }

    /// Reads until the receiver of the batches is gone. While one batch is processed, the next is gathered. `trouble`
    /// is called when the stream cannot be read, and when it can again.
    pub(crate) async fn run(mut self, parcels: mpsc::Sender<Parcel>, trouble: impl Fn(Option<&Refusal>)) {
        let mut writes = self.tables.watch();
        let window = Duration::from_secs(u64::from(self.mapping.window_seconds));
        let most = self.mapping.batch_size;
        let mut open = Open::default();
        let mut troubled = false;
        loop {
            writes.mark_unchanged();
            if let Err(err) = self.fill(&mut open, most).await {
                troubled = true;
                trouble(Some(&err));
                self.cursor = None;
            } else if troubled {
                troubled = false;
                trouble(None);
            }
            let full = open.is_full(most);
            let due = open.since.map(|since| since + window);
            if full || due.is_some_and(|due| due <= Instant::now() && !self.more) {
                tokio::select! {
                    permit = parcels.reserve() => match permit {
                        Ok(permit) => permit.send(self.close(&mut open)),
                        Err(_) => return,
                    },
                    // Meanwhile there is room for more.
                    true = changed(&mut writes), if !full => tokio::time::sleep(self.pace.gather).await,
                }
                continue;
            }
            if self.more && !troubled {
                continue;
            }
            if open.records.is_empty() && open.up_to.is_some() {
                // Nothing for the function, but it need not be read again.
                match parcels.try_reserve() {
                    Ok(permit) => permit.send(self.close(&mut open)),
                    Err(mpsc::error::TrySendError::Closed(())) => return,
                    Err(mpsc::error::TrySendError::Full(())) => {}
                }
            }
            let tick = Instant::now() + self.pace.tick;
            tokio::select! {
                () = parcels.closed() => return,
                () = tokio::time::sleep_until(due.map_or(tick, |due| due.min(tick))) => {
                    if due.is_none() {
                        // A table that was deleted and made again has another stream, which only this tells.
                        self.cursor = None;
                    }
                }
                true = changed(&mut writes), if !troubled => {
                    // More will have come in a moment.
                    let gathered = Instant::now() + self.pace.gather;
                    tokio::time::sleep_until(due.map_or(gathered, |due| due.min(gathered))).await;
                }
            }
        }
    }

    /// Puts into a parcel what was read, and what can be read now.
    async fn fill(&mut self, open: &mut Open, most: usize) -> Result<(), Refusal> {
        if open.is_full(most) {
            return Ok(());
        }
        if self.backlog.is_empty() {
            self.read_page().await?;
        }
        while !open.is_full(most)
            && let Some((sequence, record)) = self.backlog.pop_front()
        {
            open.up_to = Some(sequence);
            if let Some(record) = record {
                open.bytes += record.text.len() + 1;
                open.records.push(record);
                open.since.get_or_insert_with(Instant::now);
            }
        }
        self.more |= !self.backlog.is_empty();
        Ok(())
    }

    fn close(&self, open: &mut Open) -> Parcel {
        let open = std::mem::take(open);
        Parcel {
            records: open.records,
            up_to: open.up_to.unwrap_or_default(),
            shard: self
                .cursor
                .as_ref()
                .map_or_else(|| "".into(), |cursor| Arc::clone(&cursor.shard)),
        }
    }

    async fn read_page(&mut self) -> Result<(), Refusal> {
        let source = &self.mapping.source;
        let cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.seek().await?,
        };
        let request = json!({"ShardIterator": cursor.iterator, "Limit": PAGE});
        let mut page = self.tables.call(&source.region, "GetRecords", &request).await?;
        let Json::Array(records) = page["Records"].take() else {
            return Err(Refusal::internal(&"the stream answered without records"));
        };
        self.more = records.len() >= PAGE;
        for record in records {
            let Some((mut read, shown)) = Record::read(record, source) else {
                return Err(Refusal::internal(
                    &"the stream has a record without a sequence number",
                ));
            };
            let passes = self.filters.is_empty() || self.filters.iter().any(|filter| filter.passes(&shown));
            let sequence = read.sequence.clone();
            self.read = Some(sequence.clone());
            let record = passes.then(|| {
                read.text = shown.to_string();
                read
            });
            self.backlog.push_back((sequence, record));
        }
        if let Some(iterator) = page["NextShardIterator"].as_str() {
            self.cursor = Some(Cursor {
                shard: cursor.shard,
                iterator: iterator.to_owned(),
            });
        }
        Ok(())
    }

    /// Finds the stream, and its place in it.
    async fn seek(&self) -> Result<Cursor, Refusal> {
        let source = &self.mapping.source;
        let (shard, _) = describe(&self.tables, &self.mapping).await?;
        let mut request = json!({"StreamArn": source.arn(), "ShardId": shard});
        match &self.read {
            Some(read) => {
                request["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
                request["SequenceNumber"] = json!(read);
            }
            None => request["ShardIteratorType"] = json!("TRIM_HORIZON"),
        }
        let found = self
            .tables
            .call(&source.region, "GetShardIterator", &request)
            .await?;
        match found["ShardIterator"].as_str() {
            Some(iterator) => Ok(Cursor {
                shard: shard.into(),
                iterator: iterator.to_owned(),
            }),
            None => Err(Refusal::internal(&"the stream answered without an iterator")),
        }
    }
}

/// Waits for a write. Never, if there will be none any more.
async fn changed(writes: &mut watch::Receiver<u64>) -> bool {
    writes.changed().await.is_ok()
}

/// A stream's shard, and the sequence number of its last record.
pub(crate) async fn describe(
    tables: &Tables,
    mapping: &Mapping,
) -> Result<(String, Option<String>), Refusal> {
    let source = &mapping.source;
    let gone = || {
        Refusal::new(
            "ResourceNotFoundException",
            format!("Stream not found: {}", source.arn()),
        )
        .status(404)
    };
    let request = json!({"StreamArn": source.arn()});
    let found = match tables.call(&source.region, "DescribeStream", &request).await {
        Err(err) if err.code == "ResourceNotFoundException" => return Err(gone()),
        other => other?,
    };
    let stream = &found["StreamDescription"];
    if stream["StreamLabel"].as_str() != Some(&source.label) {
        // The table has been made anew, and so has its stream.
        return Err(gone());
    }
    let shard = &stream["Shards"][0];
    let last = shard["SequenceNumberRange"]["EndingSequenceNumber"].as_str();
    match shard["ShardId"].as_str() {
        Some(id) => Ok((id.to_owned(), last.map(str::to_owned))),
        None => Err(Refusal::internal(&"the stream has no shard")),
    }
}

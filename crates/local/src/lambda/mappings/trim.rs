//! Limits the size of streams: records that every mapping has read, and those older than a day, are deleted.

use std::sync::{Arc, Weak};

use zae_limiter::table::embedded::{StreamReader, Trimmed};

use super::record::{KIND, Mapping, PLACE, Place};
use crate::clock::now_ms;
use crate::lambda::Inner;
use crate::tables::Streams;
use crate::wire::Refusal;

/// For how many seconds a record is kept that has not been read, as DynamoDB does.
const KEPT: i64 = 24 * 60 * 60;

/// Trims from time to time, if something was written.
pub(crate) async fn run(lambda: Weak<Inner>, streams: Streams) {
    let streams = Arc::new(streams);
    let Some(mut writes) = lambda.upgrade().map(|inner| inner.tables.watch()) else {
        return;
    };
    while writes.changed().await.is_ok() {
        let Some(tick) = lambda.upgrade().map(|inner| inner.pace.tick) else {
            return;
        };
        tokio::time::sleep(tick).await;
        writes.mark_unchanged();
        let Some(inner) = lambda.upgrade() else {
            return;
        };
        match trim(&inner, &streams).await {
            Ok(trimmed) => trimmed.iter().for_each(warn),
            Err(err) => tracing::warn!(error = %err, "the streams could not be trimmed"),
        }
    }
}

async fn trim(inner: &Inner, streams: &Arc<Streams>) -> Result<Vec<Trimmed>, Refusal> {
    let mut readers = Vec::new();
    for (uuid, mapping) in inner.store.list::<Mapping>(KIND)? {
        let place: Place = inner.store.get(PLACE, &uuid)?.unwrap_or_default();
        readers.push(StreamReader {
            table: mapping.source.table,
            read: place.read,
        });
    }
    let streams = Arc::clone(streams);
    let oldest = now_ms() / 1_000 - KEPT;
    tokio::task::spawn_blocking(move || streams.keeper.trim(&readers, oldest))
        .await
        .map_err(|err| Refusal::internal(&err))?
        .map_err(|err| Refusal::internal(&err))
}

fn warn(trimmed: &Trimmed) {
    if trimmed.unread > 0 {
        tracing::error!(
            table = trimmed.table,
            records = trimmed.unread,
            "records of a stream were a day old and are gone before its event source mapping had read them"
        );
    }
}

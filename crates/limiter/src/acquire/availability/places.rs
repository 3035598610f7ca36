//! How many places in flight are taken.

use futures_util::future::try_join_all;
use zae_limiter_core::flight::{Holders, flight_key};
use zae_limiter_core::schema::{BucketId, key_of};

use crate::acquire::availability::{PlacesTaken, Wish};
use crate::acquire::flight::not_limited;
use crate::error::Error;
use crate::inner::Inner;
use crate::table::TableExt as _;

impl Inner {
    /// Reads the places of a chain of entities. The first must have a concurrency limit, unless it is `disabled`.
    pub(super) async fn places_taken(
        &self,
        chain: Vec<&BucketId>,
        disabled: bool,
        wish: Wish,
    ) -> Result<Vec<PlacesTaken>, Error> {
        let mut reads = Vec::with_capacity(chain.len());
        for (level, id) in chain.iter().enumerate() {
            reads.push(self.places_of(id, level, disabled, wish));
        }
        let limits = try_join_all(reads).await?;
        let limited = chain
            .iter()
            .zip(limits)
            .filter_map(|(id, most)| Some((*id, most?)));
        let limited: Vec<_> = limited.collect();
        let keys = limited.iter().map(|(id, _)| flight_key(id)).collect();
        let items = self.table.batch_get(keys, wish.consistent).await;
        let items = items.map_err(|err| self.table_error(err))?;
        let now = self.clock.now();
        let taken = |(id, limit): (&BucketId, u32)| {
            let key = Some(flight_key(id));
            let holders = Holders::decode(items.iter().find(|item| key_of(item) == key))?;
            let in_flight = holders.len() - holders.expired(now).len();
            Ok(PlacesTaken {
                entity: id.entity.clone(),
                limit,
                in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            })
        };
        limited.into_iter().map(taken).collect()
    }

    /// How many places a request needs one of, of an entity on this level of its chain.
    async fn places_of(
        &self,
        id: &BucketId,
        level: usize,
        disabled: bool,
        wish: Wish,
    ) -> Result<Option<u32>, Error> {
        let most = self.most_in_flight(&id.entity, &id.resource, level > 0, wish.consistent);
        let most = most.await.map_err(|err| self.place.acquire_error(err))?;
        if level == 0 && most.is_none() && !disabled {
            return Err(self
                .place
                .acquire_error(not_limited(&id.entity, &id.resource).into()));
        }
        Ok(most)
    }
}

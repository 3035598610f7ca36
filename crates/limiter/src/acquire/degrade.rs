//! What a request may take while the table is out of reach and the operator chose to continue with a part of the
//! limits: the limits and flags that the caches last held, of the entity and of its parent if it cascades.

use zae_limiter_core::acquire::{DisabledAt, Request, check_config};
use zae_limiter_core::bucket::Owner;
use zae_limiter_core::bucket::newest_owner;
use zae_limiter_core::config::{Level, Resolved};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::Condition;
use zae_limiter_core::{EpochMillis, LimitName, Millitokens, Percent};

use crate::acquire::local_buckets::Claim;
use crate::error::{Error, level_name};
use crate::inner::Inner;

impl Inner {
    /// What a request takes from this process's part of the limits last seen: of the entity, and of its parent if it
    /// cascades. `None` if the limits of one of them were never seen, so that nothing bounds the request.
    ///
    /// # Errors
    /// As with the table: a disabled entity or resource, an unknown limit, limits that cannot be enforced.
    pub(crate) fn claims(
        &self,
        request: &Request,
        part: Percent,
    ) -> Result<Option<Vec<(Claim, Millitokens)>>, Error> {
        let resource = &request.id.resource;
        let Some(own) = self.last_known(&request.id, request) else {
            return Ok(None);
        };
        check_config(&own, resource, &request.consume).map_err(|err| self.place.acquire_error(err))?;
        let mut claims = claims_of(&own, request, part);
        if let Some(parent) = self
            .last_owner(&request.id, own.owner.as_ref())
            .as_ref()
            .and_then(Owner::cascade_parent)
        {
            let id = BucketId {
                entity: parent.clone(),
                ..request.id.clone()
            };
            let Some(of_parent) = self.last_known(&id, request) else {
                return Ok(None);
            };
            check_config(&of_parent, resource, &[]).map_err(|err| self.place.acquire_error(err))?;
            self.check_enabled(&id, &of_parent)?;
            claims.extend(claims_of(&of_parent, request, part));
        }
        self.check_enabled(&request.id, &own)?;
        Ok(Some(claims))
    }

    /// The configuration last seen, however old, with the limits that came with the call.
    pub(super) fn last_known(&self, id: &BucketId, request: &Request) -> Option<Resolved> {
        let known = self.config.stale(&id.entity, &id.resource);
        let Some(limits) = request.limits.clone() else {
            return known.map(|known| (*known).clone());
        };
        let (owner, disabled) = match &known {
            Some(known) => (known.owner.clone(), known.disabled),
            None => (None, None),
        };
        Some(Resolved {
            entity: id.entity.clone(),
            limits,
            level: Level::Override,
            unsupported: None,
            owner,
            meta_unchanged: Condition::ALWAYS,
            disabled,
            on_unavailable: None,
            read_at: EpochMillis::default(),
        })
    }

    /// The owner of the bucket, according to its last image or the entity's record.
    fn last_owner(&self, id: &BucketId, read: Option<&Owner>) -> Option<Owner> {
        let hint = self.images.hint(id, self.clock.now());
        match hint.images.first().or_else(|| hint.older.first()) {
            Some((_, image)) => newest_owner(&image.owner, read).cloned(),
            None => read.cloned(),
        }
    }

    fn check_enabled(&self, id: &BucketId, config: &Resolved) -> Result<(), Error> {
        let hint = self.images.hint(id, self.clock.now());
        let mut images = hint.images.iter().chain(&hint.older);
        let at = match config.disabled {
            Some(level) => DisabledAt::Config(level),
            None if images.any(|(_, image)| image.disabled) => DisabledAt::Bucket,
            None => return Ok(()),
        };
        Err(Error::Disabled {
            entity: id.entity.to_string(),
            resource: id.resource.to_string(),
            level: level_name(at),
        })
    }
}

/// The request for the limits of a configuration.
fn claims_of(config: &Resolved, request: &Request, part: Percent) -> Vec<(Claim, Millitokens)> {
    let claim = |(name, amount): &(LimitName, Millitokens)| {
        let limit = config.limit(name)?;
        Some((
            Claim::new(&config.entity, &request.id.resource, limit, part),
            *amount,
        ))
    };
    request.consume.iter().filter_map(claim).collect()
}

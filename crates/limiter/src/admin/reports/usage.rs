//! Usage: what was consumed, by entity or resource, in windows of time.

use std::collections::BTreeMap;
use std::time::SystemTime;

use zae_limiter_core::table::Key;
use zae_limiter_core::usage::{UsageFilter, UsageOf, UsageSnapshot, UsageSummary, Window};
use zae_limiter_core::{EntityId, EpochMillis, IntoName, InvalidInput, ResourceName};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::error::Error;

/// Which usage is wanted: of an entity, of a resource, of one entity's use of one resource, or all of it.
///
/// The functions of a deployed stack count usage. An embedded table counts none.
///
/// ```
/// use zae_limiter::{UsageQuery, Window};
///
/// let query = UsageQuery::entity("user-1").resource("gpt-4").window(Window::Daily);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "describes usage; pass it to `usage_snapshots` or `usage_summary`"]
pub struct UsageQuery {
    entity: Option<Result<EntityId, InvalidInput>>,
    resource: Option<Result<ResourceName, InvalidInput>>,
    window: Option<Window>,
    start: Option<SystemTime>,
    end: Option<SystemTime>,
}

impl UsageQuery {
    /// The usage of all entities and resources.
    pub fn all() -> Self {
        Self::default()
    }

    /// The usage of an entity.
    pub fn entity(id: impl IntoName<EntityId>) -> Self {
        Self {
            entity: Some(id.into_name()),
            ..Self::default()
        }
    }

    /// The usage of a resource by all entities; after [`entity`](Self::entity), by that entity.
    pub fn of_resource(resource: impl IntoName<ResourceName>) -> Self {
        Self::default().resource(resource)
    }

    /// Only what was consumed of this resource.
    pub fn resource(mut self, resource: impl IntoName<ResourceName>) -> Self {
        self.resource = Some(resource.into_name());
        self
    }

    /// Only windows of this kind. Without it an hour counts in its own window, its day's and its month's, so
    /// give one before adding up.
    pub fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// Only windows that start in this second or later.
    pub fn from(mut self, start: SystemTime) -> Self {
        self.start = Some(start);
        self
    }

    /// Only windows that start in this second or earlier.
    pub fn until(mut self, end: SystemTime) -> Self {
        self.end = Some(end);
        self
    }

    fn check(self) -> Result<UsageFilter, InvalidInput> {
        let entity = self.entity.transpose()?;
        let resource = self.resource.transpose()?;
        let of = match (entity, resource) {
            (Some(entity), Some(resource)) => UsageOf::Both(entity, resource),
            (Some(entity), None) => UsageOf::Entity(entity),
            (None, Some(resource)) => UsageOf::Resource(resource),
            (None, None) => UsageOf::All,
        };
        Ok(UsageFilter {
            window: self.window,
            start: self.start.map(EpochMillis::from),
            end: self.end.map(EpochMillis::from),
            ..UsageFilter::new(of)
        })
    }
}

impl Admin {
    /// Usage by window, latest first; of an entity without a resource, by resource and then latest first.
    ///
    /// Windows are written by the table's functions within seconds of the consumption. A table without
    /// functions has none: an embedded table ([`Repository::in_memory`](crate::Repository), `embedded`), and a stack that was
    /// deployed without them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::{Duration, SystemTime};
    /// use zae_limiter::{Repository, UsageQuery, Window};
    ///
    /// let repo = Repository::in_memory().await?; // counts no usage; `open("default")` is a deployed stack
    /// let since = SystemTime::now() - Duration::from_hours(24);
    /// let query = UsageQuery::entity("key-1").resource("gpt-4").window(Window::Hourly).from(since);
    /// let mut pages = repo.admin().usage_snapshots(query)?.page_size(100);
    /// let mut tokens = 0;
    /// while let Some(page) = pages.next_page().await? {
    ///     tokens += page.iter().filter_map(|hour| hour.counters.get("tpm")).sum::<i128>();
    /// }
    /// assert_eq!(tokens, 0);
    /// # Ok(()) }
    /// ```
    pub fn usage_snapshots(&self, query: UsageQuery) -> Result<Pages<UsageSnapshot>, Error> {
        let filter = query.check()?;
        if filter.of == UsageOf::All {
            let reason = "must be given, unless a resource is";
            return Err(InvalidInput::of_request("entity_id", "", reason).into());
        }
        Ok(self.usage_pages(filter))
    }

    fn usage_pages(&self, filter: UsageFilter) -> Pages<UsageSnapshot> {
        let inner = &self.inner;
        let read = filter.query(&inner.namespace);
        Pages::new(&inner.place, &inner.table, read, move |item| {
            Ok(UsageSnapshot::decode(item).filter(|snapshot| filter.wants(snapshot)))
        })
    }

    /// The first `most` windows that match, in the order of [`usage_snapshots`](Self::usage_snapshots): the latest, except of an
    /// entity without a resource.
    ///
    /// Of [`UsageQuery::all`] it reads the keys of all records of the namespace's entities, some 6,000 for each megabyte
    /// (128 read units), and then the snapshots. With an entity or a resource it reads no more than it returns.
    pub async fn latest_usage(&self, query: UsageQuery, most: usize) -> Result<Vec<UsageSnapshot>, Error> {
        let filter = query.check()?;
        if filter.of == UsageOf::All {
            return self.latest_of_all(&filter, most).await;
        }
        self.usage_pages(filter).first(most).await
    }

    async fn latest_of_all(&self, filter: &UsageFilter, most: usize) -> Result<Vec<UsageSnapshot>, Error> {
        let mut found: Vec<UsageSnapshot> = Vec::new();
        let mut before = None;
        while found.len() < most
            && let Some(query) = filter.query(&self.inner.namespace)
        {
            let start = |key: &Key| filter.start_in(key).map(str::to_owned);
            // A key does not always tell the kind of window, so not all of them may be wanted.
            let candidates = (most - found.len()).saturating_mul(2);
            let keys = self
                .latest_keys(query, start, before.as_ref(), candidates)
                .await?;
            let items = self.items_at(&keys).await?;
            let snapshots = items.iter().filter_map(UsageSnapshot::decode);
            found.extend(snapshots.filter(|snapshot| filter.wants(snapshot)));
            if keys.len() < candidates {
                break;
            }
            before = keys.into_iter().next_back();
        }
        found.truncate(most);
        Ok(found)
    }

    /// Usage added up over all windows that match. An hour counts in its day, too: if the query does not say which kind of
    /// window is meant, the shortest one that has snapshots is added up, and [`UsageSummary::window`] names it. Empty for a
    /// table without functions, as of [`usage_snapshots`](Self::usage_snapshots).
    pub async fn usage_summary(&self, query: UsageQuery) -> Result<UsageSummary, Error> {
        let mut pages = self.usage_snapshots(query)?;
        let mut by_window = BTreeMap::<String, UsageSummary>::new();
        while let Some(page) = pages.next_page().await? {
            for snapshot in &page {
                by_window
                    .entry(snapshot.window.clone())
                    .or_default()
                    .add(snapshot);
            }
        }
        Ok(UsageSummary::shortest(by_window.into_values()))
    }
}

//! Administration: the table as a whole, stored limits and entities, audit events and usage.

mod above;
pub(crate) mod access;
mod audit;
mod concurrency;
mod declare;
mod entities;
mod gate;
mod levels;
mod limits;
mod operations;
mod pages;
pub(crate) mod principal;
#[cfg(feature = "provision")]
pub(crate) mod provision;
mod reports;
mod retention;
pub(crate) mod retry;
mod setting;
pub(crate) mod stack;
mod sweep;

use std::fmt;
use std::sync::Arc;

use crate::inner::Inner;

pub use above::AboveParent;
pub use concurrency::PlaceInFlight;
pub use declare::{ApplyOptions, BegunApply, LimitsApplied, LimitsPlan};
pub use entities::NewEntity;
pub use limits::ALL_RESOURCES;
pub use operations::{BucketReset, TopUp};
pub use pages::{Cursor, Pages};
#[cfg(feature = "provision")]
pub use provision::stack_manager;
pub use reports::{CapacityOf, EntityCapacity, ResourceCapacity, UsageQuery};
pub use stack::Stack;
pub use sweep::Progress;

/// Administration of a namespace: entities, limits at every level, manifests, the audit log, usage.
///
/// From [`Repository::admin`](crate::Repository::admin). Cheap to clone. Reads are those of an operator: they go to the table, and changes
/// are recorded in the audit log under the repository's principal.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
/// use zae_limiter::{Limit, NewEntity, Repository};
///
/// let repo = Repository::in_memory().await?;
/// let admin = repo.admin();
/// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
/// admin.create_entity(NewEntity::new("key-1").name("Production")).await?;
/// assert_eq!(admin.effective_limits("key-1", "gpt-4").await?[0].capacity(), 100);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Admin {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("namespace", &self.inner.namespace_name)
            .finish_non_exhaustive()
    }
}

//! Whether the table's functions and clients honour what is about to be stored.

use zae_limiter_core::Limit;
use zae_limiter_core::schema::version_key;
use zae_limiter_core::version::Gate;

use crate::admin::Admin;
use crate::admin::levels::{LevelRecord, MAX_RACES};
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::TableExt as _;

impl Admin {
    /// Checks that limits can be stored at a level, and raises the oldest client that may use the table if it must be.
    pub(crate) async fn check_storable(&self, record: &LevelRecord, limits: &[Limit]) -> Result<(), Error> {
        if Gate::of(limits, &[]).is_none() {
            return Ok(());
        }
        let stored = self.level(&record.key).await?.limits;
        match Gate::of(limits, &stored) {
            Some(gate) => self.pass(&gate).await,
            None => Ok(()),
        }
    }

    /// Passes a gate: raises the oldest client that may use the table if it must be.
    ///
    /// Before the limits are written: a process that stops in between leaves a table that demands too much, and not limits
    /// that a client does not see.
    pub(crate) async fn pass(&self, gate: &Gate) -> Result<(), Error> {
        let inner = &self.inner;
        for _ in 0..MAX_RACES {
            let found = self.read(&version_key()).await?;
            let raise = gate.pass(found.as_ref(), inner.has_functions)?;
            let Some(raise) = raise.map_err(|closed| Error::VersionMismatch(closed.to_string()))? else {
                return Ok(());
            };
            let raised = inner.place.insisting(BRIEF, || inner.table.update(raise.clone()));
            if raised.await?.is_applied() {
                return Ok(());
            }
        }
        Err(inner.place.contended(&version_key()))
    }

    /// Checks that a gate can be passed. Only reads.
    pub(crate) async fn check_passable(&self, gate: &Gate) -> Result<(), Error> {
        let found = self.read(&version_key()).await?;
        let raise = gate.pass(found.as_ref(), self.inner.has_functions)?;
        raise
            .map(drop)
            .map_err(|closed| Error::VersionMismatch(closed.to_string()))
    }
}

#[cfg(all(test, feature = "embedded"))]
#[expect(clippy::unwrap_used, reason = "helpers of tests")]
mod tests {
    use zae_limiter_core::table::{Update, Value};
    use zae_limiter_core::version::FUNCTIONS_LEVEL;

    use super::*;
    use crate::Repository;

    async fn minimum(repo: &Repository) -> String {
        let version = repo.stack_handle().version().await.unwrap();
        version.unwrap().client_minimum
    }

    async fn store(repo: &Repository, attribute: &str, value: Value) {
        let mut update = Update::new(version_key());
        update.set.push((attribute.into(), value));
        assert!(repo.table().update(update).await.unwrap().is_applied());
    }

    async fn passed(repo: &Repository, limit: zae_limiter_core::LimitBuilder) -> Result<(), String> {
        let gate = Gate::of(&[limit.build().unwrap()], &[]).unwrap();
        repo.admin().pass(&gate).await.map_err(|err| err.to_string())
    }

    #[tokio::test]
    async fn a_table_without_functions_needs_no_proof_of_them() {
        let repo = Repository::in_memory().await.unwrap();
        assert_eq!(minimum(&repo).await, "0.0.0");
        let session = Limit::session("s", 5, std::time::Duration::from_mins(1));
        passed(&repo, session.clone()).await.unwrap();
        assert_eq!(minimum(&repo).await, "0.15.0");
        passed(&repo, session.clone().soft()).await.unwrap();
        assert_eq!(minimum(&repo).await, "0.17.0");
        passed(&repo, session).await.unwrap();
        assert_eq!(minimum(&repo).await, "0.17.0");
    }

    #[tokio::test]
    async fn functions_of_the_record_decide() {
        let repo = Repository::in_memory().await.unwrap();
        let soft = Limit::per_minute("rpm", 5).soft();
        store(&repo, "lambda_version", Value::text("0.16.0")).await;
        let why = passed(&repo, soft.clone()).await.unwrap_err();
        assert!(why.contains("the deployed functions predate 0.17.0"), "{why}");
        assert_eq!(minimum(&repo).await, "0.0.0");
        store(&repo, "lambda_version", Value::text(FUNCTIONS_LEVEL)).await;
        passed(&repo, soft).await.unwrap();
        assert_eq!(minimum(&repo).await, "0.17.0");
    }
}

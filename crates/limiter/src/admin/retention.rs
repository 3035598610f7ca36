//! For how long audit events are kept.

use zae_limiter_core::InvalidInput;
use zae_limiter_core::schema::{add_namespace_index, system_config_key};
use zae_limiter_core::table::{Item, Update, Value};

use crate::admin::Admin;
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::TableExt as _;

/// The longest time, in days: a hundred years.
const LONGEST: u32 = 36_500;

impl Admin {
    /// For how many days this namespace's audit events are kept. 90 unless it was set.
    pub async fn audit_retention(&self) -> Result<u32, Error> {
        let days = self.audit_retention_days().await?;
        Ok(u32::try_from(days).unwrap_or(u32::MAX))
    }

    /// Sets for how many days this namespace's audit events are kept: 1 to 36500. Holds for events that are
    /// written from now on, by this client; the Python original reads it when it opens the namespace.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// # use zae_limiter::Repository;
    /// let repo = Repository::in_memory().await?;
    /// assert_eq!(repo.admin().audit_retention().await?, 90);
    /// repo.admin().set_audit_retention(365).await?;
    /// assert_eq!(repo.admin().audit_retention().await?, 365);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a number out of range.
    pub async fn set_audit_retention(&self, days: u32) -> Result<(), Error> {
        if !(1..=LONGEST).contains(&days) {
            let reason = format!("must be between 1 and {LONGEST}");
            return Err(InvalidInput::new("audit_retention_days", days, reason).into());
        }
        let inner = &self.inner;
        let key = system_config_key(&inner.namespace);
        let mut update = Update::new(key.clone());
        let mut index = Item::new();
        add_namespace_index(&mut index, inner.namespace.as_str(), &key.pk);
        update
            .set
            .extend(index.into_iter().map(|(name, value)| (name.into(), value)));
        update.set.push(("audit_retention_days".into(), Value::int(days)));
        // It has no condition, so writing it twice is writing it once.
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.update(update.clone()))
            .await?;
        inner.config.forget(&key);
        Ok(())
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use zae_limiter_core::Limit;
    use zae_limiter_core::audit::{SYSTEM_SUBJECT, events};

    use super::*;
    use crate::Repository;

    async fn check(repo: &Admin, days: u32) {
        assert_eq!(repo.audit_retention().await.expect("the table answers"), days);
    }

    #[tokio::test]
    async fn changes_of_limits_keep_it_and_events_follow_it() {
        let repo = Repository::in_memory().await.unwrap();
        let repo = repo.admin();
        check(repo, 90).await;
        repo.set_audit_retention(7).await.unwrap();
        check(repo, 7).await;
        let limits = [Limit::per_minute("rpm", 1)];
        repo.set_system_defaults(limits, None).await.unwrap();
        check(repo, 7).await;
        repo.set_audit_retention(8).await.unwrap();
        assert_eq!(repo.system_defaults().await.unwrap().0.len(), 1);
        assert!(repo.delete_system_defaults().await.unwrap());
        check(repo, 8).await;
        assert!(!repo.delete_system_defaults().await.unwrap());

        let inner = &repo.inner;
        let query = events(&inner.namespace, SYSTEM_SUBJECT, None);
        let logged = inner.table.query_all(query).await.unwrap();
        let now = inner.clock.now().secs();
        let days: Vec<i128> = logged
            .iter()
            .rev()
            .map(|event| (event["ttl"].as_int().unwrap() - i128::from(now) + 43_200).div_euclid(86_400))
            .collect();
        assert_eq!(days, [7, 8, 8]);
    }

    #[tokio::test]
    async fn numbers_out_of_range_are_refused() {
        let repo = Repository::in_memory().await.unwrap();
        let repo = repo.admin();
        for days in [0, LONGEST + 1] {
            let err = repo.set_audit_retention(days).await.unwrap_err();
            assert!(err.to_string().contains("between 1 and 36500"), "{err}");
        }
        repo.set_audit_retention(LONGEST).await.unwrap();
        check(repo, LONGEST).await;
    }
}

//! The namespace of a load test.

use std::time::Duration;

use tokio::time::timeout;
use zae_limiter::{Error, NamespaceId, RateLimiter, Stack};

/// The start of the name of the namespace of a test.
pub const PREFIX: &str = "loadtest-";

/// A namespace that exists for a test.
#[derive(Debug)]
pub struct TestNamespace {
    stack: Stack,
    limiter: RateLimiter,
}

/// Why a namespace is still there.
#[derive(Debug, thiserror::Error)]
pub enum NotRemoved {
    /// Removing it failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// It took too long.
    #[error("it took more than {} s", .0.as_secs())]
    TooSlow(Duration),
}

impl TestNamespace {
    /// A name that no other test has.
    pub fn new_name() -> String {
        format!("{PREFIX}{:08x}", fastrand::u32(..))
    }

    /// Registers it. If this fails, it may have been registered.
    ///
    /// # Errors
    /// If the table cannot be used.
    pub async fn open(stack: Stack, name: &str) -> Result<Self, Error> {
        let repo = stack.open(name).await?;
        Ok(Self {
            stack,
            limiter: RateLimiter::new(repo),
        })
    }

    /// The limiter that all users share.
    pub fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.limiter.repository().namespace_name()
    }

    /// Its id.
    pub fn id(&self) -> &NamespaceId {
        self.limiter.repository().namespace_id()
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// [`NotRemoved`] if that fails or takes longer than this. The same again continues.
    pub async fn remove(&self, within: Duration) -> Result<(), NotRemoved> {
        let removed = async {
            self.limiter.repository().drain().await;
            self.stack.delete_namespace(self.name()).await?;
            self.stack.purge_namespace(self.id(), &|_| ()).await
        };
        match timeout(within, removed).await {
            Ok(removed) => Ok(removed.map(drop)?),
            Err(_) => Err(NotRemoved::TooSlow(within)),
        }
    }
}

/// Removes the namespace that another process's test has left, whether it is active, deleted or partly purged. Returns whether
/// there was one.
///
/// # Errors
/// [`NotRemoved`] if that fails or takes longer than this. The same again continues.
pub async fn remove_left_over(stack: &Stack, name: &str, within: Duration) -> Result<bool, NotRemoved> {
    let removed = async {
        let mut ids = Vec::new();
        if let Some(record) = stack.namespace(name).await? {
            stack.delete_namespace(name).await?;
            ids.push(record.id);
        }
        // It may have been deleted before, with its data still there.
        let orphans = stack.orphans().await?;
        ids.extend(
            orphans
                .into_iter()
                .filter(|one| one.name == name)
                .map(|one| one.id),
        );
        ids.dedup();
        for id in &ids {
            stack.purge_namespace(id, &|_| ()).await?;
        }
        Ok::<_, Error>(!ids.is_empty())
    };
    match timeout(within, removed).await {
        Ok(removed) => Ok(removed?),
        Err(_) => Err(NotRemoved::TooSlow(within)),
    }
}

#[cfg(test)]
mod tests {
    use zae_limiter::Repository;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn what_was_left_is_removed_in_whatever_state_it_is() {
        let stack = Repository::in_memory().await.unwrap().stack_handle();
        let name = TestNamespace::new_name();
        assert!(!remove_left_over(&stack, &name, MINUTE).await.unwrap());
        for is_deleted in [false, true] {
            let test = TestNamespace::open(stack.clone(), &name).await.unwrap();
            assert_eq!(test.name(), name);
            if is_deleted {
                stack.delete_namespace(&name).await.unwrap();
            }
            assert!(remove_left_over(&stack, &name, MINUTE).await.unwrap());
            assert!(stack.namespace(&name).await.unwrap().is_none());
            assert!(stack.orphans().await.unwrap().is_empty());
        }
        let test = TestNamespace::open(stack.clone(), &name).await.unwrap();
        test.remove(MINUTE).await.unwrap();
        assert!(!remove_left_over(&stack, &name, MINUTE).await.unwrap());
    }
}

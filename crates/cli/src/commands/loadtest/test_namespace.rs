//! The namespace of a load test.

use std::time::Duration;

use zae_limiter::RateLimiter;
use zae_limiter_loadtest::namespace::{NotRemoved, TestNamespace as Namespace, remove_left_over};

use super::WHAT;
use super::interrupts::Interrupts;
use crate::args::Connection;
use crate::commands::failed;
use crate::connect;
use crate::failure::{Failure, options};

/// How long removing the namespace may take. It removes a few hundred records a second.
const REMOVE_TIMEOUT: Duration = Duration::from_mins(2);

/// A namespace that exists for a test of this process.
pub(super) struct TestNamespace<'a> {
    pub(super) at: &'a Connection,
    namespace: Namespace,
}

impl<'a> TestNamespace<'a> {
    /// Registers a namespace, once `head` has been printed. Before that there is nothing to remove, in case that the
    /// output is closed.
    pub(super) async fn open(
        at: &'a Connection,
        interrupts: &Interrupts,
        head: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let found = async {
            let stack = connect::measured_stack(at, WHAT).await?;
            stack.check_compatible().await.map_err(failed(at, WHAT))?;
            Ok::<_, Failure>(stack)
        };
        let stack = interrupts.unless(Box::pin(found)).await?;
        head()?;
        let name = Namespace::new_name();
        interrupts.leaves(Some(format!(
            "Error: The namespace '{name}' may have been registered. {}",
            if_found(&name, at)
        )));
        // To its end, so that it is known whether there is something to remove.
        let namespace = Namespace::open(stack, &name).await.map_err(|err| {
            let in_doubt = err.in_doubt();
            match failed(at, WHAT)(err) {
                Failure::Message { text, exit } if in_doubt => {
                    let doubt = if_found(&name, at);
                    Failure::bare(
                        format!("{text}\nThe namespace '{name}' may have been registered. {doubt}"),
                        exit,
                    )
                }
                failure => failure,
            }
        })?;
        connect::warn_of_clock();
        let namespace = Self { at, namespace };
        interrupts.leaves(Some(format!("Error: {}", namespace.left_over("interrupted"))));
        Ok(namespace)
    }

    /// The limiter that all users share.
    pub(super) fn limiter(&self) -> &RateLimiter {
        self.namespace.limiter()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.namespace.name()
    }

    fn left_over(&self, why: &str) -> String {
        let (name, id, options) = (self.namespace.name(), self.namespace.id(), options(self.at));
        format!(
            "The namespace '{name}' was not removed: {why}. Remove it with 'zae-limiter namespace delete {name}{options}' \
             and 'zae-limiter namespace purge {id}{options}'."
        )
    }

    /// Removes the namespace and all that is in it.
    pub(super) async fn clear(self, interrupts: &Interrupts) -> Result<(), Failure> {
        let removed = self.namespace.remove(REMOVE_TIMEOUT).await;
        interrupts.leaves(None);
        removed.map_err(|err| Failure::error(self.left_over(&err.to_string())))
    }
}

/// How to remove a namespace that may be there.
pub(super) fn if_found(name: &str, at: &Connection) -> String {
    let options = options(at);
    format!(
        "If 'zae-limiter namespace show {name}{options}' finds it, remove it with 'zae-limiter namespace delete {name}{options}' \
         and 'zae-limiter namespace purge ID{options}'."
    )
}

/// Removes a namespace that a test elsewhere has left behind. Returns whether there was one.
pub(super) async fn clear_left_over(at: &Connection, name: &str) -> Result<bool, Failure> {
    let stack = connect::stack(at, WHAT).await?;
    let removed = remove_left_over(&stack, name, REMOVE_TIMEOUT).await;
    removed.map_err(|err| {
        let why = match err {
            NotRemoved::Failed(err) => match failed(at, "")(err) {
                Failure::Message { text, .. } => text.trim_start_matches("Error: ").to_owned(),
                Failure::NobodyReads => String::new(),
            },
            slow @ NotRemoved::TooSlow(_) => slow.to_string(),
        };
        Failure::error(format!(
            "The namespace '{name}' was not removed: {why}. {}",
            if_found(name, at)
        ))
    })
}

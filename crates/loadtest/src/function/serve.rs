//! Runs a test within the time of a call.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use zae_limiter::{Error, Stack};

use super::answer::{Answer, Generator, LeftNamespace, Ran};
use super::event::Headless;
use super::time::Allotment;
use crate::namespace::{NotRemoved, TestNamespace};
use crate::run::run;
use crate::selection::SelectionError;
use crate::timeline::Timeline;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such scenario, or it has no such classes.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The table failed before users were started.
    #[error("{source}{}", remains(left.as_ref()))]
    Table {
        /// How.
        source: Error,
        /// The namespace, if it was not removed.
        left: Option<LeftNamespace>,
    },
    /// Users did not end in time.
    #[error("users did not end their calls within the function's time{}", remains(left.as_ref()))]
    Unfinished {
        /// The namespace, if it was not removed.
        left: Option<LeftNamespace>,
    },
    /// The namespace exists.
    #[error("the namespace '{0}' exists; it would be removed at the end of the test")]
    NamespaceExists(String),
}

fn remains(left: Option<&LeftNamespace>) -> String {
    left.map_or_else(String::new, |left| {
        format!(
            "; the namespace '{}' with the id {} was not removed: {}",
            left.name, left.id, left.why
        )
    })
}

/// Runs a test on the stack's table, in a namespace that is removed afterwards. `began` is when the call began; `folder` holds
/// scenario files. The table's requests have to be [measured](zae_limiter::RepositoryBuilder::measure).
///
/// # Errors
/// [`Refusal`].
pub async fn serve(
    test: &Headless,
    stack: Stack,
    folder: &Path,
    began: Instant,
    time: Allotment,
    generator: Generator,
) -> Result<Answer, Refusal> {
    let (plan, shape) = test.plan(test.find(folder)?)?;
    let failed = |source| Refusal::Table { source, left: None };
    stack.check_compatible().await.map_err(failed)?;
    if stack.namespace(&test.namespace).await.map_err(failed)?.is_some() {
        return Err(Refusal::NamespaceExists(test.namespace.clone()));
    }
    let namespace = TestNamespace::open(stack, &test.namespace)
        .await
        .map_err(failed)?;
    let stop = sleep_until(began + time.stop());
    let mut timeline = Timeline::new(plan.schedule.length().min(time.stop()));
    let ran = timeout_at(
        began + time.give_up(),
        run(namespace.limiter(), &plan, stop, |progress| {
            timeline.add(progress);
        }),
    )
    .await;
    let left_for_end = (began + time.answer()).saturating_duration_since(Instant::now());
    let left = removed(&namespace, left_for_end).await;
    match ran {
        Ok(Ok(report)) => Ok(Answer::new(
            Ran::of(&plan, shape),
            report,
            timeline.into_points(),
            generator,
            left,
        )),
        Ok(Err(source)) => Err(Refusal::Table { source, left }),
        Err(_) => Err(Refusal::Unfinished { left }),
    }
}

/// Removes the namespace. Returns what is left of it.
async fn removed(namespace: &TestNamespace, within: Duration) -> Option<LeftNamespace> {
    let why: NotRemoved = namespace.remove(within).await.err()?;
    Some(LeftNamespace {
        name: namespace.name().to_owned(),
        id: namespace.id().to_string(),
        why: why.to_string(),
    })
}

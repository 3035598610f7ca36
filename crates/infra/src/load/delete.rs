//! The load tests' stacks of a region, and the end of one.

use crate::delete::Deleted;
use crate::discovery::FoundStack;
use crate::error::Error;
use crate::tags::LOAD_TEST;
use crate::{Progress, StackManager, names};

impl StackManager {
    /// The stacks that generate load in the region, by target.
    ///
    /// # Errors
    /// [`Error::Aws`] if CloudFormation does not answer or refuses.
    pub async fn load_stacks(&self) -> Result<Vec<FoundStack>, Error> {
        self.stacks_of(LOAD_TEST).await
    }

    /// Deletes the stack that generates load on a target, whose tasks must have been stopped.
    ///
    /// # Errors
    /// [`Error::Operation`] if a resource cannot be deleted, which says which and why.
    pub async fn delete_load(
        &self,
        target: &str,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deleted, Error> {
        self.delete(&names::load::stack(target), true, progress).await
    }
}

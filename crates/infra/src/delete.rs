//! Deleting a stack.

use crate::error::{Error, failed};
use crate::{Progress, StackManager};

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// There was no such stack.
    Absent,
    /// It is gone.
    Gone,
    /// It was begun.
    Begun,
}

impl StackManager {
    /// Deletes a stack with all its resources, including the table and its data. A stack that does not exist is not an
    /// error.
    ///
    /// # Errors
    /// [`Error::Operation`] if a resource cannot be deleted, which says which, why, and what to do.
    pub async fn delete(
        &self,
        stack: &str,
        wait: bool,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deleted, Error> {
        let Some(found) = self.existing(stack).await? else {
            return Ok(Deleted::Absent);
        };
        let since = self.newest_event(&found.id).await;
        progress(Progress::Deleting);
        // By its ARN: should another of this name be created meanwhile, it is not meant.
        let call = self.clients.stacks.delete_stack().stack_name(&found.id);
        match call.send().await.map_err(failed("DeleteStack")) {
            Ok(_) => {}
            Err(err) if err.is_code("ValidationError") && err.to_string().contains("does not exist") => {
                return Ok(Deleted::Absent);
            }
            Err(err) => return Err(err),
        }
        if !wait {
            return Ok(Deleted::Begun);
        }
        let ended = self.finished(&found.id, since.as_deref(), progress).await?;
        match &ended.stack {
            None => Ok(Deleted::Gone),
            Some(left) if left.status == "DELETE_COMPLETE" => Ok(Deleted::Gone),
            Some(_) => match ended.expect(stack, &[]) {
                Ok(_) => Ok(Deleted::Gone),
                Err(err) => Err(err),
            },
        }
    }
}

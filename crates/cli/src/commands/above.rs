//! Notes of limits that a parent's keep from being reached, on standard error: results stay as they are.

use std::future::Future;
use std::time::Duration;

use zae_limiter::{AboveParent, Error};

use crate::say;
use crate::text::limit::describe;
use crate::text::table::printable;

/// How many limits are named one by one.
const NAMED: usize = 10;

/// How long a note is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Notes the limits that a look-up finds. The note is an extra: a look-up that fails or takes long leaves it out.
pub(crate) async fn note(found: impl Future<Output = Result<Vec<AboveParent>, Error>>, with_resource: bool) {
    let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, found).await else {
        return;
    };
    for above in found.iter().take(NAMED) {
        let AboveParent {
            entity,
            resource,
            parent,
            limit,
            parents,
            ..
        } = above;
        let resource = if with_resource {
            format!(" for resource '{}'", resource.as_str())
        } else {
            String::new()
        };
        let text = format!(
            "Note: limit {}{resource} is above that of the parent '{parent}' ({}), which '{entity}' cannot exceed",
            describe(limit),
            describe(parents)
        );
        say(&printable(&text));
    }
    if found.len() > NAMED {
        let more = crate::text::number::grouped((found.len() - NAMED) as i128);
        say(&format!(
            "Note: {more} more limits are above those of the parents"
        ));
    }
}

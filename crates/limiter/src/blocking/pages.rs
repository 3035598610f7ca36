//! The blocking [`Pages`].

use std::sync::Arc;

use super::runtime::Engine;
use crate::{Cursor, Error};

/// The blocking [`Pages`](crate::Pages): an iterator that reads page by page.
///
/// After an error it may be asked again, and continues with the page that could not be read.
///
/// ```
/// # fn main() -> Result<(), zae_limiter::Error> {
/// use zae_limiter::Limit;
/// use zae_limiter::blocking::Repository;
///
/// let repo = Repository::in_memory()?;
/// for key in ["key-1", "key-2", "key-3"] {
///     repo.admin().set_entity_limits(key, "gpt-4", [Limit::per_minute("rpm", 5)])?;
/// }
/// // An iterator of results: a page is read when it is reached.
/// let mut found = Vec::new();
/// for entity in repo.admin().entities_with_limits("gpt-4")?.page_size(2) {
///     found.push(entity?.to_string());
/// }
/// assert_eq!(found, ["key-1", "key-2", "key-3"]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read before the first result is asked for"]
pub struct Pages<T> {
    inner: crate::Pages<T>,
    ready: std::vec::IntoIter<T>,
    runtime: Arc<Engine>,
}

impl<T> Pages<T> {
    pub(super) fn new(inner: crate::Pages<T>, runtime: &Arc<Engine>) -> Self {
        Self {
            inner,
            ready: Vec::new().into_iter(),
            runtime: Arc::clone(runtime),
        }
    }

    /// See [`crate::Pages::page_size`].
    pub fn page_size(mut self, records: u32) -> Self {
        self.inner = self.inner.page_size(records);
        self
    }

    /// See [`crate::Pages::after`].
    pub fn after(mut self, cursor: &Cursor) -> Self {
        self.inner = self.inner.after(cursor);
        self
    }

    /// See [`crate::Pages::cursor`]. Results read but not yet taken from the iterator are before it.
    pub fn cursor(&self) -> Option<Cursor> {
        self.inner.cursor()
    }
}

impl<T> Iterator for Pages<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.next() {
                return Some(Ok(ready));
            }
            match self.runtime.block_on(self.inner.next_page()) {
                Ok(Some(page)) => self.ready = page.into_iter(),
                Ok(None) => return None,
                Err(err) => return Some(Err(err)),
            }
        }
    }
}

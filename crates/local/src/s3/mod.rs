//! S3: buckets and objects.
//!
//! What is known of an object is a document; its bytes are a file, named by a random id. A file is complete before a
//! document names it, so a killed process leaves no half object, and at most an unreferenced file, which is deleted at
//! the next start. Settings of buckets are kept and given back, and change nothing. There are no versions.
//!
//! A bucket belongs to a region, but requests of every region reach it: this port is all of them.
//!
//! `api` is what callers see; the rest is what is kept, and knows no requests beside their conditions.

mod api;
mod buckets;
mod checksum;
mod conditions;
mod files;
mod listing;
mod multipart;
mod objects;
mod settings;
mod xml;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use buckets::Bucket;
pub use checksum::{Algorithm, Checksum};
pub use listing::{Listing, Page};
pub use objects::{Described, Object};
pub use settings::Setting;

pub(crate) use api::refused;
pub(crate) use checksum::md5_hex;

use crate::store::Store;
use crate::wire::{Refusal, Reply, Request};
use files::Files;

/// The buckets and objects. Clones share them.
///
/// Its functions block, for as long as SQLite and the file take.
#[derive(Debug, Clone)]
pub struct S3 {
    store: Store,
    files: Files,
    /// Held while the file of a document is changed.
    changing: Arc<Mutex<()>>,
}

impl S3 {
    /// Opens the objects in a directory, which is made if need be, and deletes the files that no document names.
    ///
    /// # Errors
    /// If the directory or the records cannot be used.
    pub fn open(store: Store, directory: &Path) -> Result<Self, Refusal> {
        let s3 = Self {
            store,
            files: Files::open(directory)?,
            changing: Arc::new(Mutex::new(())),
        };
        s3.sweep()?;
        Ok(s3)
    }

    /// Serves a request, away from the threads that wait for others.
    pub async fn serve(&self, request: Request) -> Reply {
        let s3 = self.clone();
        let served = tokio::task::spawn_blocking(move || api::serve(&s3, &request)).await;
        served.unwrap_or_else(|err| Refusal::internal(&err).rest_json())
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the store, which no panic leaves half written.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self) -> Result<(), Refusal> {
        let objects = self.store.list::<Object>(objects::KIND)?;
        let parts = self.store.list::<multipart::Part>(multipart::PART)?;
        let named = objects.into_iter().map(|(_, object)| object.file);
        let named = named.chain(parts.into_iter().map(|(_, part)| part.file));
        self.files.keep(&named.collect())
    }
}

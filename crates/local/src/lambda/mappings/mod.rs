//! Event source mappings: made, shown, changed, deleted.
//!
//! `record` is a mapping as it is stored. `poller` is one at work: `reader` reads the stream and leaves out what `pattern`
//! does not match, `batch` decides what becomes of records, and `delivery` writes them for the function. `trim` limits
//! the streams. `batch` and `pattern` know neither time nor processes.

mod batch;
mod delivery;
mod pattern;
pub(super) mod poller;
mod reader;
pub(super) mod record;
pub(super) mod trim;

use serde_json::Value as Json;

use self::poller::Poller;
use self::reader::describe;
use self::record::{KIND, Mapping, PLACE, Place};
use crate::lambda::names::FunctionId;
use crate::lambda::{Lambda, refusal};
use crate::wire::Refusal;

impl Lambda {
    /// Creates a mapping from a request of `CreateEventSourceMapping`. Where it begins is settled when this returns.
    ///
    /// # Errors
    /// If there is no such function or stream, or a mapping of both.
    pub async fn create_mapping(&self, region: &str, request: &Json) -> Result<Json, Refusal> {
        let mapping = Mapping::create(region, request)?;
        mapping.filters()?;
        self.check_function(&mapping)?;
        let (_, last) = describe(&self.inner.tables, &mapping).await?;
        let place = Place {
            read: last.filter(|_| mapping.latest),
            ..Place::default()
        };
        let store = &self.inner.store;
        {
            let _changes = self.changes();
            let same = |other: &Mapping| other.source == mapping.source && other.function == mapping.function;
            if let Some((uuid, _)) = store
                .list::<Mapping>(KIND)?
                .into_iter()
                .find(|(_, other)| same(other))
            {
                return Err(Refusal::new(
                    "ResourceConflictException",
                    format!(
                        "An event source mapping with event source arn (\" {} \") and function name (\" {} \") already \
                         exists. Please update or delete the existing mapping with UUID {uuid}",
                        mapping.source.arn(),
                        mapping.function
                    ),
                )
                .status(409));
            }
            // The place first: a mapping without one would begin at the stream's beginning.
            store.put(PLACE, &mapping.uuid, &place)?;
            store.put(KIND, &mapping.uuid, &mapping)?;
        }
        let shown = mapping.shown(state(&mapping), &place.result);
        self.restart(mapping);
        Ok(shown)
    }

    /// A mapping.
    ///
    /// # Errors
    /// If there is none.
    pub fn mapping(&self, region: &str, uuid: &str) -> Result<Json, Refusal> {
        let mapping = self.load_mapping(region, uuid)?;
        self.show(&mapping)
    }

    /// A region's mappings; those of a stream and of a function, if they are given.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn mappings(
        &self,
        region: &str,
        event_source_arn: Option<&str>,
        function: Option<&str>,
    ) -> Result<Vec<Json>, Refusal> {
        let function = function.map(|name| FunctionId::read(region, name)).transpose()?;
        let mappings = self.inner.store.list::<Mapping>(KIND)?;
        mappings
            .iter()
            .map(|(_, mapping)| mapping)
            .filter(|mapping| mapping.source.region == region)
            .filter(|mapping| event_source_arn.is_none_or(|arn| arn == mapping.source.arn()))
            .filter(|mapping| function.as_ref().is_none_or(|id| *id == mapping.function_id()))
            .map(|mapping| self.show(mapping))
            .collect()
    }

    /// Changes a mapping; what is not named stays.
    ///
    /// # Errors
    /// If there is none, or the change cannot be done here.
    pub fn update_mapping(&self, region: &str, uuid: &str, request: &Json) -> Result<Json, Refusal> {
        let mapping = {
            let _changes = self.changes();
            let mut mapping = self.load_mapping(region, uuid)?;
            mapping.update(request)?;
            self.check_function(&mapping)?;
            self.inner.store.put(KIND, uuid, &mapping)?;
            mapping
        };
        let shown = self.show(&mapping)?;
        self.restart(mapping);
        Ok(shown)
    }

    /// Deletes a mapping. Returns what it was.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete_mapping(&self, region: &str, uuid: &str) -> Result<Json, Refusal> {
        let (mapping, place) = {
            let _changes = self.changes();
            let mapping = self.load_mapping(region, uuid)?;
            let place = self.place(uuid)?;
            self.inner.store.delete(KIND, uuid)?;
            self.inner.store.delete(PLACE, uuid)?;
            (mapping, place)
        };
        let poller = self.pollers().remove(uuid);
        if let Some(poller) = poller {
            // An invocation under way ends by itself.
            poller.abort();
        }
        Ok(mapping.shown("Deleting", &place.result))
    }

    /// Starts a mapping's poller anew, or stops it, as the mapping says.
    fn restart(&self, mapping: Mapping) {
        let mut pollers = self.pollers();
        let before = pollers.remove(&mapping.uuid);
        let uuid = mapping.uuid.clone();
        if mapping.enabled {
            if let Some(before) = &before {
                before.stop();
            }
            let poller = Poller::start(self, mapping, before);
            pollers.insert(uuid, poller);
        } else if let Some(before) = before {
            before.stop();
            // Kept, so that one enabled again waits for it.
            pollers.insert(uuid, before);
        }
    }

    /// Checks that a mapping's function is there and can run.
    fn check_function(&self, mapping: &Mapping) -> Result<(), Refusal> {
        let function = self.load(&mapping.function_id())?;
        function.program(&self.inner.python).map(drop).map_err(refusal)
    }

    fn load_mapping(&self, region: &str, uuid: &str) -> Result<Mapping, Refusal> {
        let found: Option<Mapping> = self.inner.store.get(KIND, uuid)?;
        found
            .filter(|mapping| mapping.source.region == region)
            .ok_or_else(|| {
                Refusal::new(
                    "ResourceNotFoundException",
                    format!("The resource you requested does not exist: event source mapping {uuid}"),
                )
                .status(404)
            })
    }

    fn place(&self, uuid: &str) -> Result<Place, Refusal> {
        Ok(self.inner.store.get(PLACE, uuid)?.unwrap_or_default())
    }

    fn show(&self, mapping: &Mapping) -> Result<Json, Refusal> {
        Ok(mapping.shown(state(mapping), &self.place(&mapping.uuid)?.result))
    }
}

fn state(mapping: &Mapping) -> &'static str {
    if mapping.enabled { "Enabled" } else { "Disabled" }
}

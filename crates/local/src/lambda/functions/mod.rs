//! Functions: made, shown, changed, deleted, tagged.

pub(super) mod package;
pub(super) mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use self::record::{Code, Function, KIND, architecture};
use crate::lambda::fields::Fields;
use crate::lambda::names::FunctionId;
use crate::lambda::{Lambda, refusal};
use crate::tagging::{Tagged, TaggedResource};
use crate::wire::{ACCOUNT, Refusal};

/// The largest package that comes within a request.
const LARGEST_UPLOAD: usize = 50 * 1024 * 1024;

/// The fields that say where a package is.
const CODE: [&str; 3] = ["S3Bucket", "S3Key", "ZipFile"];

impl Lambda {
    /// Creates a function from a request of `CreateFunction`. Returns its configuration.
    ///
    /// # Errors
    /// If there is one of its name, or it cannot run here.
    pub async fn create_function(&self, region: &str, request: &Json) -> Result<Json, Refusal> {
        let fields = Function::creation(request)?;
        let nothing = Code {
            sha256: String::new(),
            size: 0,
        };
        // Checked before its code is fetched.
        let id = Function::create(region, &fields, nothing)?.id();
        self.check_new(&id)?;
        let code = fields
            .inner("Code", &CODE)?
            .ok_or_else(|| refusal("Code is missing; give it S3Bucket and S3Key, or ZipFile".to_owned()))?;
        let _code = self.inner.code.lock().await;
        let code = self.unpack(&code).await?;
        let function = Function::create(region, &fields, code)?;
        let _changes = self.changes();
        self.check_new(&id)?;
        self.inner.store.put(KIND, &id.key(), &function)?;
        Ok(function.configuration())
    }

    fn check_new(&self, id: &FunctionId) -> Result<(), Refusal> {
        match self.inner.store.get::<Function>(KIND, &id.key())? {
            None => Ok(()),
            Some(_) => Err(Refusal::new(
                "ResourceConflictException",
                format!("Function already exist: {}", id.name),
            )
            .status(409)),
        }
    }

    /// A function's configuration, code and tags.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn function(&self, region: &str, name: &str) -> Result<Json, Refusal> {
        let function = self.load(&FunctionId::read(region, name)?)?;
        let mut shown = json!({
            "Configuration": function.configuration(),
            "Code": {"RepositoryType": "S3"},
        });
        if !function.tags.is_empty() {
            shown["Tags"] = json!(function.tags);
        }
        Ok(shown)
    }

    /// A function's configuration.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn configuration(&self, region: &str, name: &str) -> Result<Json, Refusal> {
        Ok(self.load(&FunctionId::read(region, name)?)?.configuration())
    }

    /// Checks that a function could run here if it were called.
    ///
    /// # Errors
    /// If there is no such function, or its code needs a runtime that is not here.
    pub fn check_runs(&self, region: &str, name: &str) -> Result<(), Refusal> {
        let function = self.load(&FunctionId::read(region, name)?)?;
        function.program(&self.inner.python).map(drop).map_err(refusal)
    }

    /// The configurations of a region's functions, in the order of their names.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn functions(&self, region: &str) -> Result<Vec<Json>, Refusal> {
        let functions = self.inner.store.list::<Function>(KIND)?;
        let of_region = functions
            .into_iter()
            .filter(|(_, function)| function.region == region);
        Ok(of_region.map(|(_, function)| function.configuration()).collect())
    }

    /// Changes a function's code, as `UpdateFunctionCode` does.
    ///
    /// # Errors
    /// If there is no such function or no such package.
    pub async fn update_code(&self, region: &str, name: &str, request: &Json) -> Result<Json, Refusal> {
        let id = FunctionId::read(region, name)?;
        let known: Vec<&str> = CODE
            .into_iter()
            .chain(["FunctionName", "Architectures", "RevisionId"])
            .collect();
        let fields = Fields::read(request, &known)?;
        self.load(&id)?.check_revision(&fields)?;
        let updated = {
            let _code = self.inner.code.lock().await;
            let code = self.unpack(&fields).await?;
            let _changes = self.changes();
            let mut function = self.load(&id)?;
            function.check_revision(&fields)?;
            function.code = code;
            if let Some(architecture) = architecture(&fields)? {
                architecture.clone_into(&mut function.architecture);
            }
            function.touch();
            self.inner.store.put(KIND, &id.key(), &function)?;
            function.configuration()
        };
        self.inner.pool.retire(&id.key()).await;
        self.sweep().await;
        Ok(updated)
    }

    /// Changes a function's configuration, as `UpdateFunctionConfiguration` does: what is not named stays.
    ///
    /// # Errors
    /// If there is no such function, or it could not run here.
    pub async fn update_configuration(
        &self,
        region: &str,
        name: &str,
        request: &Json,
    ) -> Result<Json, Refusal> {
        let id = FunctionId::read(region, name)?;
        let fields = Function::update(request)?;
        let shown = self.change(&id, |function| {
            function.configure(&fields)?;
            Ok(function.configuration())
        })?;
        self.inner.pool.retire(&id.key()).await;
        Ok(shown)
    }

    /// Deletes a function. Its mappings stay, and their invocations fail.
    ///
    /// # Errors
    /// If there is no such function.
    pub async fn delete_function(&self, region: &str, name: &str) -> Result<(), Refusal> {
        let id = FunctionId::read(region, name)?;
        let deleted = {
            let _changes = self.changes();
            self.inner.store.delete(KIND, &id.key())?
        };
        if !deleted {
            return Err(id.missing());
        }
        self.inner.pool.retire(&id.key()).await;
        self.sweep().await;
        Ok(())
    }

    /// A function's tags.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn tags(&self, region: &str, arn: &str) -> Result<BTreeMap<String, String>, Refusal> {
        Ok(self.load(&FunctionId::read(region, arn)?)?.tags)
    }

    /// Adds tags to a function.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn tag(&self, region: &str, arn: &str, tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
        self.change(&FunctionId::read(region, arn)?, |function| {
            function.tags.extend(tags.clone());
            Ok(())
        })
    }

    /// Removes tags from a function.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn untag(&self, region: &str, arn: &str, keys: &[String]) -> Result<(), Refusal> {
        self.change(&FunctionId::read(region, arn)?, |function| {
            function.tags.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    /// Reads a function, changes it, writes it.
    fn change<T>(
        &self,
        id: &FunctionId,
        change: impl FnOnce(&mut Function) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let _changes = self.changes();
        let mut function = self.load(id)?;
        let result = change(&mut function)?;
        self.inner.store.put(KIND, &id.key(), &function)?;
        Ok(result)
    }

    /// Fetches a package and unpacks it.
    async fn unpack(&self, fields: &Fields<'_>) -> Result<Code, Refusal> {
        let package = match (fields.text("ZipFile")?, fields.has("S3Bucket")) {
            (Some(_), true) => {
                return Err(refusal(
                    "ZipFile and S3Bucket are both given; give one of them".to_owned(),
                ));
            }
            (Some(text), false) => {
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|err| refusal(format!("ZipFile is not base64: {err}")))?;
                if bytes.len() > LARGEST_UPLOAD {
                    return Err(refusal(format!(
                        "ZipFile has {} bytes; it may have {LARGEST_UPLOAD}. Put the package into S3 instead.",
                        bytes.len()
                    )));
                }
                Source::Bytes(bytes.into())
            }
            (None, _) => Source::Object(
                fields.need("S3Bucket")?.to_owned(),
                fields.need("S3Key")?.to_owned(),
            ),
        };
        let (services, packages) = (Arc::clone(&self.inner.services), self.inner.packages.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let bytes = match package {
                Source::Bytes(bytes) => bytes,
                Source::Object(bucket, key) => services.object(&bucket, &key).map_err(|err| {
                    refusal(format!(
                        "Error occurred while GetObject. S3 Error Code: {}. S3 Error Message: {}",
                        err.code, err.message
                    ))
                })?,
            };
            packages.unpack(&bytes)
        });
        unpacked.await.map_err(|err| Refusal::internal(&err))?
    }

    /// Deletes code that no function has any more.
    pub(super) async fn sweep(&self) {
        let _code = self.inner.code.lock().await;
        if let Err(err) = self.sweep_packages() {
            tracing::warn!(error = %err, "functions' old code could not be deleted");
        }
    }

    pub(super) fn sweep_packages(&self) -> Result<(), Refusal> {
        let functions = self.inner.store.list::<Function>(KIND)?;
        let used: BTreeSet<String> = functions
            .into_iter()
            .map(|(_, function)| function.code.sha256)
            .collect();
        self.inner.packages.keep(&used);
        Ok(())
    }
}

impl Tagged for Lambda {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let functions = self.inner.store.list::<Function>(KIND)?.into_iter();
        let here = functions.filter(|(_, function)| function.region == region);
        Ok(here
            .map(|(_, function)| TaggedResource {
                arn: function.id().arn(),
                tags: function.tags,
            })
            .collect())
    }
}

/// Where a package comes from.
enum Source {
    Bytes(Bytes),
    Object(String, String),
}

/// The name that a mapping's or a function's ARN is stored under; returns which of them it is.
pub(super) fn is_mapping_arn(arn: &str) -> bool {
    arn.contains(&format!(":{ACCOUNT}:event-source-mapping:"))
}

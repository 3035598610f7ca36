//! A stack's functions: what they run, and whether they do.

use std::time::Duration;

use tokio::time::Instant;

use crate::StackManager;
use crate::code::CodeLocation;
use crate::error::{Error, failed};
use crate::names;
use crate::package::Package;
use crate::summary::StackSummary;

/// A function as Lambda describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionState {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its runtime, such as `provided.al2023` or `python3.12`.
    pub runtime: String,
    /// The SHA-256 of its code, in base64.
    pub code_sha256: String,
    /// After how long it is stopped, if that is known.
    pub timeout: Option<Duration>,
    /// Its memory in MB, by which it has processors, if that is known.
    pub memory_mb: Option<u32>,
    /// Whether its last update is in effect: `Successful`, `InProgress` or `Failed`.
    update: String,
    reason: String,
}

impl FunctionState {
    /// Whether it runs Python, as those of the Python original do.
    pub fn is_python(&self) -> bool {
        self.runtime.starts_with("python")
    }
}

impl StackManager {
    /// A function; `None` if there is none of this name.
    pub async fn function(&self, name: &str) -> Result<Option<FunctionState>, Error> {
        let call = self
            .clients
            .functions
            .get_function_configuration()
            .function_name(name);
        match call.send().await.map_err(failed("GetFunctionConfiguration")) {
            Ok(found) => Ok(Some(FunctionState {
                name: name.to_owned(),
                arn: found.function_arn.unwrap_or_default(),
                runtime: found
                    .runtime
                    .map(|runtime| runtime.as_str().to_owned())
                    .unwrap_or_default(),
                code_sha256: found.code_sha256.unwrap_or_default(),
                timeout: found
                    .timeout
                    .and_then(|secs| u64::try_from(secs).ok())
                    .map(Duration::from_secs),
                memory_mb: found.memory_size.and_then(|memory| u32::try_from(memory).ok()),
                update: found
                    .last_update_status
                    .map(|status| status.as_str().to_owned())
                    .unwrap_or_default(),
                reason: found.last_update_status_reason.unwrap_or_default(),
            })),
            Err(err) if err.is_code("ResourceNotFoundException") => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The stack's functions that exist.
    pub async fn functions(&self, stack: &str) -> Result<Vec<FunctionState>, Error> {
        let mut found = Vec::new();
        for name in [names::aggregator(stack), names::provisioner(stack)] {
            found.extend(self.function(&name).await?);
        }
        Ok(found)
    }

    /// Updates the functions that run other code than the stack's, directly and not through the stack, as their code
    /// was changed directly, too. `always` does so to all. Returns the names of those that were changed.
    pub(crate) async fn mend(
        &self,
        stack: &StackSummary,
        package: &Package,
        code: &CodeLocation,
        always: bool,
    ) -> Result<Vec<String>, Error> {
        let sha256 = package.lambda_sha256();
        let mut mended = Vec::new();
        for function in self.functions(&stack.name).await? {
            if function.is_python() || (!always && function.code_sha256 == sha256) {
                continue;
            }
            self.replace_code(stack, &function.name, code).await?;
            mended.push(function.name);
        }
        Ok(mended)
    }

    /// Makes a function run other code, and waits until it does.
    pub(crate) async fn replace_code(
        &self,
        stack: &StackSummary,
        name: &str,
        code: &CodeLocation,
    ) -> Result<(), Error> {
        let call = self.clients.functions.update_function_code();
        call.function_name(name)
            .s3_bucket(&code.bucket)
            .s3_key(&code.key)
            .architectures(code.architecture.into())
            .send()
            .await
            .map_err(failed("UpdateFunctionCode"))?;
        self.function_updated(stack, name).await
    }

    async fn function_updated(&self, stack: &StackSummary, name: &str) -> Result<(), Error> {
        let mut looks = self.waits.looks(self.waits.function);
        let wrong = |reason| Error::operation(stack, reason);
        loop {
            match self.function(name).await? {
                None => return Err(wrong(format!("the function {name} is gone"))),
                Some(found) if found.update == "Failed" => {
                    return Err(wrong(format!(
                        "the function {name} could not be updated: {}",
                        found.reason
                    )));
                }
                Some(found) if found.update != "InProgress" => return Ok(()),
                Some(_) => {}
            }
            if !looks.again().await {
                let waited = self.waits.function.as_secs();
                return Err(wrong(format!(
                    "the function {name} did not take its new code within {waited} s"
                )));
            }
        }
    }

    /// Waits until the aggregator reads the table's stream. `false` if it does not, or was not seen to in time: what
    /// is consumed meanwhile may not be counted.
    pub async fn aggregator_reads(&self, stack: &str) -> bool {
        let name = names::aggregator(stack);
        let mut looks = self.waits.looks(self.waits.mapping);
        let mut enabled_since = None;
        loop {
            let call = self
                .clients
                .functions
                .list_event_source_mappings()
                .function_name(&name);
            // A look that fails is as good as none.
            if let Ok(answer) = call.send().await {
                let mappings = answer.event_source_mappings();
                let states: Vec<&str> = mappings.iter().filter_map(|mapping| mapping.state()).collect();
                if states
                    .iter()
                    .any(|state| matches!(*state, "Disabled" | "Disabling"))
                {
                    return false;
                }
                let enabled = mappings.iter().any(|mapping| {
                    // It says nothing until it has looked for the first time, which local servers never do.
                    let result = mapping.last_processing_result();
                    let read = result.is_some_and(|text| matches!(text, "OK" | "No records processed"));
                    mapping.state() == Some("Enabled") && (read || self.waits.mapping_settles.is_zero())
                });
                if enabled {
                    let since = *enabled_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.waits.mapping_settles {
                        return true;
                    }
                }
            }
            if !looks.again().await {
                return false;
            }
        }
    }
}

//! New code for the worker: the executable, and the user's scenarios.

use crate::code::CodeLocation;
use crate::error::Error;
use crate::package::{Package, PackageSource};
use crate::summary::StackSummary;
use crate::template::{FUNCTION_ARCHITECTURE, FUNCTION_CODE_BUCKET};
use crate::{Progress, StackManager, names};

/// A scenario of the user's: its path below the directory, and its text.
pub type ScenarioFile = (String, String);

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPushed {
    /// The function.
    pub function: String,
    /// Where its code lies.
    pub code: CodeLocation,
    /// The size of the package, in bytes.
    pub bytes: u64,
    /// Whether the function had other code before.
    pub changed: bool,
}

impl StackManager {
    /// Packs the executable and scenarios, and makes the worker run them.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the stack or its function; [`Error::Package`] before anything is uploaded.
    pub async fn push_load(
        &self,
        target: &str,
        package: &PackageSource,
        files: &[ScenarioFile],
        code_bucket: Option<&str>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<LoadPushed, Error> {
        let stack = names::load::stack(target);
        let absent = || Error::NotFound { stack: stack.clone() };
        let found = self.existing(&stack).await?.ok_or_else(absent)?;
        let function = names::load::worker(target);
        let state = self.function(&function).await?.ok_or_else(absent)?;
        let package = package.load_with(files.to_vec()).await?;
        // Tasks of the master are made for one architecture, which the stack has chosen.
        let deployed = found.parameters.get(FUNCTION_ARCHITECTURE).map(String::as_str);
        let built = package.architecture.as_str();
        if let Some(deployed) = deployed.filter(|deployed| *deployed != built) {
            return Err(Error::Package(format!(
                "The package is built for {built}, and the stack '{stack}' for {deployed}. To change that, run \
                 'zae-limiter loadtest deploy' again."
            )));
        }
        let bucket = found.parameters.get(FUNCTION_CODE_BUCKET).map(String::as_str);
        let code = self
            .upload(&package, code_bucket.or(bucket), false, progress)
            .await?;
        // Tasks of the master fetch it from the stack's bucket.
        self.upload_executable(&package, bucket.unwrap_or(&code.bucket))
            .await?;
        let changed = state.code_sha256 != package.lambda_sha256();
        if changed {
            self.replace_code(&found, &function, &code).await?;
        }
        Ok(LoadPushed {
            function,
            code,
            bytes: package.size(),
            changed,
        })
    }

    /// Makes the worker run this package, if a push has changed its code beside the stack.
    pub(super) async fn mend_load(
        &self,
        stack: &StackSummary,
        function: &str,
        package: &Package,
        code: &CodeLocation,
    ) -> Result<(), Error> {
        match self.function(function).await? {
            Some(state) if state.code_sha256 != package.lambda_sha256() => {
                self.replace_code(stack, function, code).await
            }
            _ => Ok(()),
        }
    }
}

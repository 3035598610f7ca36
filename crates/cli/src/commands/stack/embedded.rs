//! `deploy` to a directory of this machine.

use std::path::Path;

use serde_json::json;
use zae_limiter::{DEFAULT_NAMESPACE, Error};
use zae_limiter_core::schema::SCHEMA_VERSION;

use crate::args::stack::Deploy;
use crate::args::{Connection, Format};
use crate::commands::Outcome;
use crate::connect::{Opening, builder, unlocked};
use crate::exit::Exit;
use crate::failure::{Failure, marked};
use crate::out::Out;
use crate::text::table::printable;

/// Refuses options that only a stack has.
pub(super) fn check(args: &Deploy, options: &[&str]) -> Result<(), Failure> {
    let mut senseless: Vec<&str> = options.to_vec();
    // The environment may name one for other commands.
    let package = args.code.package.lambda_package.as_ref();
    let by_environment = std::env::var_os("ZAE_LIMITER_LAMBDA_PACKAGE");
    if package.is_some_and(|path| by_environment.is_none_or(|other| *path != *other)) {
        senseless.push("--lambda-package");
    }
    match senseless.as_slice() {
        [] => Ok(()),
        options => Err(Failure::usage(format!(
            "{} cannot be used with a table in a directory, which has no stack: leave {} out, or deploy to AWS",
            options.join(", "),
            if options.len() == 1 { "it" } else { "them" }
        ))),
    }
}

pub(super) async fn deploy(at: &Connection, path: &Path, format: &Format, retention: Option<u32>) -> Outcome {
    let failed = |failure| marked(failure, "Deployment failed");
    drop(builder(at).map_err(failed)?);
    let mut out = Out::to_the_end(format);
    if !out.is_json() {
        out.line(format_args!("Deploying stack: {}", at.name))?;
        out.line(format_args!("  Table name: {}", at.name))?;
        out.line(format_args!(
            "  Directory: {}\n",
            printable(&path.to_string_lossy())
        ))?;
        out.flush()?;
    }
    let created = create(at, retention).await.map_err(failed)?;
    if out.is_json() {
        out.json(&json!({ "name": at.name, "directory": path.to_string_lossy(), "created": created }))?;
    } else {
        out.line(if created {
            "✓ Table created"
        } else {
            "✓ Table already exists and was not changed"
        })?;
        out.line(format_args!(
            "✓ Version record initialized (schema {SCHEMA_VERSION})"
        ))?;
        out.line("✓ Default namespace registered")?;
        if let Some(days) = retention {
            out.line(format_args!("✓ Audit retention set to {days} days"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Creates an embedded table with its namespace `default`, unless it is there. Returns whether it was not.
async fn create(at: &Connection, retention: Option<u32>) -> Result<bool, Failure> {
    let created = unlocked(|| async {
        let stack = builder(at)?.stack_handle().await.map_err(Opening::Failed)?;
        let missing = match stack.version().await {
            Ok(_) => false,
            Err(Error::InfrastructureNotFound { .. }) => true,
            Err(err) => return Err(Opening::Failed(err)),
        };
        // The directory is locked while it is in use.
        drop(stack);
        let repository = builder(at)?.namespace(DEFAULT_NAMESPACE).open();
        let repository = repository.await.map_err(Opening::Failed)?;
        if let Some(days) = retention {
            repository
                .admin()
                .set_audit_retention(days)
                .await
                .map_err(Opening::Failed)?;
        }
        Ok(missing)
    });
    created.await.map_err(|err| err.into_failure(at, ""))
}

//! `loadtest push`.

use serde_json::json;
use zae_limiter_infra::names::load;

use super::scenarios;
use super::stack::{check, failure, tell};
use crate::args::Events;
use crate::args::loadtest::LoadPush;
use crate::args::stack::PackageFile;
use crate::commands::Outcome;
use crate::connect::manager;
use crate::exit::Exit;
use crate::out::Out;
use crate::progress::Reporter;

pub(in super::super) async fn push(args: LoadPush) -> Outcome {
    let at = &args.common.at.connection();
    check(at)?;
    let found = scenarios::find(&args.scenarios.directory)?;
    let manager = manager(at).await?;
    let format = &args.common.format;
    let stack = load::stack(&at.name);
    tell(format, &format!("Pushing code to {stack}"));
    tell(format, &source_line(&args.code.package));
    tell(format, "  Building Lambda package...");
    for note in &found.notes {
        crate::say(note);
    }
    let reporter = Reporter::new(&args.common.format, &Events::default());
    let pushed = manager
        .push_load(
            &at.name,
            &args.code.package.source(),
            &found.files,
            args.code.code_bucket.as_deref(),
            &mut |progress| reporter.show(&progress),
        )
        .await
        .map_err(|err| failure(&err, at))?;
    drop(reporter);
    let place = format!("s3://{}/{}", pushed.code.bucket, pushed.code.key);
    let mut out = Out::to_the_end(format);
    if out.is_json() {
        out.json(&json!({
            "name": at.name,
            "stack": stack,
            "function": pushed.function,
            "code": place,
            "size_bytes": pushed.bytes,
            "scenarios": found.files.len(),
            "changed": pushed.changed,
        }))?;
        out.flush()?;
        return Ok(Exit::Success);
    }
    out.tell(&scenarios::line(&found.files))?;
    out.tell(&format!("  Lambda package built: {place}"))?;
    out.tell(&format!("  Lambda code uploaded: {}", pushed.function))?;
    out.tell(&format!("\nCode pushed: {stack}"))?;
    Ok(Exit::Success)
}

/// What the worker will run.
pub(super) fn source_line(package: &PackageFile) -> String {
    match &package.lambda_package {
        Some(path) => format!("  zae-limiter source: {}", path.display()),
        None => format!("  zae-limiter source: {}", env!("CARGO_PKG_VERSION")),
    }
}

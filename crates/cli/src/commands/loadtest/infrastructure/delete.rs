//! `loadtest delete`.

use serde_json::json;
use zae_limiter_infra::names::load;
use zae_limiter_infra::{Deleted, Stopped};

use super::stack::{check, failure, tell};
use crate::args::Events;
use crate::args::loadtest::LoadDelete;
use crate::ask::agreed;
use crate::commands::Outcome;
use crate::connect::manager;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::progress::Reporter;

pub(in super::super) async fn delete(args: LoadDelete) -> Outcome {
    let at = &args.common.at.connection();
    check(at)?;
    let stack = load::stack(&at.name);
    let question = format!("Delete load test stack '{stack}'?");
    if !agreed(&args.consent, &args.common.format, question).await? {
        return Err(Failure::aborted());
    }
    let manager = manager(at).await?;
    let format = &args.common.format;
    tell(format, &format!("Deleting load test stack: {stack}"));
    let found = manager.existing(&stack).await.map_err(|err| failure(&err, at))?;
    if found.is_some() {
        match manager.stop_load_tasks(&at.name).await {
            Ok(Stopped::Tasks(_)) => tell(format, "  Stopped Fargate tasks"),
            // There are no tasks.
            Ok(Stopped::NoService | Stopped::NoCluster) => {}
            Err(err) => crate::say(&format!("  Warning: Failed to scale down service: {err}")),
        }
        tell(format, "  Waiting for stack deletion...");
    }
    let reporter = Reporter::new(&args.common.format, &Events::default());
    let deleted = manager
        .delete_load(&at.name, &mut |progress| reporter.show(&progress))
        .await
        .map_err(|err| failure(&err, at))?;
    drop(reporter);
    let mut out = Out::to_the_end(format);
    if out.is_json() {
        let state = match deleted {
            Deleted::Absent => "absent",
            Deleted::Gone | Deleted::Begun => "deleted",
        };
        out.json(&json!({ "name": at.name, "stack": stack, "state": state }))?;
        out.flush()?;
        return Ok(Exit::Success);
    }
    out.tell(match deleted {
        Deleted::Absent => "  Stack does not exist",
        Deleted::Gone | Deleted::Begun => "  Stack deleted",
    })?;
    Ok(Exit::Success)
}

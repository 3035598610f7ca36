//! `delete`.

use serde_json::json;
use zae_limiter_infra::Deleted;

use crate::args::stack::Delete;
use crate::ask::agreed;
use crate::commands::Outcome;
use crate::connect::{manager, needs_stack};
use crate::exit::Exit;
use crate::failure::{Failure, marked, of_stack};
use crate::out::Out;
use crate::progress::Reporter;

pub(crate) async fn delete(args: Delete) -> Outcome {
    let at = &args.common.at.connection();
    crate::names::stack(&at.name)?;
    needs_stack(
        at,
        "To delete it, end the programs that use it and delete the directory.",
    )?;
    let question = format!("Are you sure you want to delete stack '{}'?", at.name);
    if !agreed(&args.consent, &args.common.format, question).await? {
        return Err(Failure::aborted());
    }
    let failed = |failure| marked(failure, "Deletion failed");
    let manager = manager(at).await.map_err(failed)?;
    let mut out = Out::to_the_end(&args.common.format);
    if !out.is_json() {
        out.line(format_args!("Deleting stack: {}", at.name))?;
        out.flush()?;
    }
    let reporter = Reporter::new(&args.common.format, &args.events);
    let unfinished = super::goes_on(at, "deletion", "delete");
    let deleted = manager
        .delete(&at.name, args.waits(), &mut |progress| reporter.show(&progress))
        .await;
    unfinished.done();
    let deleted = deleted.map_err(|err| failed(of_stack(&err, at)))?;
    drop(reporter);
    if out.is_json() {
        let state = match deleted {
            Deleted::Absent => "absent",
            Deleted::Gone => "deleted",
            Deleted::Begun => "deleting",
        };
        out.json(&json!({ "name": at.name, "state": state }))?;
    } else {
        match deleted {
            Deleted::Absent => out.line(format_args!("✓ Stack '{}' does not exist", at.name))?,
            Deleted::Gone => out.line(format_args!("✓ Stack '{}' deleted successfully", at.name))?,
            Deleted::Begun => {
                out.line("Stack deletion initiated. Use 'status' command to check progress.")?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

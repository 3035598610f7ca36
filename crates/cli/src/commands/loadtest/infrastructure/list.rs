//! `loadtest list`.

use serde_json::json;
use zae_limiter_infra::FoundStack;

use super::stack::failure;
use crate::args::loadtest::LoadList;
use crate::commands::Outcome;
use crate::commands::stack::list::day_of_creation;
use crate::connect::{manager, needs_stack};
use crate::exit::Exit;
use crate::out::Out;
use crate::text::table::{Column, Table};

pub(in super::super) async fn list(args: LoadList) -> Outcome {
    let at = &args.common.at.connection();
    needs_stack(at, "Run the load test with --local.")?;
    let manager = manager(at).await?;
    let found = manager.load_stacks().await.map_err(|err| failure(&err, at))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.values(found.iter().map(|one| {
            json!({
                "stack_name": one.stack.name,
                "target": one.user_name,
                "status": one.stack.status,
                "created": one.stack.created,
            })
        }))?;
        return Ok(Exit::Success);
    }
    let region = at.region.as_deref().unwrap_or("default");
    if found.is_empty() {
        out.line("\nNo load test stacks found.")?;
        out.line(format_args!("  Region: {region}\n"))?;
        out.line("Deploy a load test with:\n  zae-limiter loadtest deploy --name my-app")?;
    } else {
        out.line(format_args!("\nLoad Test Stacks ({region})\n"))?;
        out.line(table(&found))?;
        out.line(format_args!("\nTotal: {} stack(s)", found.len()))?;
        out.line("")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn table(found: &[FoundStack]) -> Table {
    let mut table = Table::ruled(&[
        Column::left("Name", 10),
        Column::left("Target", 10),
        Column::left("Status", 17),
        Column::left("Created", 10),
    ]);
    for one in found {
        table.row([
            one.stack.name.as_str(),
            &one.user_name,
            &one.stack.status,
            day_of_creation(&one.stack),
        ]);
    }
    table
}

//! `resource`.

use serde_json::json;
use zae_limiter::Access as Word;

use super::access::{self, Flags};
use super::{Outcome, cancelled, concurrency, failed, print_limits, sorted, written_limits};
use crate::args::resource::{DeleteDefaults, GetDefaults, List, ResourceCommand, SetDefaults};
use crate::ask::agreed;
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::out::Out;
use crate::text::table::printable;
use crate::{json, names};

pub(crate) async fn run(command: ResourceCommand) -> Outcome {
    match command {
        ResourceCommand::SetConcurrency(args) => concurrency::set_of_resource(args).await,
        ResourceCommand::GetConcurrency(args) => concurrency::get_of_resource(args).await,
        ResourceCommand::DeleteConcurrency(args) => concurrency::delete_of_resource(args).await,
        ResourceCommand::Bypass(args) => access::resource_access(args, Some(Word::Bypass)).await,
        ResourceCommand::ClearCascade(args) => access::clear_resource_cascade(args).await,
        ResourceCommand::ClearDisabled(args) => access::resource_access(args, None).await,
        ResourceCommand::Disable(args) => access::resource_access(args, Some(Word::Disabled)).await,
        ResourceCommand::Enable(args) => access::resource_access(args, Some(Word::Enabled)).await,
        ResourceCommand::SetCascade(args) => access::set_resource_cascade(args).await,
        ResourceCommand::DeleteDefaults(args) => delete_defaults(args).await,
        ResourceCommand::GetDefaults(args) => get_defaults(args).await,
        ResourceCommand::List(args) => list(args).await,
        ResourceCommand::SetDefaults(args) => set_defaults(args).await,
    }
}

async fn delete_defaults(args: DeleteDefaults) -> Outcome {
    const WHAT: &str = "delete resource defaults";
    let resource = &args.resource_name;
    names::resource(resource)?;
    let question = format!("Delete all defaults for resource '{resource}'?");
    if !agreed(&args.consent, &args.common.format, question).await? {
        return cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let existed = repo
        .admin()
        .delete_resource_defaults(resource)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "resource": resource, "deleted": existed }))?;
    } else if existed {
        out.line(format_args!("Deleted defaults for resource '{resource}'"))?;
    } else {
        out.line(format_args!(
            "Resource '{resource}' has no defaults; nothing was deleted"
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn get_defaults(args: GetDefaults) -> Outcome {
    const WHAT: &str = "get resource defaults";
    let resource = &args.resource_name;
    names::resource(resource)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let limits = repo
        .admin()
        .resource_defaults(resource)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let limits = sorted(limits);
    let flags = Flags::of_resource(&repo, resource).await;
    let flags = flags.map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let mut told = json!({ "resource": resource, "limits": json::limits(&limits) });
        flags.add_to(&mut told);
        out.json(&told)?;
    } else {
        if limits.is_empty() {
            out.line(format_args!("No defaults configured for resource '{resource}'"))?;
        } else {
            out.line(format_args!("Defaults for resource '{resource}':"))?;
            print_limits(&mut out, "  ", &limits)?;
        }
        flags.print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list resources";
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let resources = repo
        .admin()
        .resources_with_defaults()
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&json!(resources))?;
    } else if resources.is_empty() {
        out.line("No resources with configured defaults")?;
    } else {
        out.line("Resources with configured defaults:")?;
        for resource in &resources {
            out.line(format_args!("  {}", printable(resource)))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn set_defaults(args: SetDefaults) -> Outcome {
    const WHAT: &str = "set resource defaults";
    let resource = &args.resource_name;
    let limits = written_limits(&args.limits)?;
    names::resource(resource)?;
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    repo.admin()
        .set_resource_defaults(resource, &limits)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "resource": resource, "limits": json::limits(&limits) }))?;
    } else {
        out.line(format_args!(
            "Set {} default(s) for resource '{resource}':",
            limits.len()
        ))?;
        print_limits(&mut out, "  ", &limits)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

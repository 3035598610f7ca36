//! `system`.

use serde_json::json;

use super::{Outcome, cancelled, concurrency, failed, print_limits, say, sorted, written_limits};
use crate::args::OnUnavailable;
use crate::args::system::{
    DeleteDefaults, GetDefaults, OfSystem, SetCascadeDepth, SetDefaults, SystemCommand,
};
use crate::ask::agreed;
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::json;
use crate::out::Out;

pub(crate) async fn run(command: SystemCommand) -> Outcome {
    match command {
        SystemCommand::SetConcurrency(args) => concurrency::set_of_system(args).await,
        SystemCommand::GetConcurrency(args) => concurrency::get_of_system(args).await,
        SystemCommand::DeleteConcurrency(args) => concurrency::delete_of_system(args).await,
        SystemCommand::DeleteDefaults(args) => delete_defaults(args).await,
        SystemCommand::GetCascadeDepth(args) => get_cascade_depth(args).await,
        SystemCommand::GetDefaults(args) => get_defaults(args).await,
        SystemCommand::SetCascadeDepth(args) => set_cascade_depth(args).await,
        SystemCommand::SetDefaults(args) => set_defaults(args).await,
    }
}

async fn delete_defaults(args: DeleteDefaults) -> Outcome {
    const WHAT: &str = "delete system defaults";
    if !agreed(
        &args.consent,
        &args.common.format,
        "Delete all system-wide defaults?".into(),
    )
    .await?
    {
        return cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let existed = repo
        .admin()
        .delete_system_defaults()
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "deleted": existed }))?;
    } else if existed {
        out.line("Deleted all system-wide defaults")?;
    } else {
        out.line("There are no system-wide defaults; nothing was deleted")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn get_defaults(args: GetDefaults) -> Outcome {
    const WHAT: &str = "get system defaults";
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let (limits, policy) = repo
        .admin()
        .system_defaults()
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let limits = sorted(limits);
    let policy = policy.map(stored_name);
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "limits": json::limits(&limits), "on_unavailable": policy }))?;
    } else if limits.is_empty() && policy.is_none() {
        out.line("No system defaults configured")?;
    } else {
        out.line("System-wide defaults:")?;
        if !limits.is_empty() {
            out.line("  Limits:")?;
            print_limits(&mut out, "    ", &limits)?;
        }
        if let Some(policy) = policy {
            out.line(format_args!("  on_unavailable: {policy}"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn get_cascade_depth(args: OfSystem) -> Outcome {
    const WHAT: &str = "get cascade depth";
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let depth = repo
        .admin()
        .cascade_depth()
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "cascade_depth": depth }))?;
    } else {
        out.line(format_args!("Cascade depth: {depth}"))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn set_cascade_depth(args: SetCascadeDepth) -> Outcome {
    const WHAT: &str = "set cascade depth";
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let depth = args.depth;
    let old = repo
        .admin()
        .set_cascade_depth(depth)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let told = json!({ "cascade_depth": depth, "old_cascade_depth": old });
    say(
        &args.common,
        &told,
        format_args!("Set cascade depth: {depth} (was {old})"),
    )
}

async fn set_defaults(args: SetDefaults) -> Outcome {
    const WHAT: &str = "set system defaults";
    let limits = written_limits(&args.limits)?;
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let policy = args.on_unavailable.map(policy);
    repo.admin()
        .set_system_defaults(&limits, policy)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let policy = policy.map(stored_name);
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "limits": json::limits(&limits), "on_unavailable": policy }))?;
    } else {
        out.line(format_args!("Set {} system-wide default(s):", limits.len()))?;
        print_limits(&mut out, "  ", &limits)?;
        if let Some(policy) = policy {
            out.line(format_args!("  on_unavailable: {policy}"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// The library's policy for outages.
pub(crate) fn policy(written: OnUnavailable) -> zae_limiter::OnUnavailable {
    match written {
        OnUnavailable::Allow => zae_limiter::OnUnavailable::Allow,
        OnUnavailable::Block => zae_limiter::OnUnavailable::Block,
    }
}

fn stored_name(policy: zae_limiter::OnUnavailable) -> &'static str {
    match policy {
        zae_limiter::OnUnavailable::Allow => "allow",
        zae_limiter::OnUnavailable::Block => "block",
        zae_limiter::OnUnavailable::Degrade(_) => "degrade",
    }
}

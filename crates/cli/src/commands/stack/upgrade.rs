//! `upgrade`.

use std::collections::BTreeMap;

use serde_json::json;
use zae_limiter::{Compatibility, Error, VersionRecord};
use zae_limiter_core::version::{FUNCTIONS_LEVEL, Version};
use zae_limiter_infra::tags::Tags;
use zae_limiter_infra::{
    Error as Infra, FunctionState, Functions, Plan, StackManager, UpgradeScope, Upgraded,
};

use super::record;
use crate::args::stack::Upgrade;
use crate::args::{Assignment, Connection};
use crate::ask::agreed;
use crate::commands::Outcome;
use crate::connect::{manager, needs_stack, stack};
use crate::exit::Exit;
use crate::failure::{Doing, Failure, marked, of_stack, options as options_of};
use crate::out::Out;
use crate::progress::Reporter;
use crate::text::number;
use crate::text::table::printable;

/// This program's release, as it stands in the tags of the stacks that it deployed.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn upgrade(args: Upgrade) -> Outcome {
    let at = &args.common.at;
    crate::names::stack(&at.name)?;
    needs_stack(at, "It is always current.")?;
    let failed = |failure| marked(failure, "Upgrade failed");
    let parameters = parameters(&args);
    let wanted = zae_limiter_infra::Upgrade {
        stack: &at.name,
        package: &args.code.package.source(),
        code_bucket: args.code.code_bucket.as_deref(),
        scope: scope(&args),
        allow_removal: args.allow_removal,
        parameters: &parameters,
        tags: &Tags::new(),
        force: args.force,
        wait: true,
    };
    wanted.check().map_err(|err| of_stack(&err.into(), at))?;
    let manager = manager(at).await.map_err(failed)?;
    let mut out = Out::to_the_end(&args.common.format);
    if !out.is_json() {
        out.line("\nChecking infrastructure version...\n")?;
        out.flush()?;
    }
    let Some(version) = version(at).await.map_err(failed)? else {
        return not_initialized(&mut out, at);
    };
    refuse(&version)?;
    if !out.is_json() {
        let current = version.functions.as_deref().unwrap_or("none");
        out.line(format_args!("Current: Lambda {}", printable(current)))?;
        out.line(format_args!("Target:  Lambda {FUNCTIONS_LEVEL}\n"))?;
        out.flush()?;
    }
    let reporter = Reporter::new(&args.common.format, &args.events);
    let plan = plan(&manager, &wanted, at, &reporter).await.map_err(failed)?;
    let Some(plan) = plan else {
        drop(reporter);
        return without_stack(&mut out, at).await.map_err(failed);
    };
    if let Some(newer) = newer(&plan) {
        let newer = newer.to_owned();
        drop(reporter);
        manager
            .discard(plan)
            .await
            .map_err(|err| failed(of_stack(&err, at)))?;
        return deployed_by_newer(&mut out, at, &newer);
    }
    if !out.is_json() {
        announce(&mut out, &plan)?;
        out.flush()?;
    }
    let recorded = plan.python.is_empty() && version.functions.as_deref() == Some(FUNCTIONS_LEVEL);
    // The spinner must not overwrite the question, and a thread of its own asks it.
    drop(reporter);
    drop(out);
    let agreement = may_replace(&plan.python, &args).await;
    if !matches!(agreement, Ok(true)) {
        manager
            .discard(plan)
            .await
            .map_err(|err| failed(of_stack(&err, at)))?;
        return agreement.and(Err(Failure::aborted()));
    }
    let mut out = Out::to_the_end(&args.common.format);
    let reporter = Reporter::new(&args.common.format, &args.events);
    let empty = plan.is_empty();
    let summary = Summary::of(&plan, args.lambda_only);
    let unfinished = super::goes_on(at, "upgrade", "upgrade");
    let upgraded = manager
        .apply(plan, &mut |progress| reporter.show(&progress))
        .await;
    unfinished.done();
    let upgraded = upgraded.map_err(|err| failed(of_stack(&err, at)))?;
    let states = manager.functions(&at.name).await.unwrap_or_default();
    drop(reporter);
    let current = empty && recorded && upgraded.mended.is_empty();
    if !current {
        record(at, &upgraded.functions).await.map_err(failed)?;
    }
    if out.is_json() {
        out.json(&json_of(at, &summary, &upgraded, current))?;
    } else if current {
        out.line("Infrastructure is already up to date.")?;
        out.line(format_args!("  Client:   {RELEASE}"))?;
        out.line(format_args!(
            "  Lambda:   {}",
            printable(version.functions.as_deref().unwrap_or("none"))
        ))?;
    } else {
        steps(&mut out, &summary, &upgraded, &states)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// The table has no version record.
fn not_initialized(out: &mut Out, at: &Connection) -> Outcome {
    if out.is_json() {
        out.json(&json!({ "name": at.name, "state": "not_initialized" }))?;
    } else {
        out.line("Infrastructure not initialized.")?;
        out.line(format_args!("Run 'zae-limiter deploy{}' first.", options_of(at)))?;
    }
    out.flush()?;
    Ok(Exit::Failure)
}

const fn scope(args: &Upgrade) -> UpgradeScope {
    if args.lambda_only {
        UpgradeScope::Code
    } else {
        UpgradeScope::Template
    }
}

/// The parameters to change; of those of one name the last is meant.
fn parameters(args: &Upgrade) -> BTreeMap<String, String> {
    let pair = |one: &Assignment| (one.name.clone(), one.value.clone());
    args.parameters.iter().map(pair).collect()
}

/// Asks whether functions in Python may be replaced, if there are any.
async fn may_replace(python: &[String], args: &Upgrade) -> Result<bool, Failure> {
    if python.is_empty() {
        return Ok(true);
    }
    let question = format!(
        "{} in Python will be replaced by this program. Clients of the Python library continue to work. Replace?",
        python.join(" and ")
    );
    agreed(&args.consent, &args.common.format, question).await
}

/// The table's version record; `None` if it has none.
async fn version(at: &Connection) -> Result<Option<VersionRecord>, Failure> {
    let failed = |err: Error| Doing { at, what: "" }.failed(&err);
    stack(at, "").await?.version().await.map_err(failed)
}

/// Refuses a table that this program does not fit.
fn refuse(version: &VersionRecord) -> Result<(), Failure> {
    let compatibility = version.compatibility();
    let Some(reason) = compatibility.refusal() else {
        return Ok(());
    };
    let text = match compatibility {
        Compatibility::Schema(_) => format!("✗ Schema migration required - cannot auto-upgrade\n{reason}"),
        _ => format!("✗ Upgrade failed: {reason}"),
    };
    Err(Failure::bare(text, Exit::Failure))
}

/// Prepares the upgrade; `None` if there is no stack.
async fn plan(
    manager: &StackManager,
    wanted: &zae_limiter_infra::Upgrade<'_>,
    at: &Connection,
    reporter: &Reporter,
) -> Result<Option<Plan>, Failure> {
    match manager
        .plan(wanted, &mut |progress| reporter.show(&progress))
        .await
    {
        Ok(plan) => Ok(Some(plan)),
        Err(Infra::NotFound { .. }) => Ok(None),
        Err(err) => Err(of_stack(&err, at)),
    }
}

/// The release that deployed the stack, if it is one of this project's and newer than this program.
fn newer(plan: &Plan) -> Option<&str> {
    let release = plan.stack.release()?;
    let is_ours = plan.stack.takes_code();
    (is_ours && Version::parse(release)? > Version::parse(RELEASE)?).then_some(release)
}

fn deployed_by_newer(out: &mut Out, at: &Connection, newer: &str) -> Outcome {
    if out.is_json() {
        out.json(&json!({ "name": at.name, "state": "newer", "release": newer }))?;
    } else {
        out.line(format_args!(
            "The stack was deployed by zae-limiter {}, which is newer than this program; nothing was changed.",
            printable(newer)
        ))?;
        out.line(format_args!("  Client:   {RELEASE}"))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Of a table that no stack made only the version record can be brought up to date.
async fn without_stack(out: &mut Out, at: &Connection) -> Outcome {
    record(at, &Functions::None).await?;
    if out.is_json() {
        out.json(&json!({ "name": at.name, "state": "no_stack" }))?;
    } else {
        let skipped = format!("No CloudFormation stack named {}, skipped", at.name);
        let lines = [
            ("[1/5] Applying stack template...", skipped.as_str()),
            ("[2/5] Deploying Lambda code...", &skipped),
            ("[3/5] Deploying provisioner code...", &skipped),
            ("[4/5] Updating version record...", "Version record updated"),
            ("[5/5] Updating stack tags...", &skipped),
        ];
        for (step, what) in lines {
            out.line(step)?;
            out.line(format_args!("      {what}"))?;
        }
        out.line("\n✓ Upgrade complete!")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// The planned changes.
fn announce(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    if plan.is_empty() {
        return Ok(());
    }
    out.line("This will be done:")?;
    for change in &plan.changes {
        out.line(format_args!("  {}", printable(&change.to_string())))?;
    }
    if plan.new_code {
        out.line("  New code for the functions")?;
    }
    if plan.new_tags {
        out.line("  New tags")?;
    }
    out.line("")
}

/// The parts of a plan that are printed after the upgrade.
struct Summary {
    /// The changes of the template; `None` if it was to be left alone.
    changes: Option<Vec<String>>,
    new_code: bool,
    new_tags: bool,
    force: bool,
}

impl Summary {
    fn of(plan: &Plan, lambda_only: bool) -> Self {
        let changes = || plan.changes.iter().map(ToString::to_string).collect();
        Self {
            changes: (!lambda_only).then(changes),
            new_code: plan.new_code,
            new_tags: plan.new_tags,
            force: plan.force(),
        }
    }
}

fn steps(
    out: &mut Out,
    summary: &Summary,
    upgraded: &Upgraded,
    states: &[FunctionState],
) -> Result<(), Failure> {
    out.line("[1/5] Applying stack template...")?;
    match &summary.changes {
        None => out.line("      Skipped (--lambda-only)")?,
        Some(changes) if changes.is_empty() => out.line("      Stack template already current")?,
        Some(changes) => {
            let count = changes.len();
            out.line(format_args!(
                "      Stack template applied ({count} resource(s) changed)"
            ))?;
            for change in changes {
                out.line(format_args!("        {}", printable(change)))?;
            }
        }
    }
    let size = match &upgraded.functions {
        Functions::Ours { bytes, .. } => number::size(*bytes),
        _ => String::new(),
    };
    for (step, what, suffix) in [
        ("[2/5] Deploying Lambda code...", "Lambda", "-aggregator"),
        (
            "[3/5] Deploying provisioner code...",
            "Provisioner",
            "-limits-provisioner",
        ),
    ] {
        out.line(step)?;
        let state = states.iter().find(|state| state.name.ends_with(suffix));
        let mended = upgraded.mended.iter().any(|name| name.ends_with(suffix));
        out.line(match state {
            None => format!("      No {} Lambda on this stack, skipped", what_function(what)),
            Some(_) if mended && !summary.force && !summary.new_code => {
                format!("      {what} code restored ({size}): it had been changed outside the stack")
            }
            Some(_) if summary.new_code || mended => format!("      {what} code deployed ({size})"),
            Some(_) => format!("      {what} code already current"),
        })?;
    }
    out.line("[4/5] Updating version record...\n      Version record updated")?;
    out.line("[5/5] Updating stack tags...")?;
    out.line(if summary.new_tags {
        "      Stack tags updated"
    } else {
        "      Tags already current"
    })?;
    out.line("\n✓ Upgrade complete!")
}

fn what_function(what: &str) -> &str {
    if what == "Lambda" {
        "aggregator"
    } else {
        "provisioner"
    }
}

fn json_of(at: &Connection, summary: &Summary, upgraded: &Upgraded, current: bool) -> serde_json::Value {
    let sha256 = match &upgraded.functions {
        Functions::Ours { sha256, .. } => Some(sha256),
        _ => None,
    };
    json!({
        "name": at.name,
        "state": if current { "current" } else { "upgraded" },
        "stack_status": upgraded.stack.status,
        "changes": summary.changes.as_deref().unwrap_or_default(),
        "code_changed": summary.new_code,
        "code_sha256": sha256,
        "restored": upgraded.mended,
        "tags_changed": summary.new_tags,
    })
}

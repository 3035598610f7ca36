//! `limits`: manifests, planned, applied and compared, by the stack's limits provisioner or from here.
//!
//! `file` reads the manifest, `way` finds who does the work and has it done, `answer` understands what they say,
//! `show` prints it, `template` prints a manifest as a template.

mod answer;
pub(super) mod file;
mod show;
mod template;
mod way;

use zae_limiter_core::manifest::Manifest;

use super::{Outcome, print_schema};
use crate::args::limits::{Apply, Diff, LimitsCommand, ManifestFile, Plan, Where};
use crate::args::{Format, Namespaced};
use crate::connect::Access;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names;
use answer::Answer;
use way::{Call, Way};

pub(crate) async fn run(command: LimitsCommand) -> Outcome {
    match command {
        LimitsCommand::Apply(args) => apply(args).await,
        LimitsCommand::CfnTemplate(args) => template::print(&args),
        LimitsCommand::Diff(args) => diff(args).await,
        LimitsCommand::Plan(args) => plan(args).await,
        LimitsCommand::Schema(_) => print_schema(Manifest::SCHEMA),
    }
}

async fn apply(args: Apply) -> Outcome {
    let call = Call {
        what: "apply limits",
        access: Access::Write,
        full: args.full,
    };
    let asked = ask(&args.manifest, &args.common.at, &args.common.format, call).await?;
    if args.full && asked.answer.unchanged.is_none() {
        crate::say(
            "Note: the stack's limits provisioner does not support --full; it wrote every declared level, but did not \
             update live buckets.",
        );
    }
    let exit = show::applied(
        &asked.answer,
        args.quiet.quiet,
        &args.common.format,
        &asked.json(),
    )?;
    if !args.quiet.quiet {
        asked.note_limits_above_parent().await;
    }
    Ok(exit)
}

async fn plan(args: Plan) -> Outcome {
    let call = Call {
        what: "plan limits",
        access: Access::Read,
        full: false,
    };
    let asked = ask(&args.manifest, &args.common.at, &args.common.format, call).await?;
    asked.warn_of_age();
    show::planned(&asked.answer, &args.shown, &args.common.format, asked.json())?;
    if !args.shown.quiet.quiet {
        asked.note_limits_above_parent().await;
    }
    Ok(ending(args.shown.detailed_exitcode, asked.answer.is_idle()))
}

async fn diff(args: Diff) -> Outcome {
    let call = Call {
        what: "compare limits",
        access: Access::Read,
        full: false,
    };
    let asked = ask(&args.manifest, &args.common.at, &args.common.format, call).await?;
    asked.warn_of_age();
    let by_hand = if args.shown.quiet.quiet {
        None
    } else {
        asked.way.set_by_hand(&asked.manifest, call.what).await?
    };
    show::differing(
        &asked.answer,
        by_hand.as_deref(),
        &args.shown,
        &args.common.format,
        asked.json(),
    )?;
    Ok(ending(
        args.shown.detailed_exitcode,
        asked.answer.changes.is_empty(),
    ))
}

fn ending(detailed: bool, is_idle: bool) -> Exit {
    if detailed && !is_idle {
        Exit::Changes
    } else {
        Exit::Success
    }
}

/// A call with its answer.
struct Asked {
    manifest: Manifest,
    way: Way,
    answer: Answer,
}

impl Asked {
    /// The part of the JSON output that all commands have.
    fn json(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut json = serde_json::Map::new();
        json.insert("namespace".into(), self.manifest.namespace.as_str().into());
        json.insert("through".into(), self.way.as_str().into());
        json
    }

    async fn note_limits_above_parent(&self) {
        self.way
            .note_limits_above_parent(&self.manifest, &self.answer)
            .await;
    }

    fn warn_of_age(&self) {
        if self.answer.unchanged.is_none() {
            crate::say(
                "Note: the stack's limits provisioner is an old version that does not compare values, and lists every \
                 declared level. 'zae-limiter upgrade' replaces it; --direct compares without it.",
            );
        }
    }
}

async fn ask(file: &ManifestFile, at: &Where, format: &Format, call: Call) -> Result<Asked, Failure> {
    let connection = at.connection();
    names::stack(&connection.name)?;
    let manifest = file::read(&file.file)?;
    let declared = manifest.namespace.as_str();
    if let Some(given) = at.namespace.as_deref().filter(|given| *given != declared) {
        return Err(Failure::usage(format!(
            "--namespace is '{given}', but {} is for the namespace '{declared}'. Leave --namespace out, or change the \
             file.",
            file::shown(&file.file)
        )));
    }
    let at_namespace = Namespaced {
        connection,
        namespace: declared.to_owned(),
    };
    let way = Way::find(at_namespace, at.direct, call).await?;
    let answer = way.ask(&manifest, format, call).await?;
    Ok(Asked {
        manifest,
        way,
        answer,
    })
}

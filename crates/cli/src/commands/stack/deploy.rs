//! `deploy`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::{DEFAULT_NAMESPACE, Repository};
use zae_limiter_core::schema::SCHEMA_VERSION;
use zae_limiter_infra::{
    Change, Deployed, Deployment, Functions, Progress, StackManager, StackOptions, StackSummary,
};

use super::{embedded, record, summary};
use crate::args::stack::{Chosen, Deploy};
use crate::args::{Connection, Format};
use crate::commands::{Outcome, failed};
use crate::connect::{check_directory, embedded as directory, manager};
use crate::exit::Exit;
use crate::failure::{Failure, marked, of_stack, options as options_of};
use crate::out::Out;
use crate::progress::Reporter;
use crate::text::number;
use crate::text::table::printable;

/// How often to look whether another operation on the stack is over.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn deploy(args: Deploy) -> Outcome {
    deploy_within(args, |document| document).await
}

/// Deploys; what it prints as JSON is what `document` makes of it.
pub(crate) async fn deploy_within(args: Deploy, document: impl FnOnce(Json) -> Json) -> Outcome {
    let at = &args.common.at;
    let chosen = args.chosen()?;
    crate::names::stack(&at.name)?;
    if let Some(path) = directory(at) {
        check_directory(&path)?;
        let given = chosen.given.iter().map(|(option, _)| *option);
        let senseless: Vec<&str> = given.chain(chosen.others.iter().copied()).collect();
        embedded::check(&args, &senseless)?;
        return embedded::deploy(at, &path, &args.common.format, chosen.audit_retention).await;
    }
    let check = |options: &StackOptions| options.check(&at.name).map_err(|err| of_stack(&err.into(), at));
    check(&chosen.options)?;
    let failed = |failure| marked(failure, "Deployment failed");
    let manager = manager(at).await.map_err(failed)?;
    let found = settled(&manager, &args)
        .await
        .map_err(|err| failed(of_stack(&err, at)))?;
    let options = &match &found {
        Some(found) => chosen.completed(&found.parameters),
        None => chosen.options.clone(),
    };
    check(options)?;
    let settings = Settings::of(&chosen, options, found.as_ref());
    announce(&args, &chosen, options, found.is_some())?;
    let wanted = Deployment {
        stack: &at.name,
        options,
        settings: &settings.changed,
        allow_removal: args.allow_removal,
        package: &args.code.package.source(),
        code_bucket: args.code.code_bucket.as_deref(),
        wait: args.waits(),
    };
    let reporter = Reporter::new(&args.common.format, &args.events);
    let unfinished = super::goes_on(at, "deployment", "deploy");
    let mut uploaded = None;
    let mut show = |progress: Progress<'_>| {
        if let Progress::Uploaded {
            bucket, key, bytes, ..
        } = &progress
        {
            uploaded = Some((format!("s3://{bucket}/{key}"), *bytes));
        }
        if let Progress::Planned { changes } = &progress {
            reporter.pause(|| settings.announce(&args.common.format, changes));
        }
        reporter.show(&progress);
    };
    let deployed = Box::pin(manager.deploy(&wanted, &mut show)).await;
    unfinished.done();
    let deployed = deployed.map_err(|err| failed(of_failed(&err, at, found.is_none())))?;
    let is_of_another = found.is_none() && !deployed.created && !chosen.given.is_empty();
    let overtaken = is_of_another.then(|| overtaken(&at.name));
    let mut out = Out::to_the_end(&args.common.format);
    if !out.is_json() {
        print_stack(&mut out, at, &deployed, &settings)?;
        out.flush()?;
    }
    if !args.waits() {
        drop(reporter);
        // One document on standard output, or one on standard error.
        let begun = || begun(&mut out, at, &deployed, &settings, document);
        return overtaken.map_or_else(begun, Err);
    }
    let ready = if deployed.created && options.has_aggregator() {
        reporter.wait("Waiting for the aggregator to read the stream".into());
        Some(manager.aggregator_reads(&at.name).await)
    } else {
        None
    };
    drop(reporter);
    if !out.is_json() {
        let place = uploaded.as_ref().map(|(place, _)| place.as_str());
        print_functions(&mut out, at, &deployed, place)?;
        if ready == Some(true) {
            out.line("✓ Event Source Mapping ready")?;
        }
        out.line("\nInitializing version record...")?;
        out.flush()?;
    }
    finish(at, &deployed, chosen.audit_retention)
        .await
        .map_err(failed)?;
    if out.is_json() {
        if let Some(failure) = overtaken {
            return Err(failure);
        }
        out.json(&document(json_of(at, &deployed, &settings, ready, true)))?;
    } else {
        out.line(format_args!(
            "✓ Version record initialized (schema {SCHEMA_VERSION})"
        ))?;
        out.line("✓ Default namespace registered")?;
        if let Some(days) = chosen.audit_retention {
            out.line(format_args!("✓ Audit retention set to {days} days"))?;
        }
    }
    out.flush()?;
    overtaken.map_or(Ok(Exit::Success), Err)
}

/// The failure of a deployment. What is left of a creation must be deleted before the next.
fn of_failed(err: &zae_limiter_infra::Error, at: &Connection, is_creation: bool) -> Failure {
    match of_stack(err, at) {
        Failure::Message { text, exit }
            if is_creation && matches!(err, zae_limiter_infra::Error::Operation { .. }) =>
        {
            let advice = format!(
                "Delete what is left of it with 'zae-limiter delete{}', then deploy again.",
                options_of(at)
            );
            Failure::Message {
                text: format!("{text}\n{advice}"),
                exit,
            }
        }
        other => other,
    }
}

/// Says that the settings of this command are not those of the stack.
fn overtaken(stack: &str) -> Failure {
    Failure::error(format!(
        "Another command created the stack '{stack}' at the same time, with settings of its own. Deploy again for those of \
         this command."
    ))
}

/// The stack as it is once no other operation on it is under way, unless the command does not wait.
async fn settled(
    manager: &StackManager,
    args: &Deploy,
) -> Result<Option<StackSummary>, zae_limiter_infra::Error> {
    let name = &args.common.at.name;
    let mut found = manager.existing(name).await?;
    let reporter = Reporter::new(&args.common.format, &args.events);
    let mut told = String::new();
    while let Some(busy) = found
        .as_ref()
        .filter(|found| args.waits() && found.is_in_progress() && found.status != "DELETE_IN_PROGRESS")
    {
        if told != busy.status {
            reporter.show(&Progress::WaitingForOther { status: &busy.status });
            told.clone_from(&busy.status);
        }
        tokio::time::sleep(LOOK).await;
        found = manager.existing(name).await?;
    }
    Ok(found)
}

/// Prints the settings that the stack will have.
fn announce(args: &Deploy, chosen: &Chosen, options: &StackOptions, exists: bool) -> Result<(), Failure> {
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        return Ok(());
    }
    for note in &chosen.notes {
        out.line(note)?;
    }
    let retention = if exists {
        chosen.audit_retention
    } else {
        Some(options.audit_retention_days)
    };
    for line in summary::lines(&args.common.at, options, retention) {
        out.line(line)?;
    }
    out.line("")?;
    out.flush()
}

/// What the options say that an existing stack has otherwise.
#[derive(Default)]
struct Settings {
    /// Parameters to change, and how.
    changed: BTreeMap<String, String>,
    /// Their values so far.
    before: BTreeMap<String, String>,
    /// Options whose parameters the stack's template does not have, and the values of those.
    unknown: Vec<(&'static str, BTreeMap<&'static str, String>)>,
}

impl Settings {
    fn of(chosen: &Chosen, options: &StackOptions, found: Option<&StackSummary>) -> Self {
        let mut settings = Self::default();
        // Of a stack that is only being created the parameters are what was asked for.
        let Some(found) = found.filter(|found| !found.parameters.is_empty()) else {
            return settings;
        };
        let wanted: BTreeMap<&str, String> = options
            .parameters(&found.name)
            .unwrap_or_default()
            .into_iter()
            .collect();
        for (option, parameters) in &chosen.given {
            let mut unknown = BTreeMap::new();
            for parameter in *parameters {
                let Some(value) = wanted.get(parameter) else {
                    continue;
                };
                match found.parameters.get(*parameter) {
                    None => {
                        unknown.insert(*parameter, value.clone());
                    }
                    Some(current) if current != value => {
                        settings.before.insert((*parameter).to_owned(), current.clone());
                        settings.changed.insert((*parameter).to_owned(), value.clone());
                    }
                    Some(_) => {}
                }
            }
            if !unknown.is_empty() {
                settings.unknown.push((option, unknown));
            }
        }
        settings
    }

    /// Prints what is about to change.
    fn announce(&self, format: &Format, changes: &[Change]) {
        let mut lines = vec!["Changes of the stack:".to_owned()];
        for (name, value) in &self.changed {
            let before = self.before.get(name).map_or("", String::as_str);
            lines.push(format!("  {name}: {} -> {}", or_none(before), or_none(value)));
        }
        lines.extend(changes.iter().map(|change| format!("  {change}")));
        // The command goes on if they cannot be printed.
        let _ = Out::to_the_end(format).tell(&lines.join("\n"));
    }
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "(none)" } else { value }
}

fn print_stack(
    out: &mut Out,
    at: &Connection,
    deployed: &Deployed,
    settings: &Settings,
) -> Result<(), Failure> {
    if deployed.waited {
        out.line("✓ Stack already exists and ready")?;
    } else {
        out.line(format_args!("✓ Stack {}", in_words(&deployed.stack.status)))?;
    }
    out.line(format_args!("  Stack ID: {}", printable(&deployed.stack.id)))?;
    if deployed.created {
        return Ok(());
    }
    out.line(if settings.changed.is_empty() {
        "  The stack already existed. Its template and settings were not changed."
    } else if deployed.stack.is_in_progress() {
        "  The stack already existed. Its settings are being changed, and its template is not."
    } else {
        "  The stack already existed. Its settings were changed, and its template was not."
    })?;
    if deployed.tagged {
        out.line("  Tags added")?;
    }
    if settings.unknown.is_empty() {
        return Ok(());
    }
    out.line("Note: not applied, because the stack's template does not have these settings:")?;
    for (option, _) in &settings.unknown {
        out.line(format_args!("  {option}"))?;
    }
    out.line(format_args!(
        "  To bring this version's template and change them: {}",
        printable(&change_command(at, settings))
    ))
}

fn change_command(at: &Connection, settings: &Settings) -> String {
    let mut command = format!("zae-limiter upgrade{}", options_of(at));
    for (parameter, wanted) in settings.unknown.iter().flat_map(|(_, all)| all) {
        let quote = if wanted.contains(['{', ' ', '*', '$']) {
            "'"
        } else {
            ""
        };
        command.push_str(" --parameter ");
        for part in [quote, parameter, "=", wanted, quote] {
            command.push_str(part);
        }
    }
    command
}

fn in_words(status: &str) -> String {
    status.to_lowercase().replace('_', " ")
}

fn print_functions(
    out: &mut Out,
    at: &Connection,
    deployed: &Deployed,
    place: Option<&str>,
) -> Result<(), Failure> {
    match &deployed.functions {
        Functions::None | Functions::Unknown => Ok(()),
        Functions::Foreign => out.line(
            "Note: the stack has no functions, and its template does not support this version's. 'zae-limiter upgrade' \
             adds both.",
        ),
        Functions::Python(names) => out.line(format_args!(
            "Note: {} {} Python and {} not changed. To replace {}: zae-limiter upgrade{}",
            names.join(" and "),
            if names.len() == 1 { "runs" } else { "run" },
            if names.len() == 1 { "was" } else { "were" },
            if names.len() == 1 { "it" } else { "them" },
            options_of(at),
        )),
        Functions::Ours { sha256, bytes, changed } => {
            out.line("\nDeploying Lambda function code...")?;
            let size = number::size(*bytes);
            let outputs = &deployed.stack.outputs;
            let verb = if *changed { "deployed" } else { "already deployed" };
            for (what, output) in [
                ("Lambda", "AggregatorFunctionArn"),
                ("Provisioner", "ProvisionerFunctionArn"),
            ] {
                let Some(arn) = outputs.get(output) else {
                    continue;
                };
                out.line(format_args!("✓ {what} code {verb} ({size})"))?;
                out.line(format_args!("  Function ARN: {}", printable(arn)))?;
            }
            let sha256 = sha256.get(..16).unwrap_or(sha256);
            out.line(format_args!("  Code SHA256: {sha256}..."))?;
            match place {
                Some(place) => out.line(format_args!("  Code: {}", printable(place))),
                None => Ok(()),
            }
        }
    }
}

/// The end of a deployment with --no-wait.
fn begun(
    out: &mut Out,
    at: &Connection,
    deployed: &Deployed,
    settings: &Settings,
    document: impl FnOnce(Json) -> Json,
) -> Outcome {
    if out.is_json() {
        out.json(&document(json_of(at, deployed, settings, None, false)))?;
    } else {
        if deployed.stack.is_in_progress() {
            let what = if deployed.stack.status.starts_with("CREATE") {
                "creation"
            } else {
                "update"
            };
            out.line(format_args!(
                "\nStack {what} initiated. Use 'status' command to check progress."
            ))?;
        }
        out.line(format_args!(
            "Note: Run 'zae-limiter deploy{}' again when it is complete, to write the version record and register the \
             default namespace.",
            options_of(at)
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Writes the records of a deployment to the table.
async fn finish(at: &Connection, deployed: &Deployed, retention: Option<u32>) -> Result<(), Failure> {
    let failed = failed(at, "");
    let handle = record(at, &deployed.functions).await?;
    handle
        .register_namespace(DEFAULT_NAMESPACE)
        .await
        .map_err(failed)?;
    if let Some(days) = retention {
        let repository: Repository = handle.connect(DEFAULT_NAMESPACE).await.map_err(failed)?;
        repository
            .admin()
            .set_audit_retention(days)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

fn json_of(
    at: &Connection,
    deployed: &Deployed,
    settings: &Settings,
    ready: Option<bool>,
    initialized: bool,
) -> serde_json::Value {
    let functions = match &deployed.functions {
        Functions::None => json!({ "state": "none" }),
        Functions::Ours {
            sha256,
            bytes,
            changed,
        } => {
            json!({ "state": "deployed", "sha256": sha256, "size_bytes": bytes, "changed": changed })
        }
        Functions::Python(names) => json!({ "state": "python", "functions": names }),
        Functions::Foreign => json!({ "state": "foreign" }),
        Functions::Unknown => json!({ "state": "unknown" }),
    };
    let unknown = settings.unknown.iter().flat_map(|(_, all)| all);
    let not_applied: serde_json::Map<_, _> = unknown
        .map(|(parameter, wanted)| ((*parameter).to_owned(), json!(wanted)))
        .collect();
    json!({
        "name": at.name,
        "stack_id": deployed.stack.id,
        "status": deployed.stack.status,
        "created": deployed.created,
        "functions": functions,
        "event_source_mapping_ready": ready,
        "settings_changed": settings.changed,
        "not_applied": not_applied,
        "initialized": initialized,
        "outputs": deployed.stack.outputs,
    })
}

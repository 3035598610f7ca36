//! `replay`: recorded traffic against the limits of manifests, in memory.
//!
//! `text` prints the report; `zae_limiter_replay` does everything else.

mod text;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use zae_limiter::{EntityId, InvalidInput, LimitName, ResourceName};
use zae_limiter_replay::trace::{Trace, TraceError, TraceOptions};
use zae_limiter_replay::{
    Declared, OnRefusal, Options, ReplayError, draw, limits_of, only_resource, replay as play,
};

use super::Outcome;
use super::limits::file::{read, shown};
use crate::args::limits::STANDARD_INPUT;
use crate::args::replay::{self as args, Mapping, Replay};
use crate::exit::Exit;
use crate::failure::{Failure, invalid};
use crate::out::Out;

/// How often a request tries again, unless another number is given.
const RETRIES: u32 = 3;

pub(crate) async fn replay(args: Replay) -> Outcome {
    check_files(&args)?;
    let options = Options {
        seed: args.seed,
        on_refusal: on_refusal(&args)?,
        every_ms: args
            .every
            .map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX)),
    };
    let mut declared = Vec::new();
    for file in std::iter::once(&args.manifest).chain(&args.compare) {
        declared.push(Declared::new(shown(file), read(file)?));
    }
    let mapping = mapped(&args.mapping, args.seed, &declared)?;
    let path = args.trace.clone();
    let report = play(move || open(&path, mapping), &declared, &options)
        .await
        .map_err(failed)?;
    if let Some(file) = &args.html {
        fs::write(file, draw::page(&report, args.top as usize))
            .map_err(|err| Failure::error(format!("Cannot write {}: {err}", file.display())))?;
    }
    let mut out = Out::new(&args.format);
    if out.is_json() {
        out.json(&report.to_json())?;
    } else {
        text::print(&mut out, &report, args.top as usize)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Refuses files that would be read twice, or overwritten.
fn check_files(args: &Replay) -> Result<(), Failure> {
    let read: Vec<&PathBuf> = [&args.trace, &args.manifest]
        .into_iter()
        .chain(&args.compare)
        .collect();
    if read
        .iter()
        .filter(|file| *file.as_path() == *Path::new(STANDARD_INPUT))
        .count()
        > 1
    {
        return Err(Failure::usage(
            "Only one of TRACE, --manifest and --compare can be '-'.",
        ));
    }
    let Some(html) = args.html.as_deref().and_then(|html| fs::canonicalize(html).ok()) else {
        return Ok(());
    };
    match read
        .iter()
        .find(|file| fs::canonicalize(file).is_ok_and(|file| file == html))
    {
        Some(file) => Err(Failure::usage(format!(
            "--html would overwrite {}, which is read. Name another file.",
            file.display()
        ))),
        None => Ok(()),
    }
}

fn on_refusal(args: &Replay) -> Result<OnRefusal, Failure> {
    match (args.on_refusal, args.retries) {
        (args::OnRefusal::Drop, Some(_)) => Err(Failure::usage("--retries requires '--on-refusal retry'.")),
        (args::OnRefusal::Drop, None) => Ok(OnRefusal::Drop),
        (args::OnRefusal::Retry, most) => Ok(OnRefusal::Retry(most.unwrap_or(RETRIES))),
    }
}

/// How the trace is read.
fn mapped(mapping: &Mapping, seed: u64, declared: &[Declared]) -> Result<TraceOptions, Failure> {
    let refused = |option: &str, err: &InvalidInput| Failure::usage(format!("{option}: {}", invalid(err)));
    let entity = |option: &str, name: &Option<String>| {
        name.as_ref()
            .map(EntityId::new)
            .transpose()
            .map_err(|err| refused(option, &err))
    };
    let limit = |option: &str, name: &Option<String>| {
        name.as_ref()
            .map(LimitName::new)
            .transpose()
            .map_err(|err| refused(option, &err))
    };
    let resource = mapping.resource.as_ref().map(ResourceName::new).transpose();
    let resource = resource.map_err(|err| refused("--resource", &err))?;
    let zone = TimeZone::get(&mapping.tz).map_err(|_| {
        Failure::usage(format!(
            "--tz '{}' is not the name of a time zone, such as UTC or Europe/Berlin.",
            mapping.tz
        ))
    })?;
    let column = |one: &crate::args::Assignment| (one.name.clone(), one.value.clone());
    Ok(TraceOptions {
        limits: limits_of(declared),
        format: mapping.format.map(Into::into),
        pattern: mapping.pattern.clone(),
        columns: mapping.columns.iter().map(column).collect(),
        entity: entity("--entity", &mapping.entity)?,
        resource: resource.or_else(|| only_resource(declared)),
        parent: entity("--parent", &mapping.parent)?,
        requests_limit: limit("--requests-limit", &mapping.requests_limit)?,
        tokens_limit: limit("--tokens-limit", &mapping.tokens_limit)?,
        answer_estimate: mapping.answer_estimate,
        ms_per_token: mapping.ms_per_token,
        zone,
        disorder: mapping.disorder,
        skip_bad: mapping.skip_bad,
        skip_status: mapping.skip_statuses.clone(),
        methods: mapping.methods.clone(),
        seed,
    })
}

fn open(path: &Path, options: TraceOptions) -> Result<Trace, TraceError> {
    let name = shown(path);
    let from: Box<dyn Read + Send> = if path == Path::new(STANDARD_INPUT) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|err| TraceError::unreadable(&name, &err))?)
    };
    Trace::open(&name, from, options)
}

fn failed(err: ReplayError) -> Failure {
    match err {
        ReplayError::Input(err) => Failure::usage(format!("--{}: {}", err.field(), invalid(&err))),
        err => Failure::error(err.to_string()),
    }
}

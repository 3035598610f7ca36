//! `acquire` and `available`: taking tokens from a script, and looking at them.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use zae_limiter::{
    Availability, ConcurrencyExceeded, EntityId, Error, Lease, LimitStatus, RateLimitExceeded, RateLimiter,
    Refusal, Repository, Wait,
};

use super::system::policy;
use super::{Outcome, failed, print_schema};
use crate::args::acquire::{Acquire, Available};
use crate::args::{Amount, OnUnavailable};
use crate::connect::{Access, Opening, namespace, open_namespace};
use crate::exit::Exit;
use crate::failure::{Failure, outage};
use crate::out::Out;
use crate::signals::{Catch, Signals};
use crate::text::number::grouped;
use crate::text::time;
use crate::{names, say};

/// How long opening the table may take, unless --timeout is given.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before the namespace is opened again.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// Says that the table was not asked, and why.
fn warn_unasked(cause: &str) {
    say(&format!(
        "Warning: {cause}; the request was admitted without the table"
    ));
}

/// How long refunds may take when the program ends.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) async fn acquire(args: Acquire) -> Outcome {
    const WHAT: &str = "acquire";
    names::entity("entity_id", &args.entity_id)?;
    names::resource(&args.resource)?;
    for further in &args.also {
        names::resource(&further.resource)?;
    }
    let args = Arc::new(args);
    let timeout = args.timeout.unwrap_or(TIMEOUT);
    // Before anything is taken: from here on no signal kills the process.
    let mut signals = Signals::catch(if args.command.is_empty() {
        Catch::Kills
    } else {
        Catch::Commands
    })?;
    let opened = tokio::select! {
        biased;
        ending = signals.ending() => return Err(ending.into_failure()),
        opened = open(&args, timeout) => opened,
    };
    let may_pass = args.on_unavailable == Some(OnUnavailable::Allow);
    let repo = match opened {
        Ok(Ok(repo)) => repo,
        Ok(Err(Opening::Failed(Error::Unavailable(down)))) if may_pass && down.is_retryable() => {
            let cause = outage(&down.into(), &args.common.at.connection);
            return without_table(&args, signals, &cause).await;
        }
        Ok(Err(err)) => {
            if let Opening::Failed(err) = &err {
                print_refusal(&args, err.refusal())?;
            }
            return Err(err.into_failure(&args.common.at.connection, WHAT));
        }
        Err(_) => {
            let text = format!("the table did not answer within {}", time::wait(timeout));
            if may_pass {
                return without_table(&args, signals, &text).await;
            }
            print_refusal(&args, Some(Refusal::unavailable(false)))?;
            return Err(Failure::with(text, Exit::Aws));
        }
    };
    let taken = tokio::select! {
        biased;
        ending = signals.ending() => {
            // Tokens that a request in flight has taken are given back.
            drain(&repo).await;
            return Err(ending.into_failure());
        }
        taken = take(&repo, &args) => taken,
    };
    let mut lease = match taken {
        Ok(lease) => lease,
        Err(err) => {
            drain(&repo).await;
            return refused(&args, err);
        }
    };
    if let Some(timeout) = args.timeout {
        lease.set_timeout(timeout);
    }
    if let Some(ending) = signals.pending().await {
        // It came together with the tokens.
        give_back(lease).await;
        drain(&repo).await;
        return Err(ending.into_failure());
    }
    if lease.is_degraded() {
        let cause = lease.outage().map(|err| outage(err, &args.common.at.connection));
        warn_unasked(cause.as_deref().unwrap_or("the table cannot be used"));
    }
    let outcome = if args.command.is_empty() {
        keep(lease, &args, &mut signals).await
    } else {
        run(lease, &args, &mut signals).await
    };
    drain(&repo).await;
    outcome
}

/// Opens the namespace. Retries until the deadline while the table is throttled or cannot be reached, unless the
/// request may be admitted without it.
///
/// # Errors
/// `Elapsed` if there was no answer at all within `timeout`.
async fn open(args: &Acquire, timeout: Duration) -> Result<Result<Repository, Opening>, Elapsed> {
    let until = Instant::now() + timeout;
    let mut last = None;
    loop {
        match timeout_at(until, open_namespace(&args.common.at, Access::Read, Some(until))).await {
            Ok(Err(Opening::Failed(Error::Unavailable(down))))
                if down.is_retryable() && args.on_unavailable != Some(OnUnavailable::Allow) =>
            {
                if Instant::now() + OPEN_PAUSE >= until {
                    // An attempt that had no time left has met no failure.
                    let is_silent = std::error::Error::source(&down).is_none();
                    let down = last.filter(|_| is_silent).unwrap_or(down);
                    return Ok(Err(Opening::Failed(down.into())));
                }
                last = Some(down);
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            Err(elapsed) => return last.map_or(Err(elapsed), |down| Ok(Err(Opening::Failed(down.into())))),
            Ok(opened) => return Ok(opened),
        }
    }
}

/// The further resources, each with all its amounts, in the order of their first mention.
fn also(args: &Acquire) -> Vec<(&str, Vec<(&str, u64)>)> {
    let mut also: Vec<(&str, Vec<(&str, u64)>)> = Vec::new();
    for further in &args.also {
        let amount = (further.amount.limit.as_str(), further.amount.tokens);
        match also
            .iter_mut()
            .find(|(resource, _)| *resource == further.resource)
        {
            Some((_, amounts)) => amounts.push(amount),
            None => also.push((&further.resource, vec![amount])),
        }
    }
    also
}

/// Takes the tokens; if waiting for them was asked for, once they are there.
async fn take(repo: &Repository, args: &Acquire) -> Result<Lease, Error> {
    let limiter = RateLimiter::new(repo.clone());
    let mut request = limiter.acquire(&args.entity_id, &args.resource);
    for Amount { limit, tokens } in &args.consume {
        request = request.consume(limit, *tokens);
    }
    for (resource, amounts) in also(args) {
        request = request.also(resource, amounts);
    }
    if args.in_flight {
        request = request.in_flight();
    }
    if let Some(limit) = args.in_flight_at_most {
        request = request.in_flight_at_most(limit);
    }
    if let Some(ttl) = args.in_flight_ttl {
        request = request.in_flight_ttl(ttl);
    }
    if let Some(written) = args.on_unavailable {
        request = request.on_unavailable(policy(written));
    }
    if let Some(timeout) = args.timeout {
        request = request.timeout(timeout);
    }
    if let Some(max) = args.wait {
        request = request.wait(max).on_wait(|_, wait| {
            if io::stderr().is_terminal() {
                say(&format!("Waiting {} for tokens", time::wait(wait)));
            }
        });
    }
    request.await
}

async fn drain(repo: &Repository) {
    if !repo.drain_within(DRAIN).await.is_complete() {
        say("Warning: not every refund was finished; tokens may stay taken");
    }
}

/// Prints the body of the HTTP answer that a service would give, for programs.
fn print_refusal(args: &Acquire, refusal: Option<Refusal>) -> Result<(), Failure> {
    // A refusal keeps its exit code even if this cannot be written.
    let mut out = Out::to_the_end(&args.common.format);
    match refusal {
        Some(refusal) if out.is_json() => {
            out.json(refusal.body())?;
            out.flush()
        }
        _ => Ok(()),
    }
}

fn refused(args: &Acquire, err: Error) -> Outcome {
    print_refusal(args, err.refusal())?;
    let refused = match err {
        Error::RateLimitExceeded(refused) => refused,
        Error::ConcurrencyExceeded(full) => return Err(Failure::with(no_place(&full), Exit::TryLater)),
        other => return Err(failed(&args.common.at.connection, "acquire")(other)),
    };
    let exit = if refused.is_never() {
        Exit::Failure
    } else {
        Exit::TryLater
    };
    Err(Failure::with(refusal(&refused), exit))
}

fn no_place(full: &ConcurrencyExceeded) -> String {
    format!(
        "Concurrency limit exceeded for '{}' on '{}': {} of {} requests are in flight.",
        full.entity, full.resource, full.in_flight, full.limit
    )
}

/// A refusal in a few lines: who refused, and until when.
fn refusal(refused: &RateLimitExceeded) -> String {
    let who = match refused.worst() {
        Some(worst) => format!(
            "Rate limit exceeded for '{}' on '{}'.",
            worst.entity, worst.resource
        ),
        None => "Concurrent requests kept taking tokens.".to_owned(),
    };
    let when = match refused.retry_after() {
        Some(wait) => format!("Retry after {}.", time::wait(wait)),
        None => "It can never be admitted: more is asked than the limit can hold.".to_owned(),
    };
    let mut others = refused.statuses().windows(2);
    let is_of_several = others.any(|pair| pair[0].resource != pair[1].resource);
    let line = |status: &LimitStatus| {
        let each = match status.shards {
            0 | 1 => String::new(),
            shards => format!(" in one of {shards} shards"),
        };
        let name = if is_of_several {
            format!("{} on '{}'", status.limit_name, status.resource)
        } else {
            status.limit_name.to_string()
        };
        let entity = &status.entity;
        let requested = grouped(status.requested.into());
        if status.wait == Wait::Never {
            let capacity = grouped(status.capacity.into());
            return format!("  {name} of '{entity}': {requested} asked, the capacity is {capacity}");
        }
        let available = grouped(status.available.into());
        format!("  {name} of '{entity}': {requested} asked, {available} available{each}")
    };
    let lines = std::iter::once(format!("{who} {when}")).chain(refused.violations().map(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The table cannot even be opened, and the operator chose to let requests pass then.
async fn without_table(args: &Acquire, mut signals: Signals, cause: &str) -> Outcome {
    warn_unasked(cause);
    if args.command.is_empty() {
        signals.let_go();
        return acquired(args, true);
    }
    match run_command(&args.command, &mut signals).await {
        Ok(ended) if ended.success() => Ok(Exit::Success),
        Ok(ended) => Ok(Exit::Command(code_of(ended))),
        Err(err) => Err(cannot_run(&args.command, &err)),
    }
}

/// Prints what was taken, and keeps it. If it cannot be printed, or a signal arrives before, the tokens go back, since the
/// exit code says that nothing was taken.
async fn keep(lease: Lease, args: &Arc<Acquire>, signals: &mut Signals) -> Outcome {
    let (tell, told) = oneshot::channel();
    let (printed, degraded) = (Arc::clone(args), lease.is_degraded());
    // A reader that does not read must not keep signals away, nor the end of the process.
    std::thread::spawn(move || tell.send(acquired(&printed, degraded)));
    let outcome = tokio::select! {
        biased;
        outcome = told => outcome.unwrap_or(Ok(Exit::Failure)),
        ending = signals.ending() => Err(ending.into_failure()),
    };
    // With a closed pipe, the exit code says that the tokens were taken.
    if matches!(outcome, Ok(Exit::Success) | Err(Failure::NobodyReads)) {
        lease
            .commit()
            .await
            .map_err(failed(&args.common.at.connection, "acquire"))?;
    } else {
        give_back(lease).await;
    }
    outcome
}

/// Prints the tokens that were taken.
fn acquired(args: &Acquire, degraded: bool) -> Outcome {
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let consumed: Map<_, _> = args
            .consume
            .iter()
            .map(|amount| (amount.limit.clone(), json!(amount.tokens)))
            .collect();
        let mut value = json!({
            "entity_id": args.entity_id,
            "resource": args.resource,
            "consumed": consumed,
            "degraded": degraded,
        });
        if !args.also.is_empty() {
            let of = |(resource, amounts): (&str, Vec<(&str, u64)>)| {
                let amounts = amounts.into_iter();
                let amounts: Map<_, _> = amounts
                    .map(|(limit, tokens)| (limit.to_owned(), json!(tokens)))
                    .collect();
                (resource.to_owned(), Json::from(amounts))
            };
            value["also"] = also(args).into_iter().map(of).collect::<Map<_, _>>().into();
        }
        out.json(&value)?;
    } else {
        out.line(format_args!(
            "Acquired for entity '{}' on resource '{}':",
            args.entity_id, args.resource
        ))?;
        for Amount { limit, tokens } in &args.consume {
            out.line(format_args!("  {limit}: {}", grouped((*tokens).into())))?;
        }
        for (resource, amounts) in also(args) {
            out.line(format_args!("and on resource '{resource}':"))?;
            for (limit, tokens) in amounts {
                out.line(format_args!("  {limit}: {}", grouped(tokens.into())))?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Runs the command; gives the tokens back if it fails.
async fn run(lease: Lease, args: &Acquire, signals: &mut Signals) -> Outcome {
    let held_place = lease.holds_place();
    let ended = match run_command(&args.command, signals).await {
        Ok(status) => status,
        Err(err) => {
            give_back(lease).await;
            return Err(cannot_run(&args.command, &err));
        }
    };
    if held_place && !lease.holds_place() {
        say(
            "Warning: the place in flight was lost while the command ran; more requests may have been in flight",
        );
    }
    if ended.success() {
        // The exit code is that of the command: the caller must not run it again because of a place, which expires by itself.
        if let Err(err) = lease.commit().await {
            say(&format!("Warning: {err}"));
        }
        return Ok(Exit::Success);
    }
    give_back(lease).await;
    Ok(Exit::Command(code_of(ended)))
}

/// Gives the tokens back within a bounded time. A failure is only printed: the exit code is that of the command or the
/// signal.
async fn give_back(lease: Lease) {
    // What takes longer continues in the background, which is waited for next.
    if let Ok(Err(err)) = tokio::time::timeout(DRAIN, lease.rollback()).await {
        say(&format!("Warning: the tokens were not given back: {err}"));
    }
}

/// A command that could not be started, with the exit code that shells use.
fn cannot_run(command: &[OsString], err: &io::Error) -> Failure {
    let code = if err.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    let program = command.first().map(|name| name.to_string_lossy());
    Failure::with(
        format!("Cannot run '{}': {err}", program.unwrap_or_default()),
        Exit::Command(code),
    )
}

/// The exit code of a command, as in a shell.
fn code_of(ended: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&ended) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Runs a command to its end. Signals go to the command, whose end is awaited, so that the tokens are not lost.
async fn run_command(command: &[OsString], signals: &mut Signals) -> io::Result<ExitStatus> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    signals.run(Command::new(program).args(arguments)).await
}

/// Prints the schema of the bodies that a refused `acquire` prints.
pub(crate) fn schema() -> Outcome {
    print_schema(Refusal::SCHEMA)
}

/// How a limit stands, over all shards.
fn standing(status: &LimitStatus) -> Json {
    let mut value = status.to_json();
    value["capacity"] = json!(status.capacity);
    value["refill_amount"] = json!(status.refill_amount);
    value
}

/// Says who an entity is that is not the one asked about.
fn whose(found: &Availability, entity: &EntityId) -> String {
    match found.chain.iter().position(|of| of == entity) {
        Some(0) => String::new(),
        Some(1) => format!(" (parent '{entity}')"),
        _ => format!(" (above the parent: '{entity}')"),
    }
}

pub(crate) async fn available(args: Available) -> Outcome {
    const WHAT: &str = "look at tokens";
    names::entity("entity_id", &args.entity_id)?;
    names::resource(&args.resource)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let mut check = RateLimiter::new(repo).check(&args.entity_id, &args.resource);
    for Amount { limit, tokens } in &args.consume {
        check = check.needed(limit, *tokens);
    }
    if args.in_flight {
        check = check.in_flight();
    }
    let found = check.await.map_err(failed(&args.common.at.connection, WHAT))?;
    let wait = found.retry_after();
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let limits: Vec<Json> = found.statuses.iter().map(standing).collect();
        let mut value = json!({
            "entity_id": args.entity_id,
            "resource": args.resource,
            "available": found.available(),
            "limits": limits,
            "allowed": found.is_admitted(),
            "bypassed": found.bypassed.iter().map(EntityId::as_str).collect::<Vec<_>>(),
            "disabled": found.disabled.as_ref().map(|by| json!({
                "entity_id": by.entity.as_str(),
                "level": by.level,
            })),
        });
        if !args.consume.is_empty() {
            value["retry_after_seconds"] = json!(wait.map(|wait| wait.as_millis() as f64 / 1000.0));
        }
        if args.in_flight {
            let places = found.places.iter().map(|places| {
                json!({
                    "entity_id": places.entity.as_str(),
                    "max_in_flight": places.limit,
                    "in_flight": places.in_flight,
                })
            });
            value["places"] = places.collect();
        }
        out.json(&value)?;
    } else {
        out.line(format_args!(
            "Available to entity '{}' on resource '{}':",
            args.entity_id, args.resource
        ))?;
        for status in &found.statuses {
            out.line(format_args!(
                "  {}: {} of {}{}",
                status.limit_name,
                grouped(status.available.into()),
                grouped(status.capacity.into()),
                whose(&found, &status.entity),
            ))?;
        }
        for places in &found.places {
            out.line(format_args!(
                "  in flight: {} of {}{}",
                places.in_flight,
                places.limit,
                whose(&found, &places.entity),
            ))?;
        }
        if found.is_full() {
            out.line("  All places are taken: a request for one is refused")?;
        }
        for entity in &found.bypassed {
            out.line(format_args!(
                "  '{entity}' is under a bypass: its limits count and refuse nothing"
            ))?;
        }
        if let Some(by) = &found.disabled {
            out.line(format_args!(
                "  '{}' is disabled for entity '{}' (by the {}): every request is refused",
                args.resource, by.entity, by.level
            ))?;
        } else if !args.consume.is_empty() {
            out.line(match wait {
                Some(Duration::ZERO) => "The tokens are available now".to_owned(),
                Some(wait) => format!("The tokens will be available in {}", time::wait(wait)),
                None => {
                    "The tokens can never be available together: an amount is above the capacity of its limit"
                        .to_owned()
                }
            })?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

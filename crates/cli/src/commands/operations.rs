//! `entity reset` and `entity top-up`.

use std::fmt::Display;

use serde_json::json;
use zae_limiter::{BucketReset, OperationResult, TopUp as Order};
use zae_limiter_core::LimitName;
use zae_limiter_core::operator::OperationKey;

use super::{Outcome, failed};
use crate::args::operations::{Keyed, Reset, TopUp};
use crate::args::{Common, Namespaced};
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::failure::{Failure, invalid};
use crate::names;
use crate::out::Out;
use crate::text::number::grouped;

pub(crate) async fn reset(args: Reset) -> Outcome {
    const WHAT: &str = "reset bucket";
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::resource(resource)?;
    let mut reset = BucketReset::new(entity, resource);
    for limit in &args.limit {
        check_limit(limit)?;
        reset = reset.limit(limit);
    }
    if let Some(key) = key(&args.keyed)? {
        reset = reset.idempotency_key(key);
    }
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let done = repo.admin().reset_bucket(reset).await;
    let done = done.map_err(failed(&args.common.at.connection, WHAT))?;
    let line = if done.shards == 0 {
        format!("Nothing to reset: '{entity}' has no bucket for '{resource}'")
    } else {
        format!("Reset '{entity}' on '{resource}' ({})", told(&done))
    };
    say(&args.common, &done, line)
}

pub(crate) async fn top_up(args: TopUp) -> Outcome {
    const WHAT: &str = "top up bucket";
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::resource(resource)?;
    let mut order = Order::new(entity, resource);
    for amount in &args.add {
        check_limit(&amount.limit)?;
        order = order.add(&amount.limit, amount.tokens);
    }
    if let Some(key) = key(&args.keyed)? {
        order = order.idempotency_key(key);
    }
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let done = repo.admin().top_up(order).await;
    let done = done.map_err(failed(&args.common.at.connection, WHAT))?;
    let line = if done.shards == 0 {
        format!("Nothing to top up: '{entity}' has no bucket for '{resource}', and its limits begin full")
    } else {
        format!("Topped up '{entity}' on '{resource}' ({})", told(&done))
    };
    let exit = say(&args.common, &done, line)?;
    let asked = |limit: &str| -> i128 {
        let of_limit = args.add.iter().filter(|amount| amount.limit == limit);
        of_limit.map(|amount| i128::from(amount.tokens)).sum()
    };
    let short: Vec<&str> = done
        .amounts
        .iter()
        .filter(|(limit, gained)| i128::from(**gained) < asked(limit.as_str()))
        .map(|(limit, _)| limit.as_str())
        .collect();
    if !short.is_empty() {
        crate::say(&format!(
            "Note: {} gained less than asked for: a limit that is refilled by its rate is filled up to its capacity at most, \
             and an idempotency key counts once.",
            short.join(", ")
        ));
    }
    Ok(exit)
}

fn check_limit(name: &str) -> Result<(), Failure> {
    let checked = LimitName::new(name).map(drop);
    checked.map_err(|err| Failure::usage(invalid(&err)))
}

/// The key of the operation, checked before anything is connected.
fn key(keyed: &Keyed) -> Result<Option<&str>, Failure> {
    let key = keyed.idempotency_key.as_deref();
    if let Some(key) = key {
        OperationKey::new(key).map_err(|err| Failure::usage(invalid(&err)))?;
    }
    Ok(key)
}

/// `2 shards; rpd: +5,000, rpm: -3`.
fn told(done: &OperationResult) -> String {
    let amount = |(limit, gained): (&LimitName, &i64)| {
        let sign = if *gained < 0 { "" } else { "+" };
        format!("{limit}: {sign}{}", grouped((*gained).into()))
    };
    let amounts: Vec<String> = done.amounts.iter().map(amount).collect();
    let shards = match done.shards {
        1 => "1 shard".to_owned(),
        shards => format!("{shards} shards"),
    };
    format!("{shards}; {}", amounts.join(", "))
}

fn say(common: &Common<Namespaced>, done: &OperationResult, line: impl Display) -> Outcome {
    let mut out = Out::to_the_end(&common.format);
    if out.is_json() {
        let amounts = done.amounts.iter();
        let amounts: serde_json::Map<_, _> = amounts
            .map(|(limit, gained)| (limit.to_string(), json!(gained)))
            .collect();
        out.json(&json!({
            "entity_id": done.entity.as_str(), "resource": done.resource.as_str(), "shards": done.shards,
            "amounts": amounts,
        }))?;
    } else {
        out.line(line)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

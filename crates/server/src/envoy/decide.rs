//! From the descriptors of a request to its answer: all of them pass, or nothing is taken.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Status;
use zae_limiter::{Acquire, Error, Lease, Limit, LimitStatus};

use super::answer::{self, Told};
use super::protocol::RateLimitDescriptor;
use super::protocol::RateLimitUnit as Unit;
use super::protocol::rate_limit_descriptor::RateLimitOverride;
use super::protocol::service::{RateLimitRequest, RateLimitResponse};
use crate::app::App;
use crate::rules::{Charge, Domain, Fallback, Rule, Rules, Values};
use crate::telemetry::{self, Outcome};

/// How many descriptors a request can have. Each takes from a bucket of its own, at the same time.
const MOST_DESCRIPTORS: usize = 64;

/// Decides a request.
///
/// # Errors
/// The request is malformed, or the table cannot be used.
pub(super) async fn decide(
    app: &App,
    rules: &Rules,
    request: &RateLimitRequest,
) -> Result<RateLimitResponse, Status> {
    check(request)?;
    let Some((domain, of_domain)) = rules.domain(&request.domain) else {
        telemetry::unmatched(None, request.descriptors.len());
        return Ok(answer::passed(request.descriptors.len()));
    };
    let asked: Vec<Asked<'_>> = request
        .descriptors
        .iter()
        .map(|descriptor| ask(app, of_domain, descriptor, request.hits_addend))
        .collect();
    let unmatched = asked
        .iter()
        .filter(|asked| matches!(asked, Asked::Unmatched))
        .count();
    if unmatched > 0 {
        telemetry::unmatched(Some(domain), unmatched);
    }
    // What is refused anyway takes nothing of the other descriptors.
    let is_refused = |asked: &Asked<'_>| matches!(asked, Asked::Refused(rule, ..) if !rule.is_shadow);
    let is_hopeless = asked.iter().any(is_refused);
    let taking = asked.into_iter().map(|asked| async move {
        match asked {
            Asked::Unmatched => Taken::Unmatched,
            Asked::Refused(rule, outcome) => Taken::Refused {
                rule,
                outcome,
                statuses: Vec::new(),
            },
            Asked::Passed(rule, outcome) => Taken::Passed(rule, outcome),
            Asked::Takes(..) if is_hopeless => Taken::Spared,
            Asked::Takes(rule, acquire) => Taken::of(rule, app.send(*acquire).await),
        }
    });
    let taken = join_all(taking).await;
    settle(app, (domain, of_domain), taken)
}

fn check(request: &RateLimitRequest) -> Result<(), Status> {
    if request.domain.is_empty() {
        return Err(Status::invalid_argument("the domain is empty"));
    }
    if request.descriptors.is_empty() {
        return Err(Status::invalid_argument("the request has no descriptors"));
    }
    if request.descriptors.len() > MOST_DESCRIPTORS {
        return Err(Status::invalid_argument(format!(
            "the request has {} descriptors; at most {MOST_DESCRIPTORS} can be given",
            request.descriptors.len()
        )));
    }
    for (index, descriptor) in request.descriptors.iter().enumerate() {
        let wrong = |what: &str| Err(Status::invalid_argument(format!("descriptor {index} {what}")));
        if descriptor.entries.is_empty() {
            return wrong("has no entries");
        }
        if descriptor.is_negative_hits {
            return wrong(
                "has is_negative_hits, which is not supported: tokens are given back by refunds of leases",
            );
        }
    }
    Ok(())
}

/// What a descriptor asks for.
enum Asked<'r> {
    /// No rule is for it.
    Unmatched,
    /// It passes without the table.
    Passed(&'r Rule, Outcome),
    /// It is refused without the table.
    Refused(&'r Rule, Outcome),
    /// It takes tokens.
    Takes(&'r Rule, Box<Acquire>),
}

fn ask<'r>(app: &App, domain: &'r Domain, descriptor: &RateLimitDescriptor, of_request: u32) -> Asked<'r> {
    let mut values: Values<'_> = BTreeMap::new();
    for entry in &descriptor.entries {
        // A key with two values is for no rule.
        if values.insert(&entry.key, &entry.value).is_some() {
            return Asked::Unmatched;
        }
    }
    let Some(rule) = domain.rule(&values) else {
        return Asked::Unmatched;
    };
    let hits = descriptor.hits_addend.unwrap_or(u64::from(of_request.max(1)));
    let charge = match rule.charge(&values, hits) {
        Ok(charge) => charge,
        Err(invalid) => {
            tracing::debug!(rule = rule.name, %invalid, "a descriptor has values that cannot be used");
            return match rule.on_invalid {
                Fallback::Pass => Asked::Passed(rule, Outcome::Invalid),
                Fallback::Refuse => Asked::Refused(rule, Outcome::Invalid),
            };
        }
    };
    let Charge {
        entity,
        resource,
        amounts,
    } = charge;
    let mut acquire = app.limiter().acquire(entity, resource);
    if let (Some(limit), true, [(name, _)]) = (descriptor.limit, rule.allows_override, &amounts[..]) {
        match overriding(name, limit) {
            Some(limit) => acquire = acquire.limits([limit]),
            // No requests in any time, or a unit that is not known.
            None => return Asked::Refused(rule, Outcome::OverLimit),
        }
    }
    for (limit, amount) in amounts {
        // More than any limit holds.
        let Some(amount) = amount else {
            return Asked::Refused(rule, Outcome::OverLimit);
        };
        acquire = acquire.consume(limit, amount);
    }
    if rule.overdraws {
        acquire = acquire.overdraw();
    }
    Asked::Takes(rule, Box::new(acquire))
}

/// The limit that a descriptor brings.
fn overriding(name: &zae_limiter::LimitName, given: RateLimitOverride) -> Option<Limit> {
    let rate = u64::from(given.requests_per_unit);
    let every = |secs: u64| Limit::custom(name, rate, rate, Duration::from_secs(secs));
    let limit = match Unit::try_from(given.unit).ok()? {
        Unit::Unknown => return None,
        Unit::Second => Limit::per_second(name, rate),
        Unit::Minute => Limit::per_minute(name, rate),
        Unit::Hour => Limit::per_hour(name, rate),
        Unit::Day => Limit::per_day(name, rate),
        Unit::Month => every(answer::MONTH),
        Unit::Year => every(answer::YEAR),
    };
    limit.build().ok()
}

/// What became of a descriptor.
enum Taken<'r> {
    Unmatched,
    Passed(&'r Rule, Outcome),
    /// Nothing was taken, since another descriptor is refused.
    Spared,
    Held(&'r Rule, Lease),
    Refused {
        rule: &'r Rule,
        outcome: Outcome,
        statuses: Vec<LimitStatus>,
    },
    Failed(&'r Rule, Error),
}

impl<'r> Taken<'r> {
    fn of(rule: &'r Rule, taken: Result<Lease, Error>) -> Self {
        let refused = |outcome, statuses| Self::Refused {
            rule,
            outcome,
            statuses,
        };
        match taken {
            Ok(lease) => Self::Held(rule, lease),
            Err(Error::RateLimitExceeded(exceeded)) => {
                refused(Outcome::OverLimit, exceeded.statuses().to_vec())
            }
            Err(Error::ConcurrencyExceeded(_)) => refused(Outcome::OverLimit, Vec::new()),
            Err(Error::Disabled { .. }) => refused(Outcome::Disabled, Vec::new()),
            Err(Error::NotConfigured { .. }) => match rule.on_unconfigured {
                Fallback::Pass => Self::Passed(rule, Outcome::Unconfigured),
                Fallback::Refuse => refused(Outcome::Unconfigured, Vec::new()),
            },
            Err(err) => Self::Failed(rule, err),
        }
    }
}

/// Keeps all tokens, or gives all back.
fn settle(
    app: &App,
    (domain, of_domain): (&str, &Domain),
    taken: Vec<Taken<'_>>,
) -> Result<RateLimitResponse, Status> {
    let is_refused = taken
        .iter()
        .any(|taken| matches!(taken, Taken::Refused { rule, .. } if !rule.is_shadow));
    let mut failure = None;
    let mut told = Vec::with_capacity(taken.len());
    let count = |rule: &Rule, outcome| telemetry::descriptor(domain, &rule.name, outcome);
    let has_failed = taken
        .iter()
        .any(|taken| matches!(taken, Taken::Failed(rule, _) if !rule.is_shadow));
    for one in taken {
        told.push(match one {
            Taken::Unmatched | Taken::Spared => Told::Passed,
            Taken::Passed(rule, outcome) => {
                count(rule, outcome);
                Told::Passed
            }
            Taken::Held(rule, lease) => {
                count(rule, Outcome::Ok);
                let statuses = lease.statuses();
                if is_refused || has_failed {
                    lease.rollback_in_background();
                } else {
                    lease.commit_in_background();
                }
                if rule.is_shadow {
                    Told::Passed
                } else {
                    Told::Admitted(statuses)
                }
            }
            Taken::Refused {
                rule,
                outcome,
                statuses,
            } => {
                if rule.is_shadow {
                    tracing::debug!(domain, rule = rule.name, "a shadow rule has refused");
                    count(rule, Outcome::Shadowed);
                    Told::Passed
                } else {
                    count(rule, outcome);
                    Told::Refused(statuses)
                }
            }
            Taken::Failed(rule, err) => {
                count(rule, Outcome::Failed);
                app.log_fault(domain, &rule.name, &err);
                if !rule.is_shadow {
                    failure.get_or_insert_with(|| status_of(&err));
                }
                Told::Passed
            }
        });
    }
    match failure {
        // A refusal holds without the table's answers about other descriptors.
        Some(failure) if !is_refused => Err(failure),
        _ => Ok(answer::response(
            &told,
            &of_domain.headers,
            app.limiter().repository().now(),
        )),
    }
}

/// The failure of a request: what failed, and where, is for the operator.
fn status_of(err: &Error) -> Status {
    match err {
        Error::Unavailable(_) | Error::PermissionDenied { .. } | Error::InfrastructureNotFound { .. } => {
            Status::unavailable("the rate limiter is unavailable")
        }
        _ => Status::internal("the rate limiter cannot limit this request"),
    }
}

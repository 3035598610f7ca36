//! Responses of the rate limit service.

use http::HeaderMap;
use zae_limiter::{EpochMillis, LimitStatus};
use zae_limiter_tower::{Fields, Standing};

use super::protocol::HeaderValue;
use super::protocol::service::RateLimitResponse;
use super::protocol::service::rate_limit_response::rate_limit::Unit;
use super::protocol::service::rate_limit_response::{Code, DescriptorStatus, RateLimit};

/// What a descriptor's status says.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// It passes; nothing is said about limits.
    Passed,
    /// It was admitted, and its limits stand so.
    Admitted(Vec<LimitStatus>),
    /// It was refused, and its limits stand so.
    Refused(Vec<LimitStatus>),
}

/// All descriptors pass.
pub(super) fn passed(descriptors: usize) -> RateLimitResponse {
    response(&vec![Told::Passed; descriptors], &[], EpochMillis(0))
}

/// The response to a request: over the limit if one descriptor is.
pub(super) fn response(told: &[Told], fields: &[Fields], now: EpochMillis) -> RateLimitResponse {
    let is_over = told.iter().any(|told| matches!(told, Told::Refused(_)));
    let code = if is_over { Code::OverLimit } else { Code::Ok };
    RateLimitResponse {
        overall_code: code.into(),
        statuses: told.iter().map(|told| status(told, now)).collect(),
        response_headers_to_add: headers(told, fields, now),
        ..RateLimitResponse::default()
    }
}

fn status(told: &Told, now: EpochMillis) -> DescriptorStatus {
    let (code, statuses) = match told {
        Told::Passed => (Code::Ok, &[][..]),
        Told::Admitted(statuses) => (Code::Ok, &statuses[..]),
        Told::Refused(statuses) => (Code::OverLimit, &statuses[..]),
    };
    let standing = Standing::of_tightest(statuses, now);
    let status = DescriptorStatus {
        code: code.into(),
        ..DescriptorStatus::default()
    };
    let Some(standing) = standing else {
        return status;
    };
    DescriptorStatus {
        current_limit: Some(limit(standing.status())),
        limit_remaining: clamped(standing.remaining()),
        duration_until_reset: standing.reset().and_then(|reset| reset.try_into().ok()),
        ..status
    }
}

/// The length of these units in seconds, as [overrides](super::decide) have them.
pub(super) const MONTH: u64 = 30 * 86_400;
pub(super) const YEAR: u64 = 365 * 86_400;

/// The limit in the protocol's form: a rate in one of its units, or the capacity without a unit.
fn limit(status: &LimitStatus) -> RateLimit {
    let unit = match status.refill_period.as_secs() {
        _ if status.is_quota => Unit::Unknown,
        1 => Unit::Second,
        60 => Unit::Minute,
        3600 => Unit::Hour,
        86_400 => Unit::Day,
        604_800 => Unit::Week,
        MONTH => Unit::Month,
        YEAR => Unit::Year,
        _ => Unit::Unknown,
    };
    let amount = if unit == Unit::Unknown {
        status.capacity
    } else {
        status.refill_amount
    };
    RateLimit {
        name: status.limit_name.to_string(),
        requests_per_unit: clamped(amount),
        unit: unit.into(),
    }
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn headers(told: &[Told], fields: &[Fields], now: EpochMillis) -> Vec<HeaderValue> {
    if fields.is_empty() {
        return Vec::new();
    }
    let statuses = told.iter().flat_map(|told| match told {
        Told::Passed => &[][..],
        Told::Admitted(statuses) | Told::Refused(statuses) => statuses,
    });
    let statuses: Vec<LimitStatus> = statuses.cloned().collect();
    let mut headers = HeaderMap::new();
    Fields::write(fields, &statuses, now, &mut headers);
    if let Some(wait) = wait(&statuses) {
        headers.insert(http::header::RETRY_AFTER, wait.into());
    }
    headers
        .iter()
        .map(|(name, value)| HeaderValue {
            key: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            raw_value: Vec::new(),
        })
        .collect()
}

/// The seconds until all limits that have refused would admit the request; `None` if one never does, or if none has.
fn wait(statuses: &[LimitStatus]) -> Option<u64> {
    let refused = statuses.iter().filter(|status| status.exceeded);
    let waits: Option<Vec<u64>> = refused
        .map(|status| {
            status
                .wait
                .after()
                .map(|wait| wait.as_millis().div_ceil(1000) as u64)
        })
        .collect();
    waits?.into_iter().max().map(|secs| secs.max(1))
}

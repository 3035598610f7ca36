//! Header fields that tell how limits stand.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use zae_limiter::{EntityId, EpochMillis, LimitStatus};

/// The largest integer of a structured field ([RFC 9651](https://www.rfc-editor.org/rfc/rfc9651#section-3.3.1)).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Header fields of responses, admitted and refused. If a limit counts for an entity and those above it, the one with the least
/// left is reported, without its owner.
///
/// They say how limits stood when the request was admitted, as far as the process knows: other processes may have taken tokens
/// since. Of a bucket with several shards, the numbers are extrapolated from one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fields {
    /// `RateLimit-Policy` and `RateLimit` of
    /// [draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/), versions 10 and
    /// 11: `RateLimit-Policy: "rpm";q=100;w=60` and `RateLimit: "rpm";r=87;t=8`. The quota is the capacity and the window the time in which it
    /// fills; a limit that is reset by the calendar has no window. `t` is the time in seconds until it is full, or until a refused
    /// request can be admitted.
    Ietf,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds from now) of the limit with the smallest part left.
    XRateLimit,
    /// `x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests` (such as `6m0s`), and the same for
    /// `tokens`, as OpenAI has them. The time is as in [`Ietf`](Self::Ietf). Of a limit that the request does not take, there are none.
    OpenAi {
        /// The limit that counts requests, such as `rpm`.
        requests: String,
        /// The limit that counts tokens, such as `tpm`.
        tokens: String,
    },
}

impl Fields {
    /// [`OpenAi`](Self::OpenAi), with the limit that counts requests and the one that counts tokens.
    ///
    /// ```
    /// use zae_limiter_tower::{Fields, RateLimitLayer};
    ///
    /// # fn layer(layer: RateLimitLayer) -> RateLimitLayer {
    /// layer.fields([Fields::Ietf, Fields::openai("rpm", "tpm")])
    /// # }
    /// ```
    pub fn openai(requests: impl Into<String>, tokens: impl Into<String>) -> Self {
        Self::OpenAi {
            requests: requests.into(),
            tokens: tokens.into(),
        }
    }
}

/// How one limit stands, over all shards.
struct Standing<'a> {
    /// Its place among the statuses.
    index: usize,
    status: &'a LimitStatus,
    remaining: u64,
    /// The time until it is full, or until a refused request can be admitted. `None` if it is not known.
    reset: Option<Duration>,
}

impl<'a> Standing<'a> {
    fn of(index: usize, status: &'a LimitStatus, now: EpochMillis) -> Self {
        let shards = u64::from(status.shards.max(1));
        let remaining = u64::try_from(status.available.max(0)).unwrap_or(0);
        let remaining = remaining.saturating_mul(shards).min(status.capacity);
        let reset = if status.exceeded {
            status.wait.after()
        } else if status.is_quota {
            status
                .resets_at
                .map(|at| Duration::from_millis(u64::try_from(at.since(now)).unwrap_or(0)))
        } else {
            fill_time(status, status.capacity - remaining)
        };
        Self {
            index,
            status,
            remaining,
            reset,
        }
    }

    /// Whether less of it is left than of another one, as a part of the capacity.
    fn is_tighter(&self, other: &Self) -> bool {
        if self.status.exceeded != other.status.exceeded {
            return self.status.exceeded;
        }
        let (mine, its) = (u128::from(self.remaining), u128::from(other.remaining));
        mine * u128::from(other.status.capacity) < its * u128::from(self.status.capacity)
    }

    /// The one of which least is left.
    fn tightest<'s>(all: impl Iterator<Item = &'s Self>) -> Option<&'s Self>
    where
        'a: 's,
    {
        all.reduce(|one, two| if two.is_tighter(one) { two } else { one })
    }

    fn reset_secs(&self) -> Option<u64> {
        self.reset
            .map(|reset| u64::try_from(reset.as_millis().div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

/// The time in which a limit earns this many tokens.
fn fill_time(status: &LimitStatus, tokens: u64) -> Option<Duration> {
    if status.refill_amount == 0 {
        return None;
    }
    let millis = u128::from(tokens) * status.refill_period.as_millis();
    let millis = millis.div_ceil(u128::from(status.refill_amount));
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

/// The name of a limit for clients: with its resource, if the request takes of several.
pub(super) fn policy_name(status: &LimitStatus, all: &[LimitStatus]) -> String {
    let is_only_resource = all.iter().all(|other| other.resource == status.resource);
    if is_only_resource {
        status.limit_name.to_string()
    } else {
        format!("{}/{}", status.resource, status.limit_name)
    }
}

/// The tightest of each name, in their order, of one owner or all.
fn standings<'a>(
    statuses: &'a [LimitStatus],
    owner: Option<&EntityId>,
    now: EpochMillis,
) -> Vec<(String, Standing<'a>)> {
    let mut standings: Vec<(String, Standing<'_>)> = Vec::new();
    let is_told = |status: &LimitStatus| owner.is_none_or(|owner| status.entity == *owner);
    for (index, status) in statuses.iter().enumerate().filter(|(_, status)| is_told(status)) {
        let (name, standing) = (policy_name(status, statuses), Standing::of(index, status, now));
        match standings.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if standing.is_tighter(known) => *known = standing,
            Some(_) => {}
            None => standings.push((name, standing)),
        }
    }
    standings
}

/// The indices of the tightest of each name, in their order, of one owner or all.
pub(super) fn tightest(statuses: &[LimitStatus], now: EpochMillis, owner: Option<&EntityId>) -> Vec<usize> {
    let standings = standings(statuses, owner, now).into_iter();
    standings.map(|(_, standing)| standing.index).collect()
}

/// Writes the fields, in place of those that are there, with the limits of one owner or all.
pub(super) fn write(
    fields: &[Fields],
    statuses: &[LimitStatus],
    owner: Option<&EntityId>,
    now: EpochMillis,
    headers: &mut HeaderMap,
) {
    if fields.is_empty() {
        return;
    }
    let standings = standings(statuses, owner, now);
    if standings.is_empty() {
        return;
    }
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    for kind in fields {
        match kind {
            Fields::Ietf => ietf(&standings, &mut put),
            Fields::XRateLimit => x_rate_limit(&standings, &mut put),
            Fields::OpenAi { requests, tokens } => {
                for (what, limit) in [("requests", requests), ("tokens", tokens)] {
                    let of_limit = standings.iter().map(|(_, standing)| standing);
                    let of_limit = of_limit.filter(|standing| standing.status.limit_name == *limit);
                    if let Some(standing) = Standing::tightest(of_limit) {
                        open_ai(what, standing, &mut put);
                    }
                }
            }
        }
    }
}

type Put<'p> = &'p mut dyn FnMut(HeaderName, String);

fn ietf(standings: &[(String, Standing<'_>)], put: Put<'_>) {
    let (mut policies, mut limits) = (String::new(), String::new());
    for (name, standing) in standings {
        let separator = if policies.is_empty() { "" } else { ", " };
        let status = standing.status;
        // Names have no characters that need an escape. Writing to a `String` does not fail.
        let _ = write!(
            policies,
            "{separator}\"{name}\";q={}",
            status.capacity.min(MAX_INTEGER)
        );
        let window = fill_time(status, status.capacity).filter(|_| !status.is_quota);
        if let Some(window) = window {
            let secs = u64::try_from(window.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            let _ = write!(policies, ";w={}", secs.clamp(1, MAX_INTEGER));
        }
        let _ = write!(
            limits,
            "{separator}\"{name}\";r={}",
            standing.remaining.min(MAX_INTEGER)
        );
        if let Some(secs) = standing.reset_secs() {
            let _ = write!(limits, ";t={}", secs.min(MAX_INTEGER));
        }
    }
    put(HeaderName::from_static("ratelimit-policy"), policies);
    put(HeaderName::from_static("ratelimit"), limits);
}

fn x_rate_limit(standings: &[(String, Standing<'_>)], put: Put<'_>) {
    let all = standings.iter().map(|(_, standing)| standing);
    let Some(tightest) = Standing::tightest(all) else {
        return;
    };
    put(
        HeaderName::from_static("x-ratelimit-limit"),
        tightest.status.capacity.to_string(),
    );
    put(
        HeaderName::from_static("x-ratelimit-remaining"),
        tightest.remaining.to_string(),
    );
    if let Some(secs) = tightest.reset_secs() {
        put(HeaderName::from_static("x-ratelimit-reset"), secs.to_string());
    }
}

fn open_ai(what: &str, standing: &Standing<'_>, put: Put<'_>) {
    let mut add = |part: &str, value: String| {
        if let Ok(name) = HeaderName::try_from(format!("x-ratelimit-{part}-{what}")) {
            put(name, value);
        }
    };
    add("limit", standing.status.capacity.to_string());
    add("remaining", standing.remaining.to_string());
    if let Some(reset) = standing.reset {
        add("reset", go_duration(reset));
    }
}

/// A duration as Go writes it, to the millisecond: `20ms`, `1.5s`, `6m0s`, `1h0m30s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return if millis == 0 {
            "0s".to_owned()
        } else {
            format!("{millis}ms")
        };
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (secs, rest) = (millis / 1000 % 60, millis % 1000);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{secs}");
    if rest > 0 {
        let fraction = format!("{rest:03}");
        let _ = write!(text, ".{}", fraction.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (12_345, "12.345s"),
            (360_000, "6m0s"),
            (3_630_000, "1h0m30s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}

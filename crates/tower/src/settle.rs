//! Whether a request keeps its tokens: what its end is, and what ends its lease.

use std::sync::Arc;

use http::StatusCode;
use http::response::Parts;
use zae_limiter::Lease;

use crate::telemetry::{InFlight, Reports};
use crate::usage::{Usage, UsageReader};

/// What becomes of a request's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// They stay consumed, corrected to what the response says.
    Commit,
    /// They are given back.
    Rollback,
}

/// How a request has ended, as far as its response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// The HTTP status.
    pub status: StatusCode,
    /// The status of a gRPC call: `grpc-status` of the header fields or the trailers, if it has come.
    pub grpc_status: Option<u16>,
}

impl Ending {
    pub(crate) fn of(response: &Parts) -> Self {
        Self {
            status: response.status,
            grpc_status: grpc_status(&response.headers),
        }
    }

    pub(crate) fn with_trailers(self, trailers: &http::HeaderMap) -> Self {
        Self {
            grpc_status: grpc_status(trailers).or(self.grpc_status),
            ..self
        }
    }

    /// Whether the service has done what was asked, so that it can say what that took.
    fn is_success(self) -> bool {
        self.status.is_success() && self.grpc_status.is_none_or(|status| status == 0)
    }

    /// Gives back what a fault of the service has not served: of HTTP, the statuses from 500 on; of gRPC, `UNKNOWN`, `INTERNAL`,
    /// `UNAVAILABLE`, `UNIMPLEMENTED` and `DATA_LOSS`. All others keep their tokens, also those that the client could have
    /// avoided.
    pub fn usual(self) -> Settle {
        let is_failed_call = matches!(self.grpc_status, Some(2 | 12 | 13 | 14 | 15));
        if self.status.is_server_error() || is_failed_call {
            Settle::Rollback
        } else {
            Settle::Commit
        }
    }
}

fn grpc_status(fields: &http::HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Tokens that a handler knows to be used: put it into the extensions of a response, and the lease is corrected to it.
///
/// It counts before what is [read from the body](crate::usage).
///
/// ```
/// use zae_limiter_tower::Used;
///
/// let mut response = http::Response::new("text");
/// response.extensions_mut().insert(Used::new("tpm", 412).and("otpm", 96));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used(Vec<(String, u64)>);

impl Used {
    /// The tokens of one limit.
    pub fn new(limit: impl Into<String>, tokens: u64) -> Self {
        Self(vec![(limit.into(), tokens)])
    }

    /// Those of another limit.
    pub fn and(mut self, limit: impl Into<String>, tokens: u64) -> Self {
        self.0.push((limit.into(), tokens));
        self
    }
}

/// How leases end.
#[derive(Clone)]
pub(crate) struct Settling {
    /// By the response.
    pub(crate) by: Arc<dyn Fn(Ending) -> Settle + Send + Sync>,
    /// If the response does not end.
    pub(crate) on_disconnect: Settle,
    /// Where responses say what was used, by limit.
    pub(crate) usage: Vec<(String, Arc<dyn Usage>)>,
}

/// A lease until its request has ended. If this is dropped before, the request ends as one whose client has gone.
pub(crate) struct Held {
    /// `None` once it has ended.
    lease: Option<Lease>,
    settling: Arc<Settling>,
    ending: Option<Ending>,
    /// What the handler says was used.
    used: Option<Used>,
    readers: Vec<(usize, Box<dyn UsageReader>)>,
    reports: Reports,
    _in_flight: InFlight,
}

impl Held {
    pub(crate) fn new(lease: Lease, settling: Arc<Settling>, reports: Reports) -> Self {
        Self {
            lease: Some(lease),
            settling,
            ending: None,
            used: None,
            readers: Vec::new(),
            _in_flight: reports.in_flight(),
            reports,
        }
    }

    /// The request has failed without a response.
    pub(crate) fn failed(mut self) {
        self.end(Settle::Rollback);
    }

    /// Looks at the head of the response. Returns whether the lease lasts until the body has ended.
    pub(crate) fn begin(&mut self, response: &mut Parts) -> bool {
        let ending = Ending::of(response);
        self.ending = Some(ending);
        self.used = response.extensions.remove::<Used>();
        if (self.settling.by)(ending) == Settle::Rollback {
            self.end(Settle::Rollback);
            return false;
        }
        for (index, (limit, usage)) in self.settling.usage.iter().enumerate() {
            if let (false, Some(reader)) = (self.is_told(limit), usage.reader(response)) {
                self.readers.push((index, reader));
            }
        }
        true
    }

    /// The next piece of the body.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        for (_, reader) in &mut self.readers {
            reader.read(piece);
        }
    }

    pub(crate) fn trailers(&mut self, trailers: &http::HeaderMap) {
        self.ending = self.ending.map(|ending| ending.with_trailers(trailers));
    }

    /// The response has ended.
    pub(crate) fn finish(&mut self) {
        let settle = self
            .ending
            .map_or(Settle::Commit, |ending| (self.settling.by)(ending));
        if settle == Settle::Commit {
            self.report();
        }
        self.correct(|reader| reader.total(), |_, total| total);
        self.end(settle);
    }

    /// Counts what was taken and what was used, before the lease is corrected.
    fn report(&self) {
        let Some(lease) = &self.lease else { return };
        let taken = |limit: &str| lease.consumed(limit);
        for (limit, used) in self.used.iter().flat_map(|used| &used.0) {
            // A limit that the request does not take is not the layer's to count.
            if taken(limit) > 0 {
                self.reports.used(limit, taken(limit), *used);
            }
        }
        let is_success = self.ending.is_some_and(Ending::is_success);
        for (index, (limit, _)) in self.settling.usage.iter().enumerate() {
            if self.is_told(limit) {
                continue;
            }
            let reader = self.readers.iter().find(|(of, _)| *of == index);
            match reader.and_then(|(_, reader)| reader.total()) {
                Some(used) if taken(limit) > 0 => self.reports.used(limit, taken(limit), used),
                None if is_success => self.reports.usage_missing(limit),
                _ => {}
            }
        }
    }

    /// Whether the handler has said what was used of a limit.
    fn is_told(&self, limit: &str) -> bool {
        let told = self.used.iter().flat_map(|used| &used.0);
        told.into_iter().any(|(known, _)| known == limit)
    }

    /// Corrects the lease to what was used, by what is held and what was met.
    fn correct(&mut self, read: impl Fn(&dyn UsageReader) -> Option<u64>, to: impl Fn(u64, u64) -> u64) {
        let Some(lease) = &mut self.lease else { return };
        let told = self
            .used
            .iter()
            .flat_map(|used| &used.0)
            .map(|(limit, total)| (limit, *total));
        let reported = self.readers.iter().filter_map(|(index, reader)| {
            let (limit, _) = &self.settling.usage[*index];
            Some((limit, read(&**reader)?))
        });
        for (limit, total) in told.chain(reported) {
            let total = to(lease.consumed(limit), total);
            if let Err(error) = lease.adjust_to(limit, total) {
                tracing::error!(%error, limit, total, "the usage of a response does not fit the request");
            }
        }
    }

    fn end(&mut self, settle: Settle) {
        let Some(lease) = self.lease.take() else { return };
        match settle {
            Settle::Commit => lease.commit_in_background(),
            Settle::Rollback => lease.rollback_in_background(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.lease.is_none() {
            return;
        }
        // A handler that panics has failed, and its future is dropped on the way.
        let has_failed = std::thread::panicking();
        let settle = if has_failed {
            Settle::Rollback
        } else {
            self.settling.on_disconnect
        };
        if !has_failed {
            self.reports.broken_off(settle);
        }
        if settle == Settle::Commit {
            // More may have been used since the last report, so that what was reported does not give back.
            self.correct(|reader| reader.at_least(), u64::max);
        }
        self.end(settle);
    }
}

//! What all requests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use zae_limiter::{Acquire, Error, Lease, RateLimiter};

use crate::leases::LeaseKeys;
use crate::occasional::Occasional;
use crate::rules::Rules;
use crate::telemetry::{self, Metrics};

/// What the handlers of both ports share. Clones share everything.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::{RateLimiter, Repository};
/// use zae_limiter_server::{App, Rules};
///
/// let app = App::new(RateLimiter::new(Repository::in_memory().await?), Rules::none());
/// app.set_rules(Rules::from_yaml(b"version: 1\ndomains: {gateway: {}}")?);
/// assert_eq!(app.rules().domains().count(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limiter: RateLimiter,
    rules: RwLock<Arc<Rules>>,
    metrics: Option<Metrics>,
    leases: Arc<LeaseKeys>,
    is_draining: AtomicBool,
    faults: Occasional,
}

impl App {
    /// An application that takes tokens from a limiter, as these rules say.
    pub fn new(limiter: RateLimiter, rules: Rules) -> Self {
        Self(Arc::new(Shared {
            limiter,
            rules: RwLock::new(Arc::new(rules)),
            metrics: None,
            leases: Arc::new(LeaseKeys::random()),
            is_draining: AtomicBool::new(false),
            faults: Occasional::default(),
        }))
    }

    /// The same with metrics: what [`install_metrics`](crate::install_metrics) returned. Without, `/metrics` and the page
    /// are not found.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        self.with(Some(metrics), None)
    }

    /// The same with keys of leases that other servers have as well. Without, leases can be ended by this process only.
    pub fn with_leases(self, leases: LeaseKeys) -> Self {
        self.with(None, Some(Arc::new(leases)))
    }

    fn with(self, metrics: Option<Metrics>, leases: Option<Arc<LeaseKeys>>) -> Self {
        Self(Arc::new(Shared {
            limiter: self.limiter().clone(),
            rules: RwLock::new(self.rules()),
            metrics: metrics.or_else(|| self.metrics().cloned()),
            leases: leases.unwrap_or_else(|| Arc::clone(self.leases())),
            is_draining: AtomicBool::new(self.is_draining()),
            faults: Occasional::default(),
        }))
    }

    /// The keys of leases.
    pub(crate) fn leases(&self) -> &Arc<LeaseKeys> {
        &self.0.leases
    }

    /// The limiter.
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&rules)
    }

    /// Puts other rules in force, for requests that begin from now on.
    pub fn set_rules(&self, rules: Rules) {
        let mut held = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(rules);
    }

    /// The metrics, if there is a recorder.
    pub(crate) fn metrics(&self) -> Option<&Metrics> {
        self.0.metrics.as_ref()
    }

    /// Takes tokens, and notes for the page who has asked.
    pub(crate) async fn send(&self, call: Acquire) -> Result<Lease, Error> {
        let metrics = self.metrics();
        let target = metrics.and_then(|_| Some((call.entity()?.clone(), call.resource()?.clone())));
        let decided = call.send().await;
        if let (Some(metrics), Some(target)) = (metrics, target) {
            metrics.activity.note(&target, &decided);
        }
        decided
    }

    /// Whether the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Says in health checks from now on that the server is about to end.
    pub(crate) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }

    /// Logs a request that could not be decided, one a second at most: each request can have the same fault.
    pub(crate) fn log_fault(&self, domain: &str, rule: &str, error: &Error) {
        telemetry::fault();
        if let Some(left_out) = self.0.faults.due() {
            tracing::error!(domain, rule, %error, left_out, "a descriptor cannot be limited");
        }
    }
}

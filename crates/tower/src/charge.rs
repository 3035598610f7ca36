//! What a request takes: [`Charge`], and [`Rules`] for the usual case.

use std::borrow::Cow;
use std::time::Duration;

use http::request::Parts;
use zae_limiter::{Acquire, EntityId, IntoName, InvalidInput, LimitName, OnUnavailable, RateLimiter};

use crate::estimate::Estimate;
use crate::key::Key;
use crate::rejection::Rejection;

/// Decides what a request takes.
///
/// [`Rules`] has what most services need. A closure can do anything that an [`Acquire`] can:
///
/// ```
/// use http::request::Parts;
/// use zae_limiter::RateLimiter;
/// use zae_limiter_tower::{Rejection, RateLimitLayer};
///
/// # fn layer(limiter: RateLimiter) -> Result<RateLimitLayer, zae_limiter::InvalidInput> {
/// let layer = RateLimitLayer::new(limiter, |limiter: &RateLimiter, request: &Parts| {
///     if request.uri.path() == "/healthz" {
///         return Ok(None); // not limited
///     }
///     let Some(key) = request.headers.get("x-api-key").and_then(|key| key.to_str().ok()) else {
///         return Err(Rejection::unauthenticated("the field x-api-key is missing"));
///     };
///     Ok(Some(limiter.acquire(key, "api").consume("rpm", 1).also("budget", [("cents", 2)])))
/// })?;
/// # Ok(layer) }
/// ```
pub trait Charge: Send + Sync + 'static {
    /// The tokens that a request takes; `None` if it is not limited.
    ///
    /// # Errors
    /// A [`Rejection`], with which the request is answered.
    fn charge(&self, limiter: &RateLimiter, request: &Parts) -> Result<Option<Acquire>, Rejection>;

    /// Checks what the head of a request tells, such as its key. An [`EstimatedLayer`](crate::EstimatedLayer) asks this before it reads the body. Returns `false` if
    /// the request is not limited, so that its body need not be read. Default: the body is read, and [`charge`](Self::charge) checks all.
    ///
    /// # Errors
    /// A [`Rejection`], with which the request is answered.
    fn before_body(&self, request: &Parts) -> Result<bool, Rejection> {
        let _ = request;
        Ok(true)
    }

    /// Checks what it was made from; called when a layer is made.
    ///
    /// # Errors
    /// [`InvalidInput`] for what no request could pass with.
    fn check(&self) -> Result<(), InvalidInput> {
        Ok(())
    }

    /// Whether requests may take tokens of a limit; called when a layer is to [correct](crate::RateLimitLayer::correct) it. `true` if that is not known.
    fn may_take(&self, limit: &str) -> bool {
        let _ = limit;
        true
    }
}

impl<F> Charge for F
where
    F: Fn(&RateLimiter, &Parts) -> Result<Option<Acquire>, Rejection> + Send + Sync + 'static,
{
    fn charge(&self, limiter: &RateLimiter, request: &Parts) -> Result<Option<Acquire>, Rejection> {
        self(limiter, request)
    }
}

type Amounts = Box<dyn Fn(&Parts) -> Result<u64, Rejection> + Send + Sync>;
type Exemption = Box<dyn Fn(&Parts) -> bool + Send + Sync>;

/// How much of a limit.
enum Amount {
    Fixed(u64),
    Estimate,
    By(Amounts),
}

/// Which entity and resource a request belongs to, and what it takes.
///
/// ```
/// use std::time::Duration;
/// use zae_limiter_tower::{Rules, key};
///
/// let rules = Rules::new(key::bearer(), "gpt-4")
///     .consume("rpm", 1)
///     .consume_estimate("tpm")
///     .unless(|request| request.uri.path() == "/healthz")
///     .wait(Duration::from_secs(2));
/// # let _ = rules;
/// ```
pub struct Rules {
    entity: Box<dyn Key>,
    resource: Box<dyn Key>,
    amounts: Result<Vec<(LimitName, Amount)>, InvalidInput>,
    exempt: Option<Exemption>,
    wait: Option<Duration>,
    timeout: Option<Duration>,
    in_flight: bool,
    on_unavailable: Option<OnUnavailable>,
}

impl Rules {
    /// Requests belong to this entity and this resource: see [`key`](crate::key).
    pub fn new(entity: impl Key, resource: impl Key) -> Self {
        Self {
            entity: Box::new(entity),
            resource: Box::new(resource),
            amounts: Ok(Vec::new()),
            exempt: None,
            wait: None,
            timeout: None,
            in_flight: false,
            on_unavailable: None,
        }
    }

    /// Takes this many tokens of a limit.
    pub fn consume(self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        self.add(limit, Amount::Fixed(tokens))
    }

    /// Takes the tokens that [`EstimateLayer`](crate::estimate::EstimateLayer) has estimated for the request. Put that layer in front of this one.
    pub fn consume_estimate(self, limit: impl IntoName<LimitName>) -> Self {
        self.add(limit, Amount::Estimate)
    }

    /// Takes as many tokens of a limit as a function says.
    pub fn consume_by(
        self,
        limit: impl IntoName<LimitName>,
        tokens: impl Fn(&Parts) -> Result<u64, Rejection> + Send + Sync + 'static,
    ) -> Self {
        self.add(limit, Amount::By(Box::new(tokens)))
    }

    fn add(mut self, limit: impl IntoName<LimitName>, amount: Amount) -> Self {
        if let Ok(amounts) = &mut self.amounts {
            match limit.into_name() {
                Ok(name) if amounts.iter().any(|(known, _)| *known == name) => {
                    let reason = "is given twice; name each limit once";
                    self.amounts = Err(InvalidInput::new("consume", name, reason));
                }
                Ok(name) => amounts.push((name, amount)),
                Err(err) => self.amounts = Err(err),
            }
        }
        self
    }

    /// Requests that are not limited, such as those of health checks.
    pub fn unless(mut self, exempt: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.exempt = Some(Box::new(exempt));
        self
    }

    /// Requests wait for tokens for up to this time, instead of being refused at once: see [`Acquire::wait`].
    ///
    /// Requests that wait hold a connection and what they have sent, and a permit of the service if it has a limit of its own. One client can
    /// have many waiting: bound them by a short time, or by [places in flight](Self::in_flight) for each entity.
    pub fn wait(mut self, max: Duration) -> Self {
        self.wait = Some(max);
        self
    }

    /// The longest that the table may take to answer: see [`Acquire::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Requests take a place in flight until the response has ended, or until its head has come if that gives the tokens back: see [`Acquire::in_flight`].
    pub fn in_flight(mut self) -> Self {
        self.in_flight = true;
        self
    }

    /// What happens during an outage of the table: see [`Acquire::on_unavailable`].
    pub fn on_unavailable(mut self, policy: OnUnavailable) -> Self {
        self.on_unavailable = Some(policy);
        self
    }
}

impl Charge for Rules {
    fn charge(&self, limiter: &RateLimiter, request: &Parts) -> Result<Option<Acquire>, Rejection> {
        if self.exempt.as_ref().is_some_and(|is_exempt| is_exempt(request)) {
            return Ok(None);
        }
        let amounts = self
            .amounts
            .as_ref()
            .map_err(|err| Rejection::misconfigured(err.to_string()))?;
        let entity: Cow<'_, str> = self.entity.key(request)?;
        let resource = self.resource.key(request)?;
        let mut acquire = limiter.acquire(&*entity, &*resource);
        for (limit, amount) in amounts {
            let tokens = match amount {
                Amount::Fixed(tokens) => *tokens,
                Amount::By(tokens) => tokens(request)?,
                Amount::Estimate => match request.extensions.get::<Estimate>() {
                    Some(estimate) => estimate.tokens(),
                    None => {
                        return Err(Rejection::misconfigured(
                            "requests have no estimate: put `EstimateLayer` in front of `RateLimitLayer`",
                        ));
                    }
                },
            };
            acquire = acquire.consume(limit, tokens);
        }
        if self.in_flight {
            acquire = acquire.in_flight();
        }
        if let Some(max) = self.wait {
            acquire = acquire.wait(max);
        }
        if let Some(timeout) = self.timeout {
            acquire = acquire.timeout(timeout);
        }
        if let Some(policy) = self.on_unavailable {
            acquire = acquire.on_unavailable(policy);
        }
        Ok(Some(acquire))
    }

    fn before_body(&self, request: &Parts) -> Result<bool, Rejection> {
        if self.exempt.as_ref().is_some_and(|is_exempt| is_exempt(request)) {
            return Ok(false);
        }
        EntityId::new(&*self.entity.key(request)?)?;
        Ok(true)
    }

    fn may_take(&self, limit: &str) -> bool {
        let amounts = self.amounts.iter().flatten();
        amounts.into_iter().any(|(name, _)| name.as_str() == limit)
    }

    fn check(&self) -> Result<(), InvalidInput> {
        match &self.amounts {
            Err(err) => Err(err.clone()),
            Ok(amounts) if amounts.is_empty() && !self.in_flight => {
                let reason = "must name a limit, or a place in flight";
                Err(InvalidInput::new("consume", "", reason))
            }
            Ok(_) => Ok(()),
        }
    }
}

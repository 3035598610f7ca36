//! A bound on the requests that are on their way to the table.
//!
//! A table that does not answer holds each request until it times out. Until the circuit breaker opens, calls continue
//! arriving, so without a bound their number, and with it the number of connections, grows with the rate of calls.
//! Each request of an acquire, and each read of configuration, therefore holds one of a fixed number of permits from
//! the moment it is sent until it ends. Others wait, first come, first served.
//!
//! A request takes its permit last, after every other wait, and needs no other while it holds it: permits cannot
//! deadlock. A request that waits for a permit was not sent, so dropping it leaves nothing in doubt.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zae_limiter_core::InvalidInput;
use zae_limiter_core::table::TableError;

use crate::acquire::outage::breaker::Breaker;
use crate::clock::Time;

/// How many requests may be on their way unless the builder sets another number. At 20 ms for an answer this is 50,000
/// requests a second, at 300 ms it is 3,400.
pub(crate) const MAX_IN_FLIGHT: usize = 1024;

/// Refuses a number that no semaphore can have, or with which no request could be sent.
pub(crate) fn check_max_in_flight(max: usize) -> Result<(), InvalidInput> {
    const LARGEST: usize = Semaphore::MAX_PERMITS;
    if max == 0 || max > LARGEST {
        let reason = format!("must be from 1 to {LARGEST}");
        return Err(InvalidInput::new("max_in_flight", max, reason));
    }
    Ok(())
}

/// Allows one request to be on its way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` if the semaphore was closed, which never happens.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The permits of one table, shared by its namespaces.
#[derive(Debug)]
pub(crate) struct Permits {
    semaphore: Arc<Semaphore>,
    max: usize,
    breaker: Arc<Breaker>,
}

impl Permits {
    /// `max` must have been checked.
    pub(crate) fn new(max: usize, breaker: Arc<Breaker>) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(max)),
            max,
            breaker,
        }
    }

    /// The number of requests that all permits allow, if all are taken.
    pub(crate) fn exhausted(&self) -> Option<usize> {
        (self.semaphore.available_permits() == 0).then_some(self.max)
    }

    /// How many requests are on their way.
    #[cfg(feature = "metrics")]
    pub(crate) fn in_use(&self) -> usize {
        self.max.saturating_sub(self.semaphore.available_permits())
    }

    /// How many there can be.
    #[cfg(feature = "metrics")]
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// A permit if one is free and no other request waits for it.
    pub(crate) fn try_take(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        Some(Permit {
            _permit: Some(permit),
        })
    }

    /// Waits for a permit, also while the circuit breaker is open: for requests that give tokens back.
    pub(crate) async fn take(&self) -> Permit {
        Permit {
            _permit: Arc::clone(&self.semaphore).acquire_owned().await.ok(),
        }
    }

    /// Waits for a permit, unless the circuit breaker opens meanwhile.
    ///
    /// If the breaker is open already, the request is its probe, which must reach the table: it waits for a permit only.
    ///
    /// # Errors
    /// The breaker's refusal ([`Breaker::refused`]).
    pub(crate) async fn enter(&self, clock: &Time) -> Result<Permit, TableError> {
        if let Some(permit) = self.try_take() {
            return Ok(permit);
        }
        if self.breaker.is_open() {
            return Ok(self.take().await);
        }
        let mut turn = pin!(self.take());
        let permit = loop {
            // Registered before the breaker is looked at, so that no opening is missed.
            let mut opens = pin!(self.breaker.opens());
            opens.as_mut().enable();
            if let Some(refusal) = self.breaker.refused(clock.now()) {
                return Err(refusal);
            }
            tokio::select! {
                biased;
                permit = &mut turn => break permit,
                () = opens => {}
            }
        };
        match self.breaker.refused(clock.now()) {
            Some(refusal) => Err(refusal),
            None => Ok(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zae_limiter_core::table::{Applied, FailureKind};

    use super::*;
    use crate::clock::SystemClock;

    fn clock() -> Time {
        Time(Arc::new(SystemClock))
    }

    fn silence() -> Result<(), TableError> {
        Err(TableError::new(
            FailureKind::Timeout,
            Applied::No,
            "as the test ordered",
        ))
    }

    async fn fail_until_open(breaker: &Breaker) {
        while !breaker.is_open() {
            breaker.hear(&silence());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[test]
    fn a_number_that_no_request_could_be_sent_with_is_refused() {
        for bad in [0, usize::MAX] {
            let err = check_max_in_flight(bad).unwrap_err();
            assert_eq!(
                (err.field(), err.value()),
                ("max_in_flight", bad.to_string().as_str())
            );
        }
        check_max_in_flight(1).unwrap();
        check_max_in_flight(MAX_IN_FLIGHT).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_are_refused_when_the_breaker_opens_although_no_permit_is_free() {
        let breaker = Arc::new(Breaker::new());
        let permits = Arc::new(Permits::new(1, Arc::clone(&breaker)));
        let held = permits.try_take().unwrap();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let permits = Arc::clone(&permits);
                tokio::spawn(async move { permits.enter(&clock()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        fail_until_open(&breaker).await;
        for waiting in waiting {
            let refusal = waiting.await.unwrap().unwrap_err();
            assert!(crate::acquire::outage::breaker::is_refusal(&refusal), "{refusal}");
            assert!(refusal.applied == Applied::No, "{refusal}");
        }
        // A probe waits for a permit and is not refused.
        let clock = clock();
        let mut probe = pin!(permits.enter(&clock));
        assert!(futures_util::poll!(&mut probe).is_pending());
        drop(held);
        probe.await.unwrap();
    }

    #[tokio::test]
    async fn permits_are_given_in_the_order_in_which_they_were_asked_for() {
        let permits = Arc::new(Permits::new(1, Arc::new(Breaker::new())));
        let held = permits.try_take().unwrap();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..10)
            .map(|i| {
                let (permits, order) = (Arc::clone(&permits), Arc::clone(&order));
                tokio::spawn(async move {
                    let permit = permits.enter(&clock()).await.unwrap();
                    order.lock().unwrap().push(i);
                    drop(permit);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(held);
        assert!(permits.try_take().is_none(), "those that wait come first");
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    }
}

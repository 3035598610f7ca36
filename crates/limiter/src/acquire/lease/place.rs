//! The places in flight of a lease.

use tokio::time::Instant;
use zae_limiter_core::flight::GiveBackEnd;

use super::{HeldPlace, Lease, Returning};
use crate::error::Error;

impl Lease {
    /// It with the places that were taken beside its tokens.
    pub(in crate::acquire) fn with_places(mut self, places: Vec<HeldPlace>) -> Self {
        self.places = places;
        self
    }

    /// Whether the lease certainly holds the place in flight that its call asked for
    /// ([`Acquire::in_flight`](crate::Acquire::in_flight)), and that of its parent if it needs one.
    ///
    /// `false` if it was not renewed in time, because the process was held up or the table did not answer: then others may have
    /// it. If they have not, it is held again as soon as the table answers. Also `false` if the call did not ask for one, or was
    /// admitted without: under a bypass, or without the table during an outage.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{RateLimiter, Repository};
    ///
    /// let limiter = RateLimiter::new(Repository::in_memory().await?);
    /// let lease = limiter.acquire("tenant-1", "export").in_flight_at_most(1).await?;
    /// // Between two parts of a long work.
    /// assert!(lease.holds_place());
    /// lease.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn holds_place(&self) -> bool {
        !self.places.is_empty() && self.places.iter().all(HeldPlace::is_held)
    }

    /// Gives the tokens back because there is no place, and waits for it until the deadline.
    pub(in crate::acquire) async fn refund(mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        self.set_timeout(left.min(self.timeout));
        if let Err(error) = self.rollback().await {
            tracing::warn!(%error, "tokens of a call without a place in flight were not given back yet");
        }
    }

    /// Waits until places have been given back.
    pub(super) async fn returned(&self, returning: Vec<Returning>) -> Result<(), Error> {
        if returning.is_empty() {
            return Ok(());
        }
        let place = &self.inner.place;
        let outcomes = async {
            let mut first = Ok(());
            for end in returning {
                let result = match end.await {
                    Ok(GiveBackEnd::Given | GiveBackEnd::Gone) => Ok(()),
                    Ok(GiveBackEnd::Failed(err)) => {
                        Err(place.place_not_returned(&err.to_string(), Some(err)))
                    }
                    Err(_) => Err(place.runtime_ended()),
                };
                first = first.and(result);
            }
            first
        };
        let ended = tokio::time::timeout(self.timeout, outcomes).await;
        ended.unwrap_or_else(|_| {
            let why = format!(
                "no answer within {} ms, and it is still being sent in the background",
                self.timeout.as_millis()
            );
            Err(place.place_not_returned(&why, None))
        })
    }
}

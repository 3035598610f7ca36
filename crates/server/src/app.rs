//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zae_limiter::RateLimiter;

/// What the handlers of both ports share. Clones share everything.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::{RateLimiter, Repository};
/// use zae_limiter_server::App;
///
/// let app = App::new(RateLimiter::new(Repository::in_memory().await?));
/// assert!(!app.is_draining());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limiter: RateLimiter,
    is_draining: AtomicBool,
}

impl App {
    /// An application that takes tokens from a limiter.
    pub fn new(limiter: RateLimiter) -> Self {
        Self(Arc::new(Shared {
            limiter,
            is_draining: AtomicBool::new(false),
        }))
    }

    /// The limiter.
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// Whether the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Says in health checks from now on that the server is about to end.
    pub(crate) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }
}

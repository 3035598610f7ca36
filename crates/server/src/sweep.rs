//! Settling leases that have expired.

use std::time::Duration;

use crate::app::App;
use crate::telemetry;

/// Settles expired leases until it is dropped. All servers of a namespace do, and each lease is settled once.
pub(crate) async fn sweep(app: App, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match app.limiter().repository().sweep_leases().await {
            Ok(swept) => telemetry::swept(&swept),
            Err(error) => {
                tracing::warn!(%error, "expired leases could not be read; the next sweep tries again");
            }
        }
    }
}

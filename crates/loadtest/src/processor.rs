//! Processor time.

use std::time::Duration;

/// The processor time of this process.
#[cfg(unix)]
pub(crate) fn processor_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let of = |time: nix::sys::time::TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0)) + Duration::from_micros(micros)
    };
    Some(of(usage.user_time()) + of(usage.system_time()))
}

#[cfg(not(unix))]
pub(crate) fn processor_time() -> Option<Duration> {
    None
}

/// The processor time since an earlier one.
pub(crate) fn used_since(earlier: Option<Duration>) -> Option<Duration> {
    Some(processor_time()?.saturating_sub(earlier?))
}

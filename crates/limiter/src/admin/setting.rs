//! What commands and applies do alike when a concurrency limit or the cascade depth changes.

use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::manifest::Setting;
use zae_limiter_core::table::{Item, Value};

use crate::admin::Admin;
use crate::admin::audit::Event;
use crate::admin::levels::event;

/// The event of a setting that has changed from one value to another; `None` without a record.
pub(crate) fn setting_event(setting: &Setting, old: Option<u32>, new: Option<u32>) -> Event {
    let (action, details) = match setting {
        Setting::Concurrency(_) => {
            let action = new.map_or("concurrency_deleted", |_| "concurrency_set");
            let limit = new
                .or(old)
                .map(|limit| ("max_in_flight".into(), Value::int(limit)));
            (action, limit.into_iter().collect())
        }
        Setting::CascadeDepth => {
            let depth =
                |depth: Option<u32>| Value::int(depth.unwrap_or_else(|| CascadeDepth::default().into()));
            let details = Item::from([
                ("cascade_depth".into(), depth(new)),
                ("old_cascade_depth".into(), depth(old)),
            ]);
            ("cascade_depth_set", details)
        }
    };
    event(setting.target(), action, details)
}

impl Admin {
    /// Makes this process read a setting again.
    pub(crate) fn forget_setting(&self, setting: &Setting) {
        let inner = &self.inner;
        let key = setting.key(&inner.namespace);
        match setting {
            Setting::Concurrency(_) => inner.flight.limits.forget(&key),
            Setting::CascadeDepth => inner.config.forget(&key),
        }
    }
}

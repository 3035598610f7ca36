//! The functions of [`record`](super::record) in a build without the feature `metrics`: they do nothing.

use std::sync::Arc;

use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::{InvalidInput, NamespaceName};

use super::call::Ended;
use crate::inner::Inner;

/// Whether anything is measured.
pub(super) const IS_ON: bool = false;

/// Measures no time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer;

impl Timer {
    pub(super) const fn start() -> Self {
        Self
    }
}

/// No labels.
#[derive(Debug, Clone)]
pub(crate) struct Labels;

impl Labels {
    pub(crate) const fn none() -> Self {
        Self
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as with the feature"
    )]
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        Ok(())
    }
}

/// An event of a place in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PlaceEvent {
    Taken,
    Lost,
    NotReturned,
}

/// What is reported of a table.
#[derive(Debug, Clone)]
pub(crate) struct OfTable;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl OfTable {
    pub(crate) fn new(_: &str) -> Self {
        Self
    }

    #[inline]
    pub(super) fn answered(&self, _: &'static str, _: &'static str, _: Timer) {}
}

/// What is reported of a namespace.
#[derive(Debug)]
pub(crate) struct Recorder(OfTable);

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Recorder {
    pub(crate) fn new(of_table: &OfTable, _: &NamespaceName, _: &Labels) -> Self {
        Self(of_table.clone())
    }

    pub(crate) fn of_table(&self) -> &OfTable {
        &self.0
    }

    #[inline]
    pub(super) fn call_ended(&self, _: &Arc<Inner>, _: &Ended<'_>) {}

    #[inline]
    pub(crate) fn refused_from_memory(&self) {}

    #[inline]
    pub(crate) fn corrected(&self, _: &CreditEnd) {}

    #[inline]
    pub(crate) fn place(&self, _: PlaceEvent) {}
}

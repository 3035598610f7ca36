//! What must hold, judged independently of the code under test.

pub(crate) mod access;
pub mod account;
mod admitted;
pub mod check;
pub(crate) mod lives;
mod operated;
pub(crate) mod operations;
pub(crate) mod outages;
pub(crate) mod periods;
mod rules;
mod scheduled;
mod settle;
mod sums;

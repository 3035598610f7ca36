//! What must hold, judged independently of the code under test.

pub(crate) mod access;
pub mod account;
mod admitted;
pub mod check;
pub(crate) mod lives;
pub(crate) mod outages;
pub(crate) mod periods;
mod operated;
pub(crate) mod operations;
mod rules;
mod scheduled;
mod settle;

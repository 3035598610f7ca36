//! What must hold, judged independently of the code under test.

pub mod account;
mod admitted;
pub mod check;
pub(crate) mod lives;
pub(crate) mod outages;
pub(crate) mod periods;
mod rules;
mod scheduled;
mod settle;

//! What must hold, judged independently of the code under test.

pub mod account;
pub mod check;
pub(crate) mod lives;
pub(crate) mod outages;
pub(crate) mod periods;
mod rules;
mod scheduled;
mod settle;

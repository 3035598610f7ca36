//! Load from functions that a master on Fargate leads: `master` is the program in the task, `run` and `ui` start it and reach
//! its page through a tunnel.

mod environment;
mod functions;
mod master;
mod run;
mod task;
mod tunnel;
mod ui;

pub(super) use master::master;
pub(super) use run::run;
pub(super) use ui::ui;

//! `loadtest deploy`, `push`, `list` and `delete`: the stack that generates load on another one.

mod delete;
mod deploy;
mod list;
mod push;
mod scenarios;
mod stack;

pub(super) use delete::delete;
pub(super) use deploy::deploy;
pub(super) use list::list;
pub(super) use push::push;
pub(super) use stack::failure;

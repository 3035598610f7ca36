//! What the tool reads from and writes for people, as text in and text out: no I/O, no clock, no table.

pub(crate) mod limit;
pub(crate) mod literal;
pub(crate) mod number;
pub(crate) mod plot;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod yaml;

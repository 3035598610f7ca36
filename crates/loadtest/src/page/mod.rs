//! The page of a master: a running test in a browser on this machine.
//!
//! [`Page::serve`] answers on a loopback address: `/` is the page, `/stats` its data, `/report` all that was measured;
//! `POST /start` and `POST /stop` ask for what the owner of the page does. [`Client`] is a program that asks. Requests of
//! other web pages are refused. [`View`] is the state that is shown; it does no I/O.

mod client;
mod server;
mod view;
mod web;

pub use client::{Client, ClientError};
pub use server::{Page, Request};
pub use view::{Defaults, Sample, State, View};
pub use web::{Refusal, Wish, WishedStage};

//! A function that generates load: one call of it is one test, or one worker of a [master](crate::cluster).
//!
//! [`Call`] reads the event, [`serve`] runs the test in the time that the call has, and [`Answer`] is what the caller gets.
//! [`Join`] is a call for a worker.
//! Nothing here knows how the function is invoked.

mod answer;
mod event;
mod field;
mod join;
mod serve;
mod time;

pub use answer::{Answer, Generator, LeftNamespace, Ran};
pub use event::{Call, Headless};
pub use field::BadEvent;
pub use join::{Join, MASTER_PORT};
pub use serve::{Refusal, serve};
pub use time::Allotment;

//! A function that generates load: one call of it is one test.
//!
//! [`Call`] reads the event, [`serve`] runs the test in the time that the call has, and [`Answer`] is what the caller gets.
//! Nothing here knows how the function is invoked.

mod answer;
mod event;
mod serve;
mod time;

pub use answer::{Answer, Generator, LeftNamespace, Ran};
pub use event::{BadEvent, Call, Headless};
pub use serve::{Refusal, serve};
pub use time::Allotment;

//! The readers of bodies, for the targets in `fuzz/`. This is not a part of the API: it exists only with `--cfg fuzzing`.

pub use crate::estimate::fuzzing::{estimate, estimate_of_bytes, joined};
pub use crate::usage::fuzzing::{numbers, numbers_of_events};

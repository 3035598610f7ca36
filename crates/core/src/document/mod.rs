//! Documents of settings as trees with places, and what is wrong with them.
//!
//! Manifests and the rules of the server are read from such trees, so that all of them report every problem with line, column and
//! path, and suggest the name that was meant.

mod problem;
mod suggest;
mod tree;
#[cfg(feature = "yaml")]
mod yaml;

pub use problem::{Path, Position, Problem, Problems};
pub use suggest::nearest;
pub use tree::{Entry, Node, Tree};
#[cfg(feature = "yaml")]
pub use yaml::{Kind, read as read_yaml};

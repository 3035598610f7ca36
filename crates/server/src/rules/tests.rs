//! Rules as files.

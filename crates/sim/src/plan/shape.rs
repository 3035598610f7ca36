//! The shapes of limits in a plan: other parameters at certain minutes, quotas that are reset at certain minutes, sessions.
//!
//! All patterns are minutes of the hour, in a zone whose offset is a part of an hour, so that several boundaries lie in a run
//! of some minutes.

/// Minutes of the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Minutes {
    /// Every so many minutes, from the full hour on.
    Every(u8),
    /// These two.
    Two(u8, u8),
    /// From one to another.
    Range(u8, u8),
}

impl Minutes {
    /// The cron expression.
    pub fn cron(self) -> String {
        match self {
            Self::Every(step) => format!("*/{step} * * * *"),
            Self::Two(one, other) => format!("{one},{other} * * * *"),
            Self::Range(from, to) => format!("{from}-{to} * * * *"),
        }
    }
}

/// The parameters while a window is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Capacity and refill times so many thousandths.
    Scale(u16),
    /// Another capacity.
    Capacity(i64),
    /// Another refill amount and period in seconds.
    Refill(i64, i64),
}

/// A part of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When it is in force.
    pub minutes: Minutes,
    /// What it changes.
    pub change: Change,
}

/// How the tokens come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Regain {
    /// By the rate.
    #[default]
    Rate,
    /// All at once, at the beginning of these minutes.
    Resets(Minutes),
    /// All at once, by the first use so many seconds after the first use.
    Session(i64),
}

/// The zones that plans use: those of Kolkata and Kathmandu are 30 and 45 minutes off the full hour.
pub const ZONES: [&str; 3] = ["UTC", "Asia/Kolkata", "Asia/Kathmandu"];

/// The shape of a limit beyond its numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// How the tokens come back.
    pub regain: Regain,
    /// The schedule: the first window that matches is in force.
    pub windows: [Option<Window>; 2],
    /// Index into [`ZONES`].
    pub zone: usize,
}

impl Shape {
    /// Whether it is a quota or a session limit, which has periods.
    pub fn has_periods(&self) -> bool {
        self.regain != Regain::Rate
    }

    /// Whether there is nothing beyond the numbers.
    pub fn is_plain(&self) -> bool {
        !self.has_periods() && self.windows == [None; 2]
    }
}

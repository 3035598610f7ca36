//! What the time of a call is used for.

use std::time::Duration;

/// Parts of the time after which the test is stopped, its users are given up, and removing its namespace is given up.
const PARTS: [u32; 3] = [90, 95, 98];

/// The time that a call had when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allotment(Duration);

impl Allotment {
    /// This much.
    pub fn new(granted: Duration) -> Self {
        Self(granted)
    }

    fn part(self, index: usize) -> Duration {
        let part = PARTS.get(index).copied().unwrap_or(100);
        self.0.mul_f64(f64::from(part) / 100.0)
    }

    /// When the test is stopped, since the beginning of the call: 90 % of the time.
    pub fn stop(self) -> Duration {
        self.part(0)
    }

    /// When users that have not ended their calls are given up.
    pub fn give_up(self) -> Duration {
        self.part(1)
    }

    /// When the answer is returned, whether the namespace was removed or not.
    pub fn answer(self) -> Duration {
        self.part(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_time_is_for_the_end() {
        let five_minutes = Allotment::new(Duration::from_mins(5));
        assert_eq!(
            [five_minutes.stop(), five_minutes.give_up(), five_minutes.answer()],
            [270, 285, 294].map(Duration::from_secs)
        );
        assert_eq!(Allotment::new(Duration::ZERO).answer(), Duration::ZERO);
    }
}

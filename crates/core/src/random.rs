//! The randomness that decisions need, injected like the clock.

/// A source of random numbers: shard draws, jitter and unique marks. Need not be cryptographic.
pub trait Random {
    /// 64 random bits.
    fn bits(&mut self) -> u64;

    /// A number from 0 to `bound` - 1; 0 when `bound` is 0.
    fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            0
        } else {
            (self.bits() % u64::from(bound)) as u32
        }
    }
}

//! The estimator: residual error, one-second resolution, drift, outliers, steps and suspension.

use proptest::prelude::*;

use super::*;

/// 28 November 2026, 05:00:00 UTC.
const START: i64 = 1_795_842_000 * SECOND;
const MILLI: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A machine and a table, and the true time.
struct World {
    now: i64,
    /// What the machine's clock shows beyond the true time.
    wrong: i64,
    /// What the steady clock has lost while the machine was suspended.
    slept: i64,
    estimate: Estimate,
}

impl World {
    fn with_clock_ahead_by(wrong: i64) -> Self {
        Self {
            now: START,
            wrong,
            slept: 0,
            estimate: Estimate::default(),
        }
    }

    fn read(&self) -> Reading {
        Reading {
            wall: self.now + self.wrong,
            steady: self.now - START - self.slept,
        }
    }

    /// A request of which the answer is dated when `there` has passed, and arrives `back` later.
    fn ask(&mut self, there: i64, back: i64) {
        self.ask_of(0, there, back);
    }

    /// The same, of a table whose own clock is `off`.
    fn ask_of(&mut self, off: i64, there: i64, back: i64) {
        let sent = self.read();
        self.now += there;
        let date = (self.now + off).div_euclid(SECOND);
        self.now += back;
        self.estimate.add(sent, self.read(), date);
    }

    /// How far the corrected clock is ahead of the true time.
    fn error(&self) -> i64 {
        let now = self.read();
        let corrected = self.estimate.shown().map_or(now.wall, |shown| shown.correct(now));
        corrected - self.now
    }

    fn offset(&self) -> ClockOffset {
        self.estimate.shown().unwrap().offset
    }
}

#[test]
fn two_answers_correct_a_clock_that_is_an_hour_off() {
    for wrong in [HOUR, -HOUR, 48 * HOUR, -48 * HOUR, 75 * 8766 * HOUR] {
        let mut world = World::with_clock_ahead_by(wrong);
        world.ask(20 * MILLI, 10 * MILLI);
        assert_eq!(world.error(), wrong, "one answer is not believed yet");
        world.ask(MILLI, MILLI);
        assert!(world.error().abs() <= 516 * MILLI, "{}", world.error());
        assert!(world.offset().is_wrong());
        assert!(world.offset().max_error() <= Duration::from_millis(516));
    }
}

#[test]
fn answers_at_different_fractions_of_a_second_narrow_it() {
    let mut world = World::with_clock_ahead_by(-10 * MINUTE);
    for _ in 0..200 {
        world.ask(2 * MILLI, 3 * MILLI);
        world.now += 32 * MILLI;
    }
    assert!(world.error().abs() <= 10 * MILLI, "{}", world.error());
    let (low, high) = world.offset().bounds_ms();
    assert!((0..=20).contains(&(high - low)), "{low} {high}");
}

#[test]
fn a_clock_that_may_be_right_is_left_alone() {
    for wrong in [0, 300 * MILLI, -300 * MILLI] {
        let mut world = World::with_clock_ahead_by(wrong);
        for _ in 0..3 {
            world.ask(400 * MILLI, 400 * MILLI);
            assert_eq!(world.error(), wrong);
        }
    }
}

#[test]
fn one_answer_that_is_far_off_moves_nothing() {
    for wrong in [0, HOUR] {
        let mut world = World::with_clock_ahead_by(wrong);
        for round in 0..20 {
            let off = if round % 3 == 2 { -10 * HOUR } else { 0 };
            world.ask_of(off, MILLI, MILLI);
            world.now += 70 * MILLI;
            if round > 1 {
                assert!(
                    world.error().abs() <= 503 * MILLI,
                    "round {round}: {}",
                    world.error()
                );
            }
        }
    }
}

#[test]
fn three_answers_that_agree_replace_the_estimate() {
    let mut world = World::with_clock_ahead_by(0);
    for _ in 0..5 {
        world.ask(MILLI, MILLI);
    }
    for error in [0, 0, -HOUR] {
        world.ask_of(-HOUR, MILLI, MILLI);
        assert!((world.error() - error).abs() <= 503 * MILLI, "{}", world.error());
    }
}

#[test]
fn a_small_contradiction_is_followed_at_once() {
    let mut world = World::with_clock_ahead_by(0);
    world.ask(MILLI, MILLI);
    world.now += 3 * SECOND;
    world.ask_of(-4 * SECOND, MILLI, MILLI);
    assert!(
        (world.error() + 4 * SECOND).abs() <= 1002 * MILLI,
        "{}",
        world.error()
    );
}

#[test]
fn a_clock_that_is_put_right_is_right_at_once() {
    for wrong in [HOUR, -HOUR] {
        let mut world = World::with_clock_ahead_by(wrong);
        for _ in 0..2 {
            world.ask(MILLI, MILLI);
        }
        world.wrong = 0;
        assert!(
            world.error().abs() <= 503 * MILLI,
            "before an answer: {}",
            world.error()
        );
        world.now += SECOND;
        world.ask(MILLI, MILLI);
        assert!(world.error().abs() <= 503 * MILLI, "{}", world.error());
    }
}

#[test]
fn a_right_clock_that_is_set_back_is_not_followed() {
    let mut world = World::with_clock_ahead_by(0);
    world.ask(MILLI, MILLI);
    world.wrong = -HOUR;
    assert_eq!(world.error(), 0);
    world.ask(MILLI, MILLI);
    assert!(world.error().abs() <= 1003 * MILLI, "{}", world.error());
}

#[test]
fn one_answer_tells_a_clock_set_forward_from_a_suspended_machine() {
    let mut world = World::with_clock_ahead_by(0);
    world.ask(MILLI, MILLI);
    world.wrong = HOUR;
    world.ask(MILLI, MILLI);
    assert!(world.error().abs() <= 1003 * MILLI, "set: {}", world.error());

    for wrong in [0, -10 * MINUTE] {
        let mut world = World::with_clock_ahead_by(wrong);
        for _ in 0..2 {
            world.ask(MILLI, MILLI);
        }
        let before = world.error();
        world.now += 8 * HOUR;
        world.slept = 8 * HOUR;
        assert_eq!(world.error(), before, "suspended");
        world.ask(MILLI, MILLI);
        assert!(world.error().abs() <= 503 * MILLI, "suspended: {}", world.error());
    }
}

#[test]
fn in_words() {
    let words = |correction| {
        ClockOffset {
            low: correction,
            high: correction,
            correction,
        }
        .to_string()
    };
    assert_eq!(words(-HOUR), "this machine's clock is 1h 0m ahead of the table's");
    assert_eq!(
        words(10 * MINUTE + 400 * MILLI),
        "this machine's clock is 10m 0s behind the table's"
    );
    assert_eq!(
        words(2350 * MILLI),
        "this machine's clock is 2.4s behind the table's"
    );
    assert_eq!(
        words(-59_960 * MILLI),
        "this machine's clock is 1m 0s ahead of the table's"
    );
    assert_eq!(
        words(50 * HOUR),
        "this machine's clock is 2d 2h behind the table's"
    );
    assert_eq!(words(0), "this machine's clock agrees with the table's");
}

proptest! {
    /// A corrected clock is never worse than the clock itself, and its error is within the returned bound.
    #[test]
    fn correction_never_makes_a_clock_worse(
        wrong in prop_oneof![-3 * SECOND..3 * SECOND, -HOUR..HOUR],
        drift_ppm in -400_i64..400,
        asked in prop::collection::vec((0..3 * SECOND, 0..300 * MILLI, 0..300 * MILLI), 1..60),
    ) {
        let mut world = World::with_clock_ahead_by(wrong);
        let mut widest = 0;
        for (pause, there, back) in asked {
            widest = widest.max(there + back);
            world.ask(there, back);
            if let Some(shown) = world.estimate.shown() {
                let truth = -world.wrong;
                let (low, high) = (shown.offset.low, shown.offset.high);
                let aged = drift(world.read().steady - shown.at.steady);
                prop_assert!(low - aged <= truth && truth <= high + aged, "{low} {truth} {high}");
                prop_assert!(world.error().abs() <= world.wrong.abs() + aged);
                prop_assert!(world.error().abs() <= SECOND + widest + aged);
                let told = i64::try_from(shown.offset.max_error().as_micros()).unwrap();
                prop_assert!(world.error().abs() <= told + aged);
            }
            world.now += pause;
            // The machine's clocks, both of them, are fast or slow.
            let lost = pause * drift_ppm / 1_000_000;
            world.wrong += lost;
            world.slept -= lost;
        }
    }

    /// Nothing that answers say, and nothing that is done to the machine's clocks, overflows or panics.
    #[test]
    fn anything_may_be_told(
        answers in prop::collection::vec((0_i64..i64::MAX / 4, 0_i64..i64::MAX / 4, 0_i64..253_402_300_799), 1..30),
    ) {
        let mut estimate = Estimate::default();
        let mut last = Reading { wall: START, steady: 0 };
        for (wall, steady, date) in answers {
            let now = Reading { wall, steady };
            estimate.add(last, now, date);
            if let Some(shown) = estimate.shown() {
                let _ = shown.correct(now);
                let _ = shown.offset.to_string();
                prop_assert!(shown.offset.low <= shown.offset.high);
            }
            last = now;
        }
    }
}

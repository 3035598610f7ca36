//! The table's clock: the machine's, corrected by the dates of answers.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::Clock;
use super::offset::{ClockOffset, Estimate, Reading, Shown, Wrong, middle};

/// How often a wrong clock is reported.
const REPORTED_EVERY: i64 = 60_000_000;

/// AWS refuses requests that are signed more than five minutes off. The clients sign by the offset of the last answer that
/// they have seen, and the SDK takes a refusal for one of this kind from four minutes on; so does this.
const SIGNED_TOO_FAR_OFF: i64 = 4 * 60_000_000;

/// Dates that are accepted: from 2020 to 9999. A server that sends 1970 has no clock.
const BELIEVED: RangeInclusive<i64> = 1_577_836_800..=253_402_300_799;

/// Where no answer has been seen.
const NONE: i64 = i64::MIN;

/// The clocks of a machine.
pub(crate) trait Machine: Send + Sync + fmt::Debug + 'static {
    /// Reads both at once.
    fn read(&self) -> Reading;
}

/// This machine.
#[derive(Debug)]
struct ThisMachine {
    since: Instant,
}

impl Machine for ThisMachine {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clocks for corrections"
    )]
    fn read(&self) -> Reading {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Reading {
            wall: micros(wall),
            steady: micros(self.since.elapsed()),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The offset of the machine's clock from the table's, shared by all that send requests to the table.
#[derive(Debug)]
pub(crate) struct TableOffset {
    machine: Box<dyn Machine>,
    measuring: Mutex<Measuring>,
    /// The values that the clock uses. They change seldom and are read often.
    shown: RwLock<Option<Shown>>,
    /// The offset by the latest answer, accepted or not: the one that requests are signed with.
    latest: AtomicI64,
}

#[derive(Debug, Default)]
struct Measuring {
    estimate: Estimate,
    /// When a wrong clock was last reported.
    reported: Option<i64>,
}

impl TableOffset {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clocks for corrections"
    )]
    pub(crate) fn of_this_machine() -> Self {
        Self::of(ThisMachine {
            since: Instant::now(),
        })
    }

    pub(crate) fn of(machine: impl Machine) -> Self {
        Self {
            machine: Box::new(machine),
            measuring: Mutex::default(),
            shown: RwLock::new(None),
            latest: AtomicI64::new(NONE),
        }
    }

    /// Reads the machine's clocks.
    pub(crate) fn read(&self) -> Reading {
        self.machine.read()
    }

    /// Takes in the date of an answer to a request that was sent then.
    pub(crate) fn answered(&self, sent: Reading, date_secs: i64) {
        if !BELIEVED.contains(&date_secs) {
            return;
        }
        let received = self.read();
        self.latest
            .store(middle(sent, received, date_secs), Ordering::Relaxed);
        let mut measuring = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        if measuring.estimate.add(sent, received, date_secs) {
            // Within the lock, so that the last estimate is the one that is shown.
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = measuring.estimate.shown();
        }
        let Some(offset) = self.get().filter(ClockOffset::is_wrong) else {
            return;
        };
        let is_due = |last: i64| received.steady - last >= REPORTED_EVERY;
        if measuring.reported.is_none_or(is_due) {
            measuring.reported = Some(received.steady);
            drop(measuring);
            tracing::warn!(
                correction_ms = offset.correction_ms(),
                "{offset}; times are corrected"
            );
        }
    }

    /// The estimate; `None` until answers have provided it.
    pub(crate) fn get(&self) -> Option<ClockOffset> {
        self.shown().map(|shown| shown.offset)
    }

    fn shown(&self) -> Option<Shown> {
        *self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        let now = self.read();
        self.shown().map_or(now.wall, |shown| shown.correct(now))
    }

    /// The time to sign a request with, in seconds since 1970: the machine's clock, corrected by the latest answer.
    pub(crate) fn signing_seconds(&self) -> i64 {
        let now = self.read().wall.saturating_add(self.told().unwrap_or(0));
        now.div_euclid(1_000_000)
    }

    /// The offset that requests are signed with if it may be so wrong that they are refused: before the first answers,
    /// and after the machine's clock was set.
    pub(crate) fn doubtful_signature(&self) -> Option<Signature> {
        let is_known = self
            .shown()
            .is_some_and(|shown| shown.moved(self.read()).abs() < SIGNED_TOO_FAR_OFF);
        (!is_known).then(|| Signature {
            offset: self.told().unwrap_or(0),
        })
    }

    /// Whether a request signed like this was refused for that reason. The next one will be signed right.
    pub(crate) fn was_too_far_off(&self, signed: Signature) -> bool {
        self.told()
            .is_some_and(|latest| latest.saturating_sub(signed.offset).saturating_abs() > SIGNED_TOO_FAR_OFF)
    }

    /// The error of the machine's clock, as text, if requests that are signed by it are refused.
    pub(crate) fn too_far_off(&self) -> Option<String> {
        self.told()
            .filter(|latest| latest.saturating_abs() > SIGNED_TOO_FAR_OFF)
            .map(|latest| Wrong(latest).to_string())
    }

    fn told(&self) -> Option<i64> {
        Some(self.latest.load(Ordering::Relaxed)).filter(|latest| *latest != NONE)
    }
}

/// How a request is signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature {
    offset: i64,
}

/// The machine's clock, corrected.
#[derive(Debug)]
pub(crate) struct TableClock(pub(crate) Arc<TableOffset>);

impl Clock for TableClock {
    fn now(&self) -> SystemTime {
        let micros = u64::try_from(self.0.now()).unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    const SECOND: i64 = 1_000_000;

    /// A machine whose clock shows an hour more than the time.
    #[derive(Debug, Clone, Default)]
    struct Hasty(Arc<AtomicI64>);

    const HOUR: i64 = 3600 * SECOND;
    const START: i64 = 1_795_842_000 * SECOND;

    impl Hasty {
        fn time(&self) -> i64 {
            START + self.0.load(SeqCst)
        }
    }

    impl Machine for Hasty {
        fn read(&self) -> Reading {
            Reading {
                wall: self.time() + HOUR,
                steady: self.0.load(SeqCst),
            }
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_wrong_clock_is_corrected_and_reported_once_a_minute() {
        let (machine, lines) = (Hasty::default(), Lines::default());
        let log = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || log.clone())
            .with_ansi(false)
            .finish();
        let offset = Arc::new(TableOffset::of(machine.clone()));
        let clock = TableClock(Arc::clone(&offset));
        tracing::subscriber::with_default(subscriber, || {
            // 121 seconds.
            for _ in 0..1210 {
                offset.answered(offset.read(), machine.time().div_euclid(SECOND));
                machine.0.fetch_add(SECOND / 10, SeqCst);
            }
        });
        let shown = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let error = i64::try_from(shown.as_millis()).unwrap() - machine.time() / 1000;
        assert!(error.abs() <= 60, "{error}");
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<&str> = text.lines().collect();
        assert_eq!(told.len(), 3, "{text}");
        assert!(
            told[0].contains("WARN")
                && told[0]
                    .contains("this machine's clock is 1h 0m ahead of the table's; times are corrected"),
            "{text}"
        );
    }

    #[test]
    fn dates_from_before_there_were_tables_are_not_believed() {
        let offset = TableOffset::of(Hasty::default());
        for date in [0, -1, 1_000_000_000, i64::MAX, i64::MIN] {
            for _ in 0..10 {
                offset.answered(offset.read(), date);
            }
        }
        assert_eq!(offset.get(), None);
    }

    #[test]
    fn a_signature_is_doubtful_until_two_answers_agree() {
        let machine = Hasty::default();
        let offset = TableOffset::of(machine.clone());
        let signed = offset.doubtful_signature().unwrap();
        assert!(!offset.was_too_far_off(signed));
        offset.answered(offset.read(), machine.time() / SECOND);
        assert!(offset.was_too_far_off(signed));
        assert_eq!(
            offset.too_far_off().unwrap(),
            "this machine's clock is 1h 0m ahead of the table's"
        );
        offset.answered(offset.read(), machine.time() / SECOND);
        assert!(offset.doubtful_signature().is_none());
    }
}

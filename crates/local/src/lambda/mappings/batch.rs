//! The processing of a batch of records: a state machine without access to time and functions.
//!
//! Records are settled in their order: delivered, or given up. What is not settled is tried again, whole, from the
//! record that the function named, or in halves.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// How a mapping deals with failures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether a batch that fails is tried again in halves.
    pub(crate) bisect: bool,
    /// How often a failed batch is tried again; forever if not said.
    pub(crate) retries: Option<u32>,
    /// How old a record may be, in milliseconds.
    pub(crate) age_ms: Option<i64>,
    /// The wait before the first repetition; it doubles.
    pub(crate) wait: Duration,
    /// The longest wait.
    pub(crate) longest_wait: Duration,
}

/// How an invocation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is done.
    Done,
    /// Nothing is.
    Failed,
    /// What is before this record is done.
    FailedAt(usize),
    /// The function was not run, for a reason that may pass.
    NotRun,
}

/// Why records are given up, in Lambda's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    RetryAttemptsExhausted,
    RecordAgeExceeded,
}

impl Condition {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        }
    }
}

/// The next step. Records are named by their places in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run the function on these, and [`report`](Batch::report).
    Invoke(Range<usize>),
    /// Wait.
    Wait(Duration),
    /// These are given up.
    GiveUp {
        records: Range<usize>,
        condition: Condition,
        invocations: u32,
    },
    /// All records are settled.
    Done,
}

/// A run of records that are tried together.
#[derive(Debug, Clone)]
struct Part {
    records: Range<usize>,
    failures: u32,
    invocations: u32,
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    rules: Rules,
    /// When each record was made.
    made_ms: Vec<i64>,
    parts: VecDeque<Part>,
    streak: u32,
    wait: Option<Duration>,
}

impl Batch {
    /// A batch of records that were made at these times.
    pub(crate) fn new(rules: Rules, made_ms: Vec<i64>) -> Self {
        let whole = Part {
            records: 0..made_ms.len(),
            failures: 0,
            invocations: 0,
        };
        Self {
            rules,
            parts: (!made_ms.is_empty()).then_some(whole).into_iter().collect(),
            made_ms,
            streak: 0,
            wait: None,
        }
    }

    /// How many records, from the first on, are settled.
    pub(crate) fn settled(&self) -> usize {
        self.parts
            .front()
            .map_or(self.made_ms.len(), |part| part.records.start)
    }

    /// Returns the next step. After [`Step::GiveUp`] the records named count as settled.
    pub(crate) fn next(&mut self, now_ms: i64) -> Step {
        if let Some(wait) = self.wait.take() {
            return Step::Wait(wait);
        }
        let Some(part) = self.parts.front_mut() else {
            return Step::Done;
        };
        let (start, invocations) = (part.records.start, part.invocations);
        let expired = match self.rules.age_ms {
            Some(age) => self.made_ms[part.records.clone()]
                .iter()
                .take_while(|made| now_ms - **made > age)
                .count(),
            None => 0,
        };
        let exhausted = self.rules.retries.is_some_and(|retries| part.failures > retries);
        let (count, condition) = match (expired, exhausted) {
            (0, false) => return Step::Invoke(part.records.clone()),
            (0, true) => (part.records.len(), Condition::RetryAttemptsExhausted),
            (expired, _) => (expired, Condition::RecordAgeExceeded),
        };
        part.records.start += count;
        if part.records.is_empty() {
            self.parts.pop_front();
        }
        Step::GiveUp {
            records: start..start + count,
            condition,
            invocations,
        }
    }

    /// Takes down how the invocation of [`Step::Invoke`] went.
    pub(crate) fn report(&mut self, verdict: Verdict) {
        let Some(part) = self.parts.front_mut() else {
            return;
        };
        match verdict {
            Verdict::Done => {
                self.parts.pop_front();
                self.streak = 0;
                return;
            }
            Verdict::NotRun => {}
            Verdict::FailedAt(at) if at > part.records.start && at < part.records.end => {
                // It got on: what is left is a batch of its own.
                part.records.start = at;
                part.failures = 0;
                part.invocations += 1;
                self.streak = 0;
            }
            Verdict::Failed | Verdict::FailedAt(_) => {
                part.invocations += 1;
                if self.rules.bisect && part.records.len() > 1 {
                    // To find the record at fault; this does not count as a repetition.
                    let middle = part.records.start + part.records.len() / 2;
                    let first = Part {
                        records: part.records.start..middle,
                        ..part.clone()
                    };
                    part.records.start = middle;
                    self.parts.push_front(first);
                } else {
                    part.failures += 1;
                    if self.rules.retries.is_some_and(|retries| part.failures > retries) {
                        return;
                    }
                }
            }
        }
        self.streak += 1;
        let wait = self.rules.wait.saturating_mul(1 << (self.streak - 1).min(20));
        self.wait = Some(wait.min(self.rules.longest_wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(bisect: bool, retries: Option<u32>) -> Rules {
        Rules {
            bisect,
            retries,
            age_ms: None,
            wait: Duration::from_millis(100),
            longest_wait: Duration::from_millis(400),
        }
    }

    /// Runs a batch in which some records make the function fail. Returns what was invoked, given up and waited for.
    fn run(rules: Rules, count: usize, bad: &[usize]) -> (Vec<Range<usize>>, Vec<Range<usize>>, Vec<u64>) {
        let mut batch = Batch::new(rules, vec![0; count]);
        let (mut invoked, mut given_up, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1_000 {
            match batch.next(0) {
                Step::Invoke(records) => {
                    let fails = bad.iter().any(|bad| records.contains(bad));
                    invoked.push(records);
                    batch.report(if fails { Verdict::Failed } else { Verdict::Done });
                }
                Step::Wait(wait) => waits.push(wait.as_millis() as u64),
                Step::GiveUp { records, .. } => given_up.push(records),
                Step::Done => {
                    assert_eq!(batch.settled(), count);
                    return (invoked, given_up, waits);
                }
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn a_batch_is_tried_as_often_as_the_mapping_says() {
        let (invoked, given_up, waits) = run(rules(false, Some(3)), 4, &[2]);
        assert_eq!(invoked, vec![0..4; 4]);
        assert_eq!(given_up, vec![0..4]);
        assert_eq!(waits, [100, 200, 400]);
        let (invoked, given_up, _) = run(rules(false, Some(0)), 4, &[2]);
        assert_eq!((invoked.len(), given_up.len()), (1, 1));
        let (invoked, given_up, _) = run(rules(false, Some(0)), 0, &[]);
        assert_eq!((invoked.len(), given_up.len()), (0, 0));
    }

    #[test]
    fn halves_find_the_record_at_fault() {
        let (invoked, given_up, waits) = run(rules(true, Some(1)), 5, &[3]);
        assert_eq!(invoked, vec![0..5, 0..2, 2..5, 2..3, 3..5, 3..4, 3..4, 4..5]);
        assert_eq!(given_up, vec![3..4]);
        // A success ends the row of failures.
        assert_eq!(waits, [100, 100, 100, 200]);
    }

    #[test]
    fn a_named_record_is_where_it_goes_on() {
        let mut batch = Batch::new(rules(false, Some(1)), vec![0; 5]);
        assert_eq!(batch.next(0), Step::Invoke(0..5));
        batch.report(Verdict::FailedAt(3));
        assert_eq!(batch.settled(), 3);
        assert_eq!(batch.next(0), Step::Wait(Duration::from_millis(100)));
        assert_eq!(batch.next(0), Step::Invoke(3..5));
        batch.report(Verdict::FailedAt(3));
        assert_eq!(batch.next(0), Step::Wait(Duration::from_millis(200)));
        assert_eq!(batch.next(0), Step::Invoke(3..5));
        batch.report(Verdict::FailedAt(3));
        let given_up = Step::GiveUp {
            records: 3..5,
            condition: Condition::RetryAttemptsExhausted,
            invocations: 3,
        };
        assert_eq!(batch.next(0), given_up);
        assert_eq!(batch.next(0), Step::Done);
    }

    #[test]
    fn old_records_are_given_up_and_the_others_go_on() {
        let mut rules = rules(false, None);
        rules.age_ms = Some(1_000);
        let mut batch = Batch::new(rules, vec![0, 500, 2_000]);
        assert_eq!(batch.next(1_000), Step::Invoke(0..3));
        batch.report(Verdict::Failed);
        assert!(matches!(batch.next(1_000), Step::Wait(_)));
        let given_up = Step::GiveUp {
            records: 0..2,
            condition: Condition::RecordAgeExceeded,
            invocations: 1,
        };
        assert_eq!(batch.next(1_501), given_up);
        assert_eq!(batch.settled(), 2);
        assert_eq!(batch.next(1_501), Step::Invoke(2..3));
        batch.report(Verdict::Done);
        assert_eq!(batch.next(9_999), Step::Done);
    }

    #[test]
    fn what_was_not_run_is_no_attempt() {
        let mut batch = Batch::new(rules(true, Some(0)), vec![0; 2]);
        for wait in [100, 200, 400, 400] {
            assert_eq!(batch.next(0), Step::Invoke(0..2));
            batch.report(Verdict::NotRun);
            assert_eq!(batch.next(0), Step::Wait(Duration::from_millis(wait)));
        }
        assert_eq!(batch.next(0), Step::Invoke(0..2));
    }
}

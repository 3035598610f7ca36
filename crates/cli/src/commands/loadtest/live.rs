//! How far a load test is, on standard error while it runs.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use zae_limiter_loadtest::{Progress, Timeline};

use super::report::latency;
use crate::say;
use crate::text::number::grouped;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of a test.
pub(super) enum Live {
    /// Results are printed as JSON.
    Silent,
    /// Lines. How far the test was at the last one, and how many calls there were.
    Lines(Duration, u64),
    /// In place, on a terminal.
    Bar(ProgressBar),
}

impl Live {
    /// For a test of this length.
    pub(super) fn new(is_json: bool, length: Duration) -> Self {
        if is_json {
            return Self::Silent;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines(Duration::ZERO, 0);
        }
        let bar = ProgressBar::new(length.as_secs());
        let style = ProgressStyle::with_template("  [{bar:40}] {pos}s of {len}s\n{msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    /// How often it shows something.
    pub(super) fn every(&self) -> Duration {
        match self {
            Self::Silent | Self::Lines(..) => LINE_EVERY,
            Self::Bar(_) => Timeline::EVERY,
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        match self {
            Self::Silent => {}
            Self::Lines(at, calls) => {
                let since = progress.elapsed.saturating_sub(*at);
                if since >= LINE_EVERY {
                    let all = progress.total.calls();
                    let rate = all.saturating_sub(*calls) as f64 / since.as_secs_f64();
                    say(&line_of(progress, rate));
                    (*at, *calls) = (progress.elapsed, all);
                }
            }
            Self::Bar(bar) => {
                bar.set_position(progress.elapsed.as_secs());
                bar.set_message(view_of(progress));
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Percentiles since the start.
fn percentiles(progress: &Progress, separator: &str) -> String {
    let shown = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
        .map(|(name, part)| format!("{name}{separator}{}", latency(progress.total.quantile(part))));
    shown.join(if separator == "=" { ", " } else { "   " })
}

fn line_of(progress: &Progress, rate: f64) -> String {
    let cores = progress
        .cores
        .map_or(String::new(), |cores| format!(", cpu={cores:.2} cores"));
    format!(
        "  [{}s] users={}, rps={rate:.1}, {}, refused={}, failures={}{cores}",
        progress.elapsed.as_secs(),
        progress.users,
        percentiles(progress, "="),
        progress.refused,
        progress.total.failures(),
    )
}

fn view_of(progress: &Progress) -> String {
    let cores = progress
        .cores
        .map_or(String::new(), |cores| format!("   CPU {cores:.2} cores"));
    format!(
        "  Users {}   RPS {:.1}   refused {}   failures {}\n  {}{cores}",
        grouped(progress.users as i128),
        progress.per_second,
        grouped(progress.refused.into()),
        grouped(progress.total.failures().into()),
        percentiles(progress, " "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use zae_limiter_loadtest::{Event, Stats};

    #[test]
    fn both_views_tell_the_same() {
        let mut stats = Stats::default();
        for millis in [4, 5, 30] {
            stats.add(Event::Acquire, "api", Duration::from_millis(millis), None);
        }
        stats.add(
            Event::Acquire,
            "api",
            Duration::from_secs(1),
            Some("down".to_owned()),
        );
        let progress = Progress {
            elapsed: Duration::from_millis(5100),
            users: 1200,
            per_second: 428.57,
            refused: 1000,
            total: stats.total(),
            recent: stats.total(),
            cores: Some(1.5),
        };
        assert_eq!(
            line_of(&progress, 428.57),
            "  [5s] users=1200, rps=428.6, p50=5.00ms, p95=1000ms, p99=1000ms, refused=1000, failures=1, cpu=1.50 cores"
        );
        assert_eq!(
            view_of(&progress),
            "  Users 1,200   RPS 428.6   refused 1,000   failures 1\n  p50 5.00ms   p95 1000ms   p99 1000ms   CPU 1.50 cores"
        );
    }
}

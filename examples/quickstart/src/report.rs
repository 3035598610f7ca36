//! Formats the report: what is replayed, and the results.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use zae_limiter::Limit;

use crate::books::{Account, Books, Standing};
use crate::plan::Call;
use crate::replay::Totals;
use crate::setup::{Setup, key};
use crate::zipf::Zipf;

/// The table lists this many keys; the others are added up.
const KEYS_SHOWN: usize = 10;

/// The facts that the report begins with.
pub(crate) struct Opening<'a> {
    pub(crate) trace: &'a str,
    pub(crate) calls: &'a [Call],
    pub(crate) place: &'a str,
    pub(crate) setup: &'a Setup,
    pub(crate) traffic: &'a Zipf,
    pub(crate) books: &'a Books,
}

impl Opening<'_> {
    /// Formats what will be replayed, where, and under which limits.
    pub(crate) fn text(&self) -> String {
        let lasts = self.calls.last().map_or(0, |call| call.at_ms);
        let mut text = format!(
            "Replays {} requests to a language model, recorded over {} ({}),\n\
             against limits in an embedded table ({}), without server, network or credentials.\n\n",
            count(self.calls.len() as u64),
            span(Duration::from_millis(lasts.unsigned_abs())),
            self.trace,
            self.place,
        );
        for (i, level) in self.setup.levels.iter().enumerate() {
            let limits: Vec<String> = level.limits.iter().map(describe).collect();
            let label = if i == 0 { "Limits" } else { "" };
            let _ = writeln!(
                text,
                "{label:<8} {:<8} {:<9} {}",
                level.name,
                level.scope,
                limits.join(", ")
            );
        }
        let keys = self.books.keys().len();
        let _ = write!(
            text,
            "Keys     {keys} of one project; what they use is also taken from the project"
        );
        if keys > 1 {
            let percent = |rank| self.traffic.part(rank) * 100.0;
            let (first, last) = (key(0), key(keys - 1));
            let _ = write!(
                text,
                "; {first} makes {:.0}% of the calls, {last} {:.1}%",
                percent(0),
                percent(keys - 1)
            );
        }
        text.push_str(
            "\nCalls    take 1 rpm and an estimate of tpm, corrected at the end; 2% fail and are rolled back\n\
             Refused  calls are retried once, after the wait that the refusal returned\n",
        );
        self.earlier(&mut text);
        text
    }

    /// Formats the state that earlier runs left in the table.
    fn earlier(&self, text: &mut String) {
        if self.setup.keys_found == 0 {
            return;
        }
        let Standing {
            available, counted, ..
        } = self.books.project().before;
        let [requests, tokens] = counted.map(|sum| grouped(sum.floor_tokens()));
        let [rpm, tpm] = available.map(grouped);
        let _ = writeln!(
            text,
            "Goes on  from an earlier run: {} keys exist, the project has used {requests} rpm and {tokens} tpm so far,\n         \
             it has {rpm} rpm and {tpm} tpm left",
            self.setup.keys_found,
        );
    }
}

/// Formats usage, refusals and debts of each key and the project.
pub(crate) fn accounts(books: &Books) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "entity",
        "limit",
        "allows",
        "used",
        "refused",
        "left",
        "debt",
        "most debt",
    ]);
    for account in books.keys().iter().take(KEYS_SHOWN).chain([books.project()]) {
        for (i, limit) in account.limits.iter().enumerate() {
            table.add_row(row(account, i, limit));
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("\n{table}\n");
    let others = books.keys().get(KEYS_SHOWN..).unwrap_or_default();
    if !others.is_empty() {
        let [rpm, tpm] = [0, 1].map(|i| grouped(others.iter().map(|account| account.spending[i].used).sum()));
        let refused = others
            .iter()
            .flat_map(|account| account.spending)
            .map(|spending| spending.refused)
            .sum();
        let (n, refused) = (others.len(), count(refused));
        let _ = writeln!(
            text,
            "{n} more keys used {rpm} rpm and {tpm} tpm, and were refused {refused} times"
        );
    }
    text
}

fn row(account: &Account, i: usize, limit: &Limit) -> [String; 8] {
    let (spending, left) = (account.spending[i], account.after.available[i]);
    let debt = |tokens: i64| {
        if tokens > 0 {
            grouped(tokens)
        } else {
            "-".to_owned()
        }
    };
    [
        if i == 0 { account.id.clone() } else { String::new() },
        limit.name().to_string(),
        rate(limit),
        grouped(spending.used),
        count(spending.refused),
        grouped(left.max(0)),
        debt(-left),
        debt(spending.owed_at_most),
    ]
}

/// Formats the totals.
pub(crate) fn closing(totals: &Totals, books: &Books, lasted: Duration, took: Duration) -> String {
    let admitted = totals.admitted_at_once + totals.admitted_later;
    let mut text = format!(
        "\nRequests {}: {} admitted at once, {} on the retry, {} refused twice, {} larger than the limit\n",
        count(totals.arrived),
        count(totals.admitted_at_once),
        count(totals.admitted_later),
        count(totals.given_up),
        count(totals.never_possible),
    );
    let (kept, failed) = (count(totals.committed), count(totals.rolled_back));
    let _ = writeln!(
        text,
        "Calls    {}: {kept} corrected and kept, {failed} failed and rolled back",
        count(admitted)
    );
    let _ = write!(
        text,
        "Waits    {} returned: {} retries admitted, {} refused since other keys took the tokens",
        count(totals.promised),
        count(totals.admitted_later),
        count(totals.overtaken),
    );
    if totals.unforeseen > 0 {
        let _ = write!(
            text,
            ", {} refused by a limit that had not been checked",
            count(totals.unforeseen)
        );
    }
    text.push('\n');
    let steps = [
        ("Table", "an admission", &totals.admitting),
        ("", "a refusal", &totals.refusing),
        ("", "a correction or rollback", &totals.correcting),
    ];
    for (label, what, cost) in steps {
        let each = |sum: f64| sum / cost.times.max(1) as f64;
        let _ = writeln!(
            text,
            "{label:<8} {what:<24} cost {:.2} requests, {:.2} write units, {:.2} read units on average",
            each(cost.requests as f64),
            each(cost.write_units),
            each(cost.read_units),
        );
    }
    let [rpm, tpm] = [0, 1].map(|i| grouped(books.project().spending[i].used));
    let _ = writeln!(
        text,
        "Books    agree on {rpm} rpm and {tpm} tpm: the leases, the keys' buckets, the project's bucket"
    );
    let _ = writeln!(text, "Took     {:.2} s for {}", took.as_secs_f64(), span(lasted));
    text
}

/// The suggestion at the end.
pub(crate) fn next(kept: bool, own_trace: bool) -> &'static str {
    if !kept {
        "\nNext     keep the table and run it twice: --data-dir target/limits-demo\n"
    } else if own_trace {
        "\nNext     run it again: it goes on from here\n"
    } else {
        "\nNext     run it again, or replay a recorded hour: --trace FILE (see examples/data/README.md)\n"
    }
}

/// A limit with its name: `tpm 60,000/min burst 100,000`.
fn describe(limit: &Limit) -> String {
    format!("{} {}", limit.name(), rate(limit))
}

fn rate(limit: &Limit) -> String {
    let period = match limit.refill_period().as_secs() {
        1 => "/s".to_owned(),
        60 => "/min".to_owned(),
        3600 => "/h".to_owned(),
        86_400 => "/day".to_owned(),
        secs => format!("/{secs} s"),
    };
    let burst = if limit.capacity() == limit.refill_amount() {
        String::new()
    } else {
        format!(" burst {}", count(limit.capacity()))
    };
    format!("{}{period}{burst}", count(limit.refill_amount()))
}

/// A span of time, to the second: `57 min 16 s`.
pub(crate) fn span(span: Duration) -> String {
    let secs = span.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, secs) => format!("{secs} s"),
        (0, mins, secs) => format!("{mins} min {secs} s"),
        (hours, mins, _) => format!("{hours} h {mins} min"),
    }
}

/// A count with commas.
pub(crate) fn count(number: u64) -> String {
    grouped(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A number with commas: `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let texts = [0, 999, 1_000, -1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "-1,234,567"]);
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let texts = [59, 3_436, 3_660].map(|secs| span(Duration::from_secs(secs)));
        assert_eq!(texts, ["59 s", "57 min 16 s", "1 h 1 min"]);
    }

    #[test]
    fn limits_read_as_people_say_them() {
        let limit = Limit::per_minute("tpm", 60_000).burst(100_000).build().unwrap();
        assert_eq!(describe(&limit), "tpm 60,000/min burst 100,000");
    }
}

//! The documents name the metrics and spans that exist, and all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use zae_limiter::telemetry::{Kind, METRICS, OPTIONAL_LABELS, SPANS};

fn docs(path: &str) -> String {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(path);
    fs::read_to_string(&docs).unwrap_or_else(|err| panic!("{}: {err}", docs.display()))
}

/// The cells of the rows of a table whose first cell begins so, between backticks.
fn rows(text: &str, begins: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text
        .lines()
        .filter(|line| line.starts_with(&format!("| `{begins}")));
    rows.map(cells).collect()
}

/// How the names of metrics of `zae-limiter-tower` begin, which has a test of its own for them.
const OF_TOWER: &str = "zae_limiter_tower_";

/// How those of `zae-limiter-server` begin, which has such a test, too.
const OF_SERVER: &str = "zae_limiter_server_";

fn listed(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[test]
fn the_page_lists_all_metrics_and_spans_and_nothing_else() {
    let text = docs("observability.md");
    let metrics = METRICS.iter().map(|metric| {
        let labels = metric.labels.iter().map(|label| {
            let mark = if OPTIONAL_LABELS.contains(label) { "?" } else { "" };
            format!("`{label}`{mark}")
        });
        let labels = labels.collect::<Vec<_>>().join(", ");
        let name = format!("`{}`", metric.name);
        let row = [
            &name,
            metric.kind.as_str(),
            metric.unit.as_str(),
            &labels,
            metric.help,
        ];
        row.map(ToOwned::to_owned).to_vec()
    });
    let expected: Vec<Vec<String>> = metrics.collect();
    let mut listed_metrics = rows(&text, "zae_limiter_");
    listed_metrics.retain(|row| !row[0].contains(OF_TOWER));
    assert_eq!(listed_metrics, expected);
    let spans = SPANS.iter().map(|span| {
        let name = format!("`{}`", span.name);
        let row = [&name, span.level, &listed(span.fields), span.help];
        row.map(ToOwned::to_owned).to_vec()
    });
    let expected: Vec<Vec<String>> = spans.collect();
    assert_eq!(rows(&text, "zae_limiter."), expected);
}

/// The names that a text has, without what queries add to those of histograms.
fn names(text: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for (at, _) in text.match_indices("zae_limiter_") {
        let rest = &text[at..];
        let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        if name.starts_with(OF_TOWER) || name.starts_with(OF_SERVER) {
            continue;
        }
        let metric = METRICS.iter().find(|metric| {
            let suffixes: &[&str] = match metric.kind {
                Kind::Histogram => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(metric.name))
        });
        found.insert(
            metric
                .unwrap_or_else(|| panic!("'{name}' is not a series of any metric"))
                .name,
        );
    }
    found
}

/// The expressions of all panels, with their titles.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expr = target["expr"].as_str().unwrap();
            if !expr.contains(OF_TOWER) {
                queries.push((title.to_owned(), expr.to_owned()));
            }
        }
    }
    queries
}

#[test]
fn the_dashboard_shows_every_metric() {
    let text = docs("grafana/dashboard.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let all: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names(&text), all);
    let queries = queries(&dashboard);
    let shown: Vec<&str> = queries.iter().map(|(_, expr)| expr.as_str()).collect();
    assert_eq!(
        names(&shown.join("\n")),
        all,
        "some are named, but not by a query"
    );
    for (title, expr) in &queries {
        check_labels(title, expr);
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let is_source = |variable: &Value| variable["type"] == "datasource" && variable["query"] == "prometheus";
    assert!(variables.iter().any(is_source));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

/// Labels in selectors and groupings are those of the metrics of the query.
#[track_caller]
fn check_labels(what: &str, expr: &str) {
    let of_metrics: BTreeSet<&str> = METRICS
        .iter()
        .filter(|metric| names(expr).contains(metric.name))
        .flat_map(|metric| metric.labels.iter().copied())
        // Those of Prometheus itself.
        .chain(["le", "instance", "job"])
        .collect();
    let mut used = Vec::new();
    for part in expr.split('{').skip(1) {
        let selectors = part.split('}').next().unwrap();
        used.extend(
            selectors
                .split(',')
                .filter_map(|one| one.split(['=', '!']).next()),
        );
    }
    for part in expr.split("by (").skip(1) {
        used.extend(part.split(')').next().unwrap().split(','));
    }
    for label in used.into_iter().map(str::trim).filter(|label| !label.is_empty()) {
        assert!(
            of_metrics.contains(label),
            "{what}: no metric of '{expr}' has the label '{label}'"
        );
    }
}

#[test]
fn alert_rules_name_metrics_that_exist() {
    let text = docs("grafana/alerts.yaml");
    let named = names(&text);
    for needed in [
        "zae_limiter_refusals_total",
        "zae_limiter_table_seconds",
        "zae_limiter_corrections_total",
        "zae_limiter_breaker_open",
        "zae_limiter_acquires_total",
        "zae_limiter_clock_offset_seconds",
        "zae_limiter_calls_waiting",
    ] {
        assert!(named.contains(needed), "{needed}");
    }
    let rules = text.matches("- alert: ").count();
    assert!(rules >= 8);
    let exprs: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(exprs.len(), rules, "each rule has an expression of one line");
    for expr in exprs.iter().filter(|expr| !expr.contains(OF_SERVER)) {
        assert!(!names(expr).is_empty(), "{expr}");
        check_labels("alerts.yaml", expr);
    }
    for field in ["severity: ", "summary: ", "for: "] {
        assert_eq!(text.matches(field).count(), rules, "{field}");
    }
}

/// All sources of the library.
fn sources() -> String {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn log_lines_of_the_page_are_written() {
    let (text, sources) = (docs("observability.md"), sources());
    let section = text
        .split("\n## ")
        .find(|part| part.starts_with("Log lines"))
        .unwrap();
    let messages = section
        .lines()
        .filter(|line| line.starts_with("| \""))
        .flat_map(|line| {
            let cell = line.split(" | ").next().unwrap();
            cell.split('"').skip(1).step_by(2)
        });
    let messages: Vec<&str> = messages.collect();
    assert!(messages.len() >= 20, "{messages:?}");
    for message in messages {
        assert!(sources.contains(message), "no line of the log has '{message}'");
    }
}

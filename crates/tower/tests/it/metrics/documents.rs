//! The page and the dashboard name the metrics of the layers that exist, and all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use zae_limiter::telemetry::Metric;
use zae_limiter_tower::telemetry::METRICS;

const PREFIX: &str = "zae_limiter_tower_";

fn docs(path: &str) -> String {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(path);
    fs::read_to_string(&docs).unwrap_or_else(|err| panic!("{}: {err}", docs.display()))
}

#[test]
fn the_page_lists_all_metrics_of_the_layers_and_nothing_else() {
    let text = docs("observability.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with(&format!("| `{PREFIX}")));
    let rows: Vec<&str> = rows.collect();
    let expected = METRICS.iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit.as_str(),
            labels.join(", "),
            metric.help
        )
    });
    assert_eq!(rows, expected.collect::<Vec<String>>());
}

/// The metrics of the layers that a text names.
fn named(text: &str) -> Vec<&'static Metric> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.match_indices(PREFIX).map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())]
    });
    names
        .map(|name| {
            let listed = METRICS.iter().find(|metric| metric.name == name);
            listed.unwrap_or_else(|| panic!("'{name}' is not a metric"))
        })
        .collect()
}

#[test]
fn the_dashboard_shows_every_metric_of_the_layers() {
    let dashboard: Value = serde_json::from_str(&docs("grafana/dashboard.json")).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let metrics = named(expr);
            shown.extend(metrics.iter().map(|metric| metric.name));
            if !metrics.is_empty() {
                check_labels(expr, &metrics);
            }
        }
    }
    let all: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
}

/// Labels in selectors and groupings are those of the metrics of the query.
#[track_caller]
fn check_labels(expr: &str, metrics: &[&Metric]) {
    let selectors = expr.split('{').skip(1).filter_map(|part| part.split('}').next());
    let selectors = selectors.flat_map(|all| all.split(',').filter_map(|one| one.split(['=', '!']).next()));
    let groups = expr
        .split("by (")
        .skip(1)
        .filter_map(|part| part.split(')').next());
    let used = selectors.chain(groups.flat_map(|all| all.split(',')));
    for label in used.map(str::trim).filter(|label| !label.is_empty()) {
        let is_known = metrics.iter().all(|metric| metric.labels.contains(&label));
        assert!(is_known, "'{expr}' has the label '{label}'");
    }
}

#[test]
fn alert_rules_name_metrics_of_the_layers_that_exist() {
    for line in docs("grafana/alerts.yaml").lines() {
        if let Some(expr) = line.trim().strip_prefix("expr: ") {
            check_labels(expr, &named(expr));
        }
    }
}

//! The page, the dashboard and the alert rules name the metrics of the server that exist, and all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

const PREFIX: &str = "zae_limiter_server_";

/// Every metric, with its labels.
const ALL: [(&str, &[&str]); 11] = [
    (DESCRIPTORS, &["domain", "rule", "outcome"]),
    (UNMATCHED, &["domain"]),
    (FAULTS, &[]),
    (REQUESTS, &["port", "code"]),
    (SECONDS, &["port"]),
    (IN_FLIGHT, &["port"]),
    (SHED, &["port"]),
    (CONNECTIONS, &["port"]),
    (REJECTED, &["port"]),
    (SWEPT, &["outcome"]),
    (RELOADS, &["file", "outcome"]),
];

fn docs(path: &str) -> String {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(path);
    fs::read_to_string(&docs).unwrap_or_else(|err| panic!("{}: {err}", docs.display()))
}

#[test]
fn the_page_lists_every_metric_with_its_labels() {
    let text = docs("serve.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with(&format!("| `{PREFIX}")));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), ALL.len(), "{rows:#?}");
    for ((name, labels), row) in ALL.iter().zip(rows) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let begin = format!("| `{name}` | {} |", labels.join(", ")).replace("|  |", "| |");
        assert!(row.starts_with(&begin), "'{row}' should begin with '{begin}'");
    }
}

/// The metrics that a query names.
fn named(expr: &str) -> BTreeSet<&'static str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = expr.match_indices(PREFIX).map(|(at, _)| {
        let rest = &expr[at..];
        &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())]
    });
    names
        .map(|name| {
            let suffixes = ["_bucket", "_sum", "_count"];
            let of_histogram = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let name = of_histogram.filter(|name| *name == SECONDS).unwrap_or(name);
            let known = ALL.iter().find(|(known, _)| *known == name);
            known.unwrap_or_else(|| panic!("'{name}' is not a metric")).0
        })
        .collect()
}

/// Labels in selectors and groupings are those of all metrics of the query, or of Prometheus.
#[track_caller]
fn check_labels(expr: &str) {
    let metrics = named(expr);
    let selectors = expr.split('{').skip(1).filter_map(|part| part.split('}').next());
    let selectors = selectors.flat_map(|all| all.split(',').filter_map(|one| one.split(['=', '!']).next()));
    let groups = expr
        .split("by (")
        .skip(1)
        .filter_map(|part| part.split(')').next());
    let used = selectors.chain(groups.flat_map(|all| all.split(',')));
    for label in used.map(str::trim).filter(|label| !label.is_empty()) {
        let mut of_metrics = ALL.iter().filter(|(name, _)| metrics.contains(name));
        let is_known = ["le", "job", "instance"].contains(&label)
            || of_metrics.all(|(_, labels)| labels.contains(&label));
        assert!(is_known, "'{expr}' has the label '{label}'");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard: Value = serde_json::from_str(&docs("grafana/server.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            let expr = target["expr"].as_str().unwrap();
            assert!(!named(expr).is_empty(), "{expr}");
            check_labels(expr);
            shown.extend(named(expr));
        }
    }
    assert_eq!(shown, ALL.iter().map(|(name, _)| *name).collect());
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

#[test]
fn alert_rules_name_metrics_that_exist() {
    let text = docs("grafana/alerts.yaml");
    let exprs = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let exprs: Vec<&str> = exprs.filter(|expr| expr.contains(PREFIX)).collect();
    assert!(exprs.len() >= 5, "{exprs:#?}");
    for expr in exprs {
        check_labels(expr);
    }
}

//! JSON and the page.

use zae_limiter_replay::{Options, Report, draw};

use crate::{manifest, options, try_played};

const SAMPLE: &str = include_str!("../../../../examples/data/sample-trace.csv");

fn sample(seed: u64) -> Report {
    let yaml = "resources: {gpt-4: {limits: {rpm: {capacity: 200}, tpm: {capacity: 180000}}}}";
    let declared = [manifest("limits.yaml", yaml)];
    let mut trace = options(&declared);
    trace.entity = Some("key-1".try_into().unwrap());
    let choices = Options {
        seed,
        ..Options::default()
    };
    try_played(SAMPLE, &declared, trace, &choices).unwrap()
}

#[test]
fn one_seed_gives_the_same_bytes() {
    let (first, second) = (sample(7), sample(7));
    assert_eq!(first.to_json().to_string(), second.to_json().to_string());
    assert_eq!(draw::page(&first, 10), draw::page(&second, 10));
}

#[test]
fn the_json_adds_up() {
    let json = sample(0).to_json();
    let run = &json["runs"][0];
    let number = |name: &str| run[name].as_u64().unwrap();
    assert_eq!(json["trace"]["requests"], 563);
    assert_eq!(number("admitted") + number("refused") + number("failed"), 563);
    let sum = |of: &serde_json::Value| {
        of.as_array()
            .unwrap()
            .iter()
            .filter_map(serde_json::Value::as_u64)
            .sum::<u64>()
    };
    assert_eq!(sum(&run["timeline"]["arrived"]), 563);
    assert_eq!(sum(&run["timeline"]["refusals"]), number("refusals"));
    let limit = &run["limits"][0];
    assert_eq!(
        sum(&limit["refusals_timeline"]),
        limit["refusals"].as_u64().unwrap()
    );
    assert_eq!(
        json["timeline_begins"].as_array().unwrap().len(),
        run["timeline"]["arrived"].as_array().unwrap().len()
    );
    assert_eq!(json["timeline_begins"][0], "2026-01-15T09:30:00.000Z");
}

/// What a page consists of: its tags, without their contents.
fn tags(page: &str) -> Vec<&str> {
    page.split('<')
        .skip(1)
        .map(|tag| tag.split('>').next().unwrap())
        .collect()
}

#[test]
fn the_page_needs_no_other_file_and_escapes_names() {
    let declared = [
        manifest(
            "<script>alert(1)</script>.yaml",
            "system: {limits: {rpm: {capacity: 1}}}",
        ),
        manifest("\"'&.yaml", "system: {limits: {rpm: {capacity: 2}}}"),
    ];
    let text = "time,entity\n2026-01-15 09:30:00,a\n2026-01-15 09:30:00,a\n<img src=x onerror=y>,a\n";
    let mut trace = options(&declared);
    trace.skip_bad = true;
    let report = try_played(text, &declared, trace, &Options::default()).unwrap();
    let page = draw::page(&report, 10);
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;.yaml")
            && page.contains("&lt;img src=x onerror=y&gt;")
    );
    assert!(page.contains("&quot;&#39;&amp;.yaml"));
    for tag in tags(&page) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        let known = [
            "!doctype", "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div",
            "table", "tr", "th", "td", "svg", "g", "line", "text", "rect",
        ];
        assert!(known.contains(&name), "{tag}");
        assert!(
            !tag.contains("src=") && !tag.contains("href=") && !tag.contains(" on"),
            "{tag}"
        );
    }
    assert!(
        !page.contains("url(") && !page.contains("@import") && !page.contains("http"),
        "nothing from outside"
    );
    // Each element that is opened is closed.
    let (opened, closed): (Vec<_>, Vec<_>) = tags(&page)
        .into_iter()
        .filter(|tag| !tag.ends_with('/') && !tag.starts_with('!') && !tag.starts_with("meta"))
        .partition(|tag| !tag.starts_with('/'));
    assert_eq!(opened.len(), closed.len());
}

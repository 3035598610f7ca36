//! Whatever comes in, nothing panics.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Map, Value, json};
use zae_limiter_local::template::{Known, Recreation, Rules, Template, changes};

use super::{all_known, pseudo};

struct Always;

impl Rules for Always {
    fn recreation(&self, _: &str, _: &str) -> Recreation {
        Recreation::Always
    }
}

/// Reads, binds, evaluates and compares, as far as it goes; returns how far.
fn go(text: &str) -> &'static str {
    let Ok(template) = Template::parse_stored(text) else {
        return "refused";
    };
    let template = Arc::new(template);
    let _ = template.capabilities();
    let Ok(values) = template.values(&[], None) else {
        return "without values";
    };
    let Ok(bound) = template.bind(values, pseudo()) else {
        return "not bound";
    };
    let known = all_known(&bound);
    for (id, _) in bound.resources() {
        let _ = bound.properties(id, &known);
        let _ = bound.metadata(id, &known);
    }
    let _ = (bound.outputs(&known), bound.imports());
    // Against itself nothing changes.
    for known in [known, Known::default()] {
        if let Ok(found) = changes(&bound, &bound, &known, &Always) {
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }
    "evaluated"
}

/// A name that is likely to mean something.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "A",
        "B",
        "C",
        "P",
        "L",
        "On",
        "Off",
        "M",
        "a",
        "b",
        "AWS::Region",
        "AWS::NoValue",
        "AWS::StackName",
        "Arn",
        "A.Arn",
        "0",
        "1",
        "${A}-${P}",
        "${B.Arn}",
        "${!x}",
        "${",
        "",
        "é",
    ])
    .prop_map(str::to_owned)
}

/// A key of a function, most likely with arguments that it does not take.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "Ref",
        "Condition",
        "Fn::GetAtt",
        "Fn::Sub",
        "Fn::Join",
        "Fn::Select",
        "Fn::Split",
        "Fn::If",
        "Fn::FindInMap",
        "Fn::ImportValue",
        "Fn::Base64",
        "Fn::Equals",
        "Fn::Not",
        "Fn::And",
        "Fn::Or",
        "Fn::GetAZs",
    ])
    .prop_map(str::to_owned)
}

/// A call that takes its arguments.
fn call(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "P",
        "A",
        "AWS::Region",
        "AWS::StackName",
        "AWS::NoValue",
        "B",
        "L",
    ]);
    let list = prop_oneof![
        prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
        Just(json!({"Ref": "L"})),
        Just(json!({"Fn::Split": ["-", {"Ref": "P"}]})),
    ];
    prop_oneof![
        4 => text.prop_map(|name| json!({"Ref": name})),
        1 => Just(json!({"Fn::GetAtt": ["A", "Arn"]})),
        1 => Just(json!({"Fn::FindInMap": ["M", "a", "b"]})),
        3 => (prop::bool::ANY, inner.clone(), inner.clone())
            .prop_map(|(on, a, b)| json!({"Fn::If": [if on { "On" } else { "Off" }, a, b]})),
        2 => inner.prop_map(|value| json!({"Fn::Sub": ["${a}-${P}-${!x}", {"a": value}]})),
        2 => list.clone().prop_map(|list| json!({"Fn::Join": [",", list]})),
        1 => (0..3, list).prop_map(|(index, list)| json!({"Fn::Select": [index, list]})),
    ]
}

/// Mostly such that it can be evaluated; with `noise`, now and then not.
fn value(noise: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        8 => name().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            10 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            10 => (name(), inner.clone()).prop_map(|(key, value)| Value::Object(Map::from_iter([(key, value)]))),
            40 => call(inner.clone()),
            noise => (key(), inner).prop_map(|(key, value)| Value::Object(Map::from_iter([(key, value)]))),
        ]
    })
}

fn template(noise: u32) -> impl Strategy<Value = Value> {
    let value = move || value(noise);
    (value(), value(), value(), value(), prop::option::weighted(0.1, value())).prop_map(|(a, b, output, condition, rest)| {
        let mut template = json!({
            "Parameters": {"P": {"Type": "String", "Default": "p"}, "L": {"Type": "CommaDelimitedList", "Default": "0,1"}},
            "Mappings": {"M": {"a": {"b": "0", "1": ["x"]}}},
            "Conditions": {"On": {"Fn::Equals": ["a", "a"]}, "Off": {"Fn::Not": [{"Condition": "On"}]}},
            "Resources": {
                "A": {"Type": "AWS::SQS::Queue", "Properties": {"p": a}},
                "B": {"Type": "Custom::B", "Properties": {"p": b}, "Condition": "On"},
                "C": {"Type": "AWS::IAM::Role", "Condition": "Off"},
            },
            "Outputs": {"O": {"Value": output}},
        });
        if let Some(rest) = rest {
            template["Conditions"]["Random"] = condition;
            template["Resources"]["A"]["Metadata"] = rest;
        }
        template
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_templates_do_not_panic(template in template(2)) {
        go(&template.to_string());
    }

    #[test]
    fn random_values_as_templates_do_not_panic(value in value(20), section in name()) {
        go(&value.to_string());
        go(&json!({"Resources": value, section: value}).to_string());
    }

    #[test]
    fn random_text_does_not_panic(text in "[-a-zA-Z0-9:{}\\[\\],!&*#|>'\" \n\t?%@`é]{0,120}") {
        go(&text);
        go(&format!("Resources:\n  A:\n    Type: T\n    Properties:\n      {text}"));
    }
}

/// The strategy above reaches the evaluation often enough to mean something.
#[test]
fn random_templates_reach_everything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let tree = template(1).new_tree(&mut runner).unwrap().current();
        *reached.entry(go(&tree.to_string())).or_insert(0) += 1;
    }
    assert!(
        reached.get("evaluated").is_some_and(|times| *times > 20),
        "{reached:?}"
    );
    assert!(
        reached.contains_key("refused") && reached.contains_key("not bound"),
        "{reached:?}"
    );
}

#[test]
fn depth_is_bounded_before_anything_recurses() {
    for (open, close) in [("[", "]"), ("{\"Fn::Not\": [", "]}"), ("{\"x\": ", "}")] {
        for levels in [10, 45, 99, 100, 10_000] {
            let nested = format!("{}\"a\"{}", open.repeat(levels), close.repeat(levels));
            go(&format!(
                "{{\"Resources\": {{\"A\": {{\"Type\": \"T\", \"Properties\": {{\"p\": {nested}}}}}}}}}"
            ));
            go(&format!(
                "{{\"Resources\": {{\"A\": {{\"Type\": \"T\"}}}}, \"Conditions\": {{\"C\": {nested}}}}}"
            ));
            go(&format!(
                "Resources: {{A: {{Type: T, Properties: {{p: {nested}}}}}}}"
            ));
        }
    }
    go(&format!(
        "Resources: {{A: {{Type: T, Properties: {{p: {}a}}}}}}",
        "!Sub [a, {b: ".repeat(20_000)
    ));
    go(&"a:\n ".repeat(1000));
    let stairs: Vec<_> = (0..1000)
        .map(|level| format!("{}a:", " ".repeat(level)))
        .collect();
    go(&stairs.join("\n"));
}

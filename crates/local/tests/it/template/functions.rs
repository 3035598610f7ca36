//! Every function, in final values and in previews.

use serde_json::{Value, json};
use zae_limiter_local::template::{Known, has_unknown, is_unknown, unknown_causes};

use super::{bind, known, try_bind};

/// A template whose resource `R` has the property `P`, beside a resource `T`, parameters, a mapping and conditions.
fn with(property: &str) -> String {
    format!(
        "Parameters:
  Text: {{Type: String, Default: text}}
  Number: {{Type: Number, Default: 7}}
  List: {{Type: CommaDelimitedList, Default: 'a, b,c'}}
  Numbers: {{Type: List<Number>, Default: '1,2'}}
Mappings:
  M: {{eu-west-1: {{k: v, l: [x, y]}}}}
Conditions:
  Yes: !Equals [!Ref Text, text]
  No: !Not [{{Condition: Yes}}]
Resources:
  T: {{Type: AWS::SQS::Queue}}
  Gone: {{Type: AWS::SQS::Queue, Condition: No}}
  C: {{Type: Custom::Thing}}
  R:
    Type: AWS::X::Y
    Properties:
      P: {property}
"
    )
}

fn things() -> Known {
    let mut known = known(&[
        ("T", "t-1", &[("Arn", "arn:t"), ("A.B", "nested")]),
        ("C", "c-1", &[]),
    ]);
    known
        .exports
        .insert("other-Name".to_owned(), "imported".to_owned());
    known
}

#[track_caller]
fn check(property: &str, expected: &Value) {
    let bound = bind(&with(property), &[]);
    assert_eq!(
        bound.properties("R", &things()).unwrap().get("P"),
        Some(expected),
        "{property}"
    );
    assert_eq!(
        bound.preview("R", &things()).unwrap().get("P"),
        Some(expected),
        "{property}"
    );
}

#[track_caller]
fn refused(property: &str, expected: &str) {
    let error = match try_bind(&with(property), &[]) {
        Ok(bound) => bound.properties("R", &things()).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.to_string(), expected, "{property}");
}

#[test]
fn references() {
    check("!Ref Text", &json!("text"));
    check("!Ref Number", &json!("7"));
    check("!Ref List", &json!(["a", "b", "c"]));
    check("!Ref Numbers", &json!(["1", "2"]));
    check("!Ref T", &json!("t-1"));
    check("!Ref AWS::StackName", &json!("app"));
    check(
        "!Ref AWS::StackId",
        &json!("arn:aws:cloudformation:eu-west-1:123456789012:stack/app/1"),
    );
    check("!Ref AWS::Region", &json!("eu-west-1"));
    check("!Ref AWS::AccountId", &json!("123456789012"));
    check("!Ref AWS::Partition", &json!("aws"));
    check("!Ref AWS::URLSuffix", &json!("amazonaws.com"));
    check("!Ref AWS::NotificationARNs", &json!(["arn:one", "arn:two"]));
    check(
        "[1, !Ref AWS::NoValue, {a: !Ref AWS::NoValue, b: true}]",
        &json!([1, {"b": true}]),
    );
    check("!GetAtt T.Arn", &json!("arn:t"));
    check("!GetAtt T.A.B", &json!("nested"));
    check("!ImportValue other-Name", &json!("imported"));
}

#[test]
fn texts() {
    check(
        "!Sub 'a ${Text} ${AWS::Region} ${T} ${T.Arn} ${T.A.B} ${!Text} $Text'",
        &json!("a text eu-west-1 t-1 arn:t nested ${Text} $Text"),
    );
    check(
        "!Sub ['${x}-${Text}', {x: !GetAtt T.Arn, Text: own}]",
        &json!("arn:t-own"),
    );
    check("!Sub ['${x}', {x: 5}]", &json!("5"));
    check(
        "!Join ['-', [a, 1, true, !Ref T, !Ref AWS::NoValue]]",
        &json!("a-1-true-t-1"),
    );
    check("!Join ['', !Ref List]", &json!("abc"));
    check("!Select [1, !Ref List]", &json!("b"));
    check("!Select ['0', [!Ref T, x]]", &json!("t-1"));
    check("!Split [':', 'a::b']", &json!(["a", "", "b"]));
    check(
        "!Select [2, !Split [':', !Ref AWS::StackId]]",
        &json!("cloudformation"),
    );
    check("!FindInMap [M, !Ref AWS::Region, k]", &json!("v"));
    check("!Select [1, !FindInMap [M, !Ref AWS::Region, l]]", &json!("y"));
    check(
        "!ImportValue {'Fn::Join': ['-', [other, Name]]}",
        &json!("imported"),
    );
}

#[test]
fn branches() {
    check("!If [Yes, [1], 2]", &json!([1]));
    check("!If [No, 1, {a: !If [Yes, x, y]}]", &json!({"a": "x"}));
    check("{a: !If [No, 1, !Ref AWS::NoValue], b: 2}", &json!({"b": 2}));
    // What is not taken may refer to what does not exist.
    check("!If [No, !GetAtt Gone.Arn, none]", &json!("none"));
    let bound = bind(&with("!If [Yes, !Ref AWS::NoValue, 1]"), &[]);
    assert_eq!(bound.properties("R", &things()).unwrap(), json!({}));
}

#[test]
fn literals_keep_their_types() {
    check(
        "[1, 1.5, true, yes, 0123, 2012-10-17, '5', 123456789012]",
        &json!([
            1,
            1.5,
            true,
            "yes",
            "0123",
            "2012-10-17",
            "5",
            123_456_789_012_u64
        ]),
    );
    check(
        "{Version: 2012-10-17, Condition: {Bool: {x: 'true'}}, Ref: {a: 1}}",
        &json!({"Version": "2012-10-17", "Condition": {"Bool": {"x": "true"}}, "Ref": {"a": 1}}),
    );
}

#[test]
fn what_is_not_there() {
    refused(
        "!GetAtt T.Nope",
        "Template error: resource T does not support attribute type Nope in Fn::GetAtt",
    );
    refused(
        "!GetAtt C.Nope",
        "CustomResource attribute error: Vendor response doesn't contain Nope attribute in object C",
    );
    refused(
        "!Ref Gone",
        "Template format error: Unresolved resource dependencies [Gone] in the Resources block of the template",
    );
    refused(
        "!Sub '${Gone.Arn}'",
        "Template format error: Unresolved resource dependencies [Gone] in the Resources block of the template",
    );
    refused(
        "!Select [3, !Ref List]",
        "Template error: Fn::Select cannot select nonexistent value at index 3",
    );
    refused(
        "!Select [-1, !Ref List]",
        "Template error: Fn::Select cannot select nonexistent value at index -1",
    );
    refused("!ImportValue nope", "No export named nope found");
    refused(
        "!FindInMap [M, !Ref AWS::Region, z]",
        "Template error: Unable to get mapping for M::eu-west-1::z",
    );
    refused(
        "!Sub '${List}'",
        "Template error: Fn::Sub expression does not resolve to a string: List is a list or an object",
    );
    refused(
        "!Join ['', [[a]]]",
        "Template error: every element of the list of Fn::Join must be a string",
    );
    refused(
        "!Join ['', !Ref Text]",
        "Template error: the second value of Fn::Join must be a list of strings",
    );
}

#[test]
fn previews_mark_what_is_not_known() {
    let property = "{a: !Ref T, b: !Sub 'x-${T.Arn}-${C}', c: !Join [',', [1, !GetAtt T.Arn]], d: !Select [1, [!Ref T, known]],
        e: !ImportValue nope, f: !Split [',', !GetAtt T.Arn], g: !Select [0, !Split [',', !Ref T]], h: 1}";
    let bound = bind(&with(property), &[]);
    let preview = bound.preview("R", &Known::default()).unwrap();
    let property = &preview["P"];
    for (name, causes) in [
        ("a", vec!["T"]),
        ("b", vec!["C", "T.Arn"]),
        ("c", vec!["T.Arn"]),
        ("e", vec!["Fn::ImportValue nope"]),
        ("f", vec!["T.Arn"]),
        ("g", vec!["T"]),
    ] {
        assert!(is_unknown(&property[name]), "{name}");
        assert_eq!(
            unknown_causes(&property[name]).into_iter().collect::<Vec<_>>(),
            causes,
            "{name}"
        );
    }
    assert_eq!((&property["d"], &property["h"]), (&json!("known"), &json!(1)));
    assert!(has_unknown(property) && !is_unknown(property));
    assert_eq!(
        bound.properties("R", &Known::default()).unwrap_err().to_string(),
        "Template error: T is not known yet"
    );
}

#[test]
fn imports_of_taken_branches() {
    let bound = bind(
        &with("[!ImportValue a, !If [No, !ImportValue b, !ImportValue {'Fn::Sub': '${AWS::StackName}-c'}]]"),
        &[],
    );
    assert_eq!(
        bound.imports().unwrap().into_iter().collect::<Vec<_>>(),
        ["a", "app-c"]
    );
}

//! Rules as files: what is read, and what is wrong with the rest.

use super::*;

/// Checks that a file is refused with exactly these lines.
#[track_caller]
fn check_refused(text: &str, lines: &[&str]) {
    let err = Rules::from_yaml(text.as_bytes()).unwrap_err();
    assert_eq!(err.to_string(), lines.join("\n"));
}

/// A file with these fields in its only rule, from line 6 on.
fn with_rule(fields: &str) -> String {
    let fields = fields.replace('\n', "\n        ");
    format!("version: 1\ndomains:\n  gateway:\n    rules:\n      - name: one\n        {fields}\n")
}

const RULE: &str = "match: {api_key: '*'}\nentity: '{api_key}'\nresource: api\nconsume: {rpm: 1}";

#[test]
fn wrong_files_are_refused_with_every_problem_and_its_place() {
    check_refused(
        "",
        &["line 1, column 1: the file of rules is empty; it must at least say 'version: 1'"],
    );
    check_refused(
        "[]",
        &["line 1, column 1: the file of rules is a list of 0: it must be a mapping of names to values"],
    );
    check_refused("version: 2", &["line 1, column 10: version is 2: it must be 1"]);
    check_refused(
        "domains: {}",
        &["line 1, column 1: version is missing; this program reads 'version: 1'"],
    );
    check_refused(
        "version: 1\nversion: 1",
        &["line 2, column 1: version is given twice; one of them must go"],
    );
    check_refused(
        "version: 1\ndomains:\n  a: {rule: []}\n  b: {rules: {}, headers: [ietff]}",
        &[
            "line 3, column 7: domains.a.rule is unknown; did you mean 'rules'?",
            "line 4, column 14: domains.b.rules is a mapping of 0: it must be a list of rules",
            "line 4, column 28: domains.b.headers.0 is 'ietff': it must be a list of 'ietf' and 'x-ratelimit'; an empty list is for none",
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_rules_are_refused() {
    let at = "domains.gateway.rules.0";
    for (fields, line) in [
        (
            "match: {api_key: '*'}",
            vec![
                format!(
                    "line 5, column 9: {at}.entity is missing; it is a name, or a template such as '{{api_key}}'"
                ),
                format!(
                    "line 5, column 9: {at}.resource is missing; it is a name, or a template such as '{{api_key}}'"
                ),
                format!(
                    "line 5, column 9: {at}.consume is missing; it must name at least one limit, such as {{rpm: 1}}"
                ),
            ],
        ),
        (
            "match: {api_key: 7}\nentity: a\nresource: b\nconsume: {rpm: 1}",
            vec![format!(
                "line 6, column 26: {at}.match.api_key is 7: it must be a text or a list of texts; put numbers and truth values in quotes"
            )],
        ),
        (
            "match: {a: '*b'}\nentity: a\nresource: b\nconsume: {rpm: 1}",
            vec![format!(
                "line 6, column 20: {at}.match.a is '*b': it can have '*' only at its end, for all values that begin with the rest"
            )],
        ),
        (
            "match: {api_key: '*'}\nentity: '{apikey}'\nresource: b\nconsume: {rpm: 1}",
            vec![format!(
                "line 7, column 17: {at}.entity has '{{apikey}}', which is not a key of 'match'; did you mean '{{api_key}}'?"
            )],
        ),
        (
            "match: {a: '*'}\nentity: '{a'\nresource: b\nconsume: {rpm: 1}",
            vec![format!(
                "line 7, column 17: {at}.entity is '{{a': it has a brace without its other one; a value is written {{key}}"
            )],
        ),
        (
            "match: {a: '*'}\nentity: '{md5(a)}'\nresource: b\nconsume: {rpm: 1}",
            vec![format!(
                "line 7, column 17: {at}.entity is '{{md5(a)}}': it has '{{md5(a)}}': a value is written {{key}}, and its hash {{sha256(key)}}"
            )],
        ),
        (
            "match: {a: '*'}\nentity: 'b#{a}'\nresource: '9'\nconsume: {rpm: -1, tpm: 1.5, 'a b': 1}",
            vec![
                format!(
                    "line 7, column 17: {at}.entity is 'b#{{a}}': it {}",
                    EntityId::new("b#a").unwrap_err().reason()
                ),
                format!(
                    "line 8, column 19: {at}.resource is '9': it {}",
                    ResourceName::new("9").unwrap_err().reason()
                ),
                format!(
                    "line 9, column 24: {at}.consume.rpm is -1: it must be a whole number from 0 to 1000000000000000, or a template such as '{{tokens}}'"
                ),
                format!(
                    "line 9, column 33: {at}.consume.tpm is 1.5: it must be a whole number from 0 to 1000000000000000, or a template such as '{{tokens}}'"
                ),
                format!(
                    "line 9, column 38: {at}.consume.a b {}",
                    LimitName::new("a b").unwrap_err().reason()
                ),
            ],
        ),
        (
            "match: {a: '*'}\nentity: '{a}'\nresource: '{sha256(a)}'\nconsume: {rpm: 1, tpm: 1}\nconsume_once: {rpm: 1}\noverride: true\nshadow: 1\non_invalid: drop",
            vec![
                format!(
                    "line 5, column 9: {at}.resource cannot have the hash of a value, which is longer than the name of a resource can be"
                ),
                format!(
                    "line 5, column 9: {at}.override can be true only in a rule that takes of one limit, which the descriptor's limit replaces"
                ),
                format!(
                    "line 10, column 24: {at}.consume_once.rpm is given both in 'consume' and in 'consume_once'; one of them must go"
                ),
                format!("line 12, column 17: {at}.shadow is 1: it must be true or false"),
                format!("line 13, column 21: {at}.on_invalid is 'drop': it must be 'pass' or 'refuse'"),
            ],
        ),
        (
            "match: {a: '*'}\nentity: '{a}'\nresource: b\nconsume: {}\nconsume_once:",
            vec![format!(
                "line 5, column 9: {at}.consume is missing; it must name at least one limit, such as {{rpm: 1}}"
            )],
        ),
    ] {
        let lines: Vec<&str> = line.iter().map(String::as_str).collect();
        check_refused(&with_rule(fields), &lines);
    }
    let twice = format!(
        "{0}{1}",
        with_rule(RULE),
        with_rule(RULE).split_once("rules:\n").unwrap().1
    );
    check_refused(
        &twice,
        &[
            "line 10, column 9: domains.gateway.rules.1.name is 'one': it is the name of two rules of this domain",
        ],
    );
}

fn values(entries: &[(&'static str, &'static str)]) -> Values<'static> {
    entries.iter().copied().collect()
}

fn rules(fields: &str) -> Rules {
    Rules::from_yaml(with_rule(fields).as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn patterns_fit_exact_values_beginnings_and_all() {
    for (pattern, fitting, others) in [
        ("'*'", vec!["", "x", "*"], vec![]),
        ("gpt-4", vec!["gpt-4"], vec!["gpt-4o", "", "GPT-4"]),
        ("'gpt-*'", vec!["gpt-", "gpt-4o"], vec!["gpt", "a gpt-4"]),
        ("[o3, 'gpt-*']", vec!["o3", "gpt-5"], vec!["o", "o33"]),
        ("''", vec![""], vec!["x"]),
    ] {
        let rules = rules(&RULE.replace("api_key: '*'", &format!("api_key: {pattern}")));
        let (_, domain) = rules.domain("gateway").unwrap();
        for value in fitting {
            assert!(
                domain.rule(&values(&[("api_key", value)])).is_some(),
                "{pattern} {value}"
            );
        }
        for value in others {
            assert!(
                domain.rule(&values(&[("api_key", value)])).is_none(),
                "{pattern} {value}"
            );
        }
    }
}

#[test]
fn the_first_rule_with_exactly_these_keys_holds() {
    let text = r#"
version: 1
domains:
  gateway:
    rules:
      - {name: vip, match: {key: vip, model: "*"}, entity: vip, resource: api, consume: {rpm: 1}}
      - {match: {model: "*", key: "*"}, entity: "{key}:{model}", resource: api, consume: {rpm: "{model}"}}
      - {name: key, match: {key: "*"}, entity: "{key}", resource: api, consume_once: {rpm: 1}}
"#;
    let rules = Rules::from_yaml(text.as_bytes()).unwrap();
    let (_, domain) = rules.domain("gateway").unwrap();
    let name = |entries: &[(&'static str, &'static str)]| {
        domain.rule(&values(entries)).map(|rule| rule.name.clone())
    };
    assert_eq!(name(&[("key", "vip"), ("model", "x")]).as_deref(), Some("vip"));
    assert_eq!(name(&[("key", "a"), ("model", "x")]).as_deref(), Some("rule-2"));
    assert_eq!(name(&[("key", "vip")]).as_deref(), Some("key"));
    assert_eq!(name(&[("model", "x")]), None);
    assert_eq!(name(&[("key", "a"), ("model", "x"), ("path", "/")]), None);

    let second = values(&[("key", "a"), ("model", "30")]);
    let charge = domain.rule(&second).unwrap().charge(&second, 2).unwrap();
    assert_eq!((charge.entity.as_str(), charge.amounts[0].1), ("a:30", Some(60)));
    let charge = domain.rule(&second).unwrap().charge(&second, MAX_TOKENS).unwrap();
    assert_eq!(charge.amounts[0].1, None);
    let third = values(&[("key", "a")]);
    let charge = domain.rule(&third).unwrap().charge(&third, 7).unwrap();
    assert_eq!(charge.amounts[0].1, Some(1));
}

#[test]
fn what_is_shown_reads_back_as_the_same_rules() {
    let text = with_rule(&format!(
        "{RULE}\nshadow: true\non_invalid: pass\nconsume_once: {{tpm: '{{api_key}}'}}"
    ));
    let text = text
        .replace("'*'", "['a', 'b*']")
        .replace("'{api_key}'\n", "'x:{sha256(api_key)}'\n");
    let text = format!("{text}    headers: [x-ratelimit, ietf]\n");
    let rules = Rules::from_yaml(text.as_bytes()).unwrap();
    let shown = rules.to_json();
    let again = Rules::from_yaml(shown.to_string().as_bytes()).unwrap();
    assert_eq!(again, rules);
    assert_eq!(again.to_json(), shown);
}

#[test]
fn the_schema_has_the_fields_that_are_read() {
    let schema: serde_json::Value = serde_json::from_str(Rules::SCHEMA).unwrap();
    let fields = |at: &str| -> Vec<String> {
        let map = schema.pointer(at).and_then(serde_json::Value::as_object).unwrap();
        map.keys().cloned().collect()
    };
    let of_rule = fields("/$defs/rule/properties");
    // What is not a field is refused with the list of those that are.
    let err = Rules::from_yaml(with_rule(&format!("{RULE}\nzzzzzzzz: 1")).as_bytes()).unwrap_err();
    let text = err.to_string();
    let (_, known) = text.split_once("known here: ").unwrap();
    let mut known: Vec<&str> = known.split(", ").collect();
    let mut of_rule: Vec<&str> = of_rule.iter().map(String::as_str).collect();
    known.sort_unstable();
    of_rule.sort_unstable();
    assert_eq!(known, of_rule);
    assert_eq!(
        schema["$defs"]["amounts"]["maxProperties"],
        zae_limiter_core::limit::MAX_LIMITS
    );
    assert_eq!(fields("/properties").len(), 2);
    assert_eq!(fields("/$defs/domain/properties").len(), 2);
}

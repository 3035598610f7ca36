//! Templates that are not taken, and in what words.

use super::{bind, known, try_bind};

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(try_bind(text, &[]).unwrap_err().to_string(), expected);
}

/// Two plain resources, and more lines.
fn with(more: &str) -> String {
    format!(
        "Resources:\n  A: {{Type: T}}\n  B: {{Type: T, Condition: Off}}\nConditions:\n  Off: !Equals [a, b]\n{more}"
    )
}

#[test]
fn sections() {
    for text in ["", " ", "[]", "text", "- a"] {
        assert!(try_bind(text, &[]).is_err(), "{text}");
    }
    refused("- a", "Template format error: unsupported structure");
    refused(
        "{}",
        "Template format error: At least one Resources member must be defined.",
    );
    refused(
        "Resources: {}",
        "Template format error: At least one Resources member must be defined.",
    );
    refused(
        "Foo: 1\nBar: 1\nResources: {A: {Type: T}}",
        "Invalid template property or properties [Foo, Bar]",
    );
    for section in ["Transform", "Rules", "Hooks"] {
        refused(
            &with(&format!("{section}: AWS::Include")),
            &format!("Template error: section {section} is not supported by this endpoint"),
        );
    }
    refused(
        &with("Outputs:\n"),
        "Template format error: [/Outputs] 'null' values are not allowed in templates",
    );
    refused(
        &with("AWSTemplateFormatVersion: 2010"),
        "Template format error: unsupported value for AWSTemplateFormatVersion: 2010-09-09 is the one",
    );
    refused(
        &with("Mappings: {M: {a: {b: {c: 1}}}}"),
        "Template format error: Every Mappings attribute must be a String or a List.",
    );
    assert!(
        try_bind(
            &with("AWSTemplateFormatVersion: 2010-09-09\nDescription: d\nMetadata: {a: {'Fn::Foo': 1}}"),
            &[]
        )
        .is_ok()
    );
}

#[test]
fn sizes() {
    let padded = |length: usize| {
        let text = with("");
        let padding = length - text.len() - 2;
        format!("{text}# {}", "x".repeat(padding))
    };
    assert!(try_bind(&padded(51_200), &[]).is_ok());
    refused(
        &padded(51_201),
        "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to 51200",
    );
    assert!(zae_limiter_local::template::Template::parse_stored(&padded(1_000_000)).is_ok());
    assert!(zae_limiter_local::template::Template::parse_stored(&padded(1_000_001)).is_err());
}

#[test]
fn resources() {
    let of = |attributes: &str| format!("Resources:\n  A: {attributes}");
    refused(
        &of("[]"),
        "Template format error: [/Resources/A] resource definition is malformed",
    );
    refused(
        &of("{Properties: {}}"),
        "Template format error: [/Resources/A] Every Resources object must contain a Type member.",
    );
    refused(
        &of("{Type: T, Foo: 1}"),
        "Invalid template resource property 'Foo'",
    );
    for attribute in ["CreationPolicy", "UpdatePolicy"] {
        refused(
            &of(&format!("{{Type: T, {attribute}: {{}}}}")),
            &format!("Template error: {attribute} of resource A is not supported by this endpoint"),
        );
    }
    refused(
        &of("{Type: T, DeletionPolicy: Keep}"),
        "Template format error: Unrecognized DeletionPolicy \"Keep\" for resource A",
    );
    refused(
        &of("{Type: T, UpdateReplacePolicy: RetainExceptOnCreate}"),
        "Template format error: Unrecognized UpdateReplacePolicy \"RetainExceptOnCreate\" for resource A",
    );
    refused(
        "Resources:\n  a-b: {Type: T}",
        "Template format error: Resource name a-b is non alphanumeric.",
    );
    refused(
        &of("{Type: T, DependsOn: {}}"),
        "Template format error: Every DependsOn value must be a string or a list of strings.",
    );
    refused(
        &of("{Type: T, DependsOn: [A, X, Y]}"),
        "Template format error: Unresolved resource dependencies [X, Y] in the Resources block of the template",
    );
    refused(
        &of("{Type: T, Condition: X}"),
        "Template format error: Unresolved condition dependency X in the Resources block of the template",
    );
    refused(
        &of("{Type: T, Properties: {a: !If [X, 1, 2]}}"),
        "Template error: unresolved condition dependency X in Fn::If",
    );
    refused(
        &of("{Type: T, Properties: {a: !Ref X, b: !Sub '${Y}'}}"),
        "Template format error: Unresolved resource dependencies [X, Y] in the Resources block of the template",
    );
    refused(
        &of("{Type: T, Properties: {a: !GetAtt X.Arn}}"),
        "Template error: instance of Fn::GetAtt references undefined resource X",
    );
    refused(
        &of("{Type: T, Properties: {a: !FindInMap [X, a, b]}}"),
        "Template error: Mapping named 'X' is not present in the 'Mappings' section of template.",
    );
    refused(
        &of("{Type: T, Properties: {a: !GetAZs ''}}"),
        "Template error: Fn::GetAZs is not supported by this endpoint",
    );
    refused(
        "Parameters: {A: {Type: String}}\nResources: {A: {Type: T}}",
        "Template format error: A is the name of a parameter and of a resource",
    );
}

#[test]
fn conditions() {
    let of = |conditions: &str| format!("Resources: {{A: {{Type: T}}}}\nConditions: {{{conditions}}}");
    refused(
        &of("C: !Not [!Condition D], D: !And [!Condition C, !Equals [1, 1]]"),
        "Template format error: Circular dependency between conditions: [C, D]",
    );
    refused(
        &of("C: !Not [!Condition X]"),
        "Template format error: Unresolved condition dependency X in the Conditions block of the template",
    );
    refused(
        &of("C: !Equals [!Ref A, x]"),
        "Template format error: Unresolved dependencies [A]. Cannot reference resources in the Conditions block of the template",
    );
    refused(
        &of("C: 'true'"),
        "Template format error: Conditions can only be boolean operations on parameters and other conditions",
    );
    refused(
        &of("C: !Not ['true']"),
        "Template format error: Conditions can only be boolean operations on parameters and other conditions",
    );
    let deep: Vec<_> = (0..1000)
        .map(|n| format!("C{n}: !Not [!Condition C{}]", n + 1))
        .collect();
    let bound = bind(&of(&format!("{}, C1000: !Equals [a, a]", deep.join(", "))), &[]);
    assert_eq!(
        (
            bound.condition("C1000"),
            bound.condition("C999"),
            bound.condition("C0")
        ),
        (Some(true), Some(false), Some(true))
    );
}

#[test]
fn circles() {
    refused(
        "Resources:\n  A: {Type: T, Properties: {x: !Ref B}}\n  B: {Type: T, DependsOn: A}\n  C: {Type: T, DependsOn: B}",
        "Circular dependency between resources: [A, B]",
    );
    refused(
        "Resources: {A: {Type: T, Properties: {x: !Sub '${A.Arn}'}}}",
        "Circular dependency between resources: [A]",
    );
    // A branch that is not taken counts, as long as its resource exists.
    refused(
        "Conditions: {On: !Equals [a, a]}\nResources:\n  A: {Type: T, Properties: {x: !If [On, 1, !Ref B]}}\n  B: {Type: T, DependsOn: A}",
        "Circular dependency between resources: [A, B]",
    );
    let bound = bind(
        "Conditions: {On: !Equals [a, b]}\nResources:\n  A: {Type: T, Properties: {x: !If [On, !Ref B, 1]}}\n  B: {Type: T, DependsOn: A, Condition: On}",
        &[],
    );
    assert_eq!(bound.order(), [["A"]]);
}

#[test]
fn outputs() {
    let of = |outputs: &str| with(&format!("Outputs:\n  {outputs}"));
    refused(
        &of("O: {Description: d}"),
        "Template format error: Every Outputs member must contain a Value object",
    );
    refused(
        &of("O: {Value: x, Foo: 1}"),
        "Invalid template outputs property: [Foo]",
    );
    refused(
        &of("O: {Value: !Ref X}"),
        "Template format error: Unresolved resource dependencies [X] in the Outputs block of the template",
    );
    refused(
        &of("O: {Value: !Ref B}"),
        "Template format error: Unresolved resource dependencies [B] in the Outputs block of the template",
    );
    refused(
        &of("O: {Value: [a]}"),
        "Template format error: The Value field of every Outputs member must evaluate to a String.",
    );
    refused(
        &of("O: {Value: x, Export: {Name: !Sub '${A}-x'}}"),
        "Template format error: Output O is malformed.  The Name field of Export must not depend on any resources, imported values, or Fn::GetAZs.",
    );
    refused(
        &of("O: {Value: x, Export: {Name: a/b}}"),
        "Template format error: Output O is malformed. The Name field of every Export member must be specified and consist only of alphanumeric characters, colons, or hyphens.",
    );
    refused(
        &of(
            "O: {Value: x, Export: {Name: app-n}}\n  P: {Value: x, Export: {Name: !Sub '${AWS::StackName}-n'}}",
        ),
        "Template format error: Duplicate Export names. Outputs O and P are both exported as app-n.",
    );
    // One of the two does not exist.
    let bound = bind(
        &of("O: {Value: 1, Export: {Name: n}}\n  P: {Value: !Ref B, Condition: Off, Export: {Name: n}}"),
        &[],
    );
    let outputs = bound.outputs(&known(&[])).unwrap();
    assert_eq!(
        (
            outputs.len(),
            outputs[0].value.as_str(),
            outputs[0].export_name.as_deref()
        ),
        (1, "1", Some("n"))
    );
    let empty = bind(&of("O: {Value: ' ', Export: {Name: n}}"), &[]);
    assert_eq!(
        empty.outputs(&known(&[])).unwrap_err().to_string(),
        "Cannot export output O. Exported values must not be empty or whitespace-only.",
    );
}

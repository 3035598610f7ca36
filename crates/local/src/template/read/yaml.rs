//! YAML as CloudFormation reads it: one document, short-form functions as tags, no aliases and no merge keys.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::super::error::TemplateError;
use super::{MAX_DEPTH, scalar};

/// The functions that have a short form, and whether their long form begins with `Fn::`.
const SHORT_FORMS: [(&str, bool); 22] = [
    ("Ref", false),
    ("Condition", false),
    ("And", true),
    ("Base64", true),
    ("Cidr", true),
    ("Contains", true),
    ("EachMemberEquals", true),
    ("EachMemberIn", true),
    ("Equals", true),
    ("FindInMap", true),
    ("GetAtt", true),
    ("GetAZs", true),
    ("If", true),
    ("ImportValue", true),
    ("Join", true),
    ("Length", true),
    ("Not", true),
    ("Or", true),
    ("Select", true),
    ("Split", true),
    ("Sub", true),
    ("ToJsonString", true),
];

pub(super) fn read(text: &str) -> Result<Value, TemplateError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
    };
    reader.next()?; // The start of the stream.
    let tree = match reader.next()? {
        (Event::DocumentStart(_), _) => {
            let (event, span) = reader.next()?;
            reader.node(event, span, 0)?
        }
        _ => return Ok(Value::Null),
    };
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(tree),
            (Event::DocumentStart(_), span) => return Err(not_well_formed("a second document", span)),
            _ => {}
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), TemplateError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Err(TemplateError::format(
                "YAML not well-formed: the text ends too early",
            )),
        }
    }

    /// Reads the node that begins with `event`, `depth` containers deep.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Value, TemplateError> {
        let tag = match &event {
            Event::Scalar(_, _, _, tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => {
                Meaning::of(tag.as_deref(), span)?
            }
            _ => Meaning::None,
        };
        // A function becomes a mapping around its argument.
        let inner = if matches!(tag, Meaning::Function(_)) {
            depth + 1
        } else {
            depth
        };
        if inner > MAX_DEPTH {
            return Err(too_deep(span));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => match tag {
                Meaning::None if style == ScalarStyle::Plain => scalar::plain(&text),
                // `!Ref 1` names something; a name is text whatever it looks like.
                _ => Value::String(text.into_owned()),
            },
            Event::SequenceStart(..) => self.sequence(span, inner)?,
            Event::MappingStart(..) => self.mapping(span, inner)?,
            Event::Alias(_) => {
                return Err(TemplateError::function(
                    "YAML aliases are not allowed in CloudFormation templates",
                )
                .at(span.start.line(), span.start.col() + 1));
            }
            _ => return Err(not_well_formed("a value is missing", span)),
        };
        Ok(match tag {
            Meaning::Function(name) => {
                let value = if name == "Fn::GetAtt" {
                    split_attribute(value)
                } else {
                    value
                };
                Value::Object(Map::from_iter([(name, value)]))
            }
            Meaning::None | Meaning::Text => value,
        })
    }

    fn sequence(&mut self, start: Span, depth: usize) -> Result<Value, TemplateError> {
        let depth = below(depth, start)?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Result<Value, TemplateError> {
        let depth = below(depth, start)?;
        let mut map = Map::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Object(map)),
                (Event::Scalar(text, style, _, None), span) => {
                    if style == ScalarStyle::Plain && text == "<<" {
                        return Err(not_well_formed("merge keys are not supported", span));
                    }
                    if map.contains_key(text.as_ref()) {
                        return Err(not_well_formed(&format!("duplicate key '{text}'"), span));
                    }
                    text.into_owned()
                }
                (_, span) => return Err(not_well_formed("a key must be text without a tag", span)),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth)?;
            map.insert(
                key.clone(),
                if key == "Fn::GetAtt" {
                    split_attribute(value)
                } else {
                    value
                },
            );
        }
    }
}

/// The meaning of a tag for its node.
enum Meaning {
    None,
    Text,
    Function(String),
}

impl Meaning {
    fn of(tag: Option<&Tag>, span: Span) -> Result<Self, TemplateError> {
        let Some(tag) = tag else { return Ok(Self::None) };
        if tag.is_yaml_core_schema() {
            return match tag.suffix.as_str() {
                "str" => Ok(Self::Text),
                "bool" | "int" | "float" | "map" | "seq" => Ok(Self::None),
                other => Err(not_well_formed(&format!("tag !!{other} is not supported"), span)),
            };
        }
        if format!("{}{}", tag.handle, tag.suffix) == "!" {
            return Ok(Self::Text);
        }
        let known = SHORT_FORMS
            .iter()
            .find(|(name, _)| tag.handle == "!" && *name == tag.suffix);
        match known {
            Some((name, true)) => Ok(Self::Function(format!("Fn::{name}"))),
            Some((name, false)) => Ok(Self::Function((*name).to_owned())),
            None if tag.suffix == "Transform" => {
                Err(TemplateError::unsupported("!Transform").at(span.start.line(), span.start.col() + 1))
            }
            None => Err(not_well_formed(
                &format!("unknown tag {}{}", tag.handle, tag.suffix),
                span,
            )),
        }
    }
}

/// `!GetAtt Table.Arn` names resource and attribute in one; the resource ends at the first dot.
fn split_attribute(value: Value) -> Value {
    match value.as_str().and_then(|text| text.split_once('.')) {
        Some((resource, attribute)) => Value::from(vec![resource, attribute]),
        None => value,
    }
}

fn below(depth: usize, span: Span) -> Result<usize, TemplateError> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(too_deep(span))
    }
}

fn too_deep(span: Span) -> TemplateError {
    not_well_formed(&format!("nested more than {MAX_DEPTH} levels deep"), span)
}

fn not_well_formed(reason: &str, span: Span) -> TemplateError {
    TemplateError::format(format_args!("YAML not well-formed: {reason}"))
        .at(span.start.line(), span.start.col() + 1)
}

fn scan_error(error: &ScanError) -> TemplateError {
    TemplateError::format(format_args!("YAML not well-formed: {}", error.info()))
        .at(error.marker().line(), error.marker().col() + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::read;

    #[track_caller]
    fn check(text: &str, expected: &Value) {
        assert_eq!(&read(text).unwrap(), expected);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(
            read(text).unwrap_err().to_string(),
            format!("Template format error: {expected}")
        );
    }

    #[test]
    fn scalars_by_their_style() {
        check(
            "a: 5\nb: '5'\nc: !!str 5\nd: ! 5\ne: |\n  x\n  y\nf: >-\n  x\n  y\ng:\n",
            &json!({"a": 5, "b": "5", "c": "5", "d": "5", "e": "x\ny\n", "f": "x y", "g": null}),
        );
    }

    #[test]
    fn short_forms_nest() {
        check(
            "a: !If\n  - C\n  - !Sub ['${x}', {x: !GetAtt T.Stream.Arn}]\n  - !Join\n    - ''\n    - [!Ref A, !Ref 12]\n",
            &json!({"a": {"Fn::If": [
                "C",
                {"Fn::Sub": ["${x}", {"x": {"Fn::GetAtt": ["T", "Stream.Arn"]}}]},
                {"Fn::Join": ["", [{"Ref": "A"}, {"Ref": "12"}]]},
            ]}}),
        );
        check(
            "a: !GetAtt [T, !Ref B]\nd: {'Fn::GetAtt': T.Arn}\nb: !Not [!Condition C]\nc: !Select [0, !Split [':', !Ref 'AWS::Region']]",
            &json!({
                "a": {"Fn::GetAtt": ["T", {"Ref": "B"}]},
                "d": {"Fn::GetAtt": ["T", "Arn"]},
                "b": {"Fn::Not": [{"Condition": "C"}]},
                "c": {"Fn::Select": [0, {"Fn::Split": [":", {"Ref": "AWS::Region"}]}]},
            }),
        );
    }

    #[test]
    fn mistakes_have_positions() {
        refused(
            "a: 1\nb: 2\na: 3",
            "YAML not well-formed: duplicate key 'a' (line 3, column 1)",
        );
        refused(
            "a: !Foo b",
            "YAML not well-formed: unknown tag !Foo (line 1, column 4)",
        );
        refused(
            "a: !!binary b",
            "YAML not well-formed: tag !!binary is not supported (line 1, column 4)",
        );
        refused(
            "a: 1\n---\nb: 2",
            "YAML not well-formed: a second document (line 2, column 1)",
        );
        refused(
            "? [a]\n: 1",
            "YAML not well-formed: a key must be text without a tag (line 1, column 3)",
        );
        refused(
            "a: {<<: {b: 1}}",
            "YAML not well-formed: merge keys are not supported (line 1, column 5)",
        );
        let error = read("a: &x 1\nb: *x").unwrap_err();
        assert_eq!(error.position().map(|at| at.line), Some(2));
        assert!(error.to_string().contains("aliases are not allowed"));
        assert!(read("a: [1").unwrap_err().position().is_some());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = |levels: usize| format!("a: {}{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(&deep(100)).is_ok());
        assert!(
            read(&deep(101))
                .unwrap_err()
                .to_string()
                .contains("nested more than 100 levels deep")
        );
        assert!(read(&"[".repeat(20_000)).is_err());
        assert!(read(&"- ".repeat(20_000)).is_err());
        assert!(read(&format!("a: {}", "!Not [".repeat(200))).is_err());
    }

    #[test]
    fn nothing_is_null() {
        check("", &Value::Null);
        check("# a comment only\n", &Value::Null);
    }
}

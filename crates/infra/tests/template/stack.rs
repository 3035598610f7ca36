//! What CloudFormation would make of a template: the resources and outputs that exist under given parameters, with
//! every intrinsic function resolved. Only what our template uses is known; anything else is a panic that names it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The name of the stack in all tests.
pub(crate) const STACK: &str = "limits";

/// What the pseudo parameters of AWS are resolved to.
const PSEUDO: [(&str, &str); 4] = [
    ("AWS::StackName", STACK),
    ("AWS::Region", "eu-central-1"),
    ("AWS::AccountId", "123456789012"),
    ("AWS::Partition", "aws"),
];

/// Values of parameters by name.
pub(crate) type Parameters = BTreeMap<String, String>;

/// A template as it is written.
pub(crate) struct Template {
    pub(crate) body: Value,
}

/// A name that a template mentions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mention {
    /// By `Ref`, or as `${Name}` in `Fn::Sub`.
    Ref(String),
    /// By `Fn::GetAtt`, or as `${Name.Attribute}` in `Fn::Sub`; or by `DependsOn`.
    Resource(String),
    /// By `Condition`, or first in `Fn::If`.
    Condition(String),
}

/// What exists under given parameters. A resource stands for itself as `@LogicalId`, its attributes as
/// `@LogicalId.Attribute`.
pub(crate) struct Stack {
    pub(crate) resources: BTreeMap<String, Value>,
    pub(crate) outputs: BTreeMap<String, Value>,
    /// References to resources that do not exist in this stack, with the place they are made at.
    pub(crate) dangling: BTreeSet<String>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Self {
        let body =
            serde_saphyr::from_str(text).unwrap_or_else(|err| panic!("the template is not YAML: {err}"));
        Self { body }
    }

    /// The entries of a section such as `Resources`.
    #[track_caller]
    pub(crate) fn section(&self, name: &str) -> &Map<String, Value> {
        let section = self.body[name].as_object();
        section.unwrap_or_else(|| panic!("the template has no section {name}"))
    }

    /// The defaults of all parameters that have one.
    pub(crate) fn defaults(&self) -> Parameters {
        let default = |(name, parameter): (&String, &Value)| {
            let default = parameter.get("Default")?;
            Some((name.clone(), text(default)))
        };
        self.section("Parameters").iter().filter_map(default).collect()
    }

    /// Every mention of a name, with its path.
    pub(crate) fn mentions(&self) -> Vec<(String, Mention)> {
        let mut found = Vec::new();
        for section in ["Conditions", "Resources", "Outputs"] {
            mentions(&self.body[section], section, &mut found);
        }
        found
    }

    /// The parameters that a condition depends on, through other conditions too.
    pub(crate) fn parameters_of(&self, condition: &str) -> BTreeSet<String> {
        let mut found = Vec::new();
        mentions(&self.section("Conditions")[condition], condition, &mut found);
        let mut parameters = BTreeSet::new();
        for (_, mention) in found {
            match mention {
                Mention::Ref(name) => drop(parameters.insert(name)),
                Mention::Condition(name) => parameters.extend(self.parameters_of(&name)),
                Mention::Resource(name) => panic!("condition {condition} looks at resource {name}"),
            }
        }
        parameters
    }

    /// What exists if the given parameters are set, and all others have their defaults.
    pub(crate) fn with(&self, given: &[(&str, &str)]) -> Stack {
        let mut parameters = self.defaults();
        for (name, value) in given {
            assert!(
                self.section("Parameters").contains_key(*name),
                "there is no parameter {name}"
            );
            parameters.insert((*name).to_owned(), (*value).to_owned());
        }
        self.instantiate(&parameters)
    }

    /// What exists under the given parameters.
    pub(crate) fn instantiate(&self, parameters: &Parameters) -> Stack {
        let mut conditions = BTreeMap::new();
        for name in self.section("Conditions").keys() {
            let holds = self.holds(name, parameters, &mut Vec::new());
            conditions.insert(name.as_str(), holds);
        }
        let exists = |(_, entry): &(&String, &Value)| match entry.get("Condition") {
            None => true,
            Some(name) => conditions[name.as_str().unwrap()],
        };
        let resources: BTreeMap<&String, &Value> = self.section("Resources").iter().filter(exists).collect();
        let outputs: BTreeMap<&String, &Value> = self.section("Outputs").iter().filter(exists).collect();
        let mut resolver = Resolver {
            parameters,
            conditions: &conditions,
            resources: &resources,
            dangling: BTreeSet::new(),
        };
        let mut all = |entries: &BTreeMap<&String, &Value>| -> BTreeMap<String, Value> {
            let entries = entries.iter();
            entries
                .map(|(name, entry)| ((*name).clone(), resolver.resolve(entry, name).unwrap()))
                .collect()
        };
        Stack {
            resources: all(&resources),
            outputs: all(&outputs),
            dangling: resolver.dangling,
        }
    }

    /// Whether a condition holds. `above` are the conditions that are being evaluated.
    fn holds(&self, name: &str, parameters: &Parameters, above: &mut Vec<String>) -> bool {
        assert!(
            !above.iter().any(|other| other == name),
            "condition {name} depends on itself"
        );
        let definition = self.section("Conditions").get(name);
        let definition = definition.unwrap_or_else(|| panic!("condition {name} is not declared"));
        above.push(name.to_owned());
        let holds = self.evaluate(definition, parameters, above);
        above.pop();
        holds
    }

    fn evaluate(&self, expression: &Value, parameters: &Parameters, above: &mut Vec<String>) -> bool {
        let (function, arguments) = only_entry(expression);
        let mut each = |arguments: &Value| -> Vec<bool> {
            let arguments = arguments.as_array().unwrap();
            // CloudFormation refuses more than ten operands, and fewer than two where there is a choice.
            let fewest = if function == "Fn::Not" { 1 } else { 2 };
            assert!(
                (fewest..=10).contains(&arguments.len()),
                "{function}: {arguments:?}"
            );
            let evaluate = |argument| self.evaluate(argument, parameters, above);
            arguments.iter().map(evaluate).collect()
        };
        match function {
            "Fn::And" => each(arguments).into_iter().all(|holds| holds),
            "Fn::Or" => each(arguments).into_iter().any(|holds| holds),
            "Fn::Not" => {
                let holds = each(arguments);
                assert_eq!(holds.len(), 1, "Fn::Not takes one operand: {arguments}");
                !holds[0]
            }
            "Fn::Equals" => {
                let [left, right] = arguments.as_array().unwrap().as_slice() else {
                    panic!("Fn::Equals takes two operands: {arguments}");
                };
                plain(left, parameters) == plain(right, parameters)
            }
            "Condition" => self.holds(arguments.as_str().unwrap(), parameters, above),
            other => panic!("condition with unknown function {other}"),
        }
    }
}

impl Stack {
    /// The properties of a resource that must exist.
    #[track_caller]
    pub(crate) fn properties(&self, resource: &str) -> &Value {
        let found = self.resources.get(resource);
        &found.unwrap_or_else(|| panic!("the stack has no {resource}"))["Properties"]
    }

    pub(crate) fn has(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
    }
}

struct Resolver<'a> {
    parameters: &'a Parameters,
    conditions: &'a BTreeMap<&'a str, bool>,
    resources: &'a BTreeMap<&'a String, &'a Value>,
    dangling: BTreeSet<String>,
}

impl Resolver<'_> {
    /// A value with its functions resolved; `None` for `AWS::NoValue`.
    fn resolve(&mut self, value: &Value, path: &str) -> Option<Value> {
        match value {
            Value::Array(elements) => {
                let resolved = elements.iter().enumerate();
                let resolved = resolved
                    .filter_map(|(index, element)| self.resolve(element, &format!("{path}[{index}]")));
                Some(Value::Array(resolved.collect()))
            }
            Value::Object(entries) if is_function(entries) => {
                let (function, arguments) = only_entry(value);
                self.call(function, arguments, path)
            }
            Value::Object(entries) => {
                let mut resolved = Map::new();
                for (key, entry) in entries {
                    let path = format!("{path}.{key}");
                    if key == "DependsOn" {
                        for name in names(entry) {
                            self.resource(name, &path);
                        }
                    }
                    if let Some(entry) = self.resolve(entry, &path) {
                        resolved.insert(key.clone(), entry);
                    }
                }
                Some(Value::Object(resolved))
            }
            plain => Some(plain.clone()),
        }
    }

    fn call(&mut self, function: &str, arguments: &Value, path: &str) -> Option<Value> {
        match function {
            "Ref" => match arguments.as_str().unwrap() {
                "AWS::NoValue" => None,
                name => Some(self.named(name, path)),
            },
            "Fn::GetAtt" => {
                let [resource, attribute] = arguments.as_array().unwrap().as_slice() else {
                    panic!("{path}: Fn::GetAtt takes a resource and an attribute: {arguments}");
                };
                self.resource(resource.as_str().unwrap(), path);
                Some(format!("@{}.{}", text(resource), text(attribute)).into())
            }
            "Fn::Sub" => {
                let (template, variables) = sub(arguments);
                let mut result = String::new();
                for part in parts(template) {
                    match part {
                        Part::Text(text) => result.push_str(text),
                        Part::Name(name) => {
                            let value = match variables.and_then(|variables| variables.get(name)) {
                                Some(value) => self.resolve(value, path)?,
                                None => self.named(name, path),
                            };
                            result.push_str(&text(&value));
                        }
                        Part::Attribute(resource, attribute) => {
                            self.resource(resource, path);
                            result.extend(["@", resource, ".", attribute]);
                        }
                    }
                }
                Some(result.into())
            }
            "Fn::Select" => Some(plain(&json!({ "Fn::Select": arguments }), self.parameters).into()),
            "Fn::ImportValue" => Some(format!("<{}>", text(&self.resolve(arguments, path)?)).into()),
            "Fn::If" => {
                let [condition, yes, no] = arguments.as_array().unwrap().as_slice() else {
                    panic!("{path}: Fn::If takes a condition and two values: {arguments}");
                };
                let holds = self.conditions.get(condition.as_str().unwrap());
                let holds = *holds.unwrap_or_else(|| panic!("{path}: condition {condition} is not declared"));
                self.resolve(if holds { yes } else { no }, path)
            }
            other => panic!("{path}: unknown function {other}"),
        }
    }

    /// A parameter, a pseudo parameter or a resource.
    fn named(&mut self, name: &str, path: &str) -> Value {
        if let Some((_, value)) = PSEUDO.iter().find(|(pseudo, _)| *pseudo == name) {
            return (*value).into();
        }
        if let Some(value) = self.parameters.get(name) {
            return value.clone().into();
        }
        self.resource(name, path);
        format!("@{name}").into()
    }

    fn resource(&mut self, name: &str, path: &str) {
        if !self.resources.contains_key(&name.to_owned()) {
            self.dangling.insert(format!("{path} refers to {name}"));
        }
    }
}

/// The text of a scalar; parameters are texts, whatever their type.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other} is neither text nor number"),
    }
}

/// The texts of a list, or the one text that stands for a list of one.
pub(crate) fn names(value: &Value) -> Vec<&str> {
    match value {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        other => panic!("{other} is neither a name nor a list of names"),
    }
}

/// A text, a parameter, or a piece of one: what does not depend on resources.
fn plain(value: &Value, parameters: &Parameters) -> String {
    if !value.is_object() {
        return text(value);
    }
    let (function, arguments) = only_entry(value);
    match function {
        "Ref" => parameters[arguments.as_str().unwrap()].clone(),
        // A list is the text that it was given as.
        "Fn::Join" => {
            assert_eq!(arguments[0], ",", "lists are joined as they are parted");
            plain(&arguments[1], parameters)
        }
        "Fn::Select" => {
            let (split, argument) = only_entry(&arguments[1]);
            assert_eq!(split, "Fn::Split", "only Fn::Split is known within Fn::Select");
            let whole = plain(&argument[1], parameters);
            let index: usize = text(&arguments[0]).parse().unwrap();
            let piece = whole.split(argument[0].as_str().unwrap()).nth(index);
            piece
                .unwrap_or_else(|| panic!("{whole:?} has no piece {index}"))
                .to_owned()
        }
        other => panic!("unknown function {other} in a plain value"),
    }
}

#[track_caller]
fn only_entry(value: &Value) -> (&str, &Value) {
    let entries = value
        .as_object()
        .map(|entries| entries.iter().collect::<Vec<_>>());
    match entries.as_deref() {
        Some([(key, argument)]) => (key, argument),
        _ => panic!("{value} is not a function"),
    }
}

fn is_function(entries: &Map<String, Value>) -> bool {
    entries.len() == 1 && entries.keys().all(|key| key == "Ref" || key.starts_with("Fn::"))
}

enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
    Attribute(&'a str, &'a str),
}

/// The text of `Fn::Sub`, and the variables that stand beside it.
fn sub(arguments: &Value) -> (&str, Option<&Map<String, Value>>) {
    match arguments {
        Value::String(template) => (template, None),
        other => (other[0].as_str().unwrap(), Some(other[1].as_object().unwrap())),
    }
}

/// The parts of a text for `Fn::Sub`.
fn parts(mut rest: &str) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    while let Some((before, after)) = rest.split_once("${") {
        found.push(Part::Text(before));
        let (name, after) = after
            .split_once('}')
            .unwrap_or_else(|| panic!("{rest:?} has no }}"));
        assert!(!name.starts_with('!'), "literals are not used: {name:?}");
        found.push(match name.split_once('.') {
            Some((resource, attribute)) => Part::Attribute(resource, attribute),
            None => Part::Name(name),
        });
        rest = after;
    }
    found.push(Part::Text(rest));
    found
}

fn mentions(value: &Value, path: &str, found: &mut Vec<(String, Mention)>) {
    let at = || path.to_owned();
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                mentions(element, &format!("{path}[{index}]"), found);
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                match (key.as_str(), entry) {
                    ("Ref", Value::String(name)) => found.push((at(), Mention::Ref(name.clone()))),
                    // A statement of a policy has conditions too, which are maps.
                    ("Condition", Value::String(name)) => {
                        found.push((at(), Mention::Condition(name.clone())));
                    }
                    ("Fn::If", _) => found.push((at(), Mention::Condition(text(&entry[0])))),
                    ("Fn::GetAtt", _) => found.push((at(), Mention::Resource(text(&entry[0])))),
                    ("DependsOn", _) => {
                        let names = names(entry).into_iter();
                        found.extend(names.map(|name| (at(), Mention::Resource(name.to_owned()))));
                    }
                    ("Fn::Sub", arguments) => {
                        let (template, variables) = sub(arguments);
                        for part in parts(template) {
                            match part {
                                Part::Text(_) => {}
                                Part::Name(name)
                                    if variables.is_some_and(|variables| variables.contains_key(name)) => {}
                                Part::Name(name) => found.push((at(), Mention::Ref(name.to_owned()))),
                                Part::Attribute(resource, _) => {
                                    found.push((at(), Mention::Resource(resource.to_owned())));
                                }
                            }
                        }
                    }
                    _ => {}
                }
                mentions(entry, &format!("{path}.{key}"), found);
            }
        }
        _ => {}
    }
}

/// Whether a name is one of CloudFormation's own.
pub(crate) fn is_pseudo(name: &str) -> bool {
    name == "AWS::NoValue" || PSEUDO.iter().any(|(pseudo, _)| *pseudo == name)
}

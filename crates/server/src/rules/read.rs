//! From a file to rules, or to all that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter::{EntityId, InvalidInput, LimitName, ResourceName};
use zae_limiter_core::document::{Entry, Kind, Node, Path, Problem, Problems, Tree, nearest, read_yaml};
use zae_limiter_core::limit::MAX_LIMITS;
use zae_limiter_tower::Fields;

use super::pattern::Pattern;
use super::template::Template;
use super::{Amount, Domain, Fallback, MAX_TOKENS, Rule, Rules, Takes};

/// What a file of rules is, for messages.
const KIND: Kind = Kind {
    name: "a file of rules",
    least: "it must at least say 'version: 1'",
};

/// How many rules a domain can have. Each request tries them one after the other.
const MOST_RULES: usize = 1000;

/// How many bytes the name of a domain or of a rule can have, which are labels of metrics.
const LONGEST_NAME: usize = 128;

impl Rules {
    /// Reads the bytes of a YAML file.
    ///
    /// # Errors
    /// Every problem of the file, with line and column.
    pub fn from_yaml(text: &[u8]) -> Result<Self, Problems> {
        let (root, problems) = read_yaml(text, &KIND);
        let mut reader = Reader { problems };
        let rules = root.and_then(|root| reader.rules(&root));
        match rules {
            Some(rules) if reader.problems.is_empty() => Ok(rules),
            _ => {
                for problem in &mut reader.problems {
                    if problem.path.is_empty() {
                        "the file of rules".clone_into(&mut problem.path);
                    }
                }
                Err(Problems::new(reader.problems))
            }
        }
    }
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn rules(&mut self, root: &Node) -> Option<Rules> {
        let top = Path::default();
        let entries = self.map(&top, root)?;
        self.known(&top, entries, &["version", "domains"]);
        match find(entries, "version").map(|node| (node, &node.value)) {
            Some((_, Tree::Int(1))) => {}
            Some((node, _)) => self.wrong(&top.to("version"), node, "must be 1"),
            None => {
                let reason = "is missing; this program reads 'version: 1'";
                let problem = Problem::new(root.at, &top.to("version"), reason);
                self.problems.push(problem);
            }
        }
        let mut domains = BTreeMap::new();
        if let Some(node) = find(entries, "domains") {
            let path = top.to("domains");
            for entry in self.map(&path, node).unwrap_or_default() {
                let path = path.to(&entry.name);
                self.label(&path, entry);
                let domain = self.domain(&path, &entry.node);
                domains.insert(entry.name.clone(), domain);
            }
        }
        Some(Rules { domains })
    }

    fn domain(&mut self, path: &Path, node: &Node) -> Domain {
        let entries = self.map(path, node).unwrap_or_default();
        self.known(path, entries, &["rules", "headers"]);
        let headers = match find(entries, "headers") {
            Some(node) => self.headers(&path.to("headers"), node),
            None => vec![Fields::Ietf],
        };
        let path = path.to("rules");
        let mut rules = Vec::new();
        match find(entries, "rules").map(|node| (node, &node.value)) {
            Some((_, Tree::List(items))) => {
                if items.len() > MOST_RULES {
                    let reason = format!("has {} rules; at most {MOST_RULES} can be given", items.len());
                    self.problems.push(Problem::new(node.at, &path, reason));
                }
                let mut names = BTreeSet::new();
                for (index, item) in items.iter().enumerate() {
                    let path = path.to(&index.to_string());
                    let Some(rule) = self.rule(&path, item, index) else {
                        continue;
                    };
                    if !names.insert(rule.name.clone()) {
                        let reason = "is the name of two rules of this domain";
                        let problem = Problem::new(item.at, &path.to("name"), reason);
                        self.problems.push(problem.with_value(format!("'{}'", rule.name)));
                    }
                    rules.push(rule);
                }
            }
            None | Some((_, Tree::Null)) => {}
            Some((node, _)) => self.wrong(&path, node, "must be a list of rules"),
        }
        Domain { rules, headers }
    }

    fn headers(&mut self, path: &Path, node: &Node) -> Vec<Fields> {
        const RIGHT: &str = "must be a list of 'ietf' and 'x-ratelimit'; an empty list is for none";
        let Tree::List(items) = &node.value else {
            self.wrong(path, node, RIGHT);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match &item.value {
                Tree::Text(text) if text == "ietf" => all.push(Fields::Ietf),
                Tree::Text(text) if text == "x-ratelimit" => all.push(Fields::XRateLimit),
                _ => self.wrong(&path.to(&index.to_string()), item, RIGHT),
            }
        }
        all
    }

    fn rule(&mut self, path: &Path, node: &Node, index: usize) -> Option<Rule> {
        const KNOWN: [&str; 11] = [
            "name",
            "match",
            "entity",
            "resource",
            "consume",
            "consume_once",
            "override",
            "overdraw",
            "shadow",
            "on_invalid",
            "on_unconfigured",
        ];
        let entries = self.map(path, node)?;
        self.known(path, entries, &KNOWN);
        let name = match find(entries, "name").map(|node| (node, &node.value)) {
            None => format!("rule-{}", index + 1),
            Some((node, Tree::Text(name))) => {
                let entry = Entry {
                    name: name.clone(),
                    at: node.at,
                    node: node.clone(),
                };
                self.label(&path.to("name"), &entry);
                name.clone()
            }
            Some((node, _)) => {
                self.wrong(&path.to("name"), node, "must be a text");
                String::new()
            }
        };
        let matches = self.matches(path, node, entries);
        let entity = self.named(path, node, "entity", entries, &matches, |name| {
            EntityId::new(name).map(drop)
        });
        let resource = self.named(path, node, "resource", entries, &matches, |name| {
            ResourceName::new(name).map(drop)
        });
        if resource.as_ref().is_some_and(Template::is_hashed) {
            let reason =
                "cannot have the hash of a value, which is longer than the name of a resource can be";
            self.problems
                .push(Problem::new(node.at, &path.to("resource"), reason));
        }
        let mut takes = BTreeMap::new();
        self.takes(path, entries, &matches, "consume", &mut takes);
        self.takes(path, entries, &matches, "consume_once", &mut takes);
        let has_amounts = |field| find(entries, field).is_some_and(|node| !is_empty(node));
        if !has_amounts("consume") && !has_amounts("consume_once") {
            let reason = "is missing; it must name at least one limit, such as {rpm: 1}";
            self.problems
                .push(Problem::new(node.at, &path.to("consume"), reason));
        }
        let overdraws = self.flag(path, entries, "overdraw");
        let allows_override = self.flag(path, entries, "override");
        if allows_override && takes.len() != 1 {
            let reason =
                "can be true only in a rule that takes of one limit, which the descriptor's limit replaces";
            self.problems
                .push(Problem::new(node.at, &path.to("override"), reason));
        }
        Some(Rule {
            name,
            matches,
            entity: entity?,
            resource: resource?,
            takes,
            is_shadow: self.flag(path, entries, "shadow"),
            allows_override,
            overdraws,
            on_invalid: self.fallback(path, entries, "on_invalid"),
            on_unconfigured: self.fallback(path, entries, "on_unconfigured"),
        })
    }

    fn matches(&mut self, path: &Path, rule: &Node, entries: &[Entry]) -> BTreeMap<String, Pattern> {
        let path = path.to("match");
        let declared = find(entries, "match").map_or(Some(&[][..]), |node| self.map(&path, node));
        let Some(declared) = declared else {
            return BTreeMap::new();
        };
        if declared.is_empty() {
            let reason = "is missing; it must name the keys of the descriptors, such as {api_key: '*'}";
            self.problems.push(Problem::new(rule.at, &path, reason));
        }
        let mut matches = BTreeMap::new();
        for Entry { name, node, .. } in declared {
            const RIGHT: &str = "must be a text or a list of texts; put numbers and truth values in quotes";
            let path = path.to(name);
            let texts: Option<Vec<&str>> = match &node.value {
                Tree::Text(text) => Some(vec![text]),
                Tree::List(items) => items
                    .iter()
                    .map(|item| match &item.value {
                        Tree::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect(),
                _ => None,
            };
            match texts.map_or(Err(RIGHT), Pattern::read) {
                Ok(pattern) => {
                    matches.insert(name.clone(), pattern);
                }
                Err(reason) => self.wrong(&path, node, reason),
            }
        }
        matches
    }

    /// A template that makes a name.
    fn named(
        &mut self,
        path: &Path,
        rule: &Node,
        field: &str,
        entries: &[Entry],
        matches: &BTreeMap<String, Pattern>,
        check: impl Fn(&str) -> Result<(), InvalidInput>,
    ) -> Option<Template> {
        let path = path.to(field);
        let Some(node) = find(entries, field) else {
            let reason = "is missing; it is a name, or a template such as '{api_key}'";
            self.problems.push(Problem::new(rule.at, &path, reason));
            return None;
        };
        let template = self.template(&path, node, matches)?;
        if let Err(err) = check(&template.sample()) {
            self.wrong(&path, node, err.reason());
        }
        Some(template)
    }

    fn template(
        &mut self,
        path: &Path,
        node: &Node,
        matches: &BTreeMap<String, Pattern>,
    ) -> Option<Template> {
        let Tree::Text(text) = &node.value else {
            self.wrong(path, node, "must be a text; put it in quotes");
            return None;
        };
        let template = match Template::read(text) {
            Ok(template) => template,
            Err(reason) => {
                self.wrong(path, node, &reason);
                return None;
            }
        };
        let known: Vec<&str> = matches.keys().map(String::as_str).collect();
        if let Some(key) = template.keys().find(|key| !matches.contains_key(*key)) {
            let hint = match nearest(key, &known) {
                Some(near) => format!("; did you mean '{{{near}}}'?"),
                None => format!("; keys there: {}", known.join(", ")),
            };
            let reason = format!("has '{{{key}}}', which is not a key of 'match'{hint}");
            self.problems.push(Problem::new(node.at, path, reason));
            return None;
        }
        Some(template)
    }

    fn takes(
        &mut self,
        path: &Path,
        entries: &[Entry],
        matches: &BTreeMap<String, Pattern>,
        field: &str,
        takes: &mut BTreeMap<LimitName, Takes>,
    ) {
        let Some(node) = find(entries, field) else { return };
        let path = path.to(field);
        for entry in self.map(&path, node).unwrap_or_default() {
            let path = path.to(&entry.name);
            let limit = match LimitName::new(&entry.name) {
                Ok(limit) => limit,
                Err(err) => {
                    let problem = Problem::new(entry.at, &path, err.reason());
                    self.problems.push(problem);
                    continue;
                }
            };
            let amount = match &entry.node.value {
                Tree::Text(text) if text.contains('{') => {
                    self.template(&path, &entry.node, matches).map(Amount::Of)
                }
                Tree::Int(number) => u64::try_from(*number)
                    .ok()
                    .filter(|number| *number <= MAX_TOKENS)
                    .map(Amount::Fixed),
                _ => None,
            };
            let is_template = matches!(&entry.node.value, Tree::Text(text) if text.contains('{'));
            let Some(amount) = amount else {
                if !is_template {
                    let right = format!(
                        "must be a whole number from 0 to {MAX_TOKENS}, or a template such as '{{tokens}}'"
                    );
                    self.wrong(&path, &entry.node, &right);
                }
                continue;
            };
            let is_per_hit = field == "consume";
            if takes.insert(limit, Takes { amount, is_per_hit }).is_some() {
                let reason = "is given both in 'consume' and in 'consume_once'; one of them must go";
                self.problems.push(Problem::new(entry.at, &path, reason));
            }
        }
        if takes.len() > MAX_LIMITS {
            self.wrong(&path, node, &format!("must name at most {MAX_LIMITS} limits"));
        }
    }

    fn flag(&mut self, path: &Path, entries: &[Entry], field: &str) -> bool {
        match find(entries, field).map(|node| (node, &node.value)) {
            None => false,
            Some((_, Tree::Bool(flag))) => *flag,
            Some((node, _)) => {
                self.wrong(&path.to(field), node, "must be true or false");
                false
            }
        }
    }

    fn fallback(&mut self, path: &Path, entries: &[Entry], field: &str) -> Fallback {
        match find(entries, field).map(|node| (node, &node.value)) {
            None => Fallback::Refuse,
            Some((_, Tree::Text(text))) if text == "refuse" => Fallback::Refuse,
            Some((_, Tree::Text(text))) if text == "pass" => Fallback::Pass,
            Some((node, _)) => {
                self.wrong(&path.to(field), node, "must be 'pass' or 'refuse'");
                Fallback::Refuse
            }
        }
    }

    /// Checks a name that becomes a label.
    fn label(&mut self, path: &Path, entry: &Entry) {
        let is_right = !entry.name.is_empty()
            && entry.name.len() <= LONGEST_NAME
            && !entry.name.chars().any(char::is_control);
        if !is_right {
            let reason = format!("must be a text of 1 to {LONGEST_NAME} bytes without control characters");
            self.problems.push(Problem::new(entry.at, path, reason));
        }
    }

    fn known(&mut self, path: &Path, entries: &[Entry], known: &[&str]) {
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.name)) {
            let reason = match nearest(&entry.name, known) {
                Some(name) => format!("is unknown; did you mean '{name}'?"),
                None => format!("is unknown; known here: {}", known.join(", ")),
            };
            self.problems
                .push(Problem::new(entry.at, &path.to(&entry.name), reason));
        }
    }

    fn map<'n>(&mut self, path: &Path, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.value {
            Tree::Map(entries) => Some(entries),
            Tree::Null => Some(&[]),
            _ => {
                self.wrong(path, node, "must be a mapping of names to values");
                None
            }
        }
    }

    fn wrong(&mut self, path: &Path, node: &Node, reason: &str) {
        self.problems
            .push(Problem::new(node.at, path, reason).with_value(node.shown()));
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Tree::Null => true,
        Tree::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

fn find<'n>(entries: &'n [Entry], name: &str) -> Option<&'n Node> {
    let entry = entries.iter().find(|entry| entry.name == name);
    entry.map(|entry| &entry.node)
}

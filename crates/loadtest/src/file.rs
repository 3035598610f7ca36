//! Scenarios in YAML files.

mod limits;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use zae_limiter::{EntityId, Limit, LimitName, ResourceName};

use crate::scenario::{Action, EntityChoice, Scenario, Setup, Shape, Skew, Task, UserClass};
use crate::schedule::Stage;

/// The most entities of a distribution: their weights are kept in memory.
const MOST_ENTITIES: usize = 1_000_000;

/// The largest weight, so that sums of weights stay small.
const MOST_WEIGHT: u32 = 1_000_000;

/// The most users of a stage.
const MOST_USERS: usize = 1_000_000;

/// The longest pause or stage, in seconds.
const LONGEST: f64 = 604_800.0;

/// The most stages of a shape, classes, and tasks of a class.
const MOST_PARTS: usize = 1000;

/// The largest amount: that of a limit's capacity.
const MOST_AMOUNT: u64 = 1_000_000_000_000_000;

/// The period of a limit that names none, in seconds.
const MINUTE: u64 = 60;

/// The JSON Schema (2020-12) of these files. It accepts what [`read`] accepts, but for rules that compare two values, such
/// as `min` and `max`.
pub const SCHEMA: &str = include_str!("file/schema.json");

/// Why a file cannot be read as a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not of the form.
    #[error("line {line}, column {column}: {why}")]
    At {
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// What is wrong.
        why: String,
    },
    /// A value is out of range, or inconsistent with another.
    #[error("{path}: {why}")]
    Field {
        /// Where it is, such as `users[0].tasks[1].weight`.
        path: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    system: LevelForm,
    #[serde(default)]
    resources: BTreeMap<String, LevelForm>,
    users: Vec<UserForm>,
    #[serde(default)]
    shapes: BTreeMap<String, Vec<StageForm>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelForm {
    limits: BTreeMap<String, LimitForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitForm {
    capacity: u64,
    refill_amount: Option<u64>,
    refill_period: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserForm {
    name: String,
    #[serde(default = "one")]
    weight: u32,
    entity: EntityForm,
    #[serde(default)]
    pause: PauseForm,
    tasks: Vec<TaskForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum EntityForm {
    /// Each user is an entity.
    Each {
        prefix: String,
        parent: Option<String>,
    },
    One {
        name: String,
    },
    Uniform {
        prefix: String,
        count: usize,
    },
    Zipf {
        prefix: String,
        count: usize,
        exponent: f64,
    },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseForm {
    min: f64,
    max: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskForm {
    #[serde(default = "one")]
    weight: u32,
    resources: Vec<String>,
    acquire: Option<BTreeMap<String, AmountForm>>,
    #[serde(default)]
    actual: BTreeMap<String, AmountForm>,
    #[serde(default)]
    available: bool,
}

/// `800`, or `{min: 200, max: 800}`.
enum AmountForm {
    Fixed(u64),
    Range { min: u64, max: u64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeForm {
    min: u64,
    max: u64,
}

impl<'de> Deserialize<'de> for AmountForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = AmountForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or {min: 200, max: 800}")
            }

            fn visit_u64<E>(self, amount: u64) -> Result<AmountForm, E> {
                Ok(AmountForm::Fixed(amount))
            }

            fn visit_i64<E: de::Error>(self, amount: i64) -> Result<AmountForm, E> {
                let negative = |_| E::invalid_value(Unexpected::Signed(amount), &self);
                u64::try_from(amount).map(AmountForm::Fixed).map_err(negative)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AmountForm, A::Error> {
                let RangeForm { min, max } = RangeForm::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AmountForm::Range { min, max })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageForm {
    users: usize,
    seconds: f64,
}

fn one() -> u32 {
    1
}

/// Reads a scenario. `name` is its name in reports.
///
/// ```
/// let scenario = zae_limiter_loadtest::file::read(
///     "chat",
///     "
/// system:
///   limits:
///     rpm: {capacity: 1000000}
/// users:
///   - name: Chat
///     entity: {zipf: {prefix: key-, count: 1000, exponent: 1.2}}
///     pause: {min: 0.5, max: 2}
///     tasks:
///       - resources: [gpt-4]
///         acquire: {rpm: 1}
/// ",
/// )?;
/// assert_eq!(scenario.classes[0].name, "Chat");
/// # Ok::<(), zae_limiter_loadtest::file::FileError>(())
/// ```
///
/// # Errors
/// [`FileError`] names the line or the field of the first problem.
pub fn read(name: &str, text: &str) -> Result<Scenario, FileError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let form: FileForm = serde_saphyr::from_str_with_options(text, options).map_err(|err| {
        let location = err.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
        FileError::At {
            line: location.line(),
            column: location.column(),
            why: reason(&err.without_snippet().to_string()),
        }
    })?;
    form.into_scenario(name)
}

/// The reader's message without its place, and without names of types.
fn reason(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let plain = [
        ("invalid u64", "expected a whole number, 0 or more"),
        ("invalid u32", "expected a whole number, 0 or more"),
        ("invalid usize", "expected a whole number, 0 or more"),
        ("invalid floating point", "expected a number"),
        ("non-finite float", "expected a number, and not infinity or NaN"),
        ("expected mapping start", "expected a mapping of fields to values"),
        ("expected sequence start", "expected a list"),
        ("expected string scalar", "expected a text"),
        (
            "cannot deserialize null into string",
            "expected a text, and not null",
        ),
        (
            "externally tagged enum expected",
            "expected one field that names the kind",
        ),
        (
            "multiple YAML documents",
            "the file has a second document; a scenario is one",
        ),
        ("recursive references", "a value contains itself by an alias"),
        ("invalid type: unit value", "a value is missing"),
    ];
    if let Some((_, text)) = plain.into_iter().find(|(start, _)| message.starts_with(start)) {
        return text.to_owned();
    }
    match message.strip_prefix("duplicate mapping key: ") {
        Some(key) => {
            let key = key.split(", set ").next().unwrap_or(key);
            format!("'{key}' is given twice")
        }
        None => message.to_owned(),
    }
}

fn field<T>(path: impl Into<String>, why: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::Field {
        path: path.into(),
        why: why.into(),
    })
}

/// Refuses a list that is empty, or too long.
fn counted<T>(path: &str, list: &[T]) -> Result<(), FileError> {
    match list.len() {
        0 => field(path, "there must be at least one"),
        1..=MOST_PARTS => Ok(()),
        many => field(
            path,
            format!("{many} are too many; at most {MOST_PARTS} are possible"),
        ),
    }
}

fn seconds(path: &str, value: f64) -> Result<Duration, FileError> {
    if (0.0..=LONGEST).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    field(
        path,
        format!("{value} is not a number of seconds from 0 to {LONGEST}"),
    )
}

fn weighted(path: &str, weight: u32) -> Result<(), FileError> {
    if (1..=MOST_WEIGHT).contains(&weight) {
        return Ok(());
    }
    field(
        path,
        format!("{weight} is not a weight; it must be from 1 to {MOST_WEIGHT}"),
    )
}

impl FileForm {
    fn into_scenario(self, name: &str) -> Result<Scenario, FileError> {
        let mut setup = Setup {
            system: self.system.into_limits("system")?,
            resources: Vec::new(),
        };
        for (resource, level) in self.resources {
            let path = format!("resources.{resource}");
            if let Err(err) = ResourceName::new(&resource) {
                return field(path, err.reason());
            }
            setup.resources.push((resource, level.into_limits(&path)?));
        }
        counted("users", &self.users)?;
        let mut classes: Vec<UserClass> = Vec::new();
        for (place, user) in self.users.into_iter().enumerate() {
            let class = user.into_class(&format!("users[{place}]"))?;
            if classes.iter().any(|other| other.name == class.name) {
                return field(
                    format!("users[{place}].name"),
                    format!("'{}' is there twice", class.name),
                );
            }
            classes.push(class);
        }
        let mut shapes = Vec::new();
        for (name, stages) in self.shapes {
            let path = format!("shapes.{name}");
            counted(&path, &stages)?;
            if classes.iter().any(|class| class.name == name) {
                return field(path, "a class of users has this name");
            }
            let stage = |(place, stage): (usize, &StageForm)| {
                if stage.users > MOST_USERS {
                    let why = format!("{} are too many; at most {MOST_USERS} are possible", stage.users);
                    return field(format!("{path}[{place}].users"), why);
                }
                if stage.seconds == 0.0 {
                    return field(format!("{path}[{place}].seconds"), "it must be above 0");
                }
                let length = seconds(&format!("{path}[{place}].seconds"), stage.seconds)?;
                Ok(Stage {
                    users: stage.users,
                    length,
                })
            };
            let stages = stages
                .iter()
                .enumerate()
                .map(stage)
                .collect::<Result<_, FileError>>()?;
            shapes.push(Shape { name, stages });
        }
        let scenario = Scenario {
            name: name.to_owned(),
            setup,
            classes,
            shapes,
        };
        limits::check(&scenario)?;
        Ok(scenario)
    }
}

impl LevelForm {
    fn into_limits(self, path: &str) -> Result<Vec<Limit>, FileError> {
        let limit = |(name, form): (String, LimitForm)| {
            let amount = form.refill_amount.unwrap_or(form.capacity);
            let period = Duration::from_secs(form.refill_period.unwrap_or(MINUTE));
            // The error's field is the limit's name, and its part.
            let built = Limit::custom(name, form.capacity, amount, period).build();
            built.or_else(|err| {
                field(
                    format!("{path}.limits.{}", err.field()),
                    format!("it {}", err.reason()),
                )
            })
        };
        self.limits.into_iter().map(limit).collect()
    }
}

impl UserForm {
    fn into_class(self, path: &str) -> Result<UserClass, FileError> {
        if self.name.is_empty() || self.name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return field(format!("{path}.name"), "it must be a word");
        }
        weighted(&format!("{path}.weight"), self.weight)?;
        counted(&format!("{path}.tasks"), &self.tasks)?;
        let (least, most) = (
            seconds(&format!("{path}.pause.min"), self.pause.min)?,
            seconds(&format!("{path}.pause.max"), self.pause.max)?,
        );
        if least > most {
            return field(format!("{path}.pause"), "min must not be above max");
        }
        let entity = self.entity.into_choice(&format!("{path}.entity"))?;
        let task = |(place, task): (usize, TaskForm)| task.into_task(&format!("{path}.tasks[{place}]"));
        Ok(UserClass {
            name: self.name,
            weight: self.weight,
            entity,
            tasks: self
                .tasks
                .into_iter()
                .enumerate()
                .map(task)
                .collect::<Result<_, _>>()?,
            think: least..=most,
        })
    }
}

impl EntityForm {
    fn into_choice(self, path: &str) -> Result<EntityChoice, FileError> {
        let check = |part: &str, id: &str| match EntityId::new(id) {
            Ok(_) => Ok(()),
            Err(err) => field(format!("{path}.{part}"), err.reason()),
        };
        let counted = |part: &str, count: usize| {
            if (1..=MOST_ENTITIES).contains(&count) {
                return Ok(());
            }
            let why = format!("{count} is not a number of entities from 1 to {MOST_ENTITIES}");
            field(format!("{path}.{part}.count"), why)
        };
        match self {
            Self::Each { prefix, parent } => {
                check("each.prefix", &format!("{prefix}0000000000000000"))?;
                if let Some(parent) = &parent {
                    check("each.parent", &format!("{parent}00000000"))?;
                    if *parent == prefix {
                        return field(
                            format!("{path}.each.parent"),
                            "it must not be the prefix of the users",
                        );
                    }
                }
                Ok(EntityChoice::Own { prefix, parent })
            }
            Self::One { name } => {
                check("one.name", &name)?;
                Ok(EntityChoice::One(name))
            }
            Self::Uniform { prefix, count } => {
                check("uniform.prefix", &format!("{prefix}000000"))?;
                counted("uniform", count)?;
                Ok(EntityChoice::Skewed(Skew::zipf(prefix, count, 0.0)))
            }
            Self::Zipf {
                prefix,
                count,
                exponent,
            } => {
                check("zipf.prefix", &format!("{prefix}000000"))?;
                counted("zipf", count)?;
                if !(0.0..=10.0).contains(&exponent) {
                    return field(
                        format!("{path}.zipf.exponent"),
                        format!("{exponent} is not from 0 to 10"),
                    );
                }
                Ok(EntityChoice::Skewed(Skew::zipf(prefix, count, exponent)))
            }
        }
    }
}

type Amounts = Vec<(String, RangeInclusive<u64>)>;

fn amounts(path: &str, forms: BTreeMap<String, AmountForm>) -> Result<Amounts, FileError> {
    let amount = |(name, form): (String, AmountForm)| {
        let path = format!("{path}.{name}");
        if let Err(err) = LimitName::new(&name) {
            return field(path, err.reason());
        }
        let range = match form {
            AmountForm::Fixed(amount) => amount..=amount,
            AmountForm::Range { min, max } if min <= max => min..=max,
            AmountForm::Range { .. } => return field(path, "min must not be above max"),
        };
        if *range.end() > MOST_AMOUNT {
            let why = format!("{} is too much; at most {MOST_AMOUNT} is possible", range.end());
            return field(path, why);
        }
        Ok((name, range))
    };
    forms.into_iter().map(amount).collect()
}

impl TaskForm {
    fn into_task(self, path: &str) -> Result<Task, FileError> {
        weighted(&format!("{path}.weight"), self.weight)?;
        counted(&format!("{path}.resources"), &self.resources)?;
        for (place, resource) in self.resources.iter().enumerate() {
            if let Err(err) = ResourceName::new(resource) {
                return field(format!("{path}.resources[{place}]"), err.reason());
            }
        }
        let action = match (self.acquire, self.available) {
            (Some(consume), false) => {
                let consume = amounts(&format!("{path}.acquire"), consume)?;
                if consume.is_empty() {
                    return field(format!("{path}.acquire"), "there must be at least one limit");
                }
                let actual = amounts(&format!("{path}.actual"), self.actual)?;
                if let Some((name, _)) = actual
                    .iter()
                    .find(|(name, _)| !consume.iter().any(|(n, _)| n == name))
                {
                    return field(format!("{path}.actual.{name}"), "the task does not acquire it");
                }
                Action::Acquire { consume, actual }
            }
            (None, true) if self.actual.is_empty() => Action::Available,
            (None, true) => return field(format!("{path}.actual"), "it needs 'acquire'"),
            _ => return field(path, "a task has either 'acquire' or 'available: true'"),
        };
        Ok(Task {
            weight: self.weight,
            resources: self.resources,
            suffix: String::new(),
            action,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = include_str!("../../../examples/loadtest/chat.yaml");

    #[test]
    fn the_example_is_read() {
        let scenario = read("chat", CHAT).unwrap();
        assert_eq!(scenario.classes.len(), 2);
        assert_eq!(scenario.setup.resources.len(), 2);
        assert_eq!(scenario.shapes[0].stages.len(), 3);
        let EntityChoice::Skewed(skew) = &scenario.classes[0].entity else {
            unreachable!()
        };
        assert_eq!((skew.others, &*skew.prefix), (2000, "key-"));
        let Action::Acquire { consume, actual } = &scenario.classes[0].tasks[0].action else {
            unreachable!()
        };
        assert_eq!(consume[1], ("tpm".to_owned(), 300..=1500));
        assert_eq!(actual[0].0, "tpm");
    }

    #[track_caller]
    fn refused(from: &str, to: &str) -> String {
        assert!(CHAT.contains(from), "{from}");
        read("chat", &CHAT.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (from, to, why) in [
            (
                "exponent: 1.1",
                "exponent: -1",
                "users[0].entity.zipf.exponent: -1 is not from 0 to 10",
            ),
            (
                "count: 2000",
                "count: 0",
                "users[0].entity.zipf.count: 0 is not a number of entities from 1 to 1000000",
            ),
            (
                "weight: 3",
                "weight: 0",
                "users[0].weight: 0 is not a weight; it must be from 1 to 1000000",
            ),
            (
                "{min: 0.5, max: 2}",
                "{min: 3, max: 2}",
                "users[0].pause: min must not be above max",
            ),
            (
                "name: Batch",
                "name: Chat",
                "users[1].name: 'Chat' is there twice",
            ),
            (
                "seconds: 600",
                "seconds: .nan",
                "shapes.Morning[0].seconds: NaN is not a number of seconds from 0 to 604800",
            ),
            (
                "actual: {tpm:",
                "actual: {rph:",
                "users[0].tasks[0].actual.rph: the task does not acquire it",
            ),
            (
                "acquire: {rpm: 1,",
                "acquire: {rph: 1,",
                "users[0].tasks[0].acquire.rph: 'gpt-4' has no such limit; it has rpm, tpm",
            ),
            (
                "acquire: {rpm: 1,",
                "acquire: {rpm: 601,",
                "users[0].tasks[0].acquire.rpm: 601 is more than the capacity of 'gpt-4', 600: no call would be admitted",
            ),
        ] {
            assert_eq!(refused(from, to), why);
        }
        for (from, to, place, part) in [
            (
                "weight: 3",
                "wait: 3",
                26,
                "unknown field `wait`, expected one of name, weight, entity, pause, tasks",
            ),
            (
                "count: 2000",
                "count: many",
                27,
                "expected a whole number, 0 or more",
            ),
            ("min: 0.5", "min: soon", 28, "expected a number"),
            (
                "acquire: {rpm: 1,",
                "acquire: {rpm: -1,",
                32,
                "-1`, expected a whole number, or {min: 200, max: 800}",
            ),
            (
                "acquire: {rpm: 1,",
                "acquire: {rpm: [1],",
                32,
                "expected a whole number, or {min: 200, max: 800}",
            ),
        ] {
            let err = refused(from, to);
            let place = format!("line {place}, column ");
            assert!(err.starts_with(&place) && err.ends_with(part), "{err}");
        }
        let err = refused("capacity: 600,", "capacity: 0,");
        let why = "resources.gpt-4.limits.rpm.capacity: it must be between 1 and 1000000000000000";
        assert_eq!(err, why);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let mut text = CHAT.as_bytes().to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..text.len());
                match rng.u8(..3) {
                    0 => text[at] = rng.u8(..),
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, b"{}[]:-,&*\n 9\""[rng.usize(..13)]),
                }
            }
            let _ = read("chat", &String::from_utf8_lossy(&text));
        }
    }
}

//! From the names on a command line or in an event to a scenario and its stages.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::file::{self, FileError};
use crate::scenario::Scenario;
use crate::schedule::Stage;
use crate::shipped;

/// The largest file with a scenario, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;

/// Why names do not lead to a scenario.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// Neither a scenario of the program nor a YAML file.
    #[error("Unknown scenario '{name}'. Scenarios are {}.{hint}", shipped::NAMES.join(", "))]
    UnknownScenario {
        /// The name.
        name: String,
        /// What a file of one's own has to be.
        hint: &'static str,
    },
    /// A file that cannot be read.
    #[error("Cannot read '{name}': {source}")]
    Unreadable {
        /// The name.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file outside of the folder that scenarios may come from.
    #[error("Cannot read '{name}': it is not below {}", folder.display())]
    Outside {
        /// The name.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// A file that is not a scenario.
    #[error("{name}: {source}")]
    Malformed {
        /// The name.
        name: String,
        /// What is wrong.
        source: FileError,
    },
    /// A class or a shape that the scenario does not have.
    #[error("User class '{name}' not found in {scenario}. Its classes are {}.", known.join(", "))]
    UnknownClass {
        /// The name.
        name: String,
        /// The scenario.
        scenario: String,
        /// Its classes, and its shapes.
        known: Vec<String>,
    },
    /// More than one shape.
    #[error("Only one shape can be run at a time; '{0}' is the second.")]
    SecondShape(String),
}

/// Whether a name is that of a file with a scenario: it ends in `.yaml` or `.yml`.
pub fn is_file(name: &str) -> bool {
    has_end(name, &["yaml", "yml"])
}

fn has_end(name: &str, ends: &[&str]) -> bool {
    let end = Path::new(name).extension().unwrap_or_default();
    ends.iter().any(|known| end.eq_ignore_ascii_case(known))
}

/// The error for a name that is neither a scenario of the program nor that of a YAML file.
pub fn unknown(name: &str) -> SelectionError {
    SelectionError::UnknownScenario {
        name: name.to_owned(),
        hint: if has_end(name, &["py"]) {
            " Python files with users of your own cannot be run; describe them in a YAML file, see docs/loadtest.md."
        } else {
            " A file of your own ends in .yaml."
        },
    }
}

/// The text of a file that is not larger than any scenario.
///
/// # Errors
/// [`SelectionError::Unreadable`].
pub fn read_text(path: &Path) -> Result<String, SelectionError> {
    let read = || {
        let mut text = String::new();
        let mut file = File::open(path)?.take(LARGEST_FILE + 1);
        file.read_to_string(&mut text)?;
        if text.len() as u64 > LARGEST_FILE {
            let why = format!("it has more than {LARGEST_FILE} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
        }
        Ok(text)
    };
    read().map_err(|source| SelectionError::Unreadable {
        name: path.display().to_string(),
        source,
    })
}

/// Reads the text of a YAML file; `name` is the file's.
///
/// # Errors
/// [`SelectionError::Malformed`].
pub fn read(name: &str, text: &str) -> Result<Scenario, SelectionError> {
    let title = Path::new(name)
        .file_stem()
        .map_or(name.into(), |stem| stem.to_string_lossy());
    file::read(&title, text).map_err(|source| SelectionError::Malformed {
        name: name.to_owned(),
        source,
    })
}

/// The scenario of a YAML file whose path is relative to `folder`, and which lies in it.
///
/// # Errors
/// If it is not a scenario, or lies elsewhere.
pub fn read_below(folder: &Path, name: &str) -> Result<Scenario, SelectionError> {
    if !is_file(name) {
        return Err(unknown(name));
    }
    let outside = || SelectionError::Outside {
        name: name.to_owned(),
        folder: folder.to_owned(),
    };
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(name).components().all(inside) {
        return Err(outside());
    }
    let unreadable = |source| SelectionError::Unreadable {
        name: name.to_owned(),
        source,
    };
    // A link may lead out of the folder.
    let path = folder.join(name).canonicalize().map_err(unreadable)?;
    if !path.starts_with(folder.canonicalize().map_err(unreadable)?) {
        return Err(outside());
    }
    read(name, &read_text(&path)?)
}

/// What takes part in a run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The scenario, with the chosen classes.
    pub scenario: Scenario,
    /// The chosen shape, if there is one.
    pub shape: Option<String>,
    stages: Option<Vec<Stage>>,
}

impl Selection {
    /// Chooses classes and at most one shape by their names; all classes, if no class is named.
    ///
    /// # Errors
    /// For a name that the scenario does not have, and for a second shape.
    pub fn new(mut scenario: Scenario, names: &[String]) -> Result<Self, SelectionError> {
        let (mut classes, mut chosen) = (Vec::new(), None);
        for name in names {
            if scenario.classes.iter().any(|class| class.name == *name) {
                classes.push(name);
            } else if let Some(shape) = scenario.shapes.iter().find(|shape| shape.name == *name) {
                if chosen.replace((name.clone(), shape.stages.clone())).is_some() {
                    return Err(SelectionError::SecondShape(name.clone()));
                }
            } else {
                let known = scenario.classes.iter().map(|class| &class.name);
                let known = known.chain(scenario.shapes.iter().map(|shape| &shape.name));
                return Err(SelectionError::UnknownClass {
                    name: name.clone(),
                    known: known.cloned().collect(),
                    scenario: scenario.name,
                });
            }
        }
        if !classes.is_empty() {
            scenario.classes.retain(|class| classes.contains(&&class.name));
        }
        let (shape, stages) = chosen.unzip();
        Ok(Self {
            scenario,
            shape,
            stages,
        })
    }

    /// The stages of the run: those of the shape, ended after `length` if there is one, or else `users` for `length` or
    /// `default`.
    pub fn stages(&self, users: usize, length: Option<Duration>, default: Duration) -> Vec<Stage> {
        match (&self.stages, length) {
            (None, length) => vec![Stage {
                users,
                length: length.unwrap_or(default),
            }],
            (Some(stages), None) => stages.clone(),
            (Some(stages), Some(length)) => cut(stages, length),
        }
    }
}

/// The stages, as far as they fit.
fn cut(stages: &[Stage], mut left: Duration) -> Vec<Stage> {
    let fit = |stage: &Stage| {
        let length = stage.length.min(left);
        left -= length;
        Stage { length, ..*stage }
    };
    let cut = stages.iter().map(fit);
    cut.filter(|stage| !stage.length.is_zero()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(scenario: &str, names: &[&str]) -> Result<Selection, SelectionError> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Selection::new(shipped::find(scenario).unwrap(), &names)
    }

    #[test]
    fn classes_and_shapes_are_chosen_by_name() {
        let chosen = |scenario: &str, names: &[&str]| {
            let chosen = selected(scenario, names).unwrap();
            let classes = chosen.scenario.classes.iter().map(|class| class.name.clone());
            (classes.collect::<Vec<_>>().join(" "), chosen.shape)
        };
        let both = "MaxRpsUser MaxRpsCascadeUser".to_owned();
        assert_eq!(chosen("locustfiles/max_rps.py", &[]), (both.clone(), None));
        assert_eq!(
            chosen("max_rps", &["MaxRpsCascadeUser", "MaxRpsUser"]),
            (both, None)
        );
        assert_eq!(
            chosen("max_rps", &["MaxRpsUser", "MaxRpsUser"]),
            ("MaxRpsUser".to_owned(), None)
        );
        assert_eq!(
            chosen("llm_production", &["MorningSpike", "LLMGatewayUserReal"]),
            ("LLMGatewayUserReal".to_owned(), Some("MorningSpike".to_owned()))
        );
    }

    #[test]
    fn a_shape_is_cut_where_the_test_ends() {
        let secs = Duration::from_secs;
        let spike = selected("llm_production", &["MorningSpike"]).unwrap();
        let lengths = |length: Option<u64>| {
            let stages = spike.stages(1, length.map(secs), secs(60));
            let lengths = stages.iter().map(|stage| stage.length.as_secs());
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(lengths(Some(1000)), [600, 400]);
        assert_eq!(lengths(Some(600)), [600]);
        assert_eq!(lengths(Some(9999)), [600, 600, 1800, 600]);
        assert_eq!(lengths(None), [600, 600, 1800, 600]);
        let plain = selected("simple", &[]).unwrap();
        let of = |length| plain.stages(3, length, secs(60));
        assert_eq!(
            [of(None), of(Some(secs(5)))],
            [60, 5].map(|length| vec![Stage {
                users: 3,
                length: secs(length)
            }])
        );
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_exist() {
        assert_eq!(
            selected("simple", &["Simple"]).unwrap_err().to_string(),
            "User class 'Simple' not found in simple. Its classes are SimpleUser, SimpleCascadeUser."
        );
        assert_eq!(
            selected("llm_production", &["MorningSpike", "ProductionDailyLoad"])
                .unwrap_err()
                .to_string(),
            "Only one shape can be run at a time; 'ProductionDailyLoad' is the second."
        );
        assert_eq!(
            unknown("users/mine.py").to_string(),
            "Unknown scenario 'users/mine.py'. Scenarios are simple, max_rps, llm_gateway, llm_production, stress. \
             Python files with users of your own cannot be run; describe them in a YAML file, see docs/loadtest.md."
        );
    }
}

//! From the parts of a row to a request: which column has what.

use zae_limiter_core::{EntityId, LimitName, MAX_TOKENS, ResourceName};

use super::options::TraceOptions;
use super::{Amount, Request, shown, time};

/// What a column can have, with the names of columns that have it unless others are named.
const ROLES: [(&str, &[&str]); 9] = [
    ("time", &["timestamp", "time", "ts"]),
    ("entity", &["entity", "entity_id", "key"]),
    ("resource", &["resource"]),
    ("parent", &["parent", "parent_id"]),
    ("duration_ms", &["duration_ms"]),
    ("failed", &["failed"]),
    ("status", &["status"]),
    ("method", &["method"]),
    ("tokens", &["tokens"]),
];

/// The ending of a column that has the estimate of a limit.
const ESTIMATE: &str = "_estimate";

/// The columns of the Azure LLM traces.
const AZURE: [&str; 2] = ["ContextTokens", "GeneratedTokens"];

/// The longest request, in milliseconds: 30 days.
const LONGEST_MS: u64 = 30 * 24 * 3_600_000;

/// Where an amount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Each row counts as one.
    One,
    /// A column has it, and perhaps another one the estimate.
    Column { used: usize, estimate: Option<usize> },
    /// The tokens of prompt and answer.
    Azure { context: usize, generated: usize },
}

/// Which column has what.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    names: Vec<String>,
    time: usize,
    entities: Vec<usize>,
    resource: Option<usize>,
    parent: Option<usize>,
    duration: Option<usize>,
    failed: Option<usize>,
    status: Option<usize>,
    method: Option<usize>,
    amounts: Vec<(LimitName, Source)>,
    /// Whether `-` stands for nothing, as in logs.
    dash_is_empty: bool,
}

/// A row, as it is judged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Request(Request),
    /// It is to be left out.
    Filtered,
}

/// Finds columns by role.
struct Finder<'a> {
    names: &'a [String],
    options: &'a TraceOptions,
    used: Vec<usize>,
}

impl Finder<'_> {
    /// The column of a role: as named, else one of the usual names.
    fn role(&mut self, role: &str, usual: &[&str]) -> Result<Option<usize>, String> {
        let named = self.options.columns.iter().find(|(named, _)| named == role);
        let found = match named {
            Some((_, column)) => Some(self.named(role, column)?),
            None => self
                .names
                .iter()
                .position(|name| usual.iter().any(|usual| name.eq_ignore_ascii_case(usual))),
        };
        self.used.extend(found);
        Ok(found)
    }

    fn named(&self, role: &str, column: &str) -> Result<usize, String> {
        let exact = self.names.iter().position(|name| name == column);
        let near = || {
            self.names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(column))
        };
        exact.or_else(near).ok_or_else(|| {
            format!(
                "--column {role}={column} names no column; there are {}",
                listed(self.names)
            )
        })
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(20).map(|name| shown(name)).collect();
    shown.join(", ")
}

impl Columns {
    /// Finds out what columns of these names have. In a log, user and host stand for the entity.
    pub(crate) fn find(names: Vec<String>, is_log: bool, options: &TraceOptions) -> Result<Self, String> {
        if let Some((index, name)) = names
            .iter()
            .enumerate()
            .find(|(index, name)| !name.is_empty() && names.iter().take(*index).any(|other| other == *name))
        {
            return Err(format!(
                "column {} is named {} like one before it",
                index + 1,
                shown(name)
            ));
        }
        check_roles(options)?;
        let mut finder = Finder {
            names: &names,
            options,
            used: Vec::new(),
        };
        let mut places = [None; ROLES.len()];
        for (place, (role, usual)) in places.iter_mut().zip(ROLES) {
            *place = finder.role(role, usual)?;
        }
        let [
            time,
            entity,
            resource,
            parent,
            duration,
            failed,
            status,
            method,
            tokens,
        ] = places;
        let mut entities: Vec<usize> = entity.into_iter().collect();
        if is_log && entity.is_none() {
            for usual in ["user", "host"] {
                entities.extend(finder.role("", &[usual])?);
            }
        }
        let amounts = amounts(&mut finder, tokens)?;
        let Some(time) = time else {
            return Err(format!(
                "has no column for the time. Name it with --column time=NAME; there are {}",
                listed(&names)
            ));
        };
        if amounts.is_empty() {
            return Err(nothing_taken(&names, options));
        }
        let needed = [
            ("--skip-status", "status", !options.skip_status.is_empty(), status),
            ("--method", "method", !options.methods.is_empty(), method),
        ];
        for (option, role, is_given, place) in needed {
            if is_given && place.is_none() {
                return Err(format!(
                    "{option} needs a column for the {role}. Name it with --column {role}=NAME; there are {}",
                    listed(&names)
                ));
            }
        }
        if entities.is_empty() && options.entity.is_none() {
            return Err(format!(
                "has no column for the entity. Name it with --column entity=NAME, or pass --entity; there are {}",
                listed(&names)
            ));
        }
        if resource.is_none() && options.resource.is_none() {
            return Err(format!(
                "has no column for the resource. Name it with --column resource=NAME, or pass --resource; there are {}",
                listed(&names)
            ));
        }
        Ok(Self {
            time,
            entities,
            resource,
            parent,
            duration,
            failed,
            status,
            method,
            amounts,
            dash_is_empty: is_log,
            names,
        })
    }

    /// Says where each amount comes from.
    pub(crate) fn described(&self) -> Vec<String> {
        let name = |index: &usize| self.names.get(*index).map_or("", String::as_str);
        let describe = |(limit, source): &(LimitName, Source)| match source {
            Source::One => format!("{limit}: 1 for each request"),
            Source::Column { used, estimate: None } => format!("{limit}: column {}", name(used)),
            Source::Column {
                used,
                estimate: Some(estimate),
            } => {
                format!("{limit}: column {}, corrected to {}", name(estimate), name(used))
            }
            Source::Azure { context, generated } => {
                format!("{limit}: {} + {}", name(context), name(generated))
            }
        };
        self.amounts.iter().map(describe).collect()
    }

    /// How many columns there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Makes a request of a row, whose parts `get` has. The error says which column is wrong.
    pub(crate) fn row<'a>(
        &self,
        line: u64,
        options: &TraceOptions,
        get: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<Row, String> {
        let text = |index: usize| -> Result<Option<&'a str>, String> {
            let Some(cell) = get(index) else { return Ok(None) };
            let cell =
                std::str::from_utf8(cell).map_err(|_| format!("{}: is not UTF-8", self.column(index)))?;
            let cell = cell.trim();
            let is_empty = cell.is_empty() || (self.dash_is_empty && cell == "-");
            Ok((!is_empty).then_some(cell))
        };
        let optional = |index: Option<usize>| index.map_or(Ok(None), &text);
        if is_filtered(options, optional(self.status)?, optional(self.method)?) {
            return Ok(Row::Filtered);
        }
        let time = text(self.time)?.unwrap_or_default();
        let at_ms =
            time::parse(time, &options.zone).ok_or_else(|| self.wrong(self.time, time, time::EXPECTED))?;
        let mut entity = None;
        for &index in &self.entities {
            if let Some(name) = text(index)? {
                let checked = EntityId::new(name).map_err(|err| self.wrong(index, name, err.reason()))?;
                entity = Some(checked);
                break;
            }
        }
        let entity = entity.or_else(|| options.entity.clone()).ok_or_else(|| {
            let column = self
                .entities
                .first()
                .map_or_else(String::new, |index| self.column(*index));
            format!("{column}: is empty; name an entity for such rows with --entity")
        })?;
        let resource = match (self.resource, optional(self.resource)?) {
            (Some(index), Some(name)) => {
                ResourceName::new(name).map_err(|err| self.wrong(index, name, err.reason()))?
            }
            _ => options
                .resource
                .clone()
                .ok_or("the resource is empty; name one for such rows with --resource")?,
        };
        let parent = match (self.parent, optional(self.parent)?) {
            (Some(index), Some(name)) => {
                Some(EntityId::new(name).map_err(|err| self.wrong(index, name, err.reason()))?)
            }
            _ => options.parent.clone(),
        };
        let parent = parent.filter(|parent| *parent != entity);
        let (amounts, of_answer) = self.amounts_of(options, &text)?;
        let lasts_ms = match (self.duration, optional(self.duration)?) {
            (Some(index), Some(cell)) => {
                whole(cell)
                    .filter(|millis| *millis <= LONGEST_MS)
                    .ok_or_else(|| {
                        let expected =
                            format!("must be a whole number of milliseconds from 0 to {LONGEST_MS}");
                        self.wrong(index, cell, &expected)
                    })?
            }
            _ => of_answer.saturating_mul(options.ms_per_token).min(LONGEST_MS),
        };
        let fails = match (self.failed, optional(self.failed)?) {
            (Some(index), Some(cell)) => match cell.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => true,
                "false" | "0" | "no" => false,
                _ => return Err(self.wrong(index, cell, "must be true or false")),
            },
            _ => false,
        };
        Ok(Row::Request(Request {
            at_ms,
            line,
            entity,
            resource,
            parent,
            amounts,
            lasts_ms,
            fails,
        }))
    }

    /// The amounts, and the tokens of an answer.
    fn amounts_of<'a>(
        &self,
        options: &TraceOptions,
        text: &impl Fn(usize) -> Result<Option<&'a str>, String>,
    ) -> Result<(Vec<Amount>, u64), String> {
        let number = |index: usize| -> Result<Option<u64>, String> {
            let Some(cell) = text(index)? else { return Ok(None) };
            let amount = whole(cell).filter(|amount| *amount <= MAX_TOKENS);
            let expected = || format!("must be a whole number from 0 to {MAX_TOKENS}");
            Ok(Some(amount.ok_or_else(|| self.wrong(index, cell, &expected()))?))
        };
        let (mut amounts, mut of_answer) = (Vec::with_capacity(self.amounts.len()), 0);
        for (limit, source) in &self.amounts {
            let taken = match source {
                Source::One => Some((1, 1)),
                Source::Column { used, estimate } => {
                    let used = number(*used)?;
                    let estimate = estimate.map_or(Ok(None), number)?;
                    // With one of the two, there is no correction.
                    estimate.or(used).zip(used.or(estimate))
                }
                Source::Azure { context, generated } => {
                    let (context, generated) =
                        (number(*context)?.unwrap_or(0), number(*generated)?.unwrap_or(0));
                    of_answer = generated;
                    let sum = |answer| {
                        Ok::<_, String>(context + answer).and_then(|sum: u64| match sum {
                            0..=MAX_TOKENS => Ok(sum),
                            _ => Err(format!(
                                "the tokens of the request are {sum}; the most is {MAX_TOKENS}"
                            )),
                        })
                    };
                    Some((
                        sum(options.answer_estimate.unwrap_or(generated).min(MAX_TOKENS))?,
                        sum(generated)?,
                    ))
                }
            };
            let limit = limit.clone();
            amounts.extend(taken.map(|(asked, used)| Amount { limit, asked, used }));
        }
        if amounts.is_empty() {
            return Err("takes nothing: all columns of limits are empty".to_owned());
        }
        Ok((amounts, of_answer))
    }

    fn column(&self, index: usize) -> String {
        format!(
            "column {}",
            shown(self.names.get(index).map_or("", String::as_str))
        )
    }

    fn wrong(&self, index: usize, value: &str, expected: &str) -> String {
        format!("{} is {}: {expected}", self.column(index), shown(value))
    }
}

/// Whether a row is left out because of its status or method.
fn is_filtered(options: &TraceOptions, status: Option<&str>, method: Option<&str>) -> bool {
    let number = || status.and_then(|status| status.parse::<u16>().ok());
    let has_status = !options.skip_status.is_empty()
        && number().is_some_and(|number| options.skip_status.iter().any(|range| range.contains(number)));
    let is_wanted = options.methods.is_empty()
        || method.is_some_and(|method| options.methods.iter().any(|one| one.eq_ignore_ascii_case(method)));
    has_status || !is_wanted
}

/// A whole number in decimal digits.
fn whole(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Refuses roles that do not exist, and such as are named twice.
fn check_roles(options: &TraceOptions) -> Result<(), String> {
    for (index, (role, column)) in options.columns.iter().enumerate() {
        let limit = role.strip_suffix(ESTIMATE).unwrap_or(role);
        let is_known = ROLES.iter().any(|(known, _)| known == role)
            || *role == format!("tokens{ESTIMATE}")
            || options.limits.iter().any(|known| known.as_str() == limit);
        if !is_known {
            let roles: Vec<&str> = ROLES.iter().map(|(role, _)| *role).collect();
            return Err(format!(
                "--column {role}={column}: '{role}' must be one of {}, or a limit of the manifest ({}), also with the ending \
                 {ESTIMATE}",
                roles.join(", "),
                options.known()
            ));
        }
        if options.columns.iter().take(index).any(|(other, _)| other == role) {
            return Err(format!("--column {role} is given twice"));
        }
    }
    Ok(())
}

/// Where the amounts of all limits come from.
fn amounts(finder: &mut Finder<'_>, tokens: Option<usize>) -> Result<Vec<(LimitName, Source)>, String> {
    let options = finder.options;
    let mut amounts = Vec::new();
    for limit in &options.limits {
        let name = limit.as_str();
        let used = finder.role(name, &[name])?;
        let estimate = format!("{name}{ESTIMATE}");
        let estimate = finder.role(&estimate, &[&estimate])?;
        if let Some(used) = used.or(estimate) {
            amounts.push((limit.clone(), Source::Column { used, estimate }));
        }
    }
    let is_missing =
        |amounts: &[(LimitName, Source)], limit: &LimitName| amounts.iter().all(|(other, _)| other != limit);
    if let Some(limit) = options.of_tokens().filter(|limit| is_missing(&amounts, limit)) {
        let estimate = format!("tokens{ESTIMATE}");
        let estimate = finder.role(&estimate, &[&estimate])?;
        let of_azure = AZURE.map(|azure| {
            finder
                .names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(azure))
        });
        match (tokens.or(estimate), of_azure) {
            (Some(used), _) => amounts.push((limit, Source::Column { used, estimate })),
            (None, [Some(context), Some(generated)]) => {
                amounts.push((limit, Source::Azure { context, generated }));
            }
            _ => {}
        }
    }
    if let Some(limit) = options.counted().filter(|limit| is_missing(&amounts, limit)) {
        amounts.push((limit, Source::One));
    }
    amounts.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(amounts)
}

fn nothing_taken(names: &[String], options: &TraceOptions) -> String {
    format!(
        "says nothing about the limits of the manifest, which are {}. Name the one that counts requests with \
         --requests-limit, and that of tokens with --tokens-limit, or pass --column LIMIT=NAME; there are {}",
        options.known(),
        listed(names)
    )
}

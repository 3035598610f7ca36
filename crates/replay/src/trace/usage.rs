//! Exports of usage: sums of windows, spread over requests.
//!
//! An export has no requests. Its window of an hour with 60 requests and 6000 tokens becomes 60 requests of 100 tokens, one in each
//! minute, at a time in this minute that the seed draws. So bursts within a window are lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use jiff::Timestamp;
use serde_json::Value as Json;
use zae_limiter_core::{EntityId, LimitName, MAX_TOKENS, ResourceName};

use super::options::TraceOptions;
use super::{Amount, Request, TraceError, shown};

/// The largest export that is read, in bytes.
pub(crate) const LARGEST: usize = 256 << 20;

/// The requests of an export, in order of time.
#[derive(Debug)]
pub(crate) struct Spread {
    windows: Vec<Window>,
    /// The time of the next request of each window.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    /// What was left out or must be known.
    pub(crate) notes: Vec<String>,
}

/// One snapshot.
#[derive(Debug)]
struct Window {
    number: u64,
    entity: EntityId,
    resource: ResourceName,
    begin_ms: i64,
    length_ms: u64,
    requests: u64,
    done: u64,
    totals: Vec<(LimitName, u64)>,
    random: fastrand::Rng,
}

impl Window {
    /// When the next request is made: in its part of the window.
    fn draw(&mut self) -> i64 {
        let edge =
            |index: u64| u128::from(index) * u128::from(self.length_ms) / u128::from(self.requests.max(1));
        let (begin, end) = (edge(self.done), edge(self.done + 1));
        let drawn = self.random.u64(..(end - begin).max(1) as u64);
        // Within the window, whose length is an i64.
        self.begin_ms + (begin as u64 + drawn).cast_signed()
    }

    /// The next request's part of the sums.
    fn request(&self, at_ms: i64) -> Request {
        let part = |total: u64| {
            let upto = |index: u64| u128::from(index) * u128::from(total) / u128::from(self.requests.max(1));
            (upto(self.done + 1) - upto(self.done)) as u64
        };
        let amount = |(limit, total): &(LimitName, u64)| {
            let (limit, asked) = (limit.clone(), part(*total));
            Amount {
                limit,
                asked,
                used: asked,
            }
        };
        Request {
            at_ms,
            line: self.number,
            entity: self.entity.clone(),
            resource: self.resource.clone(),
            parent: None,
            amounts: self.totals.iter().map(amount).collect(),
            lasts_ms: 0,
            fails: false,
        }
    }
}

impl Spread {
    /// Reads an export.
    pub(crate) fn read(name: &str, text: &[u8], options: &TraceOptions) -> Result<Self, TraceError> {
        let failed = |problem: String| TraceError::of_file(name, problem);
        if options.parent.is_some() {
            return Err(failed(
                "an export of usage has the usage of entities above already; leave --parent out".to_owned(),
            ));
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let json: Json = serde_json::from_slice(text).map_err(|err| failed(format!("is not JSON: {err}")))?;
        let snapshots = json["snapshots"].as_array().ok_or_else(|| {
            failed(
                "has no list of snapshots; export it with 'zae-limiter usage list --output json'".to_owned(),
            )
        })?;
        let mut notes = Vec::new();
        if json["more"] == true {
            notes.push(
                "the export is not complete (\"more\": true); export it with a larger --limit".to_owned(),
            );
        }
        let (mut windows, mut others) = (Vec::new(), BTreeSet::new());
        let mut random = fastrand::Rng::with_seed(options.seed);
        for (snapshot, number) in snapshots.iter().zip(1..) {
            let window = window(snapshot, number, options, &mut others)
                .map_err(|problem| failed(format!("snapshots[{}]: {problem}", number - 1)))?;
            windows.extend(window.map(|window| Window {
                random: random.fork(),
                ..window
            }));
        }
        let before = windows.len();
        keep_shortest(&mut windows);
        if windows.len() < before {
            let left_out = before - windows.len();
            notes.push(format!(
                "{left_out} snapshots of longer windows count the same usage, and were left out"
            ));
        }
        if !others.is_empty() {
            let others: Vec<_> = others.into_iter().collect();
            notes.push(format!(
                "limits that no manifest declares were left out: {}",
                others.join(", ")
            ));
        }
        if windows.is_empty() {
            return Err(failed(format!(
                "has no usage of the limits of the manifest, which are {}",
                options.known()
            )));
        }
        notes.push(
            "requests are spread evenly over each window, so bursts within a window are not in this replay"
                .to_owned(),
        );
        windows
            .sort_by(|a, b| (a.begin_ms, &a.entity, &a.resource).cmp(&(b.begin_ms, &b.entity, &b.resource)));
        let mut next = BinaryHeap::new();
        for (index, window) in windows.iter_mut().enumerate() {
            next.push(Reverse((window.draw(), index)));
        }
        Ok(Self { windows, next, notes })
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> Option<Request> {
        let Reverse((at_ms, index)) = self.next.pop()?;
        let window = self.windows.get_mut(index)?;
        let request = window.request(at_ms);
        window.done += 1;
        if window.done < window.requests {
            let at_ms = window.draw();
            self.next.push(Reverse((at_ms, index)));
        }
        Some(request)
    }
}

/// Leaves out a window in which a shorter one of the same entity and resource lies: both count the same usage.
fn keep_shortest(windows: &mut Vec<Window>) {
    let mut lengths: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, window) in windows.iter().enumerate() {
        lengths.entry(window.length_ms).or_default().push(at);
    }
    let mut begins: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
    let mut is_kept = vec![true; windows.len()];
    for of_length in lengths.into_values() {
        for at in &of_length {
            let window = &windows[*at];
            let length = i64::try_from(window.length_ms).unwrap_or(i64::MAX);
            let end = window.begin_ms.saturating_add(length);
            let shorter = begins.get(&(&window.entity, &window.resource));
            is_kept[*at] = shorter.is_none_or(|begins| begins.range(window.begin_ms..end).next().is_none());
        }
        for at in of_length.into_iter().filter(|at| is_kept[*at]) {
            let window = &windows[at];
            let of = (&window.entity, &window.resource);
            begins.entry(of).or_default().insert(window.begin_ms);
        }
    }
    let mut kept = is_kept.into_iter();
    windows.retain(|_| kept.next().unwrap_or(true));
}

fn window(
    snapshot: &Json,
    number: u64,
    options: &TraceOptions,
    others: &mut BTreeSet<String>,
) -> Result<Option<Window>, String> {
    let text = |key: &str| {
        let value = &snapshot[key];
        value
            .as_str()
            .ok_or_else(|| format!("'{key}' is {}: must be text", shown(&value.to_string())))
    };
    let time = |key: &str| {
        let text = text(key)?;
        let time = text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
        time.filter(|millis| *millis >= 0).ok_or_else(|| {
            format!(
                "'{key}' is {}: must be a time such as 2026-01-15T09:00:00Z",
                shown(text)
            )
        })
    };
    let entity = text("entity_id")?;
    let resource = text("resource")?;
    let (begin_ms, end_ms) = (time("window_start")?, time("window_end")?);
    // The end is the last second of the window.
    let length_ms = u64::try_from(end_ms - begin_ms).ok().map(|length| length + 1000);
    let length_ms = length_ms.ok_or("'window_end' must not be before 'window_start'")?;
    let entity =
        EntityId::new(entity).map_err(|err| format!("'entity_id' is {}: {}", shown(entity), err.reason()))?;
    let resource = ResourceName::new(resource)
        .map_err(|err| format!("'resource' is {}: {}", shown(resource), err.reason()))?;
    let counters = snapshot["counters"]
        .as_object()
        .ok_or("'counters' must be an object")?;
    let mut totals = Vec::new();
    for (name, value) in counters {
        let total = match (value.as_u64(), value.as_i64()) {
            (Some(total), _) => total,
            // More was given back than taken.
            (None, Some(_)) => 0,
            (None, None) => {
                let value = shown(&value.to_string());
                return Err(format!(
                    "'counters.{name}' is {value}: must be a whole number below 2^64"
                ));
            }
        };
        match options.limits.iter().find(|limit| limit.as_str() == name) {
            Some(limit) => totals.push((limit.clone(), total)),
            None => drop(others.insert(shown(name))),
        }
    }
    let counted = options.counted();
    let of_counter = totals
        .iter()
        .find(|(limit, _)| Some(limit) == counted.as_ref())
        .map(|(_, total)| *total);
    let events = snapshot["total_events"].as_u64().unwrap_or(0);
    let requests = of_counter.filter(|count| *count > 0).unwrap_or(events);
    if let Some(limit) = counted
        && of_counter.is_none()
    {
        // It is new: what was recorded has no counter of it.
        totals.push((limit, requests));
    }
    if totals.iter().all(|(_, total)| *total == 0) {
        return Ok(None);
    }
    let requests = requests.max(1);
    if let Some((limit, total)) = totals.iter().find(|(_, total)| *total / requests >= MAX_TOKENS) {
        return Err(format!(
            "'counters.{limit}' is {total} for {requests} requests; a request takes at most {MAX_TOKENS}"
        ));
    }
    Ok(Some(Window {
        number,
        entity,
        resource,
        begin_ms,
        length_ms,
        requests,
        done: 0,
        totals,
        random: fastrand::Rng::with_seed(0),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn options(seed: u64) -> TraceOptions {
        let limits = ["rpm", "tpm"].map(|limit| LimitName::new(limit).unwrap());
        TraceOptions {
            limits: limits.into(),
            seed,
            ..TraceOptions::default()
        }
    }

    fn export(kind: &str, start: &str, end: &str, counters: &Json) -> Json {
        json!({ "entity_id": "key-1", "resource": "gpt-4", "window": kind, "window_start": start,
            "window_end": end, "total_events": 5, "counters": counters })
    }

    fn read(json: &Json, seed: u64) -> Result<Spread, String> {
        let text = json.to_string();
        Spread::read("usage.json", text.as_bytes(), &options(seed)).map_err(|err| err.to_string())
    }

    fn all(spread: &mut Spread) -> Vec<(i64, Vec<u64>)> {
        std::iter::from_fn(|| spread.next())
            .map(|request| {
                (
                    request.at_ms,
                    request.amounts.iter().map(|amount| amount.asked).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn a_window_becomes_as_many_requests_as_it_counts() {
        let hour = export(
            "hourly",
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:59:59Z",
            &json!({ "rpm": 3, "tpm": 10 }),
        );
        let day = export(
            "daily",
            "1970-01-01T00:00:00Z",
            "1970-01-01T23:59:59Z",
            &json!({ "rpm": 3, "tpm": 10 }),
        );
        let mut spread = read(&json!({ "snapshots": [day, hour], "more": false }), 1).unwrap();
        assert!(
            spread.notes[0].starts_with("1 snapshots of longer windows"),
            "{:?}",
            spread.notes
        );
        let found = all(&mut spread);
        let amounts: Vec<_> = found.iter().map(|(_, amounts)| amounts.clone()).collect();
        assert_eq!(amounts, [[1, 3], [1, 3], [1, 4]]);
        for ((at_ms, _), third) in found.iter().zip(0..) {
            assert!(
                (third * 1_200_000..(third + 1) * 1_200_000).contains(at_ms),
                "{found:?}"
            );
        }
    }

    /// Of the 1st there are only the days, of the 2nd the hour as well.
    #[test]
    fn a_day_is_left_out_only_if_its_hours_are_there() {
        let counters = json!({ "rpm": 3, "tpm": 10 });
        let day = |n: u32| {
            let (begin, end) = (
                format!("1970-01-0{n}T00:00:00Z"),
                format!("1970-01-0{n}T23:59:59Z"),
            );
            export("daily", &begin, &end, &counters)
        };
        let hour = export(
            "hourly",
            "1970-01-02T10:00:00Z",
            "1970-01-02T10:59:59Z",
            &json!({ "rpm": 1 }),
        );
        let mut spread = read(&json!({ "snapshots": [day(1), day(2), hour], "more": false }), 1).unwrap();
        assert!(spread.notes[0].starts_with("1 snapshots"), "{:?}", spread.notes);
        assert_eq!(all(&mut spread).len(), 3 + 1);
    }

    /// A limit of requests that is new has no counter.
    #[test]
    fn each_event_is_a_request_if_none_are_counted() {
        let (start, end) = ("1970-01-01T00:00:00Z", "1970-01-01T00:59:59Z");
        let hour = export("hourly", start, end, &json!({ "tpm": 10 }));
        let mut spread = read(&json!({ "snapshots": [hour], "more": false }), 1).unwrap();
        let amounts: Vec<_> = all(&mut spread).into_iter().map(|(_, amounts)| amounts).collect();
        assert_eq!(amounts, [[2, 1]; 5]);
    }

    #[test]
    fn a_seed_gives_one_order() {
        let counters = json!({ "tpm": 100 });
        let hours = ["00", "01"].map(|hour| {
            export(
                "hourly",
                &format!("2026-01-01T{hour}:00:00Z"),
                &format!("2026-01-01T{hour}:59:59Z"),
                &counters,
            )
        });
        let json = json!({ "snapshots": hours });
        let spread = |seed| all(&mut read(&json, seed).unwrap());
        assert_eq!(spread(1), spread(1));
        assert_ne!(spread(1), spread(2));
        assert_eq!(spread(1).len(), 10, "as many as there were events");
        assert!(spread(1).is_sorted_by_key(|(at_ms, _)| *at_ms));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = export(
            "hourly",
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:59:59Z",
            &json!({ "rpm": 3 }),
        );
        let with = |key: &str, value: Json| {
            let mut bad = good.clone();
            bad[key] = value;
            json!({ "snapshots": [good, bad] })
        };
        for (json, expected) in [
            (json!([]), "usage.json: has no list of snapshots"),
            (
                json!({ "snapshots": [] }),
                "usage.json: has no usage of the limits of the manifest, which are rpm, tpm",
            ),
            (
                with("entity_id", json!("a b")),
                "usage.json: snapshots[1]: 'entity_id' is 'a b': ",
            ),
            (
                with("resource", json!(1)),
                "usage.json: snapshots[1]: 'resource' is '1': must be text",
            ),
            (
                with("window_start", json!("x")),
                "usage.json: snapshots[1]: 'window_start' is 'x': must be a time",
            ),
            (
                with("window_start", json!("1970-01-02T00:00:00Z")),
                "usage.json: snapshots[1]: 'window_end' must not be before",
            ),
            (
                with("counters", json!({ "rpm": 1e30 })),
                "usage.json: snapshots[1]: 'counters.rpm' is '1e+30'",
            ),
            (
                with("counters", json!({ "tpm": u64::MAX })),
                "usage.json: snapshots[1]: 'counters.tpm' is 18446744073709551615",
            ),
        ] {
            let err = read(&json, 1).unwrap_err();
            assert!(err.starts_with(expected), "{err}");
        }
    }

    proptest! {
        #[test]
        fn sums_are_kept(rpm in 0_u64..50, tpm in 1_u64..1_000_000, seed in any::<u64>()) {
            let counters = json!({ "rpm": rpm, "tpm": tpm });
            let hour = export("hourly", "1970-01-01T00:00:00Z", "1970-01-01T00:59:59Z", &counters);
            let found = all(&mut read(&json!({ "snapshots": [hour] }), seed).unwrap());
            let sum = |index: usize| found.iter().map(|(_, amounts)| amounts[index]).sum::<u64>();
            prop_assert_eq!((sum(0), sum(1)), (rpm, tpm));
            prop_assert!(found.iter().all(|(at_ms, _)| (0..3_600_000).contains(at_ms)));
        }
    }
}

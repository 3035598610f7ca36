//! Orders things that depend on each other.

use std::collections::{BTreeMap, BTreeSet};

/// For each name, the names it depends on.
pub(super) type Dependencies = BTreeMap<String, BTreeSet<String>>;

/// Groups the names so that each depends on earlier groups only, each as early as it can be. If some depend on
/// themselves by any way round, the answer is those on such a way.
///
/// A dependency that is not a key counts as already existing.
pub(super) fn layers(dependencies: &Dependencies) -> Result<Vec<Vec<String>>, Vec<String>> {
    let mut waits: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, needs) in dependencies {
        let needs = needs.iter().filter(|need| dependencies.contains_key(*need));
        waits.insert(name, needs.clone().count());
        for need in needs {
            dependents.entry(need).or_default().push(name);
        }
    }
    let mut layers = Vec::new();
    let mut layer: Vec<&str> = waits
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| *name)
        .collect();
    while !layer.is_empty() {
        let mut next = Vec::new();
        for name in &layer {
            waits.remove(name);
            for dependent in dependents.get(name).into_iter().flatten() {
                if let Some(count) = waits.get_mut(dependent) {
                    *count -= 1;
                    if *count == 0 {
                        next.push(*dependent);
                    }
                }
            }
        }
        next.sort_unstable();
        layers.push(layer.into_iter().map(str::to_owned).collect());
        layer = next;
    }
    if waits.is_empty() {
        Ok(layers)
    } else {
        Err(on_cycles(dependencies, waits.into_keys().collect()))
    }
}

/// Takes away what merely depends on a cycle; what only leads to one is gone already.
fn on_cycles(dependencies: &Dependencies, mut left: BTreeSet<&str>) -> Vec<String> {
    loop {
        let needed: BTreeSet<&str> = left
            .iter()
            .filter_map(|name| dependencies.get(*name))
            .flatten()
            .map(String::as_str)
            .collect();
        let before = left.len();
        left.retain(|name| needed.contains(name));
        if left.len() == before {
            return left.into_iter().map(str::to_owned).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dependencies, layers};

    fn graph(edges: &[(&str, &[&str])]) -> Dependencies {
        edges
            .iter()
            .map(|(name, needs)| {
                (
                    (*name).to_owned(),
                    needs.iter().map(|need| (*need).to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn groups_are_as_early_as_can_be() {
        let graph = graph(&[
            ("a", &["b", "c"]),
            ("b", &["d"]),
            ("c", &["gone"]),
            ("d", &[]),
            ("e", &["d"]),
        ]);
        assert_eq!(
            layers(&graph).unwrap(),
            [vec!["c", "d"], vec!["b", "e"], vec!["a"]]
        );
        assert_eq!(layers(&Dependencies::new()).unwrap(), Vec::<Vec<String>>::new());
    }

    #[test]
    fn cycles_are_named_without_what_hangs_on_them() {
        let graph = graph(&[
            ("a", &["b"]),
            ("b", &["a", "root"]),
            ("leaf", &["a"]),
            ("root", &[]),
            ("self", &["self"]),
        ]);
        assert_eq!(layers(&graph).unwrap_err(), ["a", "b", "self"]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain = (0..50_000)
            .map(|n: u32| (format!("{n:06}"), [format!("{:06}", n + 1)].into_iter().collect()))
            .collect::<Dependencies>();
        assert_eq!(layers(&chain).unwrap().len(), 50_000);
    }
}

//! Which worker runs which users.

use std::collections::{BTreeMap, BTreeSet};

use super::WorkerId;
use crate::places::Places;

/// The users of a run and the workers that they are on: as many on each, and few move when something changes.
#[derive(Debug, Default)]
pub struct Spread {
    /// How often each class occurs, beside the others.
    weights: Vec<u32>,
    classes: Places,
    /// How many users there should be.
    users: usize,
    /// The worker of each user. Empty while there is no worker.
    owners: Vec<WorkerId>,
    shares: BTreeMap<WorkerId, Share>,
    /// The workers by their numbers of users.
    by_load: BTreeSet<(usize, WorkerId)>,
}

/// The users of a worker.
#[derive(Debug, Default)]
struct Share {
    places: BTreeSet<usize>,
    by_class: Vec<usize>,
}

impl Spread {
    /// No users yet. `weights` are those of the classes.
    pub fn new(weights: Vec<u32>) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    /// Adds a worker, which takes users from those that have the most.
    pub fn join(&mut self, worker: WorkerId) {
        if self.shares.contains_key(&worker) {
            return;
        }
        let by_class = vec![0; self.weights.len()];
        self.shares.insert(
            worker,
            Share {
                by_class,
                ..Share::default()
            },
        );
        self.by_load.insert((0, worker));
        self.fill();
        self.even_up();
    }

    /// Removes a worker; the others take its users.
    pub fn leave(&mut self, worker: WorkerId) {
        let Some(share) = self.shares.remove(&worker) else {
            return;
        };
        self.by_load.remove(&(share.places.len(), worker));
        if self.shares.is_empty() {
            self.owners.clear();
            return;
        }
        for place in share.places {
            if let Some(least) = self.least() {
                self.put(place, least);
            }
        }
        self.even_up();
    }

    /// Changes the number of users.
    pub fn resize(&mut self, users: usize) {
        self.users = users;
        while self.owners.len() > users {
            let place = self.owners.len() - 1;
            if let Some(owner) = self.owners.pop() {
                self.take(place, owner);
            }
        }
        self.fill();
        self.even_up();
    }

    /// How many users of each class a worker has; `None` if it is not among the workers.
    pub fn of(&self, worker: WorkerId) -> Option<&[usize]> {
        self.shares.get(&worker).map(|share| &*share.by_class)
    }

    /// How many users are on a worker.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// How many users there should be, also while there is no worker.
    pub fn wanted(&self) -> usize {
        self.users
    }

    /// Whether there is no user on any worker.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.shares.len()
    }

    /// Gives users without a worker to those that have the fewest.
    fn fill(&mut self) {
        while self.owners.len() < self.users {
            let Some(least) = self.least() else {
                return;
            };
            let place = self.owners.len();
            self.owners.push(least);
            self.put(place, least);
        }
    }

    /// Moves users until no worker has two more than another.
    fn even_up(&mut self) {
        while let (Some((few, least)), Some((many, most))) =
            (self.by_load.first().copied(), self.by_load.last().copied())
        {
            let place = self
                .shares
                .get(&most)
                .and_then(|share| share.places.last().copied());
            let Some(place) = place.filter(|_| many > few + 1) else {
                return;
            };
            self.take(place, most);
            self.put(place, least);
        }
    }

    fn least(&self) -> Option<WorkerId> {
        self.by_load.first().map(|(_, worker)| *worker)
    }

    fn put(&mut self, place: usize, worker: WorkerId) {
        if let Some(owner) = self.owners.get_mut(place) {
            *owner = worker;
        }
        self.change(worker, place, true);
    }

    fn take(&mut self, place: usize, worker: WorkerId) {
        self.change(worker, place, false);
    }

    fn change(&mut self, worker: WorkerId, place: usize, adds: bool) {
        let class = self.classes.class(place, &self.weights);
        let Some(share) = self.shares.get_mut(&worker) else {
            return;
        };
        self.by_load.remove(&(share.places.len(), worker));
        let count = share.by_class.get_mut(class);
        if adds {
            share.places.insert(place);
            if let Some(count) = count {
                *count += 1;
            }
        } else {
            share.places.remove(&place);
            if let Some(count) = count {
                *count = count.saturating_sub(1);
            }
        }
        self.by_load.insert((share.places.len(), worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(spread: &Spread) -> Vec<usize> {
        let users = |share: &Share| share.places.len();
        spread.shares.values().map(users).collect()
    }

    /// Checks that the parts agree, and returns how many users have another worker than before.
    fn moved(spread: &Spread, before: &[WorkerId]) -> usize {
        let loads = loads(spread);
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 1, "{loads:?}");
        assert_eq!(loads.iter().sum::<usize>(), spread.len());
        for (worker, share) in &spread.shares {
            assert_eq!(share.by_class.iter().sum::<usize>(), share.places.len());
            assert!(share.places.iter().all(|place| spread.owners[*place] == *worker));
        }
        let both = before.iter().zip(&spread.owners);
        both.filter(|(before, now)| before != now).count()
    }

    #[test]
    fn users_are_spread_evenly_and_few_move() {
        let mut spread = Spread::new(vec![1]);
        spread.resize(10);
        assert!(spread.is_empty(), "there is no worker");
        spread.join(1);
        assert_eq!(loads(&spread), [10]);
        let before = spread.owners.clone();
        spread.join(2);
        assert_eq!((loads(&spread), moved(&spread, &before)), (vec![5, 5], 5));
        let before = spread.owners.clone();
        spread.join(3);
        assert_eq!((loads(&spread), moved(&spread, &before)), (vec![4, 3, 3], 3));
        let before = spread.owners.clone();
        spread.leave(2);
        assert_eq!((loads(&spread), moved(&spread, &before)), (vec![5, 5], 3));
        let before = spread.owners.clone();
        spread.leave(2);
        assert_eq!(moved(&spread, &before), 0, "it had left");
        spread.leave(1);
        spread.leave(3);
        assert_eq!((spread.len(), spread.workers()), (0, 0));
        spread.join(4);
        assert_eq!(spread.of(4), Some(&[10][..]), "the users wait for a worker");
    }

    #[test]
    fn classes_keep_their_weights_over_all_workers() {
        let mut spread = Spread::new(vec![3, 1]);
        for worker in 0..4 {
            spread.join(worker);
        }
        spread.resize(8);
        let sum = |class: usize| -> usize { (0..4).map(|worker| spread.of(worker).unwrap()[class]).sum() };
        assert_eq!((sum(0), sum(1)), (6, 2));
        assert_eq!(spread.of(9), None);
    }

    #[test]
    fn any_order_of_changes_keeps_the_balance() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut spread = Spread::new(vec![2, 1, 1]);
        spread.join(0);
        for step in 0..2000 {
            let before = spread.owners.clone();
            let workers = spread.workers();
            let changed = match rng.u32(..4) {
                0 => {
                    spread.join(step);
                    before.len() / (workers + 1)
                }
                1 if workers > 1 => {
                    let ids: Vec<_> = spread.shares.keys().copied().collect();
                    let id = rng.choice(&ids).copied().unwrap();
                    spread.leave(id);
                    before.iter().filter(|owner| **owner == id).count()
                }
                _ => {
                    let users = rng.usize(..200);
                    spread.resize(users);
                    assert_eq!(spread.len(), users);
                    before.len().abs_diff(users)
                }
            };
            assert!(moved(&spread, &before) <= changed, "step {step}");
        }
    }
}

//! The custom resources of CloudFormation that declare what is managed in a namespace.
//!
//! If a resource is renamed, CloudFormation creates the new one before it deletes the old one, and several stacks can declare the
//! same namespace. What is managed is deleted with the last of them.

use crate::table::{Item, Value};

/// The attribute in the record of managed levels. Clients that do not know it keep it or drop it.
const ATTRIBUTE: &str = "declared_by";

/// The most owners that are kept. Those of stacks that were deleted without calling the function stay.
const MOST: usize = 100;

/// The resources that declare what is managed, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners(Vec<String>);

impl Owners {
    /// Reads them from the record of managed levels. None, if the record is of a client that does not know them.
    pub fn decode(record: &Item) -> Self {
        let Some(Value::L(list)) = record.get(ATTRIBUTE) else {
            return Self::default();
        };
        Self(
            list.iter()
                .filter_map(Value::as_text)
                .map(str::to_owned)
                .collect(),
        )
    }

    /// Stores them in the record.
    pub fn store(&self, record: &mut Item) {
        if self.0.is_empty() {
            record.remove(ATTRIBUTE);
        } else {
            let list = self.0.iter().map(Value::text).collect();
            record.insert(ATTRIBUTE.into(), Value::L(list));
        }
    }

    /// Adds one, if it is new. With too many, the oldest is dropped.
    pub fn add(&mut self, owner: &str) {
        if self.0.iter().any(|known| known == owner) {
            return;
        }
        self.0.push(owner.to_owned());
        let surplus = self.0.len().saturating_sub(MOST);
        self.0.drain(..surplus);
    }

    /// Takes one out.
    pub fn remove(&mut self, owner: &str) {
        self.0.retain(|known| known != owner);
    }

    /// Their names.
    pub fn into_names(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_kept_in_order_and_bounded() {
        let mut owners = Owners::default();
        for n in 0..MOST + 2 {
            owners.add(&format!("stack {n}"));
        }
        owners.add("stack 50");
        owners.remove("stack 60");
        let mut record = Item::new();
        owners.store(&mut record);
        assert_eq!(Owners::decode(&record), owners);
        let names = owners.clone().into_names();
        assert_eq!((names.len(), names[0].as_str()), (MOST - 1, "stack 2"));
        Owners::default().store(&mut record);
        assert!(record.is_empty());
        record.insert(ATTRIBUTE.into(), Value::text("other"));
        assert_eq!(Owners::decode(&record), Owners::default());
        record.insert(ATTRIBUTE.into(), Value::L(vec![Value::Null, Value::text("a")]));
        assert_eq!(Owners::decode(&record).into_names(), ["a"]);
    }
}

//! Sums of what was consumed: by each job, and on all items.

use std::collections::BTreeMap;

use super::check::Check;
use crate::rows::change::Sums;

impl Check {
    /// Checks what a job has done to the table so far against bounds.
    ///
    /// # Errors
    /// Names the limit that is out of bounds.
    pub fn expect(&self, job: usize, low: &Sums, high: &Sums) -> Result<(), String> {
        let empty = Sums::new();
        let net = self.nets.get(&job).unwrap_or(&empty);
        for id in net.keys().chain(low.keys()).chain(high.keys()) {
            let of = |sums: &Sums| sums.get(id).copied().unwrap_or(0);
            let (low, net, high) = (of(low), of(net), of(high));
            if net < low || net > high {
                return Err(format!(
                    "{}, {}: net {net} is not within {low} to {high}",
                    id.0, id.1
                ));
            }
        }
        Ok(())
    }

    /// Checks that counted consumption on all items is what was booked.
    ///
    /// # Errors
    /// Names the limit whose sums differ.
    pub fn conserved(&self) -> Result<(), String> {
        let mut sums = self.others.clone();
        for ((bucket, limit), sum) in self.nets.values().flatten() {
            *sums.entry((bucket.clone(), limit.clone())).or_default() += sum;
        }
        for ((bucket, limit), sum) in sums {
            let rows = self.rows.get(&bucket).into_iter().flat_map(BTreeMap::values);
            let cells = rows.filter_map(|row| row.limits.get(&limit));
            let buried = self.buried.get(&(bucket.clone(), limit.clone()));
            let counted = cells.map(|cell| cell.tc).sum::<i128>() + buried.copied().unwrap_or(0);
            if counted != sum {
                return Err(format!(
                    "{bucket}, {limit}: items count {counted}, {sum} was booked"
                ));
            }
        }
        Ok(())
    }
}

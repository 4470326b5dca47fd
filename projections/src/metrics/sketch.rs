//! A sketch of values: how many are of which size, so that quantiles of any union are known.
//!
//! Sizes fall into buckets as in an HDR histogram: 32 to each doubling, so that a value is known
//! within 1/64 (1.6 %) of itself. Which bucket is a matter of whole numbers alone, so every machine
//! and every order of values gives the same sketch; sketches are merged by adding up. There are
//! 3,777 buckets, and a sketch holds those that have a value.

use std::collections::BTreeMap;

/// Bits of a value that its bucket knows, beside the highest one.
const BITS: u32 = 5;

/// How many values are of which size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sketch(BTreeMap<i32, u64>);

impl Sketch {
    pub(super) fn add(&mut self, value: i64) {
        *self.0.entry(bucket(value)).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// The least value that so many of a hundred values are at most as large as; `None` of none.
    pub(super) fn percentile(&self, percent: u64) -> Option<i64> {
        let all: u64 = self.0.values().sum();
        let rank = (u128::from(all) * u128::from(percent)).div_ceil(100);
        let mut passed = 0;
        let found = self.0.iter().find(|(_, count)| {
            passed += u128::from(**count);
            passed >= rank
        });
        found.map(|(bucket, _)| middle(*bucket))
    }

    /// As it is stored: `[bucket,count,bucket,count…]` in order; empty without a value.
    pub(super) fn to_text(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let flat: Vec<i128> = self
            .0
            .iter()
            .flat_map(|(bucket, count)| [i128::from(*bucket), i128::from(*count)])
            .collect();
        serde_json::to_string(&flat).unwrap_or_default()
    }

    pub(super) fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let flat: Vec<i64> = serde_json::from_str(text)?;
        let pairs = flat.chunks_exact(2).map(|pair| {
            let bucket = i32::try_from(pair[0]).unwrap_or_default();
            (bucket, pair[1].unsigned_abs())
        });
        Ok(Self(pairs.collect()))
    }
}

/// The bucket of a value; buckets are in the order of values.
fn bucket(value: i64) -> i32 {
    let size = value.unsigned_abs();
    let highest = u64::BITS - size.leading_zeros();
    let shift = highest.saturating_sub(BITS + 1);
    // At most 57 × 32 + 63 for the size of any i64.
    let index = (u64::from(shift) << BITS) + (size >> shift);
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    if value < 0 { -index } else { index }
}

/// The value in the middle of a bucket.
fn middle(bucket: i32) -> i64 {
    let index = bucket.unsigned_abs();
    let shift = (index >> BITS).saturating_sub(1);
    let least = u64::from(index - (shift << BITS)) << shift;
    let size = i64::try_from(least + (1_u64 << shift) / 2).unwrap_or(i64::MAX);
    if bucket < 0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of every size, small ones one by one.
    fn values() -> impl Iterator<Item = i64> {
        let large = (6..63).flat_map(|bits| {
            let one = 1_i64 << bits;
            [one - 1, one, one + 1, one + one / 3, one + (one - 1)]
        });
        (0..300).chain(large).chain([i64::MAX]).flat_map(|value| [value, -value])
    }

    #[test]
    fn a_value_is_known_within_a_64th() {
        for value in values() {
            let known = middle(bucket(value));
            let error = known.abs_diff(value);
            assert!(u128::from(error) * 64 <= u128::from(value.unsigned_abs()), "{value}: {known}");
        }
        assert_eq!(middle(bucket(i64::MIN)).signum(), -1);
    }

    #[test]
    fn buckets_are_in_the_order_of_values() {
        let mut all: Vec<i64> = values().collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1])));
        assert_eq!(bucket(i64::MAX), 57 * 32 + 63);
    }

    #[test]
    fn parts_in_any_order_give_the_same_sketch_and_its_quantiles() {
        let (mut whole, mut parts) = (Sketch::default(), vec![Sketch::default(); 3]);
        for value in 1..=1_000_i64 {
            whole.add(value * 1_000);
            parts[usize::try_from(value).expect("small") % 3].add(value * 1_000);
        }
        let mut merged = Sketch::default();
        parts.iter().rev().for_each(|part| merged.merge(part));
        assert_eq!(merged, whole);
        assert_eq!(Sketch::from_text(&whole.to_text()).expect("it reads"), whole);
        for (percent, is) in [(0, 1_000), (50, 500_000), (90, 900_000), (99, 990_000)] {
            let known = whole.percentile(percent).expect("values");
            assert!(known.abs_diff(is) * 64 <= is.unsigned_abs(), "{percent}: {known}");
        }
        assert_eq!(Sketch::default().percentile(50), None);
        let mut two = Sketch::default();
        [10, 20].into_iter().for_each(|value| two.add(value));
        let percentiles = [50, 51, 100].map(|percent| two.percentile(percent));
        assert_eq!(percentiles, [Some(10), Some(20), Some(20)]);
        assert_eq!(Sketch::from_text("").expect("it reads"), Sketch::default());
    }
}

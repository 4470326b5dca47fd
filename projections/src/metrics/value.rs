//! What is kept of the values of a series in some time.
//!
//! Values are whole numbers of millionths, and sums are exact: floats would give other sums for
//! another order of the same events.

use sqlx::FromRow;

use super::sketch::Sketch;

/// Millionths of one.
pub(super) const ONE: i64 = 1_000_000;

/// What is kept of some values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) count: u64,
    pub(super) sum: i128,
    pub(super) least: i64,
    pub(super) most: i64,
    /// Of distributions; of others it is empty.
    pub(super) sketch: Sketch,
}

impl Default for Values {
    fn default() -> Self {
        Self { count: 0, sum: 0, least: i64::MAX, most: i64::MIN, sketch: Sketch::default() }
    }
}

/// The columns of values that are stored.
#[derive(FromRow)]
pub(super) struct Stored {
    count: i64,
    sum: String,
    least: i64,
    most: i64,
    sketch: String,
}

impl TryFrom<Stored> for Values {
    /// What is damaged.
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored { count, sum, least, most, sketch } = stored;
        let sum = sum.parse().map_err(|error| format!("its sum: {error}"))?;
        let sketch = Sketch::from_text(&sketch).map_err(|error| format!("its sketch: {error}"))?;
        Ok(Self { count: count.unsigned_abs(), sum, least, most, sketch })
    }
}

impl Values {
    pub(super) fn add(&mut self, value: i64, is_distribution: bool) {
        self.count += 1;
        self.sum += i128::from(value);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        if is_distribution {
            self.sketch.add(value);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.sketch.merge(&other.sketch);
    }

    /// As many ones, whatever the values are.
    pub(super) fn counted(&self) -> Self {
        let (one, sketch) = (ONE, Sketch::default());
        let sum = i128::from(self.count) * i128::from(one);
        Self { count: self.count, sum, least: one, most: one, sketch }
    }
}

/// A number in millionths, rounded; the largest where it is beyond.
pub(super) fn of_number(number: f64) -> i64 {
    // A cast from a float saturates.
    (number * ONE as f64).round() as i64
}

/// A whole number in millionths; the largest where it is beyond.
pub(super) fn of_whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(ONE)
}

/// Microseconds as milliseconds in millionths.
pub(super) const fn of_micros(micros: i64) -> i64 {
    let micros = if micros < 0 { 0 } else { micros };
    micros.saturating_mul(ONE / 1_000)
}

/// Millionths as a number.
pub(super) fn number(millionths: i128) -> f64 {
    millionths as f64 / ONE as f64
}

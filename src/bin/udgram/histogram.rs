//! Counts durations in buckets whose width grows with them, so that percentiles of any number of them take
//! a fixed amount of memory.

use std::time::Duration;

/// The number of bits of a duration that are kept: a percentile is at most 1/128 too high.
const PRECISION: u32 = 7;
/// The number of buckets for the durations that have the same number of bits.
const BUCKETS: usize = 1 << PRECISION;
/// The number of groups of buckets: one for short durations, which are exact, and one for each longer length.
const GROUPS: usize = (u64::BITS - PRECISION + 1) as usize;

/// A histogram of durations in nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; GROUPS * BUCKETS],
            count: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Returns how many durations were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the duration that `percent` of the recorded ones do not exceed; zero if there are none.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                return Duration::from_nanos(last(index).min(self.max));
            }
        }
        Duration::ZERO
    }
}

/// Returns the index of the bucket of a value.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    // The shifted value is below two groups, and from one group up where there is a shift.
    let kept = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    shift as usize * BUCKETS + kept
}

/// Returns the largest value of a bucket.
fn last(index: usize) -> u64 {
    let shift = (index / BUCKETS).saturating_sub(1);
    let kept = (index - shift * BUCKETS) as u64;
    (kept << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_bucket_that_ends_at_most_an_128th_above_it() {
        let mut value = 0_u64;
        while value < u64::MAX / 3 {
            for value in [value, value + 1, value * 2, value * 3] {
                let last = last(bucket(value));
                assert!(
                    last >= value && last - value <= value / 128,
                    "{value}: {last}"
                );
            }
            value += value / 3 + 1;
        }
        assert_eq!(last(bucket(u64::MAX)), u64::MAX);
        assert_eq!(bucket(u64::MAX), GROUPS * BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_all_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50), Duration::ZERO);
        for nanoseconds in 1..=100 {
            histogram.record(Duration::from_nanos(nanoseconds));
        }
        for percent in [1, 50, 99, 100] {
            assert_eq!(histogram.percentile(percent), Duration::from_nanos(percent));
        }
        histogram.record(Duration::from_secs(1_000));
        assert_eq!(histogram.max(), Duration::from_secs(1_000));
        assert_eq!(histogram.percentile(100), Duration::from_secs(1_000));
        assert_eq!(histogram.count(), 101);
    }
}

//! Decides whether a receiver spins before it sleeps.

use std::time::{Duration, Instant};

/// The longest time to spin. To sleep and to be woken takes about as long on an idle processor.
const LONGEST: Duration = Duration::from_micros(50);
/// The time of one try, recvmmsg(2) and sched_yield(2), if no other process runs in between. Tries are counted
/// and not timed, because the time of another process costs this one nothing.
const TRY: Duration = Duration::from_nanos(1500);
/// The share of the time that may be spent spinning in the long run: one part in so many.
const SHARE: u32 = 3;
/// The part of a spin that costs nothing: to fall asleep and to be woken takes as much processor time.
const FREE: Duration = Duration::from_micros(5);
/// The credit of a receiver that has not spun for a while: some 100 spins.
const MOST_CREDIT: Duration = Duration::from_millis(5);

/// The last waits of a receiver. It spins if the last one was short: a peer that runs on another processor
/// often answers sooner than a wake-up takes. A peer that sends every 10 to 50 µs would keep a whole
/// processor busy, so spinning for longer than a sleep costs is limited to a third of the time in the long run.
#[derive(Debug)]
pub(crate) struct Spin {
    /// True if the last wait was shorter than the longest spin.
    short: bool,
    credit: Duration,
    /// The time up to which credit was given.
    credited: Option<Instant>,
}

impl Spin {
    pub(crate) const fn new() -> Self {
        Self {
            short: false,
            credit: MOST_CREDIT,
            credited: None,
        }
    }

    /// Returns how long to spin from `now` on.
    pub(crate) fn limit(&mut self, now: Instant) -> Duration {
        let before = self.credited.replace(now).unwrap_or(now);
        let earned = now.saturating_duration_since(before) / SHARE;
        self.credit = (self.credit + earned).min(MOST_CREDIT);
        if self.short && self.credit >= LONGEST {
            LONGEST
        } else {
            Duration::ZERO
        }
    }

    /// Returns how often to try again before spinning, at most `most` times.
    pub(crate) fn tries(&self, most: u32) -> u32 {
        if self.credit >= LONGEST { most } else { 1 }
    }

    /// Notes how often the receiver has tried before it spun, and how long it has spun.
    pub(crate) fn spent(&mut self, tries: u32, time: Duration) {
        let time = TRY * tries + time;
        self.credit = self.credit.saturating_sub(time.saturating_sub(FREE));
    }

    /// Notes how long a wait took, and whether it ended because the socket was readable.
    pub(crate) fn waited(&mut self, time: Duration, readable: bool) {
        self.short = readable && time < LONGEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the share of a second that a receiver spins whose peer sends every `gap`.
    fn share(gap: Duration) -> f64 {
        let mut spin = Spin::new();
        let start = Instant::now();
        let (mut now, mut total) = (start, Duration::ZERO);
        spin.waited(gap, true);
        // Begin after the initial credit is used.
        spin.credit = Duration::ZERO;
        while now < start + Duration::from_secs(1) {
            let time = gap.min(spin.limit(now));
            spin.spent(0, time);
            spin.waited(gap, true);
            total += time;
            now += gap;
        }
        total.as_secs_f64()
    }

    #[test]
    fn a_peer_that_sends_every_10_to_49_us_costs_a_third_of_a_processor_beside_what_sleeping_costs()
    {
        for gap in [10_u32, 20, 40, 49] {
            let share = share(Duration::from_micros(gap.into()));
            let beside = share * f64::from(gap - 5) / f64::from(gap);
            assert!((0.3..0.34).contains(&beside), "{gap} µs: {share}");
        }
    }

    #[test]
    fn the_tries_before_a_spin_count() {
        for gap in [10_u32, 20, 40, 49].map(|gap| Duration::from_micros(gap.into())) {
            let mut spin = Spin::new();
            spin.credit = Duration::ZERO;
            let (start, mut total) = (Instant::now(), Duration::ZERO);
            let mut now = start;
            while now < start + Duration::from_secs(1) {
                let most = spin.tries(16) + 1;
                let tries = (1..most).find(|tries| TRY * *tries >= gap).unwrap_or(most);
                let before = (TRY * tries).min(gap);
                let left = gap.saturating_sub(before);
                let mut looped = Duration::ZERO;
                if !left.is_zero() {
                    looped = spin.limit(now + before).min(left);
                    spin.waited(left, true);
                }
                spin.spent(tries, looped);
                total += before + looped;
                now += gap;
            }
            let free = FREE.as_secs_f64() / gap.as_secs_f64();
            let beside = total.as_secs_f64() - free;
            assert!(beside < 0.36, "{gap:?}: {beside}");
        }
    }

    #[test]
    fn a_peer_that_answers_within_7_us_is_never_awaited_asleep() {
        for gap in [1, 5, 7] {
            let share = share(Duration::from_micros(gap));
            assert!(share > 0.999, "{gap} µs: {share}");
        }
    }

    #[test]
    fn a_peer_that_sends_every_50_us_or_less_often_is_awaited_asleep() {
        assert!(share(Duration::from_micros(50)) < 0.001);
    }

    #[test]
    fn a_wait_without_a_datagram_ends_the_spinning() {
        let mut spin = Spin::new();
        let short = Duration::from_micros(10);
        spin.waited(short, true);
        assert_eq!(spin.limit(Instant::now()), LONGEST);
        spin.waited(short, false);
        assert_eq!(spin.limit(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn a_receiver_without_credit_tries_once() {
        let mut spin = Spin::new();
        assert_eq!(spin.tries(16), 16);
        spin.spent(0, MOST_CREDIT + FREE);
        assert_eq!(spin.tries(16), 1);
    }
}

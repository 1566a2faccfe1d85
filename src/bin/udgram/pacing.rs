//! The times at which packets are due: at a fixed rate (`--rate`), or with the gaps between the times at which they were
//! received (`--pace`).

use std::time::{Duration, Instant, SystemTime};

/// The lateness that is made up for, if the gap between packets is shorter: the scheduler runs other
/// processes for a few milliseconds before one that has just become ready. What is later is a stall.
const JITTER: Duration = Duration::from_millis(10);

/// The time from one packet to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Nothing: each is due when it is there.
    Unlimited,
    /// A fixed time.
    Fixed(Duration),
    /// The time between their reception, divided by the factor.
    Recorded(f64),
}

/// The times at which packets are due. Each is counted from the time at which the one before it was due, so
/// that late wake-ups do not add up. After a stall it is counted from the time at which the one before it was
/// sent: missed times are not made up for by a burst.
#[derive(Debug)]
pub(crate) struct Pacing {
    pace: Pace,
    /// The time from which the next gap is counted; `None` before the first packet.
    base: Option<Instant>,
    /// The time at which the last packet that has one was received.
    received: Option<SystemTime>,
}

/// A packet's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// The time at which it is to be sent.
    pub(crate) at: Instant,
    /// The time since the packet before it was due.
    gap: Duration,
}

impl Pacing {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            base: None,
            received: None,
        }
    }

    /// Returns whether packets may be sent together, at once.
    pub(crate) fn is_unlimited(&self) -> bool {
        matches!(self.pace, Pace::Unlimited)
    }

    /// Returns when the next packet is due, which is there since `available` and was `received` at that
    /// time. [`note_sent`](Self::note_sent) has to follow.
    pub(crate) fn due(&self, available: Instant, received: Option<SystemTime>) -> Due {
        let gap = match (self.pace, self.base) {
            (Pace::Unlimited, _) | (_, None) => Duration::ZERO,
            (Pace::Fixed(gap), Some(_)) => gap,
            (Pace::Recorded(factor), Some(_)) => self.recorded_gap(received, factor),
        };
        // The clock cannot express a time so far away: it never comes.
        let far = Duration::from_secs(u64::from(u32::MAX));
        let at = self.base.map_or(available, |base| {
            let at = base.checked_add(gap).unwrap_or_else(|| base + far);
            at.max(available)
        });
        Due { at, gap }
    }

    /// Returns the gap before a packet. It is zero if the packet or its predecessors have no time, and if its
    /// time is earlier than theirs.
    fn recorded_gap(&self, received: Option<SystemTime>, factor: f64) -> Duration {
        let (Some(received), Some(before)) = (received, self.received) else {
            return Duration::ZERO;
        };
        let gap = received.duration_since(before).unwrap_or_default();
        Duration::try_from_secs_f64(gap.as_secs_f64() / factor).unwrap_or(Duration::MAX)
    }

    /// Notes that a packet which was due then is sent at `now`.
    pub(crate) fn note_sent(&mut self, due: Due, received: Option<SystemTime>, now: Instant) {
        let late = now.saturating_duration_since(due.at);
        self.base = Some(if late <= due.gap.max(JITTER) {
            due.at
        } else {
            now
        });
        self.received = received.or(self.received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_millis(10);

    #[test]
    fn late_wake_ups_do_not_add_up_and_a_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut pacing = Pacing::new(Pace::Fixed(GAP));
        let mut at = Vec::new();
        for late in [0, 1, 3, 9, 500, 0, 0] {
            let due = pacing.due(start, None);
            at.push((due.at - start).as_millis());
            pacing.note_sent(due, None, due.at + Duration::from_millis(late));
        }
        assert_eq!(at, [0, 10, 20, 30, 40, 550, 560]);
    }

    #[test]
    fn a_packet_that_comes_later_is_due_when_it_is_there() {
        let start = Instant::now();
        let mut pacing = Pacing::new(Pace::Fixed(GAP));
        let due = pacing.due(start, None);
        pacing.note_sent(due, None, start);
        let late = start + Duration::from_secs(1);
        let due = pacing.due(late, None);
        assert_eq!(due.at, late);
        pacing.note_sent(due, None, late);
        assert_eq!(pacing.due(late, None).at, late + GAP);
    }

    #[test]
    fn recorded_gaps_are_divided_by_the_factor_and_a_clock_that_went_back_is_no_gap() {
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut pacing = Pacing::new(Pace::Recorded(2.0));
        let mut at = Vec::new();
        for seconds in [Some(100), Some(102), None, Some(104), Some(50), Some(52)] {
            let received = seconds.map(|seconds| epoch + Duration::from_secs(seconds));
            let due = pacing.due(start, received);
            at.push((due.at - start).as_secs());
            pacing.note_sent(due, received, due.at);
        }
        assert_eq!(at, [0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_gap_that_no_clock_can_express_does_not_end() {
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut pacing = Pacing::new(Pace::Recorded(f64::MIN_POSITIVE));
        let due = pacing.due(start, Some(epoch));
        pacing.note_sent(due, Some(epoch), start);
        let due = pacing.due(start, Some(epoch + GAP));
        assert!(due.at > start + Duration::from_secs(1 << 30));
    }
}

//! Token buckets for ICMP errors (RFC 4443 §2.4 f).

use std::time::{Duration, Instant};

use crate::{config::ErrorPolicy, icmp_error::Message};

/// Decides whether one more ICMP error may be sent. Those that tell a size have a bucket of their
/// own: connections that wait for one would hang as long as strangers provoke other errors.
#[derive(Clone, Debug)]
pub struct ErrorLimit {
    sizes: RateLimit,
    others: RateLimit,
}

impl ErrorLimit {
    /// Full buckets, to each of which `policy` applies by itself.
    #[must_use]
    pub fn new(policy: ErrorPolicy) -> Self {
        Self {
            sizes: RateLimit::new(policy),
            others: RateLimit::new(policy),
        }
    }

    /// Whether this error may be sent now; if so, it is counted as sent.
    pub fn allow(&mut self, message: &Message, now: Instant) -> bool {
        if message.tells_size() {
            self.sizes.allow(now)
        } else {
            self.others.allow(now)
        }
    }
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct RateLimit {
    policy: ErrorPolicy,
    tokens: u32,
    /// When `tokens` was right.
    since: Option<Instant>,
}

impl RateLimit {
    /// A full bucket.
    #[must_use]
    pub fn new(policy: ErrorPolicy) -> Self {
        let tokens = match policy {
            ErrorPolicy::Limit { burst, .. } => burst,
            ErrorPolicy::Send | ErrorPolicy::Off => 0,
        };
        Self {
            policy,
            tokens,
            since: None,
        }
    }

    /// Whether an error may be sent now; if so, it is counted as sent.
    pub fn allow(&mut self, now: Instant) -> bool {
        match self.policy {
            ErrorPolicy::Send => true,
            ErrorPolicy::Off => false,
            ErrorPolicy::Limit { burst, per_second } => {
                self.refill(now, burst, per_second);
                let allowed = self.tokens > 0;
                self.tokens = self.tokens.saturating_sub(1);
                allowed
            }
        }
    }

    fn refill(&mut self, now: Instant, burst: u32, per_second: u32) {
        let since = *self.since.get_or_insert(now);
        let Some(interval) = Duration::from_secs(1).checked_div(per_second) else {
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        let due = elapsed.as_nanos() / interval.as_nanos().max(1);
        let room = u128::from(burst - self.tokens.min(burst));
        if due >= room {
            self.tokens = burst;
            self.since = Some(now);
        } else if let Ok(due) = u32::try_from(due) {
            self.tokens += due;
            self.since = Some(since + interval * due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::origin;

    fn sent(limit: &mut RateLimit, now: Instant, attempts: usize) -> usize {
        (0..attempts).filter(|_| limit.allow(now)).count()
    }

    #[test]
    fn xlat_5_4_01_errors_come_in_a_burst_and_then_at_a_rate() {
        let start = origin();
        let mut limit = RateLimit::new(ErrorPolicy::Limit {
            burst: 10,
            per_second: 20,
        });
        assert_eq!(sent(&mut limit, start, 50), 10);
        assert_eq!(sent(&mut limit, start + Duration::from_millis(49), 5), 0);
        assert_eq!(sent(&mut limit, start + Duration::from_millis(50), 5), 1);
        assert_eq!(sent(&mut limit, start + Duration::from_millis(260), 50), 4);
        assert_eq!(sent(&mut limit, start + Duration::from_secs(100), 50), 10);
        // A clock that stands still or jumps back gives nothing and breaks nothing.
        assert_eq!(sent(&mut limit, start, 50), 0);
    }

    #[test]
    fn a_bucket_does_not_run_over() {
        let start = origin();
        let mut limit = RateLimit::new(ErrorPolicy::Limit {
            burst: 10,
            per_second: 20,
        });
        assert_eq!(sent(&mut limit, start, 5), 5);
        assert_eq!(sent(&mut limit, start + Duration::from_millis(400), 50), 10);
    }

    #[test]
    fn errors_can_be_always_or_never() {
        let now = origin();
        assert_eq!(
            sent(&mut RateLimit::new(ErrorPolicy::Send), now, 1000),
            1000
        );
        assert_eq!(sent(&mut RateLimit::new(ErrorPolicy::Off), now, 1000), 0);
        let stopped = ErrorPolicy::Limit {
            burst: 3,
            per_second: 0,
        };
        assert_eq!(sent(&mut RateLimit::new(stopped), now, 10), 3);
    }
}

//! Counters for `/performance-stats`. One clip is one request: each file of a batch counts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

/// Percentiles are those of so many requests, the latest.
const RECENT: usize = 1024;

/// The counters as they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct PerformanceMetrics {
    pub(crate) total_requests: u64,
    pub(crate) successful_requests: u64,
    pub(crate) failed_requests: u64,
    /// Mean over the successful ones, seconds.
    pub(crate) avg_processing_time: f64,
    /// Percentiles of the latest successful ones, milliseconds; 0 before the first.
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cache_hits: u64,
}

#[derive(Default)]
struct Counters {
    successful: u64,
    failed: u64,
    cache_hits: u64,
    sum_s: f64,
    recent_ms: VecDeque<f64>,
}

/// Counts answers.
#[derive(Default)]
pub(crate) struct Stats {
    counters: Mutex<Counters>,
}

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clip was answered.
    pub(crate) fn succeeded(&self, took: Duration, cached: bool) {
        let mut counters = self.lock();
        counters.successful += 1;
        counters.cache_hits += u64::from(cached);
        counters.sum_s += took.as_secs_f64();
        if counters.recent_ms.len() == RECENT {
            counters.recent_ms.pop_front();
        }
        counters.recent_ms.push_back(took.as_secs_f64() * 1e3);
    }

    /// A clip, or a whole request before its clips were known, was refused or failed.
    pub(crate) fn failed(&self) {
        self.lock().failed += 1;
    }

    /// The counters now.
    pub(crate) fn snapshot(&self) -> PerformanceMetrics {
        let counters = self.lock();
        let mut sorted_ms: Vec<f64> = counters.recent_ms.iter().copied().collect();
        let metrics = PerformanceMetrics {
            total_requests: counters.successful + counters.failed,
            successful_requests: counters.successful,
            failed_requests: counters.failed,
            avg_processing_time: counters.sum_s / counters.successful.max(1) as f64,
            p50_ms: 0.0,
            p95_ms: 0.0,
            p99_ms: 0.0,
            cache_hits: counters.cache_hits,
        };
        drop(counters);
        sorted_ms.sort_by(f64::total_cmp);
        PerformanceMetrics {
            p50_ms: percentile(&sorted_ms, 0.50),
            p95_ms: percentile(&sorted_ms, 0.95),
            p99_ms: percentile(&sorted_ms, 0.99),
            ..metrics
        }
    }
}

/// The smallest value that a share `q` of all does not exceed (nearest rank); 0 of nothing.
fn percentile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_zero() {
        let metrics = Stats::default().snapshot();
        assert_eq!((metrics.total_requests, metrics.p99_ms, metrics.avg_processing_time), (0, 0.0, 0.0));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|q| percentile(&sorted, q)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
    }

    #[test]
    fn counts_add_up_and_old_times_leave() {
        let stats = Stats::default();
        stats.succeeded(Duration::from_secs(100), false);
        for _ in 0..RECENT {
            stats.succeeded(Duration::from_millis(2), true);
        }
        stats.failed();
        let metrics = stats.snapshot();
        assert_eq!(metrics.total_requests, RECENT as u64 + 2);
        assert_eq!(metrics.successful_requests + metrics.failed_requests, metrics.total_requests);
        assert_eq!(metrics.cache_hits, RECENT as u64);
        assert!((metrics.p99_ms - 2.0).abs() < 1e-6, "{}", metrics.p99_ms);
        assert!(metrics.avg_processing_time > 0.09);
    }
}

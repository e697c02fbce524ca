//! How far a figure would move with other speakers: 95 % percentile intervals by resampling whole speakers.
//!
//! Clips of one speaker resemble each other, so that drawing single clips gives intervals which are too narrow; a
//! speaker is drawn with all its clips instead (the clustered bootstrap, Field and Welsh 2007). The percentiles are
//! those of `scipy.stats.bootstrap(method="percentile")`. With fewer than about ten speakers such intervals are still
//! somewhat too narrow: state the number of speakers beside them. One speaker alone leaves nothing to draw from; its
//! clips are drawn instead.

use serde::{Deserialize, Serialize};

use super::percentiles::quantile;

/// Resamples that are enough for two digits of an interval's ends.
pub const RESAMPLES: usize = 1000;

/// A figure and where it lies in 95 of 100 resamples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Of the clips as they are.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// `statistic` of `items` with its interval, drawn by `group`. The same seed gives the same interval. `None` where the
/// statistic has none; resamples for which it has none are left out.
pub fn bootstrap_interval<T>(
    items: &[T],
    group: impl Fn(&T) -> u32,
    statistic: impl Fn(&[&T]) -> Option<f64>,
    n_resamples: usize,
    seed: u64,
) -> Option<Interval> {
    mean_over_seeds(&[items], group, statistic, n_resamples, seed)
}

/// Mean of `statistic` over several runs with its interval: each resample draws runs, then speakers, and every drawn
/// run is judged on the same drawn speakers. Runs are tested on the same people: drawing anew for each would average
/// the speakers' luck away and give an interval which is too narrow. As [`bootstrap_interval`] with one run.
pub fn mean_over_seeds<T>(
    runs: &[&[T]],
    group: impl Fn(&T) -> u32,
    statistic: impl Fn(&[&T]) -> Option<f64>,
    n_resamples: usize,
    seed: u64,
) -> Option<Interval> {
    let all: Vec<Vec<&T>> = runs.iter().map(|run| run.iter().collect()).collect();
    let value = mean(all.iter().filter_map(|run| statistic(run)))?;

    let clusters: Vec<Clusters<'_, T>> = clustered(runs, group);
    let n_clusters = clusters.iter().map(Vec::len).max().unwrap_or(0);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values: Vec<f64> = (0..n_resamples)
        .filter_map(|_| {
            let drawn_runs: Vec<usize> = (0..runs.len()).map(|_| random.usize(..runs.len())).collect();
            let drawn: Vec<usize> = (0..n_clusters).map(|_| random.usize(..n_clusters)).collect();
            let of_run = |run: &usize| {
                let sample: Vec<&T> = drawn.iter().flat_map(|c| clusters[*run][*c].iter().copied()).collect();
                statistic(&sample)
            };
            mean(drawn_runs.iter().filter_map(of_run))
        })
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let (low, high) =
        if values.is_empty() { (value, value) } else { (quantile(&values, 0.025), quantile(&values, 0.975)) };
    Some(Interval { value, low, high })
}

/// One run's items by cluster; the clusters' order is the same in every run.
type Clusters<'a, T> = Vec<Vec<&'a T>>;

/// Each run's items by group, over the groups of all runs; by position where there is only one group.
fn clustered<'a, T>(runs: &[&'a [T]], group: impl Fn(&T) -> u32) -> Vec<Clusters<'a, T>> {
    let mut groups: Vec<u32> = runs.iter().flat_map(|run| run.iter().map(&group)).collect();
    groups.sort_unstable();
    groups.dedup();
    let by_position = groups.len() < 2;
    let n_clusters = if by_position { runs.iter().map(|run| run.len()).max().unwrap_or(0) } else { groups.len() };
    runs.iter()
        .map(|run| {
            let mut clusters = vec![Vec::new(); n_clusters];
            for (position, item) in run.iter().enumerate() {
                let cluster = if by_position { position } else { groups.partition_point(|other| *other < group(item)) };
                clusters[cluster].push(item);
            }
            clusters
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (clips, right ones) of twelve speakers.
    const SPEAKERS: [(usize, usize); 12] =
        [(3, 0), (8, 3), (6, 6), (4, 4), (9, 2), (7, 7), (5, 0), (3, 1), (8, 6), (6, 6), (4, 0), (9, 3)];

    /// (speaker, right or not) of each clip.
    fn clips() -> Vec<(u32, bool)> {
        (0..).zip(SPEAKERS).flat_map(|(speaker, (n, right))| (0..n).map(move |i| (speaker, i < right))).collect()
    }

    fn share_right(clips: &[&(u32, bool)]) -> Option<f64> {
        mean(clips.iter().map(|(_, right)| f64::from(*right)))
    }

    // scipy 1.17.1, method="percentile", n_resamples=200000, rng=1; `n`, `k`: clips and right ones of each speaker:
    //   bootstrap((k, n), lambda k, n: k.sum(-1) / n.sum(-1), paired=True, vectorized=False)
    //   bootstrap((every clip as 0 or 1,), np.mean)
    #[test]
    fn intervals_are_scipys_for_speakers_and_for_clips() {
        let clips = clips();
        let by_speaker = bootstrap_interval(&clips, |clip| clip.0, share_right, 5000, 7).unwrap();
        assert!((by_speaker.value - 38.0 / 72.0).abs() < 1e-12);
        assert!((by_speaker.low - 0.3182).abs() < 0.02 && (by_speaker.high - 0.7419).abs() < 0.02, "{by_speaker:?}");
        let numbered: Vec<(u32, bool)> = (0..).zip(&clips).map(|(i, (_, right))| (i, *right)).collect();
        let by_clip = bootstrap_interval(&numbered, |clip| clip.0, share_right, 5000, 7).unwrap();
        assert!((by_clip.low - 0.4167).abs() < 0.02 && (by_clip.high - 0.6389).abs() < 0.02, "{by_clip:?}");
    }

    #[test]
    fn one_speaker_alone_is_drawn_clip_by_clip() {
        let alone: Vec<(u32, bool)> = clips().into_iter().map(|(_, right)| (3, right)).collect();
        let got = bootstrap_interval(&alone, |clip| clip.0, share_right, 5000, 1).unwrap();
        assert!((got.low - 0.4167).abs() < 0.02 && (got.high - 0.6389).abs() < 0.02, "{got:?}");
    }

    #[test]
    fn the_same_run_again_tells_nothing_new() {
        let clips = clips();
        let once = bootstrap_interval(&clips, |clip| clip.0, share_right, 3000, 5).unwrap();
        let thrice = mean_over_seeds(&[&clips, &clips, &clips], |clip| clip.0, share_right, 3000, 5).unwrap();
        assert!((thrice.value - once.value).abs() < 1e-12);
        assert!((thrice.low - once.low).abs() < 0.03 && (thrice.high - once.high).abs() < 0.03, "{once:?} {thrice:?}");
    }

    #[test]
    fn runs_that_differ_widen_the_interval() {
        // each run answers alike for every speaker: only the choice of runs moves the mean
        let run = |right: usize| (0..40).map(|i| (i as u32 / 10, i % 10 < right)).collect::<Vec<_>>();
        let runs = [run(2), run(8)];
        let got = mean_over_seeds(&[&runs[0], &runs[1]], |clip| clip.0, share_right, 2000, 5).unwrap();
        assert_eq!((got.value, got.low, got.high), (0.5, 0.2, 0.8));
    }

    #[test]
    fn nothing_has_no_interval_and_no_resamples_no_width() {
        assert_eq!(bootstrap_interval(&[], |clip: &(u32, bool)| clip.0, share_right, 10, 1), None);
        assert_eq!(mean_over_seeds(&[], |clip: &(u32, bool)| clip.0, share_right, 10, 1), None);
        let got = bootstrap_interval(&[(1, true)], |clip| clip.0, share_right, 0, 1).unwrap();
        assert_eq!((got.low, got.high), (1.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_interval_lies_within_what_speakers_give(
            clips in proptest::collection::vec((0..5_u32, any::<bool>()), 1..40), seed: u64,
        ) {
            let got = bootstrap_interval(&clips, |clip| clip.0, share_right, 50, seed).unwrap();
            prop_assert!(0.0 <= got.low && got.low <= got.high && got.high <= 1.0);
            prop_assert_eq!(bootstrap_interval(&clips, |clip| clip.0, share_right, 50, seed).unwrap(), got);
        }
    }
}

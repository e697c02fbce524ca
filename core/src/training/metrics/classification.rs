//! Which label was found and what was acted on.
//!
//! Two questions are kept apart: [`accuracy`] asks for the best label whatever was accepted, everything else asks what
//! a client acted on. Follows scikit-learn 1.9 (`accuracy_score`, `confusion_matrix`, `f1_score`); the one deviation
//! is that a rejection is a missed command and no class of its own.

use serde::{Deserialize, Serialize};

use super::{Judged, share};

/// Share of the commands whose best label is the right one, whatever was accepted.
pub fn accuracy<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> Option<f64> {
    let (mut right, mut commands) = (0, 0);
    for clip in clips.into_iter().filter(|clip| clip.truth.is_some()) {
        right += usize::from(clip.is_right());
        commands += 1;
    }
    share(right, commands)
}

/// Share of the commands that were accepted, rightly or not.
pub fn accepted_share<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> Option<f64> {
    share_of(clips, |clip| clip.truth.is_some(), |clip| clip.accepted_as().is_some())
}

/// Share of the commands that were accepted as another command: the shop does what nobody asked for.
pub fn wrong_accept_share<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> Option<f64> {
    share_of(clips, |clip| clip.truth.is_some(), |clip| clip.accepted_as().is_some() && !clip.is_right())
}

/// Share of the clips which are no command that were accepted as one.
pub fn false_accept_share<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> Option<f64> {
    share_of(clips, |clip| clip.truth.is_none(), |clip| clip.accepted_as().is_some())
}

fn share_of<'a>(
    clips: impl IntoIterator<Item = &'a Judged>,
    counts: impl Fn(&Judged) -> bool,
    is_part: impl Fn(&Judged) -> bool,
) -> Option<f64> {
    let (mut part, mut whole) = (0, 0);
    for clip in clips.into_iter().filter(|clip| counts(clip)) {
        part += usize::from(is_part(clip));
        whole += 1;
    }
    share(part, whole)
}

/// How one label fares, by what was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelStats {
    /// Clips that carry it.
    pub n: usize,
    /// Of these, accepted as it.
    pub right: usize,
    /// Of these, accepted as anything.
    pub accepted: usize,
    /// All clips that were accepted as it, commands or not.
    pub accepted_as: usize,
}

impl LabelStats {
    /// Share of its clips that were accepted as it.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        share(self.right, self.n)
    }

    /// Share of what was accepted as it that is it.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        share(self.right, self.accepted_as)
    }

    /// `2 · right / (n + accepted_as)`, the harmonic mean of the two; none for a label that is neither said nor heard.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        share(2 * self.right, self.n + self.accepted_as)
    }

    /// Share of its clips that were accepted as anything.
    #[must_use]
    pub fn accepted_share(&self) -> Option<f64> {
        share(self.accepted, self.n)
    }
}

/// How each of `n_labels` labels fares.
///
/// # Panics
/// A label outside `0..n_labels` is a mistake of the caller.
pub fn per_label<'a>(clips: impl IntoIterator<Item = &'a Judged>, n_labels: usize) -> Vec<LabelStats> {
    let mut labels = vec![LabelStats::default(); n_labels];
    for clip in clips {
        if let Some(truth) = clip.truth {
            labels[truth].n += 1;
            labels[truth].accepted += usize::from(clip.accepted_as().is_some());
        }
        if let Some(label) = clip.accepted_as() {
            labels[label].accepted_as += 1;
            labels[label].right += usize::from(clip.is_right());
        }
    }
    labels
}

/// Mean F1 over the labels that occur as truth.
///
/// Of what was accepted: a command that was rejected or accepted as another counts against its label's recall, a
/// wrong or false accept against the precision of the label it was accepted as. "Rejected" and "no command" are no
/// classes, and labels that nobody says are left out rather than counted as 0.
///
/// # Panics
/// As [`per_label`].
pub fn macro_f1<'a>(clips: impl IntoIterator<Item = &'a Judged>, n_labels: usize) -> Option<f64> {
    let f1: Vec<f64> =
        per_label(clips, n_labels).iter().filter(|label| label.n > 0).filter_map(LabelStats::f1).collect();
    (!f1.is_empty()).then(|| f1.iter().sum::<f64>() / f1.len() as f64)
}

/// How often each label was accepted as each: `n_labels + 1` rows of truth, the last one "no command", and
/// `n_labels + 1` columns of what was accepted, the last one "rejected".
///
/// # Panics
/// As [`per_label`].
pub fn confusion<'a>(clips: impl IntoIterator<Item = &'a Judged>, n_labels: usize) -> Vec<Vec<u32>> {
    let mut rows = vec![vec![0; n_labels + 1]; n_labels + 1];
    for clip in clips {
        rows[clip.truth.unwrap_or(n_labels)][clip.accepted_as().unwrap_or(n_labels)] += 1;
    }
    rows
}

/// A mistake that was acted on, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusedPair {
    /// What it was: a row of [`confusion`], the last one "no command".
    pub truth: usize,
    /// What it was accepted as.
    pub accepted_as: usize,
    /// How often.
    pub count: u32,
}

/// The most frequent mistakes that were acted on, most frequent first; a rejection is none of them.
#[must_use]
pub fn top_confusions(confusion: &[Vec<u32>], at_most: usize) -> Vec<ConfusedPair> {
    let rejected = confusion.len().saturating_sub(1);
    let mut pairs: Vec<ConfusedPair> = confusion
        .iter()
        .enumerate()
        .flat_map(|(truth, row)| row.iter().enumerate().map(move |(column, count)| (truth, column, *count)))
        .filter(|(truth, column, count)| *count > 0 && truth != column && *column != rejected)
        .map(|(truth, accepted_as, count)| ConfusedPair { truth, accepted_as, count })
        .collect();
    // a stable sort: equally frequent ones stay in the order of the labels
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
    pairs.truncate(at_most);
    pairs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{N_LABELS, any_clip, close, judged, table};
    use super::*;

    // The numbers of this module's tests, by scikit-learn 1.9.1 on the same table (`t`: rows of (truth, best,
    // confidence, accepted, speaker); `y`, `p`: truth and accepted label, 5 for none of them):
    //   cmd = [r for r in t if r[0] >= 0]
    //   accuracy_score([r[0] for r in cmd], [r[1] for r in cmd])
    //   y = [r[0] if r[0] >= 0 else 5 for r in t]; p = [r[1] if r[3] else 5 for r in t]
    //   f1_score(y, p, labels=[0, 1, 2, 4], average="macro")
    //   precision_recall_fscore_support(y, p, labels=[0, 1, 2, 4]); confusion_matrix(y, p, labels=range(6))

    #[test]
    fn the_table_gives_what_scikit_learn_gives() {
        let clips = table();
        close(accuracy(&clips), 0.6875);
        close(macro_f1(&clips, N_LABELS), 0.6976190476190476);
        let expected = [
            [3, 0, 0, 0, 0, 1],
            [0, 3, 1, 0, 0, 1],
            [0, 1, 3, 0, 0, 1],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 1],
            [0, 0, 1, 1, 0, 2],
        ];
        assert_eq!(confusion(&clips, N_LABELS), expected.map(|row| row.to_vec()).to_vec());
    }

    #[test]
    fn each_label_as_scikit_learn_has_it() {
        let labels = per_label(&table(), N_LABELS);
        for (label, precision, recall, f1, n) in [
            (0, 1.0, 0.75, 0.8571428571428571, 4),
            (1, 0.75, 0.6, 0.6666666666666666, 5),
            (2, 0.6, 0.6, 0.6, 5),
            (4, 1.0, 0.5, 0.6666666666666666, 2),
        ] {
            let got: &LabelStats = &labels[label];
            close(got.precision(), precision);
            close(got.recall(), recall);
            close(got.f1(), f1);
            assert_eq!(got.n, n);
        }
        assert_eq!(labels[3], LabelStats { accepted_as: 1, ..LabelStats::default() });
        assert_eq!((labels[3].recall(), labels[3].precision()), (None, Some(0.0)));
    }

    #[test]
    fn what_was_acted_on_counted_by_hand() {
        let clips = table();
        close(accepted_share(&clips), 12.0 / 16.0);
        close(wrong_accept_share(&clips), 2.0 / 16.0);
        close(false_accept_share(&clips), 2.0 / 4.0);
        close(per_label(&clips, N_LABELS)[1].accepted_share(), 4.0 / 5.0);
    }

    #[test]
    fn the_mistakes_that_were_acted_on_in_order() {
        let mut clips = table();
        clips.push(judged(2, 1, 0.9, true, 0));
        let top = top_confusions(&confusion(&clips, N_LABELS), 3);
        let pair = |truth, accepted_as, count| ConfusedPair { truth, accepted_as, count };
        assert_eq!(top, [pair(2, 1, 2), pair(1, 2, 1), pair(5, 2, 1)]);
        assert!(top_confusions(&[], 3).is_empty());
    }

    #[test]
    fn nothing_has_no_figures() {
        assert_eq!(accuracy([]), None);
        assert_eq!(macro_f1([], 3), None);
        assert_eq!(false_accept_share(&[judged(0, 0, 0.9, true, 0)]), None);
        assert_eq!(accuracy(&[judged(-1, 0, 0.9, true, 0)]), None);
        assert_eq!(macro_f1(&[judged(-1, 0, 0.9, true, 0)], 1), None);
    }

    proptest! {
        #[test]
        fn the_parts_make_the_whole(clips in proptest::collection::vec(any_clip(), 0..60)) {
            let rows = confusion(&clips, N_LABELS);
            let total: u32 = rows.iter().flatten().sum();
            prop_assert_eq!(total as usize, clips.len());
            let labels = per_label(&clips, N_LABELS);
            for (label, stats) in labels.iter().enumerate() {
                prop_assert_eq!(rows[label].iter().sum::<u32>() as usize, stats.n);
                prop_assert_eq!(rows.iter().map(|row| row[label]).sum::<u32>() as usize, stats.accepted_as);
                prop_assert_eq!(rows[label][label] as usize, stats.right);
            }
            if let (Some(accepted), Some(wrong)) = (accepted_share(&clips), wrong_accept_share(&clips)) {
                prop_assert!(wrong <= accepted);
                prop_assert!(accepted - wrong <= accuracy(&clips).unwrap() + 1e-12);
            }
            prop_assert!(macro_f1(&clips, N_LABELS).is_none_or(|f1| (0.0..=1.0).contains(&f1)));
        }
    }
}

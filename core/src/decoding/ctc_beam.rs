//! Prefix beam search over the frames of a CTC head.
//!
//! Follows Graves 2012, section 7.5, and Hannun et al. 2014, algorithm 1, without a language model: a text is as likely
//! as all the paths that collapse to it together, so the mass of a prefix is kept in two parts, of paths that end in
//! blank and of those that do not. Everything is in f64 logarithms.
//!
//! Classes only: what they stand for, and when they are said, is [`super::ctc`]'s.

use std::collections::HashMap;

/// The logarithm of nothing.
pub(super) const IMPOSSIBLE: f64 = f64::NEG_INFINITY;

/// In f64, since thousands of them are added; what is not finite is impossible.
pub(super) fn possible(log_prob: f32) -> f64 {
    if log_prob.is_finite() { f64::from(log_prob) } else { IMPOSSIBLE }
}

/// `log(exp(a) + exp(b))`, without overflow.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == IMPOSSIBLE { high } else { high + (low - high).exp().ln_1p() }
}

/// The empty prefix.
const ROOT: usize = 0;

/// A prefix: another one and a class behind it.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    parent: usize,
    class: usize,
}

/// A prefix that is kept, and the mass of its paths.
#[derive(Debug, Clone, Copy)]
struct Kept {
    prefix: usize,
    /// Of paths that end in blank.
    blank: f64,
    /// Of paths that end in the prefix's last class.
    other: f64,
}

impl Kept {
    fn total(&self) -> f64 {
        log_add(self.blank, self.other)
    }
}

/// A prefix that a frame would begin.
#[derive(Debug, Clone, Copy)]
struct Grown {
    prefix: Prefix,
    mass: f64,
}

/// Takes frames in one by one, and keeps the likeliest prefixes.
///
/// Only the `beam_size + 1` best classes of a frame, and those that prefixes end in, are tried: no other can give one of
/// the `beam_size` best prefixes, so that leaves nothing out.
pub(super) struct Search {
    blank: usize,
    beam_size: usize,
    /// Every prefix that was ever kept; the first is the empty one.
    prefixes: Vec<Prefix>,
    /// Number of the prefix that continues `(prefix, class)`.
    children: HashMap<(usize, usize), usize>,
    /// Best first.
    kept: Vec<Kept>,
    /// A frame had no possible class.
    is_broken: bool,
}

impl Search {
    pub(super) fn new(blank: usize, beam_size: usize) -> Self {
        Self {
            blank,
            beam_size,
            prefixes: vec![Prefix { parent: ROOT, class: blank }],
            children: HashMap::new(),
            kept: vec![Kept { prefix: ROOT, blank: 0.0, other: IMPOSSIBLE }],
            is_broken: false,
        }
    }

    fn last_class(&self, prefix: usize) -> Option<usize> {
        (prefix != ROOT).then(|| self.prefixes[prefix].class)
    }

    /// Takes one frame in.
    pub(super) fn step(&mut self, row: &[f64]) {
        if row.iter().all(|v| *v == IMPOSSIBLE) {
            self.is_broken = true; // and the frame is as if it were not there
            return;
        }
        let of = |class: usize| row.get(class).copied().unwrap_or(IMPOSSIBLE);
        let mut stays: Vec<Kept> = self
            .kept
            .iter()
            .map(|k| Kept {
                prefix: k.prefix,
                blank: k.total() + of(self.blank),
                other: self.last_class(k.prefix).map_or(IMPOSSIBLE, |class| k.other + of(class)),
            })
            .collect();
        let place: HashMap<usize, usize> = self.kept.iter().enumerate().map(|(i, k)| (k.prefix, i)).collect();
        let mut grown: Vec<Grown> = Vec::new();
        let classes = self.classes_to_try(row);
        for k in &self.kept {
            let last = self.last_class(k.prefix);
            for &class in &classes {
                // The same class again is a new one only behind a blank.
                let mass = of(class) + if last == Some(class) { k.blank } else { k.total() };
                if mass == IMPOSSIBLE {
                    continue;
                }
                match self.children.get(&(k.prefix, class)).and_then(|child| place.get(child)) {
                    Some(&i) => stays[i].other = log_add(stays[i].other, mass),
                    None => grown.push(Grown { prefix: Prefix { parent: k.prefix, class }, mass }),
                }
            }
        }
        self.keep_best(&stays, &grown);
    }

    /// The classes that can lead to one of the best prefixes, in order.
    fn classes_to_try(&self, row: &[f64]) -> Vec<usize> {
        let n = self.beam_size.saturating_add(1);
        let mut classes: Vec<usize> = (0..row.len()).filter(|c| *c != self.blank && row[*c] != IMPOSSIBLE).collect();
        if classes.len() > n {
            classes.select_nth_unstable_by(n - 1, |a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            classes.truncate(n);
            // A kept prefix may also grow into another kept one, by that one's last class.
            classes.extend(self.kept.iter().filter_map(|k| self.last_class(k.prefix)));
        }
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    fn keep_best(&mut self, stays: &[Kept], grown: &[Grown]) {
        // Numbers below `stays.len()` are of prefixes that stay, the others of those that grow.
        let masses = stays.iter().map(Kept::total).chain(grown.iter().map(|g| g.mass));
        let mut order: Vec<(f64, usize)> = masses.zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: equals keep their order
        order.truncate(self.beam_size);
        order.retain(|(mass, _)| *mass != IMPOSSIBLE);
        let mut kept = Vec::with_capacity(order.len());
        for (mass, i) in order {
            kept.push(match i.checked_sub(stays.len()) {
                None => stays[i],
                Some(i) => Kept { prefix: self.number(grown[i].prefix), blank: IMPOSSIBLE, other: mass },
            });
        }
        self.kept = kept;
    }

    /// The number of a prefix, the same each time.
    fn number(&mut self, prefix: Prefix) -> usize {
        *self.children.entry((prefix.parent, prefix.class)).or_insert_with(|| {
            self.prefixes.push(prefix);
            self.prefixes.len() - 1
        })
    }

    /// The classes of the likeliest prefix, and its mass.
    pub(super) fn best(&self) -> (Vec<usize>, f64) {
        let Some(best) = self.kept.first() else { return (Vec::new(), IMPOSSIBLE) };
        let mut classes = Vec::new();
        let mut at = best.prefix;
        while let Some(class) = self.last_class(at) {
            classes.push(class);
            at = self.prefixes[at].parent;
        }
        classes.reverse();
        (classes, if self.is_broken { IMPOSSIBLE } else { best.total() })
    }
}

/// What the search is held against: every path of a short clip, one by one.
#[cfg(test)]
pub(super) mod enumerated {
    /// Log-probabilities of `n_frames` random rows that sum to 1.
    pub(in super::super) fn random_rows(n_frames: usize, n_vocab: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut out = Vec::new();
        for _ in 0..n_frames {
            let row: Vec<f32> = (0..n_vocab).map(|_| rng.f32() * 4.0).collect();
            let total = row.iter().map(|v| v.exp()).sum::<f32>().ln();
            out.extend(row.iter().map(|v| v - total));
        }
        out
    }

    pub(in super::super) fn collapse(path: &[usize]) -> Vec<usize> {
        let mut path = path.to_vec();
        path.dedup();
        path.retain(|class| *class != 0);
        path
    }

    /// Every path of `n_frames` classes.
    pub(in super::super) fn all_paths(n_frames: usize, n_vocab: usize) -> impl Iterator<Item = Vec<usize>> {
        (0..n_vocab.pow(n_frames as u32)).map(move |mut i| {
            (0..n_frames)
                .map(|_| {
                    let class = i % n_vocab;
                    i /= n_vocab;
                    class
                })
                .collect()
        })
    }

    pub(in super::super) fn score(path: &[usize], log_probs: &[f32], n_vocab: usize) -> f64 {
        path.iter().enumerate().map(|(t, class)| f64::from(log_probs[t * n_vocab + class])).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::enumerated::{all_paths, collapse, random_rows, score};
    use super::*;

    fn rows(log_probs: &[f32], n_vocab: usize) -> impl Iterator<Item = Vec<f64>> {
        log_probs.chunks_exact(n_vocab).map(|row| row.iter().copied().map(possible).collect())
    }

    #[test]
    fn a_wide_beam_sums_over_all_paths() {
        for seed in 0..60 {
            let (n_frames, n_vocab) = (1 + seed as usize % 6, 2 + seed as usize % 3);
            let log_probs = random_rows(n_frames, n_vocab, seed);
            let mut masses: HashMap<Vec<usize>, f64> = HashMap::new();
            for path in all_paths(n_frames, n_vocab) {
                let mass = masses.entry(collapse(&path)).or_insert(IMPOSSIBLE);
                *mass = log_add(*mass, score(&path, &log_probs, n_vocab));
            }
            let (best, mass) = masses.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            let mut search = Search::new(0, 100_000);
            rows(&log_probs, n_vocab).for_each(|row| search.step(&row));
            let got = search.best();
            assert_eq!(got.0, *best, "seed {seed}");
            assert!((got.1 - mass).abs() < 1e-9, "seed {seed}: {} against {mass}", got.1);
        }
    }

    /// Leaving out classes must not change a narrow beam: against a search that tries every class.
    #[test]
    fn the_classes_left_out_lead_nowhere() {
        for seed in 0..40 {
            let (n_frames, n_vocab) = (12, 9);
            let log_probs = random_rows(n_frames, n_vocab, 1000 + seed);
            for beam_size in 1..5 {
                let (mut pruned, mut whole) = (Search::new(0, beam_size), Search::new(0, beam_size));
                for row in rows(&log_probs, n_vocab) {
                    pruned.step(&row);
                    // As wide as it likes within the frame, cut to the beam behind it.
                    whole.beam_size = 1000;
                    whole.step(&row);
                    whole.kept.truncate(beam_size);
                }
                assert_eq!(pruned.best(), whole.best(), "seed {seed}, beam {beam_size}");
            }
        }
    }
}

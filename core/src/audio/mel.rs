//! The mel filter bank that Whisper was trained with: Slaney's mel scale, Slaney's normalisation.
//!
//! Follows `librosa.filters.mel(sr=16000, n_fft=400, n_mels=…)` with its defaults (`htk=False`,
//! `norm="slaney"`), which is what `mel_filters.npz` of openai/whisper holds and what transformers'
//! `mel_filter_bank(norm="slaney", mel_scale="slaney")` computes.
//!
//! Deviation: the matrix is mostly zeros (a triangle covers 2 to 30 of 201 bins), so a row is kept
//! as its first bin and its non-zero weights. It is computed in f64 and kept in f32.

use super::log_mel::N_FFT;
use super::waveform::SAMPLE_RATE_HZ;

/// Bins of the spectrum of a real frame: 0 Hz to half the sample rate, both included.
pub(super) const N_BINS: usize = N_FFT / 2 + 1; // 201

/// Triangular filters that turn a power spectrum into mel energies.
#[derive(Debug, Clone)]
pub(super) struct MelFilterBank {
    rows: Vec<MelRow>,
}

/// One filter: its weights from bin `start` on; zero elsewhere.
#[derive(Debug, Clone)]
struct MelRow {
    start: usize,
    weights: Vec<f32>,
}

impl MelFilterBank {
    /// `n_mels` filters from 0 Hz to 8 kHz: 80, or 128 from large-v3 on.
    pub(super) fn slaney(n_mels: usize) -> Self {
        let nyquist_hz = f64::from(SAMPLE_RATE_HZ) / 2.0;
        let bin_hz = nyquist_hz / (N_BINS - 1) as f64; // 40 Hz
        let top_mel = hz_to_mel(nyquist_hz);
        // n_mels triangles share n_mels + 2 corners, evenly spaced on the mel scale.
        let corners_hz: Vec<f64> =
            (0..n_mels + 2).map(|i| mel_to_hz(top_mel * i as f64 / (n_mels + 1) as f64)).collect();

        let rows = corners_hz
            .windows(3)
            .map(|corner| {
                let (low, centre, high) = (corner[0], corner[1], corner[2]);
                // Slaney's normalisation: every triangle has the area 1 Hz⁻¹ · Hz.
                let height = 2.0 / (high - low);
                let weight = |bin: usize| {
                    let hz = bin as f64 * bin_hz;
                    let rising = (hz - low) / (centre - low);
                    let falling = (high - hz) / (high - centre);
                    (rising.min(falling).max(0.0) * height) as f32
                };
                let start = (0..N_BINS).find(|&bin| weight(bin) > 0.0).unwrap_or(N_BINS);
                let weights = (start..N_BINS).map(weight).take_while(|&w| w > 0.0).collect();
                MelRow { start, weights }
            })
            .collect();
        Self { rows }
    }

    /// How many filters there are.
    pub(super) fn n_mels(&self) -> usize {
        self.rows.len()
    }

    /// Writes the mel energies of one power spectrum.
    ///
    /// # Shapes
    /// `power`: `[N_BINS]`; `energies`: `[n_mels]`.
    pub(super) fn apply(&self, power: &[f32], energies: &mut [f32]) {
        for (row, energy) in self.rows.iter().zip(energies) {
            *energy = row.weights.iter().zip(&power[row.start..]).map(|(w, p)| w * p).sum();
        }
    }
}

/// Slaney's scale is linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for a
/// factor of 6.4).
const LINEAR_HZ_PER_MEL: f64 = 200.0 / 3.0;
const BREAK_HZ: f64 = 1000.0;
const BREAK_MEL: f64 = BREAK_HZ / LINEAR_HZ_PER_MEL; // 15

fn log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < BREAK_HZ { hz / LINEAR_HZ_PER_MEL } else { BREAK_MEL + (hz / BREAK_HZ).ln() / log_step() }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < BREAK_MEL { mel * LINEAR_HZ_PER_MEL } else { BREAK_HZ * (log_step() * (mel - BREAK_MEL)).exp() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The full row, for comparison with the dense matrix of the reference.
    fn dense(bank: &MelFilterBank, mel: usize) -> Vec<f32> {
        let row = &bank.rows[mel];
        let mut full = vec![0.0; N_BINS];
        full[row.start..row.start + row.weights.len()].copy_from_slice(&row.weights);
        full
    }

    #[test]
    fn the_scale_is_its_own_inverse() {
        for hz in [0.0, 40.0, 999.9, 1000.0, 1000.1, 3456.7, 8000.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-9 * hz.max(1.0), "{hz} Hz");
        }
    }

    #[test]
    fn the_first_weight_is_that_of_the_published_filter_file() {
        // mel_filters.npz of openai/whisper, mel_80[0][1]; worked out by hand from the definition:
        // corners at 0, 37.24 and 74.48 Hz, so (74.48 - 40) / 37.24 · 2 / 74.48.
        let row = dense(&MelFilterBank::slaney(80), 0);
        assert_eq!(row[0], 0.0);
        assert!((row[1] - 0.024_862_59).abs() < 1e-7, "{}", row[1]);
        assert_eq!(row[2], 0.0);
    }

    #[test]
    fn every_filter_has_a_weight_and_wide_ones_have_unit_area() {
        for n_mels in [80, 128] {
            let bank = MelFilterBank::slaney(n_mels);
            assert_eq!(bank.n_mels(), n_mels);
            for mel in 0..n_mels {
                let row = dense(&bank, mel);
                assert!(row.iter().any(|&w| w > 0.0), "{n_mels} mels: filter {mel} is empty");
                // With a triangle over many bins, the sum over 40 Hz steps approaches its integral.
                let n_weights = bank.rows[mel].weights.len();
                if n_weights > 12 {
                    let area = 40.0 * row.iter().sum::<f32>();
                    assert!((area - 1.0).abs() < 0.02, "{n_mels} mels: filter {mel} has the area {area}");
                }
            }
        }
    }

    #[test]
    fn a_single_bin_lands_in_the_filters_around_it() {
        let bank = MelFilterBank::slaney(80);
        let mut power = vec![0.0; N_BINS];
        power[25] = 1.0; // 1 kHz = 15 mel: between filters 25 and 26 of spacing 45.2456 / 81.
        let mut energies = vec![0.0; 80];
        bank.apply(&power, &mut energies);
        let loudest = energies.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert!((24..=27).contains(&loudest), "1 kHz fell into filter {loudest}");
        assert!(energies.iter().filter(|&&e| e > 0.0).count() <= 2);
    }
}

//! Weights in fewer bits: a signed byte with a scale for each output channel, four bits with a scale for each block.

use half::f16;

use super::manifest::BLOCK;

/// Rows as signed bytes and what to divide them by: `value = byte / scale`.
///
/// # Shapes
/// - values: `[n_rows, n_columns]`
pub(crate) fn to_int8(values: &[f32], n_rows: usize) -> (Vec<u8>, Vec<f32>) {
    let n_columns = values.len() / n_rows.max(1);
    let mut bytes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(n_rows);
    for row in values.chunks(n_columns.max(1)) {
        let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 1.0 };
        bytes.extend(row.iter().map(|v| (v * scale).round().clamp(-127.0, 127.0) as i8 as u8));
        scales.push(scale);
    }
    (bytes, scales)
}

/// Blocks as four bits a number and a scale each: `value = (half - 8) * scale`. Of the scales that put the largest number at
/// one of the ends, or a little beyond, the one with the least squared error is taken.
pub(crate) fn to_int4(values: &[f32]) -> (Vec<u8>, Vec<f16>) {
    let mut bytes = Vec::with_capacity(values.len() / 2);
    let mut scales = Vec::with_capacity(values.len() / BLOCK);
    for block in values.chunks(BLOCK) {
        let scale = best_scale(block);
        let half = |v: f32| nearest(v, scale.to_f32()) as u8;
        bytes.extend(block.chunks(2).map(|pair| half(pair[0]) | half(pair[1]) << 4));
        scales.push(scale);
    }
    (bytes, scales)
}

/// 0 to 15; 8 is zero.
fn nearest(value: f32, scale: f32) -> f32 {
    if scale == 0.0 { 8.0 } else { (value / scale + 8.0).round().clamp(0.0, 15.0) }
}

fn best_scale(block: &[f32]) -> f16 {
    let largest = block.iter().copied().fold(0.0f32, |m, v| if v.abs() > m.abs() { v } else { m });
    let error = |scale: f16| -> f32 {
        let scale = scale.to_f32();
        block.iter().map(|v| ((nearest(*v, scale) - 8.0) * scale - v).powi(2)).sum()
    };
    // The negative end reaches one step farther, so the largest number goes there, whatever its sign.
    let candidates = (0..24).map(|step| f16::from_f32(largest / -(5.6 + 0.15 * step as f32)));
    candidates.chain([f16::ZERO]).min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(f16::ZERO)
}

/// What [`to_int4`] made, as numbers again.
pub(crate) fn from_int4(bytes: &[u8], scales: &[u8]) -> Vec<f32> {
    let mut values = Vec::with_capacity(2 * bytes.len());
    for (block, scale) in bytes.chunks(BLOCK / 2).zip(scales.as_chunks::<2>().0) {
        let scale = f16::from_le_bytes(*scale).to_f32();
        let value = |half: u8| (f32::from(half) - 8.0) * scale;
        values.extend(block.iter().flat_map(|byte| [value(byte & 15), value(byte >> 4)]));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(5);
        // Roughly normal, as weights are.
        (0..n).map(|_| (0..6).map(|_| rng.f32() - 0.5).sum::<f32>() * 0.1).collect()
    }

    fn relative_rms(a: &[f32], b: &[f32]) -> f32 {
        let (error, power) = a.iter().zip(b).fold((0.0, 0.0), |(e, p), (a, b)| (e + (a - b).powi(2), p + a.powi(2)));
        (error / power).sqrt()
    }

    #[test]
    fn bytes_and_halves_are_near_the_numbers() {
        let values = numbers(64 * 96);
        let (bytes, scales) = to_int8(&values, 64);
        let again: Vec<f32> = bytes.iter().zip(0..).map(|(b, at)| f32::from(*b as i8) / scales[at / 96]).collect();
        assert!(relative_rms(&values, &again) < 0.008);
        let (bytes, scales) = to_int4(&values);
        let scales: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let again = from_int4(&bytes, &scales);
        assert_eq!(again.len(), values.len());
        let error = relative_rms(&values, &again);
        assert!(error < 0.09, "{error}");
        assert_eq!((bytes.len(), scales.len()), (values.len() / 2, values.len() / 16));
    }

    #[test]
    fn nothing_and_extremes_stay_what_they_are() {
        let zeros = [0.0; BLOCK];
        let (bytes, scales) = to_int4(&zeros);
        assert_eq!(from_int4(&bytes, &scales[0].to_le_bytes()), zeros);
        let (bytes, scales) = to_int8(&zeros, 2);
        assert!(bytes.iter().all(|b| *b == 0) && scales.iter().all(|s| s.is_finite()));
        for largest in [3.0, -3.0] {
            let mut one = [0.0; BLOCK];
            one[7] = largest;
            let (bytes, scales) = to_int4(&one);
            let again = from_int4(&bytes, &scales[0].to_le_bytes());
            assert!((again[7] - largest).abs() < 0.01 && again.iter().filter(|v| **v == 0.0).count() == BLOCK - 1);
        }
    }
}

//! From the states of every encoder position to one vector: the operations that an intent head and its training share.
//!
//! Attentive statistics pooling follows Okabe, Koshinaka and Shinoda, "Attentive Statistics Pooling for Deep Speaker
//! Embedding", Interspeech 2018 (equations 4 to 7), with several heads, each over its own share of the channels, as in
//! Wang et al., "Multi-head attention pooling", 2020. Plain Burn operations, so that they can be differentiated; they
//! meet a few dozen rows, which is too little for a kernel to matter.

use burn::tensor::{Tensor, activation};

/// Added to a variance before its root is taken: the root's slope at 0 has no end.
const EPSILON: f32 = 1e-5;

/// The mean of each `stride` positions after one another; the last ones may be fewer.
///
/// # Shapes
/// - states: `[batch, n_positions, n_state]`
/// - result: `[batch, n_positions.div_ceil(stride), n_state]`
#[must_use]
pub fn average_positions(states: Tensor<3>, stride: usize) -> Tensor<3> {
    let [batch, n_positions, n_state] = states.dims();
    let stride = stride.max(1);
    if stride == 1 || n_positions == 0 {
        return states;
    }
    let n_whole = n_positions / stride;
    let end = n_whole * stride;
    let mut parts = Vec::with_capacity(2);
    if n_whole > 0 {
        let whole = states.clone().slice([0..batch, 0..end, 0..n_state]);
        let whole: Tensor<4> = whole.reshape([batch, n_whole, stride, n_state]).mean_dim(2); // [batch, n_whole, 1, n_state]
        parts.push(whole.reshape([batch, n_whole, n_state]));
    }
    if end < n_positions {
        parts.push(states.slice([0..batch, end..n_positions, 0..n_state]).mean_dim(1));
    }
    Tensor::cat(parts, 1)
}

/// Brings each position to mean 0 and variance 1 over its channels, without weights: the encoder's residual stream
/// grows from layer to layer, and a weighted sum of layers would only hear the last.
///
/// # Shapes
/// - states, result: `[batch, n_positions, n_state]`
#[must_use]
pub fn normalise_positions(states: Tensor<3>) -> Tensor<3> {
    let centred = states.clone() - states.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2); // [batch, n_positions, 1]
    centred / (variance + EPSILON).sqrt()
}

/// Weighted mean and standard deviation of each channel over the positions.
///
/// # Shapes
/// - x: `[batch, n_positions, d]`
/// - scores: `[batch, n_positions, n_heads]`, before softmax; `n_heads` divides `d`
/// - mask: `[batch, n_positions, 1]`, 0 where a position counts and a large negative number where it is padding
/// - result: `[batch, 1, 2 * d]`
#[must_use]
pub fn attentive_statistics(x: Tensor<3>, scores: Tensor<3>, mask: Option<Tensor<3>>) -> Tensor<3> {
    let [batch, n_positions, d] = x.dims();
    let [_, _, n_heads] = scores.dims();
    let scores = match mask {
        Some(mask) => scores + mask,
        None => scores,
    };
    let weights = activation::softmax(scores, 1).reshape([batch, n_positions, n_heads, 1]);
    let x = x.reshape([batch, n_positions, n_heads, d / n_heads]);
    let weighted = weights * x.clone(); // [batch, n_positions, n_heads, d / n_heads]
    let mean = weighted.clone().sum_dim(1); // [batch, 1, n_heads, d / n_heads]
    let square = (weighted * x).sum_dim(1);
    // Rounding may bring the difference just below 0.
    let deviation = ((square - mean.clone().square()).clamp_min(0.0) + EPSILON).sqrt();
    Tensor::cat(vec![mean.reshape([batch, 1, d]), deviation.reshape([batch, 1, d])], 2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensor(values: &[f32], shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn values(tensor: Tensor<3>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    fn assert_near(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (at, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() < 1e-4, "{at}: {g} is not {e}");
        }
    }

    #[test]
    fn positions_are_averaged_the_rest_among_themselves() {
        let x = tensor(&[1.0, 3.0, 5.0, 7.0, 11.0], [1, 5, 1]);
        assert_near(&values(average_positions(x.clone(), 2)), &[2.0, 6.0, 11.0]);
        assert_near(&values(average_positions(x.clone(), 4)), &[4.0, 11.0]);
        assert_near(&values(average_positions(x.clone(), 9)), &[5.4]);
        assert_near(&values(average_positions(x, 1)), &[1.0, 3.0, 5.0, 7.0, 11.0]);
    }

    #[test]
    fn each_position_has_mean_0_and_variance_1() {
        let got = values(normalise_positions(tensor(&[1.0, 2.0, 3.0, 4.0, 10.0, 10.0, 30.0, 30.0], [1, 2, 4])));
        assert_near(&got, &[-1.341_64, -0.447_21, 0.447_21, 1.341_64, -1.0, -1.0, 1.0, 1.0]);
    }

    /// Two heads of one channel each: the first sees both positions alike, the second only the last.
    #[test]
    fn each_head_weighs_its_own_channels() {
        let x = tensor(&[1.0, 5.0, 3.0, 9.0], [1, 2, 2]);
        let scores = tensor(&[0.0, -50.0, 0.0, 50.0], [1, 2, 2]);
        assert_near(&values(attentive_statistics(x, scores, None)), &[2.0, 9.0, 1.0, 0.003_16]);
    }

    #[test]
    fn padding_does_not_count() {
        let x = tensor(&[1.0, 2.0, 3.0, 4.0, 99.0, -99.0], [1, 3, 2]);
        let scores = tensor(&[0.3, 0.1, 7.0], [1, 3, 1]);
        let mask = tensor(&[0.0, 0.0, -1e4], [1, 3, 1]);
        let got = values(attentive_statistics(x.clone(), scores.clone(), Some(mask)));
        let shorter = attentive_statistics(x.slice([0..1, 0..2]), scores.slice([0..1, 0..2]), None);
        assert_near(&got, &values(shorter));
    }
}

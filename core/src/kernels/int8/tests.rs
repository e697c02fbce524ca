#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use rten_vecmath::{ExtendInit, Quantize};

use super::*;
use crate::weights::ctranslate2::Ctranslate2;
use crate::weights::{StoredData, WeightSource};

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| (0..6).map(|_| rng.f32() - 0.5).sum()).collect()
}

/// The product in f64, and how far 8 bits may be from it: half a step of each factor as it is rounded, times what it is multiplied with.
fn exact(x: &[f32], weight: &[f32], bias: &[f32], d_input: usize) -> Vec<(f64, f64)> {
    let largest = largest_weight();
    let (mut x, mut weight) = (x.to_vec(), weight.to_vec());
    if can_rotate(d_input) {
        rotate(&mut x, d_input);
        rotate(&mut weight, d_input);
    }
    let products = |(row, scale): (&[f32], f32)| {
        let of_channel = |(weight, bias): (&[f32], &f32)| {
            let step = weight.iter().fold(0.0f32, |m, v| m.max(v.abs())) / largest;
            let (mut sum, mut bound) = (f64::from(*bias), 0.0);
            for (x, w) in row.iter().zip(weight) {
                sum += f64::from(*x) * f64::from(*w);
                // The zero point is rounded as well: up to a whole step of an activation at the ends.
                bound += f64::from(scale * w.abs() + 0.5 * step * (x.abs() + scale));
            }
            (sum, bound * 1.01 + 1e-5)
        };
        weight.chunks_exact(d_input).zip(bias).map(of_channel).collect::<Vec<_>>()
    };
    x.chunks_exact(d_input).map(|row| (row, range_of(row).0)).flat_map(products).collect()
}

fn check(n_rows: usize, d_input: usize, d_output: usize, seed: u64) {
    let weight = numbers(d_output * d_input, seed);
    let bias = numbers(d_output, seed + 1);
    let x = numbers(n_rows * d_input, seed + 2);
    let expected = exact(&x, &weight, &bias, d_input);
    let int8 = Int8Weight::new(&weight, Some(bias), d_output, Precision::Double);
    let mut out = vec![f32::NAN; n_rows * d_output];
    int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
    for (i, (got, (sum, bound))) in out.iter().zip(&expected).enumerate() {
        assert!((f64::from(*got) - sum).abs() <= *bound, "{n_rows}x{d_input}x{d_output} at {i}: {got}, not {sum}");
    }
    // Residual and activations work on the very same numbers.
    let residual = numbers(n_rows * d_output, seed + 3);
    let mut added = residual.clone();
    int8.forward(&x, &mut added, &Then::Add, Precision::Single);
    for ((added, residual), out) in added.iter().zip(&residual).zip(&out) {
        assert!((added - (residual + out)).abs() <= 1e-5 * (1.0 + added.abs()));
    }
    for activation in [Activation::Gelu, Activation::Relu] {
        let mut activated = vec![f32::NAN; out.len()];
        int8.forward(&x, &mut activated, &Then::Activate(activation), Precision::Single);
        let mut expected = out.clone();
        activation.apply_to(&mut expected);
        assert_eq!(activated, expected);
    }
}

/// One row, odd sizes, more rows than a task takes, a depth beyond one block, one column.
#[test]
fn the_product_is_within_the_rounding_of_its_factors() {
    let shapes = [(1, 1, 1), (1, 7, 33), (6, 64, 5), (65, 31, 130), (300, 48, 17), (3, 2500, 40), (130, 512, 64)];
    for (n_rows, d_input, d_output) in shapes {
        check(n_rows, d_input, d_output, 7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_product_of_any_shape(n_rows in 1usize..90, d_input in 1usize..120, d_output in 1usize..90, seed: u32) {
        check(n_rows, d_input, d_output, u64::from(seed));
    }
}

/// A row's numbers do not depend on what else is computed with it, so a batch answers as each clip alone.
#[test]
fn rows_do_not_see_each_other() {
    let (d_input, d_output) = (96, 40);
    let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
    let x = numbers(200 * d_input, 2);
    let mut together = vec![0.0; 200 * d_output];
    int8.forward(&x, &mut together, &Then::Activate(Activation::Gelu), Precision::Single);
    for (row, expected) in x.chunks_exact(d_input).zip(together.chunks_exact(d_output)) {
        let mut alone = vec![0.0; d_output];
        int8.forward(row, &mut alone, &Then::Activate(Activation::Gelu), Precision::Single);
        assert_eq!(alone, expected);
    }
}

#[test]
fn rows_with_a_number_that_is_none_give_none_and_leave_the_others_alone() {
    // The second is rotated, in two blocks.
    for (d_input, d_output) in [(50, 9), (64 + 32, 9)] {
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 49] {
                let mut x = numbers(3 * d_input, 2);
                x[d_input + at] = bad;
                let mut out = vec![0.0; 3 * d_output];
                int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
                let finite: Vec<bool> = out.chunks(d_output).map(|row| row.iter().all(|v| v.is_finite())).collect();
                assert_eq!(finite, [true, false, true], "{bad} at {at}");
                assert!(out[d_output..2 * d_output].iter().all(|v| v.is_nan()), "{bad} at {at}");
            }
        }
    }
}

#[test]
fn nothing_is_lost_of_zeros_and_of_numbers_that_are_steps() {
    // A channel of zeros, a row of zeros, and whole numbers whose steps are 1.
    let weight: Vec<f32> = [vec![0.0; 4], vec![63.0, -1.0, 2.0, 5.0]].concat();
    let int8 = Int8Weight::new(&weight, Some(vec![1.5, -2.0]), 2, Precision::Single);
    let mut out = vec![0.0; 4];
    int8.forward(
        &[0.0, 0.0, 0.0, 0.0, 255.0, 3.0, 0.0, 7.0],
        &mut out,
        &Then::Activate(Activation::None),
        Precision::Single,
    );
    let exact = 255.0 * 63.0 - 3.0 + 35.0 - 2.0;
    assert_eq!(&out[..3], &[1.5, -2.0, 1.5]);
    // With 127 steps the weights 1, 2 and 5 fall between two of them.
    assert!((out[3] - exact).abs() <= 255.0 * 0.5, "{} is not {exact}", out[3]);
}

/// Numbers that are whole steps of a row whose largest is 127 of them, as CTranslate2 and web bundles store int8.
fn in_steps(n_rows: usize, d_input: usize, seed: u64) -> (Vec<i8>, Vec<f32>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<i8> = (0..n_rows * d_input).map(|_| rng.i8(-127..=127)).collect();
    for (row, bytes) in bytes.chunks_exact_mut(d_input).enumerate() {
        match row % 5 {
            0 => bytes.fill(0), // of a row of zeros any scale is right
            _ => bytes[rng.usize(..d_input)] = if rng.bool() { 127 } else { -127 },
        }
    }
    // `value = byte / scale`, and scales of all sizes that weights have.
    let scales: Vec<f32> = (0..n_rows).map(|_| 127.0 / (0.001 + 10.0 * rng.f32().powi(4))).collect();
    (bytes, scales)
}

/// Nothing is lost between an int8 file and this kernel, though weights are f32 on the way.
#[test]
fn stored_bytes_are_rounded_to_themselves() {
    for seed in 0..50 {
        let d_input = 33 + seed as usize;
        let (bytes, scales) = in_steps(200, d_input, seed);
        for (row, scale) in bytes.chunks_exact(d_input).zip(scales) {
            let values: Vec<f32> = row.iter().map(|byte| f32::from(*byte) / scale).collect();
            let mut again = vec![0; d_input];
            let step = round_row(&values, &mut again, MAX_WEIGHT);
            assert_eq!(again, row, "scale {scale}");
            let is_zero = row.iter().all(|byte| *byte == 0);
            assert!(is_zero || (step * scale - 1.0).abs() < 1e-6, "a step of {step}, scale {scale}");
            // Before VNNI there are half the steps: then a weight is at most half of one of them off.
            round_row(&values, &mut again, MAX_WEIGHT_16_BITS);
            let off = |(now, stored): (&i8, &i8)| (f32::from(*now) / 63.0 - f32::from(*stored) / 127.0).abs();
            assert!(again.iter().zip(row).map(off).fold(0.0, f32::max) <= 0.5 / 63.0 + 1e-6);
        }
    }
}

/// So they are not rotated, and their product with rows in whole steps is exact; a weight off the steps has all rotated.
#[test]
fn stored_bytes_are_multiplied_as_they_are() {
    if may_saturate() {
        return; // they are rounded to half the steps there
    }
    let (n_rows, d_input, d_output) = (5, 64, 20);
    let (bytes, scales) = in_steps(d_output, d_input, 3);
    let mut weight: Vec<f32> =
        bytes.iter().enumerate().map(|(i, byte)| f32::from(*byte) / scales[i / d_input]).collect();
    let mut rng = fastrand::Rng::with_seed(4);
    let mut x: Vec<f32> = (0..n_rows * d_input).map(|_| f32::from(rng.u8(..))).collect();
    x.chunks_exact_mut(d_input).for_each(|row| row[..2].copy_from_slice(&[0.0, 255.0])); // so that a step is one
    let int8 = Int8Weight::new(&weight, None, d_output, Precision::Single);
    assert!(!int8.is_rotated);
    let mut out = vec![0.0; n_rows * d_output];
    int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
    for (i, got) in out.iter().enumerate() {
        let (row, channel) = (i / d_output, i % d_output);
        let products = x[row * d_input..].iter().zip(&bytes[channel * d_input..(channel + 1) * d_input]);
        let sum: i64 = products.map(|(x, w)| *x as i64 * i64::from(*w)).sum();
        let expected = sum as f32 / scales[channel];
        assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got}, not {expected}");
    }
    weight[7 * d_input + 3] *= 1.001;
    assert!(Int8Weight::new(&weight, None, d_output, Precision::Single).is_rotated);
}

/// A few loud channels, as Whisper's states have them, cost the others nothing.
#[test]
fn what_is_loud_does_not_cost_the_others_their_digits() {
    let (n_rows, d_input, d_output) = (20, 512, 64);
    let (weight, bias) = (numbers(d_output * d_input, 1), numbers(d_output, 2));
    let mut x = numbers(n_rows * d_input, 3);
    x.chunks_exact_mut(d_input).for_each(|row| row[100] = 40.0);
    let expected: Vec<f64> = exact(&x, &weight, &bias, d_input).into_iter().map(|(sum, _)| sum).collect();
    let mut int8 = Int8Weight::new(&weight, Some(bias.clone()), d_output, Precision::Single);
    assert!(int8.is_rotated);
    let error = |int8: &Int8Weight| {
        let mut out = vec![0.0; n_rows * d_output];
        int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
        out.iter().zip(&expected).map(|(got, sum)| (f64::from(*got) - sum).powi(2)).sum::<f64>().sqrt()
    };
    let rotated = error(&int8);
    // The same, but not rotated.
    let mut steps = vec![0; weight.len()];
    let rows = steps.chunks_exact_mut(d_input).zip(weight.chunks_exact(d_input));
    let scales = rows.map(|(steps, row)| round_row(row, steps, largest_weight())).collect();
    int8.whole = Part::new(&steps, scales);
    int8.is_rotated = false;
    let plain = error(&int8);
    assert!(rotated < plain / 2.0, "{rotated}, without rotation {plain}");
}

/// Every row that `source` has in int8, unpacked to f32 as all weights are, is rounded to the bytes that it was. Rows are
/// rounded each by itself, so this is also so where several tensors become one (queries, keys and values).
fn keeps_its_bytes(source: &dyn WeightSource) {
    let mut n_rows = 0;
    for name in source.names() {
        let tensor = source.get(&name).unwrap();
        let StoredData::Int8 { bytes, .. } = &tensor.data else { continue };
        let d_input = bytes.len() / tensor.shape[0];
        for (values, stored) in tensor.to_f32().chunks_exact(d_input).zip(bytes.chunks_exact(d_input)) {
            let stored: Vec<i8> = stored.iter().map(|byte| byte.cast_signed()).collect();
            let mut again = vec![0; d_input];
            round_row(values, &mut again, MAX_WEIGHT);
            assert_eq!(again, stored, "{name}");
            n_rows += 1;
        }
    }
    assert!(n_rows > 300, "{} has {n_rows} rows in int8", source.file());
}

fn golden(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

#[test]
fn weights_of_ctranslate2_keep_their_bytes() {
    for file in ["tiny-2/ct2-int8/model.bin", "tiny-2/ct2-int8_float16/model.bin"] {
        keeps_its_bytes(&Ctranslate2::from_bytes(std::fs::read(golden(file)).unwrap(), file).unwrap());
    }
}

#[cfg(feature = "web-bundle")]
#[test]
fn weights_of_web_bundles_keep_their_bytes() {
    use crate::weights::folder::{Base, ModelFolder, OpenOptions};
    use crate::weights::web_bundle::{Delivery, PackOptions, WebBundle, pack};

    let base = || Base { name: "tiny".to_owned(), folder: golden("tiny-multilingual") };
    let folder =
        ModelFolder::open_with(&golden("heads/head-only"), &OpenOptions::default(), &mut |_| Ok(base())).unwrap();
    let options = PackOptions { dtype: Delivery::Int8, trim_vocabulary: true, texts: Vec::new(), licences: Vec::new() };
    let packed = pack(&folder, &options).unwrap();
    let mut bundle = WebBundle::new(&serde_json::to_vec(&packed.manifest).unwrap()).unwrap();
    for (file, bytes) in &packed.parts {
        bundle.add_part(file, bytes).unwrap();
    }
    keeps_its_bytes(&*bundle.folder(true).unwrap().into_whisper().unwrap().weights);
}

/// In two parts of 8 bits each factor is off by a 127th of what one part is; zeros, one row and odd sizes as well.
#[test]
fn what_rounding_left_is_multiplied_too() {
    for (n_rows, d_input, d_output) in [(1, 1, 1), (1, 7, 33), (6, 64, 5), (65, 31, 130), (3, 2500, 40), (130, 512, 64)]
    {
        let weight = numbers(d_output * d_input, 3);
        let bias = numbers(d_output, 4);
        let mut x = numbers(n_rows * d_input, 5);
        x[..d_input.min(3)].fill(0.0);
        let exact = exact(&x, &weight, &bias, d_input);
        let int8 = Int8Weight::new(&weight, Some(bias), d_output, Precision::Double);
        assert!(int8.has_rest());
        let mut out = vec![f32::NAN; n_rows * d_output];
        int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Double);
        for (got, (sum, bound)) in out.iter().zip(&exact) {
            // Both are rounded to a finer grid of which a step is a 127th (63rd before VNNI) of a coarse one, or half that.
            let bound = bound / 40.0 + 1e-5 * (1.0 + sum.abs());
            assert!((f64::from(*got) - sum).abs() <= bound, "{n_rows}x{d_input}x{d_output}: {got}, not {sum}");
        }
        let mut added = vec![1.0; out.len()];
        int8.forward(&x, &mut added, &Then::Add, Precision::Double);
        assert!(added.iter().zip(&out).all(|(added, out)| (added - 1.0 - out).abs() <= 1e-4 * (1.0 + out.abs())));
    }
}

#[test]
fn rows_keep_to_themselves_in_two_parts_and_none_is_lost() {
    let (d_input, d_output) = (96, 40);
    let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
    let mut x = numbers(200 * d_input, 2);
    x[100 * d_input] = f32::NAN;
    let mut together = vec![0.0; 200 * d_output];
    int8.forward(&x, &mut together, &Then::Activate(Activation::Gelu), Precision::Double);
    for (i, (row, got)) in x.chunks_exact(d_input).zip(together.chunks_exact(d_output)).enumerate() {
        let mut alone = vec![0.0; d_output];
        int8.forward(row, &mut alone, &Then::Activate(Activation::Gelu), Precision::Double);
        assert_eq!(got.iter().all(|v| v.is_nan()), i == 100);
        assert!(i == 100 || alone == got);
    }
}

/// Two layers at once are the two one after the other, to the last bit.
#[test]
fn through_two_layers_is_one_and_then_the_other() {
    // The second pair is rotated, the third in its hidden layer alone.
    let shapes = [(24, 70), (64, 96), (24, 128)];
    for ((d_input, d_hidden), precision) in
        shapes.into_iter().flat_map(|shape| [(shape, Precision::Single), (shape, Precision::Double)])
    {
        let first = Int8Weight::new(&numbers(d_hidden * d_input, 1), Some(numbers(d_hidden, 2)), d_hidden, precision);
        let second = Int8Weight::new(&numbers(d_input * d_hidden, 3), Some(numbers(d_input, 4)), d_input, precision);
        for n_rows in [1, 9, 300] {
            let x = numbers(n_rows * d_input, 5);
            let residual = numbers(n_rows * d_input, 6);
            let mut hidden = vec![0.0; n_rows * d_hidden];
            first.forward(&x, &mut hidden, &Then::Activate(Activation::Gelu), precision);
            let mut expected = residual.clone();
            second.forward(&hidden, &mut expected, &Then::Add, precision);
            let mut got = residual;
            first.forward_through(Activation::Gelu, &second, &x, &mut got, precision);
            assert_eq!(got, expected, "{n_rows} rows");
        }
    }
}

#[test]
fn rounding_is_rten_vecmaths() {
    for (n, seed) in [(0, 1), (1, 2), (15, 3), (16, 4), (333, 5)] {
        // Beyond both ends, too.
        let row: Vec<f32> = numbers(n, seed).iter().map(|v| v * 3.0).collect();
        let (inverse, zero_point) = (97.3, 101u8);
        let mut got = vec![0; n];
        Round { row: &row, inverse, zero_point: f32::from(zero_point), steps: &mut got }.dispatch();
        let mut expected = Vec::with_capacity(n);
        expected.extend_init(|uninit| Quantize::new(&row, &mut uninit[..n], inverse, zero_point).dispatch());
        // They differ only where a number lies half-way, which is rounded to even before or after the zero point.
        for ((got, expected), x) in got.iter().zip(&expected).zip(&row) {
            let half_way = ((x * inverse).fract().abs() - 0.5).abs() < 1e-4;
            assert!(got == expected || half_way && got.abs_diff(*expected) == 1, "{x}: {got}, not {expected}");
        }
    }
}

#[test]
fn every_thread_has_as_much_to_do() {
    for (n_rows, n_threads, expected) in [(1, 2, 8), (165, 2, 48), (1500, 2, 64), (1500, 16, 48), (10, 16, 8)] {
        assert_eq!(rows_per_task(n_rows, n_threads), expected, "{n_rows} rows on {n_threads} threads");
    }
}

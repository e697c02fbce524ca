//! Where an engine computes: the browser's GPU if it is trusted, else the CPU.

use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::n_elements;
use okyeame_core::weights::web_bundle::{StageName, WebBundle};
use okyeame_core::{Error, Recognizer};
use serde::Deserialize;

/// What a model needs beside its weights: states, caches, the samples of a clip.
const WORKING_BYTES: u64 = 48 << 20;

/// What the page asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceWanted {
    /// The GPU if this build reaches one and it answers a known sound as it should; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Wasm,
    /// The GPU, or an error.
    Webgpu,
}

/// In which numbers linear layers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DtypeWanted {
    /// [`AUTO_ON_CPU`] on the CPU, f32 on the GPU.
    #[default]
    Auto,
    /// IEEE single.
    F32,
    /// 8-bit integers, on the CPU.
    Int8,
}

/// What `auto` is on the CPU: faster on a command and on words, in less memory (`make bench-web BENCH_ARGS='--ours f32
/// --ours int8 --only-ours'`).
const AUTO_ON_CPU: DtypeChoice = DtypeChoice::Int8;

/// Why int8 passes a GPU over.
const INT8_IS_THE_CPUS: &str = "8-bit integers are multiplied on the CPU only";

impl DtypeWanted {
    fn on_cpu(self) -> DtypeChoice {
        match self {
            Self::Auto => AUTO_ON_CPU,
            Self::F32 => DtypeChoice::F32,
            Self::Int8 => DtypeChoice::Int8,
        }
    }
}

/// A model on its device.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) recognizer: Recognizer,
    pub(crate) compute: Compute,
}

/// Puts a model onto the device that is wanted and can be trusted.
pub(crate) async fn start(
    bundle: &WebBundle,
    words: bool,
    wanted: DeviceWanted,
    dtype: DtypeWanted,
) -> Result<Started, Error> {
    let why = match wanted {
        DeviceWanted::Wasm => "asked for".to_owned(),
        DeviceWanted::Webgpu if dtype == DtypeWanted::Int8 => {
            return Err(Error::DeviceUnavailable { device: "webgpu", reason: INT8_IS_THE_CPUS.to_owned() });
        }
        DeviceWanted::Auto if dtype == DtypeWanted::Int8 => INT8_IS_THE_CPUS.to_owned(),
        DeviceWanted::Webgpu => return on_gpu(bundle, words).await,
        DeviceWanted::Auto => match on_gpu(bundle, words).await {
            Ok(started) => return Ok(started),
            Err(error) => error.to_string(),
        },
    };
    let on_cpu = Compute::choose(DeviceChoice::Cpu, dtype.on_cpu(), None)?;
    checked(bundle, load(bundle, words, Compute { name: "wasm", reason: why, ..on_cpu })?).await
}

async fn on_gpu(bundle: &WebBundle, words: bool) -> Result<Started, Error> {
    checked(bundle, load(bundle, words, webgpu().await?)?).await
}

#[cfg(feature = "webgpu")]
async fn webgpu() -> Result<Compute, Error> {
    let compute = Compute::webgpu().await?;
    Ok(Compute { reason: "it answers a known sound as it should".to_owned(), ..compute })
}

#[cfg(not(feature = "webgpu"))]
async fn webgpu() -> Result<Compute, Error> {
    Err(Error::DeviceUnavailable { device: "webgpu", reason: "this build computes on the CPU only".to_owned() })
}

/// Puts a model onto a device. That there is memory for it is known before anything is loaded.
pub(crate) fn load(bundle: &WebBundle, words: bool, compute: Compute) -> Result<Started, Error> {
    let folder = bundle.folder(words)?;
    let is_wanted = |name: StageName| words || name == StageName::Intent;
    let numbers: u64 = (bundle.manifest().stages.iter())
        .filter(|stage| is_wanted(stage.name))
        .flat_map(|stage| &stage.tensors)
        .map(|tensor| n_elements(&tensor.shape))
        .sum();
    let needed = bytes_of_a_number(&compute) * numbers + WORKING_BYTES;
    let too_much = || Error::OutOfMemory { needed_mb: needed >> 20, available_mb: 0 };
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(usize::try_from(needed).map_err(|_| too_much())?).map_err(|_| too_much())?;
    drop(room);
    let recognizer = Recognizer::from_folder(folder, LoadOptions { compute: compute.clone(), task: None })?;
    Ok(Started { recognizer, compute })
}

/// What a weight takes, roughly: of int8 a byte, and as much again for what its rounding left, which second looks need.
fn bytes_of_a_number(compute: &Compute) -> u64 {
    if compute.dtype == DtypeChoice::Int8.name() { 2 } else { 4 }
}

/// A model is trusted when it answers a known sound as the manifest says.
async fn checked(bundle: &WebBundle, started: Started) -> Result<Started, Error> {
    if let Some(check) = &bundle.manifest().check {
        check.hold(&started.recognizer.probe().await?)?;
    }
    Ok(started)
}

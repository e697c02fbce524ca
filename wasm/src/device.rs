//! Where an engine computes: the browser's GPU if it is trusted, else the CPU.

use okyeame_core::device::Compute;
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

/// A model on its device.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) recognizer: Recognizer,
    pub(crate) compute: Compute,
}

/// Puts a model onto the device that is wanted and can be trusted.
pub(crate) async fn start(bundle: &WebBundle, words: bool, wanted: DeviceWanted) -> Result<Started, Error> {
    let why = match wanted {
        DeviceWanted::Wasm => "asked for".to_owned(),
        DeviceWanted::Webgpu => return on_gpu(bundle, words).await,
        DeviceWanted::Auto => match on_gpu(bundle, words).await {
            Ok(started) => return Ok(started),
            Err(error) => error.to_string(),
        },
    };
    let compute = Compute { name: "wasm", reason: why, ..Compute::cpu() };
    checked(bundle, load(bundle, words, compute)?).await
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
    let needed = 4 * numbers + WORKING_BYTES;
    let too_much = || Error::OutOfMemory { needed_mb: needed >> 20, available_mb: 0 };
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(usize::try_from(needed).map_err(|_| too_much())?).map_err(|_| too_much())?;
    drop(room);
    let recognizer = Recognizer::from_folder(folder, LoadOptions { compute: compute.clone(), task: None })?;
    Ok(Started { recognizer, compute })
}

/// A model is trusted when it answers a known sound as the manifest says.
async fn checked(bundle: &WebBundle, started: Started) -> Result<Started, Error> {
    if let Some(check) = &bundle.manifest().check {
        check.hold(&started.recognizer.probe().await?)?;
    }
    Ok(started)
}

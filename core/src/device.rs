//! Where a model computes, and in which number type.
//!
//! One binary holds every device that it was built with (Cargo features `cuda`, `wgpu`, `vulkan`; the CPU is always
//! there) and chooses when it starts: CUDA, then a GPU through wgpu, then the CPU. A software adapter, a graphics
//! driver that computes on the CPU, is never chosen by itself: this project's own CPU kernels are much faster. It can
//! be asked for by name, which is how the GPU path is tested without a GPU.
//!
//! In a browser a device is started with an `await`: `Compute::webgpu`, where Cargo feature `webgpu` is on.

use std::str::FromStr;

use burn::tensor::{Device, FloatDType};

use crate::error::{Error, Result};
use crate::kernels::{self, Target};

/// Which device is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA, then wgpu, then the CPU: the first that was built in and is there.
    #[default]
    Auto,
    /// The first NVIDIA GPU.
    Cuda,
    /// The best adapter that wgpu finds, a software adapter included.
    Wgpu,
    /// As wgpu, but on Vulkan and with SPIR-V shaders. Never chosen by itself.
    Vulkan,
    /// This machine's processor.
    Cpu,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda),
            "wgpu" => Ok(Self::Wgpu),
            "vulkan" => Ok(Self::Vulkan),
            "cpu" => Ok(Self::Cpu),
            _ => Err(Error::InvalidParameter {
                name: "device",
                allowed: "'auto', 'cuda', 'wgpu', 'vulkan' or 'cpu'".to_owned(),
            }),
        }
    }
}

/// Which number type is wanted for weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// On a CPU `int8`, or f32 where 8-bit sums may overflow (x86 without VNNI), which takes weights of 7 bits; on a GPU f32:
    /// half precision is there to be asked for, and was not measured yet.
    #[default]
    Auto,
    /// IEEE single.
    F32,
    /// IEEE half; GPUs only.
    F16,
    /// bfloat16; GPUs only.
    Bf16,
    /// Linear layers in 8-bit integers, everything else in f32; the CPU only.
    Int8,
}

impl DtypeChoice {
    fn float(self) -> FloatDType {
        match self {
            Self::Auto | Self::F32 | Self::Int8 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// `f32`, `f16`, `bf16` or `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto | Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::InvalidParameter {
                name: "dtype",
                allowed: "'auto', 'f32', 'f16', 'bf16' or 'int8'".to_owned(),
            }),
        }
    }
}

/// A device that was chosen.
#[derive(Debug, Clone)]
pub struct Compute {
    /// Burn's handle. New tensors on it have the chosen number type.
    pub device: Device,
    /// `cpu`, `cuda`, `wgpu`, `vulkan` or, in a browser, `webgpu`.
    pub name: &'static str,
    /// `f32`, `f16`, `bf16` or `int8`.
    pub dtype: &'static str,
    /// Why this one, for people.
    pub reason: String,
}

/// What the allocator of a device holds, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// By tensors.
    pub in_use_bytes: u64,
    /// Taken from the device, what is kept for later tensors included.
    pub reserved_bytes: u64,
}

impl Compute {
    /// What is held on the device; `None` on the CPU, whose memory is the process's. Waits for the device's own thread.
    #[must_use]
    pub fn memory(&self) -> Option<DeviceMemory> {
        let held = self.device.memory_pool_usage()?;
        Some(DeviceMemory { in_use_bytes: held.bytes_in_use, reserved_bytes: held.bytes_reserved })
    }

    /// The CPU in f32, which is always there.
    #[must_use]
    pub fn cpu() -> Self {
        Self { device: Device::flex(), name: "cpu", dtype: "f32", reason: "asked for".to_owned() }
    }

    /// Where layers are put, and in what form.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target { device: &self.device, int8: self.dtype == DtypeChoice::Int8.name(), refined: false }
    }

    /// Chooses a device as the caller and the environment want it.
    ///
    /// `cuda_visible` is the variable `CUDA_VISIBLE_DEVICES`; set and empty, it forces the CPU.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`] if a device that was asked for is not built in or not there, or does not compute
    /// in the number type; [`Error::InvalidParameter`] if the variable forbids what was asked for.
    pub fn choose(device: DeviceChoice, dtype: DtypeChoice, cuda_visible: Option<&str>) -> Result<Self> {
        let forced_cpu = cuda_visible.is_some_and(|v| v.trim().is_empty());
        if forced_cpu && !matches!(device, DeviceChoice::Auto | DeviceChoice::Cpu) {
            return Err(Error::InvalidParameter {
                name: "device",
                allowed: "'auto' or 'cpu': CUDA_VISIBLE_DEVICES is set and empty, which forces the CPU; unset it to \
                          use a GPU"
                    .to_owned(),
            });
        }
        let asked = || "asked for".to_owned();
        match device {
            DeviceChoice::Cpu => configure(Device::flex(), "cpu", dtype, asked()),
            DeviceChoice::Cuda => configure(cuda()?, "cuda", dtype, asked()),
            DeviceChoice::Wgpu => configure(wgpu()?, "wgpu", dtype, asked()),
            DeviceChoice::Vulkan => configure(vulkan()?, "vulkan", dtype, asked()),
            DeviceChoice::Auto if forced_cpu => {
                let reason = "CUDA_VISIBLE_DEVICES is empty, which forces the CPU".to_owned();
                configure(Device::flex(), "cpu", dtype, reason)
            }
            DeviceChoice::Auto => auto(dtype),
        }
    }
}

#[cfg(all(feature = "webgpu", target_family = "wasm"))]
impl Compute {
    /// The browser's GPU, in f32. A page may ask once.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`] if the browser gives none.
    pub async fn webgpu() -> Result<Self> {
        let device = Device::wgpu_options()
            .init_async()
            .await
            .map_err(|error| Error::DeviceUnavailable { device: "webgpu", reason: error.to_string() })?;
        Ok(Self { device, name: "webgpu", dtype: "f32", reason: "asked for".to_owned() })
    }
}

/// The first GPU that is there and starts, else the CPU; and what spoke against each one before.
fn auto(dtype: DtypeChoice) -> Result<Compute> {
    let mut passed_over: Vec<String> = Vec::new();
    for (name, find) in [("cuda", cuda as fn() -> Result<Device>), ("wgpu", gpu_of_wgpu)] {
        let why = if passed_over.is_empty() { String::new() } else { format!("; {}", passed_over.join("; ")) };
        match find().and_then(|device| configure(device, name, dtype, format!("a GPU is there{why}"))) {
            Ok(compute) => return Ok(compute),
            Err(error) => passed_over.push(reason_of(error)),
        }
    }
    configure(Device::flex(), "cpu", dtype, passed_over.join("; "))
}

fn reason_of(error: Error) -> String {
    match error {
        Error::DeviceUnavailable { device, .. } if !is_built_in(device) => format!("{device} is not built in"),
        Error::DeviceUnavailable { device, reason } => format!("{device}: {reason}"),
        other => other.to_string(),
    }
}

/// Whether this binary can reach a device of that name at all.
#[must_use]
pub fn is_built_in(device: &str) -> bool {
    match device {
        "cpu" => true,
        "cuda" => cfg!(feature = "cuda"),
        "wgpu" => cfg!(feature = "wgpu"),
        "vulkan" => cfg!(feature = "vulkan"),
        _ => false,
    }
}

/// Gives the device its number type. Burn takes that once for each device of a process.
fn configure(mut device: Device, name: &'static str, dtype: DtypeChoice, reason: String) -> Result<Compute> {
    let unavailable = |reason: String| Error::DeviceUnavailable { device: name, reason };
    let dtype = match dtype {
        DtypeChoice::Auto if name == "cpu" && kernels::has_exact_int8_sums() => DtypeChoice::Int8,
        _ => dtype,
    };
    let chosen = Compute { device: device.clone(), name, dtype: dtype.name(), reason };
    if name == "cpu" {
        return if dtype.float() == FloatDType::F32 {
            Ok(chosen)
        } else {
            Err(unavailable(format!("it computes in f32 or int8, not in {}; leave --dtype out", dtype.name())))
        };
    }
    if dtype == DtypeChoice::Int8 {
        return Err(unavailable("8-bit integers are multiplied on the CPU only; leave --dtype out".to_owned()));
    }
    if !started(|| device.supports_dtype(dtype.float()))
        .ok_or_else(|| unavailable("it did not start; its driver may be damaged".to_owned()))?
    {
        return Err(unavailable(format!("this adapter does not compute in {}; use --dtype f32", dtype.name())));
    }
    // Configured before with the same type: nothing to do.
    match device.configure(dtype.float()) {
        Err(_) if device.settings().float_dtype != dtype.float() => {
            Err(unavailable("it already computes in another number type in this process".to_owned()))
        }
        _ => Ok(chosen),
    }
}

/// A driver that is broken panics inside Burn's lazy start instead of giving an error.
fn started<R>(f: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).ok()
}

/// That a device was not compiled in.
#[allow(dead_code, reason = "unused where every device is built in")]
fn not_built_in(device: &'static str) -> Error {
    Error::DeviceUnavailable {
        device,
        reason: format!("it is not built into this binary (cargo build --features {device})"),
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Device> {
    use burn::tensor::DeviceType;
    let found = started(|| Device::enumerate(DeviceType::Cuda).into_vec()).unwrap_or_default();
    found.into_iter().next().ok_or_else(|| Error::DeviceUnavailable {
        device: "cuda",
        reason: "no NVIDIA GPU and driver were found".to_owned(),
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device> {
    Err(not_built_in("cuda"))
}

/// Every adapter that wgpu reaches.
#[cfg(feature = "wgpu")]
fn adapters() -> Vec<Device> {
    use burn::tensor::DeviceType;
    started(|| Device::enumerate(DeviceType::Wgpu).into_vec()).unwrap_or_default()
}

/// A GPU, not a software adapter.
#[cfg(feature = "wgpu")]
fn gpu_of_wgpu() -> Result<Device> {
    use burn::tensor::DeviceKind;
    let adapters = adapters();
    [DeviceKind::DiscreteGpu(0), DeviceKind::IntegratedGpu(0), DeviceKind::VirtualGpu(0)]
        .map(Device::wgpu)
        .into_iter()
        .find(|gpu| adapters.contains(gpu))
        .ok_or_else(|| Error::DeviceUnavailable {
            device: "wgpu",
            reason: if adapters.is_empty() {
                "no graphics adapter was found".to_owned()
            } else {
                "only a software adapter was found, which is slower than the CPU".to_owned()
            },
        })
}

#[cfg(not(feature = "wgpu"))]
fn gpu_of_wgpu() -> Result<Device> {
    Err(not_built_in("wgpu"))
}

/// The best adapter, a software adapter where there is no other.
#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device> {
    use burn::tensor::DeviceKind;
    match gpu_of_wgpu() {
        Ok(gpu) => Ok(gpu),
        Err(_) if adapters().contains(&Device::wgpu(DeviceKind::Cpu)) => Ok(Device::wgpu(DeviceKind::Cpu)),
        Err(error) => Err(error),
    }
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device> {
    Err(not_built_in("wgpu"))
}

#[cfg(feature = "vulkan")]
fn vulkan() -> Result<Device> {
    use burn::tensor::{DeviceKind, DeviceType};
    let adapters = started(|| Device::enumerate(DeviceType::Vulkan).into_vec()).unwrap_or_default();
    [DeviceKind::DiscreteGpu(0), DeviceKind::IntegratedGpu(0), DeviceKind::VirtualGpu(0), DeviceKind::Cpu]
        .map(Device::vulkan)
        .into_iter()
        .find(|gpu| adapters.contains(gpu))
        .ok_or_else(|| Error::DeviceUnavailable {
            device: "vulkan",
            reason: "no adapter with a Vulkan driver was found".to_owned(),
        })
}

#[cfg(not(feature = "vulkan"))]
fn vulkan() -> Result<Device> {
    Err(not_built_in("vulkan"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_others_refused() {
        assert_eq!("CUDA".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda);
        assert_eq!(" auto ".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        assert_eq!("tpu".parse::<DeviceChoice>().unwrap_err().code(), "invalid_parameter");
        assert_eq!("float16".parse::<DtypeChoice>().unwrap(), DtypeChoice::F16);
        assert_eq!("int3".parse::<DtypeChoice>().unwrap_err().code(), "invalid_parameter");
    }

    #[test]
    fn an_empty_cuda_visible_devices_forces_the_cpu() {
        let chosen = Compute::choose(DeviceChoice::Auto, DtypeChoice::Auto, Some("")).unwrap();
        let dtype = if kernels::has_exact_int8_sums() { "int8" } else { "f32" };
        assert_eq!((chosen.name, chosen.dtype), ("cpu", dtype));
        assert!(chosen.reason.contains("CUDA_VISIBLE_DEVICES"), "{}", chosen.reason);
        for device in [DeviceChoice::Cuda, DeviceChoice::Wgpu, DeviceChoice::Vulkan] {
            let error = Compute::choose(device, DtypeChoice::Auto, Some(" ")).unwrap_err();
            assert_eq!(error.code(), "invalid_parameter");
        }
    }

    #[test]
    fn the_cpu_computes_in_f32_and_int8_and_says_so() {
        assert!(Compute::choose(DeviceChoice::Cpu, DtypeChoice::F32, None).is_ok());
        let error = Compute::choose(DeviceChoice::Cpu, DtypeChoice::F16, None).unwrap_err();
        assert_eq!(error.code(), "device_unavailable");
        assert!(error.to_string().contains("f16"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_built_in_says_how_to_get_it() {
        let error = Compute::choose(DeviceChoice::Cuda, DtypeChoice::Auto, None).unwrap_err();
        assert!(error.to_string().contains("--features cuda"), "{error}");
        let chosen = Compute::choose(DeviceChoice::Auto, DtypeChoice::Auto, None).unwrap();
        assert!(chosen.reason.contains("cuda"), "auto says what it passed over: {}", chosen.reason);
    }
}

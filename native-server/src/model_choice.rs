//! Which model: from the flag, from the environment, or the default; and where it lies on this disk.
//!
//! A name that is a folder is read as it is. `owner/name` is a repository on the Hugging Face hub: its
//! snapshot in the local hub cache is used when it is there, and fetched otherwise.

use std::path::{Path, PathBuf};

use okyeame_core::weights::hub::{self, PullEvent, PullRequest};
use okyeame_core::{Error, ModelInfo, Result, Task};
use serde::Serialize;

/// The repository behind the default model.
pub(crate) const DEFAULT_REPO: &str = "openai/whisper-base";
/// The default model's folder, beside the working directory.
const DEFAULT_FOLDER: &str = "models/whisper-base";
/// Any of these makes a cached snapshot worth loading; without one a download was cut off.
const WEIGHT_FILES: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.bin",
];

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// A repository on the hub, named by the caller.
    Huggingface,
    /// A folder on this disk, named by the caller.
    Local,
    /// Nobody named one.
    Default,
}

/// A model as it was asked for. [`Self::locate`] finds its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    /// What was asked for.
    wanted: String,
    source: ModelSource,
    revision: Option<String>,
    /// `HUGGINGFACE_MODEL_TYPE`.
    task: Option<Task>,
}

impl Default for ModelChoice {
    fn default() -> Self {
        Self { wanted: DEFAULT_REPO.to_owned(), source: ModelSource::Default, revision: None, task: None }
    }
}

impl ModelChoice {
    /// Takes a folder or a repository; `None` or an empty name is the default model.
    #[must_use]
    pub fn new(wanted: Option<&str>, revision: Option<&str>) -> Self {
        let revision = revision.filter(|r| !r.is_empty()).map(str::to_owned);
        match wanted.map(str::trim).filter(|w| !w.is_empty()) {
            None => Self { revision, ..Self::default() },
            Some(wanted) => {
                let is_repo = !Path::new(wanted).is_dir() && looks_like_repo(wanted);
                let source = if is_repo { ModelSource::Huggingface } else { ModelSource::Local };
                Self { wanted: wanted.to_owned(), source, revision, task: None }
            }
        }
    }

    /// Reads `HUGGINGFACE_MODEL_TYPE`: the task that the model must have.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it is unset, empty, `single` or `multi`.
    pub(crate) fn with_task(mut self, name: Option<&str>) -> Result<Self> {
        self.task = match name.map(str::trim).filter(|n| !n.is_empty()) {
            None => None,
            Some("single") => Some(Task::Single),
            Some("multi") => Some(Task::Multi),
            Some(_) => {
                return Err(Error::InvalidConfig {
                    file: "HUGGINGFACE_MODEL_TYPE".to_owned(),
                    reason: "it must be 'single' or 'multi'".to_owned(),
                });
            }
        };
        Ok(self)
    }

    /// Where the model comes from.
    #[must_use]
    pub fn source(&self) -> ModelSource {
        self.source
    }

    /// The repository, or the folder's last component: fit to be shown to anybody.
    #[must_use]
    pub fn label(&self) -> String {
        match self.source {
            ModelSource::Huggingface | ModelSource::Default => self.wanted.clone(),
            ModelSource::Local => Path::new(&self.wanted)
                .file_name()
                .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned()),
        }
    }

    /// Finds the model's folder; fetches a repository that is not on this disk yet.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] for a folder that does not exist; what the hub says.
    pub(crate) fn locate(&self, on_event: &mut dyn FnMut(PullEvent)) -> Result<PathBuf> {
        if self.source == ModelSource::Local {
            let folder = PathBuf::from(&self.wanted);
            return if folder.is_dir() {
                Ok(folder)
            } else {
                Err(Error::ModelNotFound { what: format!("the folder '{}'", self.wanted) })
            };
        }
        if self.source == ModelSource::Default && self.revision.is_none() && is_model(Path::new(DEFAULT_FOLDER)) {
            return Ok(PathBuf::from(DEFAULT_FOLDER));
        }
        // What is in the cache is taken without asking anybody: a server starts the same way with and without a network.
        let cached = PullRequest {
            revision: self.revision.clone(),
            offline: Some(true),
            ..PullRequest::new(self.wanted.as_str())
        };
        hub::pull(&cached, on_event).or_else(|_| hub::pull(&PullRequest { offline: None, ..cached.clone() }, on_event))
    }

    /// Holds a loaded model against `HUGGINGFACE_MODEL_TYPE`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model is of the other task.
    pub(crate) fn check_task(&self, info: &ModelInfo) -> Result<()> {
        match self.task {
            Some(task) if task != info.task => Err(Error::InvalidConfig {
                file: "HUGGINGFACE_MODEL_TYPE".to_owned(),
                reason: match task {
                    Task::Single => "it says 'single', but the model has an intent head",
                    Task::Multi => "it says 'multi', but the model has no intent head",
                }
                .to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// `owner/name`, of the characters that the hub allows.
fn looks_like_repo(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/').is_some_and(|(owner, repo)| part(owner) && part(repo))
}

/// Whether a folder holds a configuration and weights.
fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file() && WEIGHT_FILES.iter().any(|name| folder.join(name).is_file())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let source = |name| ModelChoice::new(name, None).source();
        assert_eq!(source(None), ModelSource::Default);
        assert_eq!(source(Some("  ")), ModelSource::Default);
        assert_eq!(source(Some("openai/whisper-tiny")), ModelSource::Huggingface);
        for folder in ["./models/x", "/srv/models/x", "models/a/b", "../x/y", "nosuchfolder", "a b/c"] {
            assert_eq!(source(Some(folder)), ModelSource::Local, "{folder}");
        }
    }

    #[test]
    fn an_existing_folder_wins_over_a_repository_and_its_label_hides_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let choice = ModelChoice::new(folder.path().to_str(), None);
        assert_eq!(choice.source(), ModelSource::Local);
        assert!(!choice.label().contains('/'), "{}", choice.label());
        assert_eq!(choice.locate(&mut |_| {}).unwrap(), folder.path());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = ModelChoice::new(Some("./no/such/folder"), None).locate(&mut |_| {}).unwrap_err();
        assert_eq!(error.code(), "model_not_found");
    }

    #[test]
    fn the_task_variable_is_checked() {
        assert!(ModelChoice::default().with_task(Some("single")).is_ok());
        assert!(ModelChoice::default().with_task(None).is_ok());
        assert_eq!(ModelChoice::default().with_task(Some("both")).unwrap_err().code(), "invalid_config");
    }
}

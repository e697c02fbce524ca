//! Which model: from the flag, from the environment, or the default; and where it lies on this disk.
//!
//! A name that is a folder is read as it is. `owner/name` is a repository on the Hugging Face hub: its
//! snapshot in the local hub cache is used when it is there and complete, and fetched otherwise.
//!
//! A model may be a head alone and name the model that it stands on. That name comes out of a file that anybody may
//! have written: it is taken for a repository, and never for a path.

use std::path::{Path, PathBuf};

use okyeame_core::weights::folder::{Base, BuiltIn};
use okyeame_core::weights::hub::{self, PullEvent, PullRequest};
use okyeame_core::{Error, Result, Task};
use serde::Serialize;

/// The default model's intent head, models/twi-shop, which stands on [`DEFAULT_REPO`].
pub(crate) static TWI_SHOP: BuiltIn = BuiltIn {
    name: "twi-shop",
    files: &[
        ("model.safetensors", include_bytes!("../../models/twi-shop/model.safetensors")),
        ("config.json", include_bytes!("../../models/twi-shop/config.json")),
        ("intent_labels.json", include_bytes!("../../models/twi-shop/intent_labels.json")),
        ("calibration.json", include_bytes!("../../models/twi-shop/calibration.json")),
        ("sentences.txt", include_bytes!("../../models/twi-shop/sentences.txt")),
    ],
};

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

/// The longest part of a name out of a file that a message repeats.
const MAX_SHOWN: usize = 80;

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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
    /// The folder or repository that a head stands on, whatever the head says.
    base: Option<String>,
    /// The language whose adapter is wanted.
    adapter: Option<String>,
    /// `HUGGINGFACE_MODEL_TYPE`.
    task: Option<Task>,
}

impl Default for ModelChoice {
    fn default() -> Self {
        Self {
            wanted: DEFAULT_REPO.to_owned(),
            source: ModelSource::Default,
            revision: None,
            base: None,
            adapter: None,
            task: None,
        }
    }
}

impl ModelChoice {
    /// Takes a folder or a repository; `None` or an empty name is the default model.
    #[must_use]
    pub fn new(wanted: Option<&str>, revision: Option<&str>) -> Self {
        let revision = said(revision);
        match said(wanted) {
            None => Self { revision, ..Self::default() },
            Some(wanted) => {
                let is_repo = !Path::new(&wanted).is_dir() && hub::check_repo(&wanted).is_ok();
                let source = if is_repo { ModelSource::Huggingface } else { ModelSource::Local };
                Self { wanted, source, revision, ..Self::default() }
            }
        }
    }

    /// Names the folder or repository that a head stands on; `None` or an empty name leaves it to the head.
    #[must_use]
    pub fn with_base(mut self, base: Option<&str>) -> Self {
        self.base = said(base);
        self
    }

    /// Names the language whose adapter is wanted; `None` or an empty name asks for none.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Option<&str>) -> Self {
        self.adapter = said(adapter);
        self
    }

    /// Reads `HUGGINGFACE_MODEL_TYPE`: the task that the model is taken for, whatever its files say.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it is unset, empty, `single` or `multi`.
    pub(crate) fn with_task(mut self, name: Option<&str>) -> Result<Self> {
        self.task = match said(name).as_deref() {
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

    /// The same model in another revision; `None` or an empty name leaves it as it is.
    #[must_use]
    pub(crate) fn with_revision(mut self, revision: Option<&str>) -> Self {
        self.revision = said(revision).or(self.revision);
        self
    }

    /// Another model than this one, as [`Self::new`] has it, taken for the same task: `HUGGINGFACE_MODEL_TYPE` is said of
    /// every model of a process.
    pub(crate) fn other(&self, wanted: &str, revision: Option<&str>) -> Self {
        Self { task: self.task, ..Self::new(Some(wanted), revision) }
    }

    /// Whether nobody named a model: then it is the head that comes with this program, on the default base or on one
    /// that was named.
    pub(crate) fn is_default(&self) -> bool {
        self.source == ModelSource::Default
    }

    /// # Errors
    /// [`Error::InvalidParameter`] if a base was named for a model that needs none.
    pub(crate) fn check_base_used(&self, base: Option<&str>) -> Result<()> {
        match (&self.base, base) {
            (Some(_), None) => Err(Error::InvalidParameter {
                name: "base",
                allowed: "leave it out, this model is complete; only an intent head alone stands on a base".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The task that the model is taken for; `None` leaves it to its files.
    pub(crate) fn task(&self) -> Option<Task> {
        self.task
    }

    /// The language whose adapter is wanted, in a folder as in a repository.
    pub(crate) fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
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

    /// Finds the model's folder; fetches a repository that is not on this disk yet, or not with this adapter.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] for a folder that does not exist; what the hub says.
    pub(crate) fn locate(&self, on_event: &mut dyn FnMut(PullEvent)) -> Result<PathBuf> {
        self.find(Path::new(DEFAULT_FOLDER), &mut |request: &PullRequest| hub::pull(request, on_event))
    }

    /// Finds the folder of the model that a head stands on, which names it `base_repo` in its `config.json`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if that is no repository and nobody named another base; [`Error::ModelNotFound`] for
    /// a folder that does not exist; what the hub says.
    pub(crate) fn locate_base(&self, base_repo: Option<&str>, on_event: &mut dyn FnMut(PullEvent)) -> Result<Base> {
        self.find_base(base_repo, Path::new(DEFAULT_FOLDER), &mut |request: &PullRequest| hub::pull(request, on_event))
    }

    fn find(&self, default: &Path, pull: &mut Pull<'_>) -> Result<PathBuf> {
        match self.source {
            ModelSource::Local if self.revision.is_some() => Err(Error::InvalidParameter {
                name: "revision",
                allowed: "leave it out, this is a folder; only a repository of the hub has revisions".to_owned(),
            }),
            ModelSource::Local => {
                let folder = PathBuf::from(&self.wanted);
                let missing = || Error::ModelNotFound { what: format!("the folder '{}'", self.wanted) };
                folder.is_dir().then_some(folder).ok_or_else(missing)
            }
            ModelSource::Default if self.revision.is_none() && is_model(default) => Ok(default.to_owned()),
            _ => cached_or_fetched(
                &PullRequest {
                    revision: self.revision.clone(),
                    adapter: self.adapter.clone(),
                    ..PullRequest::new(self.wanted.as_str())
                },
                pull,
            ),
        }
    }

    fn find_base(&self, base_repo: Option<&str>, default: &Path, pull: &mut Pull<'_>) -> Result<Base> {
        let base = match (&self.base, base_repo) {
            (Some(base), _) => Self::new(Some(base.as_str()), None),
            (None, Some(base_repo)) if hub::check_repo(base_repo).is_ok() => {
                Self { wanted: base_repo.to_owned(), source: ModelSource::Huggingface, ..Self::default() }
            }
            (None, None) => {
                return Err(Error::InvalidConfig {
                    file: "config.json".to_owned(),
                    reason: "it names no base for its intent head (_name_or_path); say where it is with --base"
                        .to_owned(),
                });
            }
            (None, Some(base_repo)) => {
                let shown: String = base_repo.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
                return Err(Error::InvalidConfig {
                    file: "config.json".to_owned(),
                    reason: format!(
                        "it names '{shown}' as its base, which is no repository; say where it is with --base"
                    ),
                });
            }
        };
        // The default model's own folder serves wherever its repository is meant.
        let is_default = base.source == ModelSource::Huggingface && base.wanted == DEFAULT_REPO;
        let source = if is_default { ModelSource::Default } else { base.source };
        // What was said of the default model is said of its base: its head has no revisions.
        let revision = if self.is_default() { self.revision.clone() } else { None };
        let base = Self { source, revision, ..base };
        Ok(Base { name: base.label(), folder: base.find(default, pull)? })
    }
}

/// [`hub::pull`], or what a test puts in its place.
type Pull<'a> = dyn FnMut(&PullRequest) -> Result<PathBuf> + 'a;

/// What is complete in the cache is taken without asking anybody: a server starts the same way with and without a
/// network.
fn cached_or_fetched(request: &PullRequest, pull: &mut Pull<'_>) -> Result<PathBuf> {
    let cached = PullRequest { offline: Some(true), ..request.clone() };
    pull(&cached).or_else(|_| pull(request))
}

/// A name that says something.
fn said(name: Option<&str>) -> Option<String> {
    name.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
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
        let task = |name| ModelChoice::default().with_task(name).map(|choice| choice.task());
        assert_eq!(task(Some("single")).unwrap(), Some(Task::Single));
        assert_eq!(task(Some(" multi ")).unwrap(), Some(Task::Multi));
        assert_eq!(task(Some("")).unwrap(), None);
        assert_eq!(task(None).unwrap(), None);
        assert_eq!(task(Some("both")).unwrap_err().code(), "invalid_config");
    }

    /// A hub that has everything, and a cache that has what `cached` names; gives the folder and what was asked for.
    fn answered(
        cached: &[&str],
        find: impl Fn(&mut Pull<'_>) -> Result<PathBuf>,
    ) -> (Result<PathBuf>, Vec<PullRequest>) {
        let mut asked = Vec::new();
        let found = find(&mut |request: &PullRequest| {
            asked.push(request.clone());
            if request.offline == Some(true) && !cached.contains(&request.repo.as_str()) {
                return Err(Error::ModelNotFound { what: "a snapshot".to_owned() });
            }
            Ok(Path::new("snapshots").join(&request.repo))
        });
        (found, asked)
    }

    fn model_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::write(folder.path().join(file), "{}").unwrap();
        }
        folder
    }

    #[test]
    fn the_cache_is_asked_first_and_the_hub_only_without_it() {
        let nowhere = Path::new("no/such/folder");
        let choice = ModelChoice::new(Some("shop/mms"), Some("v2")).with_adapter(Some("aka"));
        for (cached, times) in [(vec!["shop/mms"], 1), (vec![], 2)] {
            let (found, asked) = answered(&cached, |pull| choice.find(nowhere, pull));
            assert_eq!(found.unwrap(), Path::new("snapshots/shop/mms"));
            let offline: Vec<_> = asked.iter().map(|request| request.offline).collect();
            assert_eq!(offline, [Some(true), None][..times]);
            for request in asked {
                assert_eq!((request.revision.as_deref(), request.adapter.as_deref()), (Some("v2"), Some("aka")));
            }
        }
        assert_eq!(choice.adapter(), Some("aka"));
    }

    #[test]
    fn the_default_model_s_folder_stands_in_for_its_repository() {
        let folder = model_folder();
        let (found, asked) = answered(&[], |pull| ModelChoice::default().find(folder.path(), pull));
        assert_eq!((found.unwrap().as_path(), asked.len()), (folder.path(), 0));
        // A folder without weights is no model, and a revision is another one.
        std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        let (found, asked) = answered(&[], |pull| ModelChoice::default().find(folder.path(), pull));
        assert_eq!((found.unwrap().as_path(), asked.len()), (Path::new("snapshots/openai/whisper-base"), 2));
    }

    #[test]
    fn a_base_is_the_one_that_was_named_or_the_head_s_repository() {
        let (default, other) = (model_folder(), model_folder());
        let head = ModelChoice::new(Some("shop/head"), Some("v2"));
        let base = |choice: &ModelChoice, repo| {
            answered(&[], |pull| choice.find_base(Some(repo), default.path(), pull).map(|base| base.folder))
        };
        // The head's revision says nothing of its base.
        let (found, asked) = base(&head, "shop/base");
        assert_eq!(found.unwrap(), Path::new("snapshots/shop/base"));
        assert!(asked.iter().all(|request| request.revision.is_none() && request.repo == "shop/base"));
        assert_eq!(base(&head, DEFAULT_REPO).0.unwrap(), default.path());

        let named = head.clone().with_base(other.path().to_str());
        for repo in ["shop/base", DEFAULT_REPO, "../.."] {
            let (found, asked) = base(&named, repo);
            assert_eq!((found.unwrap().as_path(), asked.len()), (other.path(), 0), "{repo}");
        }
        let named = head.clone().with_base(Some("shop/mine"));
        assert_eq!(base(&named, "shop/base").0.unwrap(), Path::new("snapshots/shop/mine"));
        let missing = head.with_base(Some("./no/such/folder"));
        assert_eq!(base(&missing, "shop/base").0.unwrap_err().code(), "model_not_found");
    }

    #[test]
    fn a_head_s_word_is_never_taken_for_a_path() {
        // These folders exist, from where the tests run.
        for path in ["..", "src", ".", "/", "/tmp", "./src", "../core/src", "src/cli/..", ""] {
            let (found, asked) = answered(&[], |pull| {
                ModelChoice::default().find_base(Some(path), Path::new("src"), pull).map(|b| b.folder)
            });
            let error = found.unwrap_err();
            assert_eq!((error.code(), asked.len()), ("invalid_config", 0), "{path}");
            assert!(error.to_string().contains(&format!("it names '{path}' as its base")), "{error}");
            assert!(error.to_string().contains("--base"), "{error}");
        }
        // This one exists too, and is a repository's name: it is asked for at the hub.
        assert!(Path::new("src/cli").is_dir());
        let (found, asked) = answered(&[], |pull| {
            ModelChoice::default().find_base(Some("src/cli"), Path::new("src"), pull).map(|b| b.folder)
        });
        assert_eq!((found.unwrap().as_path(), asked.len()), (Path::new("snapshots/src/cli"), 2));
        // What a forged file says is cut and cleaned before it is repeated.
        let forged = format!("\u{1b}[31m{}", "x".repeat(1000));
        let (found, _) = answered(&[], |pull| {
            ModelChoice::default().find_base(Some(&forged), Path::new("src"), pull).map(|b| b.folder)
        });
        let said = found.unwrap_err().to_string();
        assert!(said.len() < 300 && !said.contains('\u{1b}'), "{said}");
    }
}

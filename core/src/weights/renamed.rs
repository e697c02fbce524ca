//! Some tensors of a file under other names: what a repository calls `whisper.model.encoder.…` is shown as the house's
//! `model.encoder.…`. Two views may share one file; nothing is copied.
//!
//! Not for tensors that have to be changed as well as renamed: the bytes are the file's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{StoredTensor, WeightSource};

/// A view of another source. Names of that source that are not listed are not there.
pub struct Renamed {
    inner: Arc<dyn WeightSource>,
    /// Shown name to the name in the file.
    names: BTreeMap<String, String>,
}

impl std::fmt::Debug for Renamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renamed").field("file", &self.inner.file()).finish_non_exhaustive()
    }
}

impl Renamed {
    /// Shows `inner` under the keys of `names`; the values are its own names.
    #[must_use]
    pub fn new(inner: Arc<dyn WeightSource>, names: BTreeMap<String, String>) -> Self {
        Self { inner, names }
    }
}

impl WeightSource for Renamed {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.inner.get(self.names.get(name)?)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(self.names.get(name)?)
    }

    fn format(&self) -> &'static str {
        self.inner.format()
    }

    fn file(&self) -> &str {
        self.inner.file()
    }

    fn file_of(&self, name: &str) -> &str {
        self.names.get(name).map_or_else(|| self.inner.file(), |own| self.inner.file_of(own))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::safetensors::Safetensors;
    use super::super::to_safetensors;
    use super::*;

    #[test]
    fn two_views_share_one_file() {
        let bytes = to_safetensors(&[("x.a", vec![1], vec![1.0]), ("x.b", vec![1], vec![2.0])]);
        let file: Arc<dyn WeightSource> = Arc::new(Safetensors::from_bytes(bytes, "f").unwrap());
        let names = |shown: &str, own: &str| BTreeMap::from([(shown.to_owned(), own.to_owned())]);
        let a = Renamed::new(Arc::clone(&file), names("a", "x.a"));
        // A name that another tensor has in the file means only what the view says.
        let b = Renamed::new(file, names("x.a", "x.b"));
        assert_eq!((a.names(), b.names()), (vec!["a".to_owned()], vec!["x.a".to_owned()]));
        assert_eq!(a.get("a").unwrap().to_f32(), [1.0]);
        assert_eq!(b.get("x.a").unwrap().to_f32(), [2.0]);
        assert!(a.get("x.a").is_none() && a.shape("x.b").is_none());
        assert_eq!((a.file(), a.file_of("a"), a.format()), ("f", "f", "safetensors"));
    }

    #[test]
    fn a_name_that_the_file_lacks_is_not_there() {
        let file = Arc::new(Safetensors::from_bytes(to_safetensors(&[("a", vec![1], vec![1.0])]), "f").unwrap());
        let view = Renamed::new(file, BTreeMap::from([("b".to_owned(), "c".to_owned())]));
        assert_eq!(view.names(), ["b"]);
        assert!(view.get("b").is_none());
    }
}

//! One source before another: an adapter's tensors take the place of the model's own of the same name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{StoredTensor, WeightSource};

/// Two sources as one; where both hold a name, the top one's tensor is meant.
pub struct Overlay {
    top: Arc<dyn WeightSource>,
    bottom: Arc<dyn WeightSource>,
    /// The names of `top`.
    covered: BTreeSet<String>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("top", &self.top.file())
            .field("bottom", &self.bottom.file())
            .finish_non_exhaustive()
    }
}

impl Overlay {
    /// Puts `top` before `bottom`. Format and file are those of `bottom`, the model.
    #[must_use]
    pub fn new(top: Arc<dyn WeightSource>, bottom: Arc<dyn WeightSource>) -> Self {
        let covered = top.names().into_iter().collect();
        Self { top, bottom, covered }
    }

    /// A tensor that `top` names but cannot give is missing, not `bottom`'s.
    fn source_of(&self, name: &str) -> &dyn WeightSource {
        if self.covered.contains(name) { &*self.top } else { &*self.bottom }
    }
}

impl WeightSource for Overlay {
    fn names(&self) -> Vec<String> {
        let below = self.bottom.names().into_iter().filter(|name| !self.covered.contains(name));
        self.covered.iter().cloned().chain(below).collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.source_of(name).get(name)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source_of(name).shape(name)
    }

    fn format(&self) -> &'static str {
        self.bottom.format()
    }

    fn file(&self) -> &str {
        self.bottom.file()
    }

    fn file_of(&self, name: &str) -> &str {
        self.source_of(name).file_of(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::safetensors::Safetensors;
    use super::super::to_safetensors;
    use super::*;

    #[test]
    fn the_top_one_wins() {
        let open = |file: &str, tensors: &[(&str, Vec<usize>, Vec<f32>)]| -> Arc<dyn WeightSource> {
            Arc::new(Safetensors::from_bytes(to_safetensors(tensors), file).unwrap())
        };
        let top = open("adapter", &[("a", vec![2], vec![1.0, 2.0]), ("c", vec![1], vec![3.0])]);
        let bottom = open("model", &[("a", vec![1], vec![4.0]), ("b", vec![1], vec![5.0])]);
        let both = Overlay::new(top, bottom);
        let mut names = both.names();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(both.get("a").unwrap().to_f32(), [1.0, 2.0]);
        assert_eq!(both.shape("a").unwrap(), [2]);
        assert_eq!(both.get("b").unwrap().to_f32(), [5.0]);
        assert_eq!((both.file(), both.file_of("a"), both.file_of("b")), ("model", "adapter", "model"));
        assert!(both.get("d").is_none());
    }
}

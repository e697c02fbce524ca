//! Several files that are one checkpoint, as an index (`*.index.json`) names them: `model-00001-of-00002.safetensors`
//! and its like.
//!
//! Follows transformers 4.57 `modeling_utils.py` (`load_sharded_checkpoint`). Deviation: a tensor that two shards hold
//! is damage, where transformers takes the last: nothing tells which of the two was meant.

use std::collections::BTreeMap;

use super::{StoredTensor, WeightSource};
use crate::error::{Error, Result};

/// The files that an index names.
pub struct Shards {
    files: Vec<Box<dyn WeightSource>>,
    /// Which file holds a tensor.
    places: BTreeMap<String, usize>,
    index_file: &'static str,
    format: &'static str,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("index_file", &self.index_file).finish_non_exhaustive()
    }
}

impl Shards {
    /// Takes the files that `index_file` names; the format is the first one's.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] if there is no file, or if two hold a tensor of one name.
    pub fn new(files: Vec<Box<dyn WeightSource>>, index_file: &'static str) -> Result<Self> {
        let damaged = |reason: String| Error::DamagedWeights { file: index_file.to_owned(), reason };
        let format = files.first().ok_or_else(|| damaged("it names no weight file".to_owned()))?.format();
        let mut places = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(before) = places.insert(name.clone(), place) {
                    let (one, other) = (files[before].file(), file.file());
                    return Err(damaged(format!("both {one} and {other} hold the tensor {name}")));
                }
            }
        }
        Ok(Self { files, places, index_file, format })
    }

    fn file_with(&self, name: &str) -> Option<&dyn WeightSource> {
        self.places.get(name).map(|place| &*self.files[*place])
    }
}

impl WeightSource for Shards {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.file_with(name)?.get(name)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file_with(name)?.shape(name)
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn file(&self) -> &str {
        self.index_file
    }

    fn file_of(&self, name: &str) -> &str {
        self.file_with(name).map_or(self.index_file, |file| file.file_of(name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::safetensors::Safetensors;
    use super::super::to_safetensors;
    use super::*;

    fn shard(file: &str, tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Box<dyn WeightSource> {
        Box::new(Safetensors::from_bytes(to_safetensors(tensors), file).unwrap())
    }

    #[test]
    fn each_tensor_comes_from_its_own_file() {
        let files = vec![
            shard("one", &[("a", vec![1], vec![1.0])]),
            shard("two", &[("b", vec![2], vec![2.0, 3.0]), ("c", vec![1], vec![4.0])]),
        ];
        let shards = Shards::new(files, "index").unwrap();
        assert_eq!(shards.names(), ["a", "b", "c"]);
        assert_eq!(shards.get("b").unwrap().to_f32(), [2.0, 3.0]);
        assert_eq!(shards.shape("b").unwrap(), [2]);
        assert!(shards.get("d").is_none() && shards.shape("d").is_none());
        assert_eq!((shards.format(), shards.file()), ("safetensors", "index"));
        assert_eq!((shards.file_of("a"), shards.file_of("c"), shards.file_of("d")), ("one", "two", "index"));
    }

    #[test]
    fn a_tensor_in_two_files_and_no_files() {
        let files = vec![shard("one", &[("a", vec![1], vec![1.0])]), shard("two", &[("a", vec![1], vec![2.0])])];
        match Shards::new(files, "index").unwrap_err() {
            Error::DamagedWeights { file, reason } => {
                assert_eq!(file, "index");
                assert!(reason.contains("both one and two hold the tensor a"), "{reason}");
            }
            other => panic!("{other}"),
        }
        assert_eq!(Shards::new(Vec::new(), "index").unwrap_err().code(), "damaged_weights");
    }
}

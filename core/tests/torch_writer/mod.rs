//! Writes files as `torch.save` does, and every lie that one of them could tell. The layouts are those of PyTorch 2.15
//! `torch/serialization.py` and of the zip format's APPNOTE; `tests/golden/tiny-2` has files of torch itself.

#![allow(dead_code, reason = "a test file uses its own part")]

/// One tensor of a pickle: a view of a storage, told as it stands here, true or not.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) name: &'static str,
    /// Such as `FloatStorage`.
    pub(crate) class: &'static str,
    pub(crate) key: &'static str,
    /// Elements of the storage.
    pub(crate) n: i64,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    pub(crate) strides: Vec<i64>,
}

impl View {
    /// `w`: all of the storage `0`, whose elements are floats.
    pub(crate) fn floats(n: i64, shape: &[i64], strides: &[i64]) -> Self {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Self { name: "w", class: "FloatStorage", key: "0", n, offset: 0, shape, strides }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
}

fn integer(value: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &value.to_le_bytes()].concat()
}

fn tuple(values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| integer(*value)).collect();
    [&b"("[..], &values, b"t"].concat()
}

/// A state dict of these tensors; `legacy` storages have a sixth part, which is None.
pub(crate) fn state_dict(views: &[View], legacy: bool) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for View { name, class, key, n, offset, shape, strides } in views {
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(format!("ctorch\n{class}\n").into_bytes());
        pickle.extend([text(key), text("cpu"), integer(*n)].concat());
        pickle.extend(if legacy { &b"NtQ"[..] } else { b"tQ" });
        pickle.extend([integer(*offset), tuple(shape), tuple(strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    pickle
}

/// Little-endian floats.
pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One entry of a zip, and what its directory says of it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// Instead of the data's own.
    pub(crate) size: Option<u64>,
    /// Lies where the entry before it lies.
    pub(crate) overlaps: bool,
}

impl Entry {
    pub(crate) fn new(name: &str, data: &[u8]) -> Self {
        Self { name: name.to_owned(), data: data.to_vec(), method: 0, flags: 0, size: None, overlaps: false }
    }
}

/// A zip as torch writes it: stored entries, a directory, its end without a comment.
pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::<u8>::new(), Vec::<u8>::new());
    let mut at = 0_u32;
    for Entry { name, data, method, flags, size, overlaps } in entries {
        let (n_name, n_data) = (u16::try_from(name.len()).unwrap(), u32::try_from(data.len()).unwrap());
        if !overlaps {
            at = u32::try_from(file.len()).unwrap();
            file.extend(b"PK\x03\x04\x14\0");
            file.extend([flags.to_le_bytes(), method.to_le_bytes()].concat());
            file.extend([0; 8]); // time, date, checksum
            file.extend([n_data.to_le_bytes(), n_data.to_le_bytes()].concat());
            file.extend([n_name.to_le_bytes(), [0, 0]].concat());
            file.extend(name.as_bytes());
            file.extend(data);
        }
        let size = size.unwrap_or(n_data.into());
        let (short, extra) = match u32::try_from(size) {
            Ok(size) => (size, Vec::new()),
            // The 64-bit sizes stand in an extra field.
            Err(_) => (u32::MAX, [&[1, 0, 16, 0][..], &size.to_le_bytes(), &size.to_le_bytes()].concat()),
        };
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        directory.extend([flags.to_le_bytes(), method.to_le_bytes()].concat());
        directory.extend([0; 8]);
        directory.extend([short.to_le_bytes(), short.to_le_bytes()].concat());
        directory.extend([n_name, u16::try_from(extra.len()).unwrap()].map(u16::to_le_bytes).concat());
        directory.extend([0; 10]); // comment, disk, attributes
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
        directory.extend(extra);
    }
    let n = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let place = [directory.len(), file.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat();
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([n, n].concat());
    file.extend(place);
    file.extend([0, 0]);
    file
}

/// The entries of a file of torch 1.6 and later.
pub(crate) fn entries(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<Entry> {
    let mut entries =
        vec![Entry::new("m/data.pkl", pickle), Entry::new("m/byteorder", b"little"), Entry::new("m/version", b"3\n")];
    entries.extend(storages.iter().map(|(key, data)| Entry::new(&format!("m/data/{key}"), data)));
    entries
}

/// A file of torch 1.6 and later.
pub(crate) fn zip_file(views: &[View], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    zip(&entries(&state_dict(views, false), storages))
}

pub(crate) const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
pub(crate) const PROTOCOL: &[u8] = b"\x80\x02M\xe9\x03.";
pub(crate) const LITTLE_ENDIAN: &[u8] = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";
pub(crate) const BIG_ENDIAN: &[u8] = b"\x80\x02}X\x0d\0\0\0little_endian\x89s.";

/// The list of keys and the storages behind it: a count that is told as it stands here, and bytes.
pub(crate) fn legacy_storages(storages: &[(&str, i64, Vec<u8>)]) -> Vec<u8> {
    let keys: Vec<u8> = storages.iter().flat_map(|(key, _, _)| text(key)).collect();
    let mut bytes = [&b"\x80\x02]("[..], &keys, b"e."].concat();
    for (_, n, data) in storages {
        bytes.extend(n.to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

/// A file of torch before 1.6.
pub(crate) fn legacy_file(views: &[View], storages: &[(&str, i64, Vec<u8>)]) -> Vec<u8> {
    [MAGIC, PROTOCOL, LITTLE_ENDIAN, &state_dict(views, true), &legacy_storages(storages)].concat()
}

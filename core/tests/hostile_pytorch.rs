//! `pytorch_model.bin`: every file that torch wrote is read as its safetensors twin; a file that would run something,
//! that lies, that is cut short or asks for all memory is an error with a stable code. None is a panic.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod torch_writer;

use std::collections::BTreeMap;

use common::{Tensors, bytes_of, golden};
use half::{bf16, f16};
use okyeame_core::weights::pytorch::{PytorchFile, PytorchLimits};
use okyeame_core::weights::safetensors::Safetensors;
use okyeame_core::weights::shards::Shards;
use okyeame_core::weights::{Checkpoint, StoredData, WeightSource};
use okyeame_core::{Error, Result};
use proptest::prelude::*;
use torch_writer::{
    BIG_ENDIAN, Entry, LITTLE_ENDIAN, MAGIC, PROTOCOL, View, entries, floats, legacy_file, legacy_storages, state_dict,
    zip, zip_file,
};

const FILE: &str = "pytorch_model.bin";
const LIMITS: PytorchLimits = PytorchLimits { max_tensors: 500, max_bytes: 1 << 20 };

fn open(bytes: &[u8]) -> Result<PytorchFile> {
    PytorchFile::from_bytes(bytes.to_vec(), FILE, &LIMITS)
}

fn fixture(path: &str) -> Vec<u8> {
    bytes_of(&golden("tiny-2").join(path))
}

/// Fails if it was accepted, refused for another reason, or refused without a word of why.
#[track_caller]
fn assert_refused(what: &str, bytes: &[u8], code: &str, why: &str) {
    match open(bytes) {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => {
            assert_eq!(error.code(), code, "{what}: {error}");
            assert!(error.to_string().contains(why), "{what}: {error} does not say {why:?}");
            assert!(error.to_string().contains(FILE), "{what}: {error}");
        }
    }
}

fn values(source: &dyn WeightSource, name: &str) -> Vec<f32> {
    source.get(name).unwrap_or_else(|| panic!("no {name}")).to_f32()
}

#[test]
fn what_torch_wrote_is_its_safetensors_twin() {
    let exact = |value: f32| value;
    let half = |value: f32| f16::from_f32(value).to_f32();
    let brain = |value: f32| bf16::from_f32(value).to_f32();
    let torch = |path: &str| -> Box<dyn WeightSource> { Box::new(open(&fixture(path)).unwrap()) };
    let shards = [1, 2].map(|i| torch(&format!("pytorch_sharded/pytorch_model-0000{i}-of-00002.bin")));
    let shards = Shards::new(shards.into(), "pytorch_model.bin.index.json").unwrap();
    let twin = "model.decoder.embed_tokens.weight";
    type Case = (Box<dyn WeightSource>, fn(f32) -> f32, &'static str);
    let cases: [Case; 6] = [
        (torch("pytorch_model.bin"), exact, "proj_out.weight"),
        (torch("legacy/pytorch_model.bin"), exact, "proj_out.weight"),
        (torch("pytorch-wrapped/pytorch_model.bin"), exact, "batch_norm.num_batches_tracked"),
        (torch("pytorch-f16/pytorch_model.bin"), half, ""),
        (Box::new(shards), exact, ""),
        (Box::new(Safetensors::from_bytes(fixture("bf16/model.safetensors"), "bf16").unwrap()), brain, ""),
    ];
    let reference = Tensors::read(&golden("tiny-2/model.safetensors"));
    for (source, round, extra) in cases {
        let what = format!("{} with {extra:?}", source.file());
        let mut names: Vec<String> = source.names().into_iter().filter(|name| name != extra).collect();
        assert_eq!(names.len() + usize::from(!extra.is_empty()), source.names().len(), "{what}");
        names.sort();
        let mut wanted: Vec<&String> = reference.0.keys().collect();
        wanted.sort();
        assert_eq!(names.iter().collect::<Vec<_>>(), wanted, "{what}");
        for name in &names {
            let (stored, expected) = (source.get(name).unwrap(), reference.get(name));
            assert_eq!(stored.shape, expected.shape, "{what}: {name}");
            assert_eq!(source.shape(name).unwrap(), expected.shape, "{what}: {name}");
            let rounded: Vec<f32> = expected.data.iter().map(|value| round(*value)).collect();
            assert_eq!(stored.to_f32(), rounded, "{what}: {name}");
        }
        match extra {
            "proj_out.weight" => assert!(source.get(extra).unwrap().is_same(&source.get(twin).unwrap())),
            "" => {}
            _ => assert_eq!(source.get(extra).unwrap().data, StoredData::Other { type_name: "int64" }),
        }
    }
}

#[test]
fn as_much_as_is_allowed_and_no_more() {
    for path in ["pytorch_model.bin", "legacy/pytorch_model.bin"] {
        let bytes = fixture(path);
        let source = open(&bytes).unwrap();
        let n_bytes = source.names().iter().map(|name| 4 * values(&source, name).len() as u64).sum();
        let limits = PytorchLimits { max_tensors: source.names().len(), max_bytes: n_bytes };
        PytorchFile::from_bytes(bytes.clone(), FILE, &limits).unwrap();
        let fewer = PytorchLimits { max_tensors: limits.max_tensors - 1, ..limits };
        let smaller = PytorchLimits { max_bytes: limits.max_bytes - 1, ..limits };
        for limits in [fewer, smaller, PytorchLimits { max_tensors: 0, max_bytes: 0 }] {
            let error = PytorchFile::from_bytes(bytes.clone(), FILE, &limits).unwrap_err();
            assert_eq!(error.code(), "weights_too_large", "{path}: {error}");
        }
    }
    // An expanded view takes what it shows, not what is stored: found before it is gathered.
    let far = View::floats(1, &[1 << 20, 1 << 20, 1 << 20, 1 << 20], &[0; 4]);
    assert_refused("expanded", &zip_file(&[far], &[("0", floats(&[1.0]))]), "weights_too_large", "bytes");
    // Also one that the limits allow: it is no weight.
    let wide = View::floats(2, &[64, 64], &[0, 1]);
    assert_refused(
        "repeated",
        &zip_file(&[View::floats(2, &[64, 2], &[0, 1])], &[("0", floats(&[1.0; 2]))]),
        "damaged_weights",
        "it shows",
    );
    assert_refused("beyond", &zip_file(&[wide], &[("0", floats(&[1.0; 2]))]), "damaged_weights", "beyond");
    // Many names of one storage count each.
    let views: Vec<View> =
        (0..500).map(|i| View { name: format!("w{i}").leak(), ..View::floats(1024, &[1024], &[1]) }).collect();
    let storage = [("0", floats(&[1.0; 1024]))];
    assert_refused("views", &zip_file(&views, &storage), "weights_too_large", "bytes");
    open(&zip_file(&views[..256], &storage)).unwrap();
}

#[test]
fn a_pickle_that_would_run_something() {
    // pickle.dumps({"w": P()}, protocol=2) of Python 3.11, where P reduces to (os.system, ("touch …",))
    let system =
        b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01cposix\nsystem\nq\x02X\x1a\x00\x00\x00touch /tmp/okyeame-was-run\
        q\x03\x85q\x04Rq\x05s.";
    // protocol=4, where it reduces to (eval, ("1+1",))
    let eval =
        b"\x80\x04\x95&\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94\
        \x8c\x031+1\x94\x85\x94R\x94s.";
    for (pickle, global) in [(&system[..], "'posix.system'"), (&eval[..], "'builtins.eval'")] {
        let files = [
            zip(&entries(pickle, &[])),
            [MAGIC, PROTOCOL, LITTLE_ENDIAN, pickle].concat(),
            [MAGIC, PROTOCOL, pickle].concat(),
            pickle.to_vec(),
        ];
        for bytes in files {
            assert_refused(global, &bytes, "unsafe_pickle", global);
            assert_refused(global, &bytes, "unsafe_pickle", "nothing of it was run");
        }
    }
    // Python 2's text protocol is not read at all.
    assert_refused("text", b"cos\nsystem\n(S'ls'\ntR.", "damaged_weights", "torch.save");
    assert!(!std::path::Path::new("/tmp/okyeame-was-run").exists());
}

/// Two rows of three, and what each view of them shows.
#[test]
fn views_of_a_storage() {
    let six = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let view = |offset, shape: &[i64], strides: &[i64]| View { offset, ..View::floats(6, shape, strides) };
    let cases: [(View, &[f32]); 9] = [
        (view(0, &[2, 3], &[3, 1]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (view(0, &[3, 2], &[1, 3]), &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        (view(3, &[3], &[1]), &[4.0, 5.0, 6.0]),
        (view(1, &[2], &[3]), &[2.0, 5.0]),
        (view(5, &[], &[]), &[6.0]),
        (view(4, &[2, 2], &[0, 1]), &[5.0, 6.0, 5.0, 6.0]),
        // torch gives an axis of one element any stride
        (view(4, &[1, 2], &[i64::MAX, 1]), &[5.0, 6.0]),
        (view(0, &[2, 1, 2], &[2, i64::MAX, 3]), &[1.0, 4.0, 3.0, 6.0]),
        (view(i64::MAX, &[4, 0], &[i64::MAX, i64::MAX]), &[]),
    ];
    for (view, expected) in cases {
        let shape: Vec<usize> = view.shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
        let files = [
            zip_file(std::slice::from_ref(&view), &[("0", six.clone())]),
            legacy_file(std::slice::from_ref(&view), &[("0", 6, six.clone())]),
        ];
        for bytes in files {
            let source = open(&bytes).unwrap();
            assert_eq!(source.get("w").unwrap().shape, shape);
            assert_eq!(values(&source, "w"), expected, "{shape:?} with {:?}", view.strides);
        }
    }
}

/// torch has empty tensors, and gives their other axes any length: the product of these fits into no number.
#[test]
fn the_axes_beside_an_empty_one_are_not_multiplied() {
    for shape in [[1 << 62, 4, 0], [0, 1 << 62, 4], [1 << 62, 0, 4]] {
        let bytes = zip_file(&[View::floats(1, &shape, &[0, 0, 1])], &[("0", floats(&[1.0]))]);
        let source = open(&bytes).unwrap();
        assert_eq!((source.n_elements(), source.main_dtype()), (0, "f32"), "{shape:?}");
        assert!(values(&source, "w").is_empty());
        let error = Checkpoint::new(&source, &[("w".to_owned(), vec![4])], |_| false).unwrap_err();
        assert_eq!(error.code(), "weight_mismatch");
    }
}

#[test]
fn views_that_lie() {
    let cases: [(&str, View, &str); 14] = [
        ("an offset behind the end", View { offset: 1, ..View::floats(6, &[6], &[1]) }, "beyond"),
        ("a far offset", View { offset: i64::MAX, ..View::floats(6, &[6], &[1]) }, "beyond"),
        ("a negative offset", View { offset: -1, ..View::floats(6, &[6], &[1]) }, "offset"),
        ("a row too many", View::floats(6, &[3, 3], &[3, 1]), "beyond"),
        ("a wide stride", View::floats(6, &[2, 3], &[4, 1]), "beyond"),
        ("a stride beyond all", View::floats(6, &[2, 2], &[i64::MAX, 1]), "beyond"),
        ("strides that overflow", View::floats(6, &[3, 3], &[i64::MAX, i64::MAX]), "beyond"),
        ("a negative stride", View::floats(6, &[6], &[-1]), "stride"),
        ("a negative axis", View::floats(6, &[-6], &[1]), "size"),
        ("too few strides", View::floats(6, &[2, 3], &[1]), "strides"),
        ("17 axes", View::floats(6, &[1; 17], &[1; 17]), "axes"),
        ("a longer storage", View::floats(i64::MAX, &[6], &[1]), "storage"),
        ("a shorter storage", View::floats(5, &[5], &[1]), "storage"),
        ("a negative storage", View::floats(-1, &[6], &[1]), "length"),
    ];
    let six = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for (what, view, why) in cases {
        let told = view.n;
        let views = [view];
        assert_refused(what, &zip_file(&views, &[("0", six.clone())]), "damaged_weights", why);
        // In the old format the storage's own count and the pickle's are one thing more to disagree.
        let why = if why == "storage" { "" } else { why };
        assert_refused(what, &legacy_file(&views, &[("0", 6, six.clone())]), "damaged_weights", why);
        if !(0..=6).contains(&told) {
            assert_refused(what, &legacy_file(&views, &[("0", told, six.clone())]), "damaged_weights", "");
        }
    }
    let elsewhere = View { key: "1", ..View::floats(6, &[6], &[1]) };
    assert_refused("no such storage", &zip_file(&[elsewhere], &[("0", six)]), "damaged_weights", "is not there");
    for class in ["ComplexFloatStorage", "QInt8Storage", "load"] {
        let view = View { class, ..View::floats(6, &[6], &[1]) };
        assert_refused(class, &zip_file(&[view], &[]), "unsafe_pickle", class);
    }
}

#[test]
fn numbers_of_every_type() {
    let classes = [
        ("BFloat16Storage", 2, "bf16"),
        ("DoubleStorage", 8, "f64"),
        ("FloatStorage", 4, "f32"),
        ("HalfStorage", 2, "f16"),
        ("BoolStorage", 1, "bool"),
        ("ByteStorage", 1, "uint8"),
        ("CharStorage", 1, "int8"),
        ("IntStorage", 4, "int32"),
        ("LongStorage", 8, "int64"),
        ("ShortStorage", 2, "int16"),
    ];
    for (class, size, type_name) in classes {
        let source =
            open(&zip_file(&[View { class, ..View::floats(3, &[3], &[1]) }], &[("0", vec![0; 3 * size])])).unwrap();
        let stored = source.get("w").unwrap();
        let expected = [("w".to_owned(), vec![3])];
        match stored.data {
            StoredData::Float { dtype, .. } => {
                assert_eq!(dtype.name(), type_name);
                assert_eq!(Checkpoint::new(&source, &expected, |_| false).unwrap().take("w").unwrap(), [0.0; 3]);
            }
            StoredData::Other { type_name: found } => {
                assert_eq!(found, type_name);
                match Checkpoint::new(&source, &expected, |_| false).unwrap_err() {
                    Error::WeightMismatch { misshapen, .. } => {
                        assert_eq!(misshapen, [format!("w: {type_name} where floats are expected")]);
                    }
                    other => panic!("{other}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let double = View { class: "DoubleStorage", ..View::floats(2, &[2], &[1]) };
    let bytes: Vec<u8> = [0.1_f64, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
    let source = open(&zip_file(&[double], &[("0", bytes)])).unwrap();
    assert_eq!(values(&source, "w"), [0.1_f32, f32::INFINITY]);
    let checkpoint = Checkpoint::new(&source, &[("w".to_owned(), vec![2])], |_| false).unwrap();
    assert_eq!(checkpoint.take("w").unwrap_err().code(), "damaged_weights");
}

#[test]
fn a_zip_that_lies() {
    type Edit = fn(&mut Vec<Entry>);
    let edits: [(&str, Edit, &str, &str); 17] = [
        ("compressed", |e| e[3].method = 8, "damaged_weights", "compressed"),
        ("an unknown method", |e| e[3].method = 99, "damaged_weights", "compressed"),
        ("a compressed pickle", |e| e[0].method = 8, "damaged_weights", "compressed"),
        ("encrypted", |e| e[3].flags = 1, "damaged_weights", "encrypted"),
        ("100 GB", |e| e[3].size = Some(100 << 30), "damaged_weights", ""),
        ("nearly all bytes there are", |e| e[3].size = Some(u64::MAX), "damaged_weights", ""),
        ("a size into the directory", |e| e[3].size = Some(100), "damaged_weights", ""),
        ("a shorter storage", |e| e[3].size = Some(20), "damaged_weights", "storage"),
        ("one place for two", |e| e[2].overlaps = true, "damaged_weights", ""),
        ("big-endian", |e| e[1].data = b"big".to_vec(), "damaged_weights", "big-endian"),
        ("another layout", |e| e[2].data = b"99\n".to_vec(), "damaged_weights", "version"),
        ("one name twice", |e| e[2].name = e[1].name.clone(), "damaged_weights", "twice"),
        ("two folders", |e| e[2].name = "n/data.pkl".to_owned(), "damaged_weights", "twice"),
        ("no pickle", |e| e[0].name = "m/data.json".to_owned(), "damaged_weights", "data.pkl"),
        ("a program", |e| e[2].name = "m/constants.pkl".to_owned(), "damaged_weights", "TorchScript"),
        ("a name that leads out", |e| e[2].name = "m/../../x".to_owned(), "damaged_weights", "no name"),
        ("no storage", |e| drop(e.pop()), "damaged_weights", "is not there"),
    ];
    let pickle = state_dict(&[View::floats(6, &[6], &[1])], false);
    let whole = entries(&pickle, &[("0", floats(&[1.0; 6]))]);
    assert_eq!(values(&open(&zip(&whole)).unwrap(), "w"), [1.0; 6]);
    for (what, edit, code, why) in edits {
        let mut entries = whole.clone();
        edit(&mut entries);
        assert_refused(what, &zip(&entries), code, why);
    }
    // Torch's own writers leave these out.
    let bare = [whole[0].clone(), whole[3].clone()];
    assert_eq!(values(&open(&zip(&bare)).unwrap(), "w"), [1.0; 6]);

    let mut many = whole.clone();
    many.extend((1..10_000).map(|i| Entry::new(&format!("m/data/{i}"), b"")));
    assert_refused("many entries", &zip(&many), "weights_too_large", "entries");
    // A 64-bit directory that claims more entries than there are bytes.
    let mut bytes = zip(&whole);
    let end = bytes.split_off(bytes.len() - 22);
    let record = bytes.len() as u64;
    // entries on this disk and in all, size and place of the directory
    let fields = [1_u64 << 40, 1 << 40, 46, 0].map(u64::to_le_bytes).concat();
    bytes.extend([&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8], &fields].concat());
    bytes.extend([&b"PK\x06\x07\0\0\0\0"[..], &record.to_le_bytes(), &[1, 0, 0, 0]].concat());
    bytes.extend(end);
    assert_refused("a trillion entries", &bytes, "weights_too_large", "entries");
}

#[test]
fn an_old_file_that_lies() {
    let pickle = state_dict(&[View::floats(2, &[2], &[1])], true);
    let data = floats(&[1.0, 2.0]);
    let storages = |n| legacy_storages(&[("0", n, data.clone())]);
    let file = |parts: [&[u8]; 5]| parts.concat();
    let both = storages(2);
    assert_eq!(values(&open(&file([MAGIC, PROTOCOL, LITTLE_ENDIAN, &pickle, &both])).unwrap(), "w"), [1.0, 2.0]);
    for n in [3, 1, 0, -1, i64::MAX, i64::MIN] {
        let bytes = file([MAGIC, PROTOCOL, LITTLE_ENDIAN, &pickle, &storages(n)]);
        assert_refused(&format!("{n} elements"), &bytes, "damaged_weights", "storage");
    }
    let twice = legacy_storages(&[("0", 2, data.clone()), ("0", 2, data.clone())]);
    let unknown = legacy_storages(&[("1", 2, data.clone())]);
    let cases: [(&str, [&[u8]; 5], &str); 6] = [
        ("another magic number", [PROTOCOL, PROTOCOL, LITTLE_ENDIAN, &pickle, &both], "not torch's"),
        ("another protocol", [MAGIC, MAGIC, LITTLE_ENDIAN, &pickle, &both], "version"),
        ("big-endian", [MAGIC, PROTOCOL, BIG_ENDIAN, &pickle, &both], "big-endian"),
        ("no list of storages", [MAGIC, PROTOCOL, LITTLE_ENDIAN, &pickle, MAGIC], "storages"),
        ("one storage twice", [MAGIC, PROTOCOL, LITTLE_ENDIAN, &pickle, &twice], "twice"),
        ("a storage that nobody knows", [MAGIC, PROTOCOL, LITTLE_ENDIAN, &pickle, &unknown], "storage"),
    ];
    for (what, parts, why) in cases {
        assert_refused(what, &file(parts), "damaged_weights", why);
    }
    // One storage, told in two lengths.
    let two = state_dict(&[View::floats(2, &[2], &[1]), View { name: "v", ..View::floats(1, &[1], &[1]) }], true);
    assert_refused("two lengths", &file([MAGIC, PROTOCOL, LITTLE_ENDIAN, &two, &both]), "damaged_weights", "two ways");
}

#[test]
fn cut_anywhere_it_is_an_error() {
    let view = [View::floats(6, &[3, 2], &[1, 3])];
    let data = floats(&[1.0; 6]);
    let small = [zip_file(&view, &[("0", data.clone())]), legacy_file(&view, &[("0", 6, data)])];
    let cuts = small.iter().map(|bytes| (bytes.clone(), 1));
    let torch = ["pytorch_model.bin", "legacy/pytorch_model.bin"].map(|path| (fixture(path), 64));
    for (bytes, step) in cuts.chain(torch) {
        open(&bytes).unwrap();
        for cut in (0..bytes.len()).step_by(step) {
            assert_refused(&format!("cut at {cut}"), &bytes[..cut], "damaged_weights", "");
        }
    }
    assert_refused("nothing", b"", "damaged_weights", "empty");
    assert_refused("text", b"version https://git-lfs.github.com/spec/v1", "damaged_weights", "torch.save");
}

/// Whatever is accepted can be read to its end and is no larger than allowed.
fn read_through(bytes: &[u8]) {
    if let Ok(source) = open(bytes) {
        let tensors: BTreeMap<String, usize> =
            source.names().into_iter().map(|name| (name.clone(), values(&source, &name).len())).collect();
        assert!(tensors.len() <= LIMITS.max_tensors);
        assert!(tensors.values().sum::<usize>() as u64 <= LIMITS.max_bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn changed_bytes_never_panic(
        legacy in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let views = [
            View::floats(6, &[3, 2], &[1, 3]),
            View { name: "v", class: "HalfStorage", key: "1", ..View::floats(4, &[2, 2], &[2, 1]) },
        ];
        let (six, four) = (floats(&[1.0; 6]), vec![0; 8]);
        let mut bytes = if legacy {
            legacy_file(&views, &[("0", 6, six), ("1", 4, four)])
        } else {
            zip_file(&views, &[("0", six), ("1", four)])
        };
        for (at, with) in changes {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        read_through(&bytes);
    }

    #[test]
    fn any_pickle_never_panics(opcodes in prop::collection::vec(prop_oneof![
        // Whole parts of a state dict in any order, and any byte.
        prop::sample::select(vec![
            &b"}"[..], b"(", b")", b"]", b"t", b"R", b"Q", b"s", b"u", b"a", b"e", b"b", b"q\0", b"h\0", b"K\x02",
            b"N", b"\x85", b"\x86", b"\x87", b"\x89", b"X\x07\0\0\0storage", b"X\x01\0\0\x000", b"ctorch\nFloatStorage\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n",
            b"ccollections\nOrderedDict\n", b"X\x0a\0\0\0state_dict",
        ])
        .prop_map(<[u8]>::to_vec),
        any::<u8>().prop_map(|byte| vec![byte]),
    ], 0..120)) {
        let pickle = [&b"\x80\x02"[..], &opcodes.concat(), b"."].concat();
        read_through(&zip(&entries(&pickle, &[("0", vec![0; 8])])));
    }
}

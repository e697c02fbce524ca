//! Pickles written by Python and by hand, and what hostile ones cost.

use super::super::pickle_value::{Element, StorageRef, TensorRef, printable};
use super::*;
use crate::weights::StoredType;

/// `data.pkl` of torch 2.15, `torch.save(state, file, pickle_protocol=4)`, for an OrderedDict of a parameter `w`,
/// `[[1, 2, 3]]`, and a tensor `n`, 7, with `_metadata`.
const PROTOCOL_4: &[u8] = b"\x80\x04\x95\x17\x01\x00\x00\x00\x00\x00\x00\x8c\x0bcollections\x94\x8c\x0bOrderedDict\
    \x94\x93\x94)R\x94(\x8c\x01w\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_parameter\x94\x93\x94h\x05\
    \x8c\x12_rebuild_tensor_v2\x94\x93\x94((\x8c\x07storage\x94\x8c\x05torch\x94\x8c\x0cFloatStorage\x94\x93\x94\
    \x8c\x010\x94\x8c\x03cpu\x94K\x03t\x94QK\x00K\x01K\x03\x86\x94K\x03K\x01\x86\x94\x89h\x02)R\x94t\x94R\x94\
    \x89h\x02)R\x94\x87\x94R\x94\x8c\x01n\x94h\x09((h\x0ah\x0b\x8c\x0bLongStorage\x94\x93\x94\x8c\x011\x94h\x0fK\x01\
    t\x94QK\x00))\x89h\x02)R\x94t\x94R\x94u}\x94\x8c\x09_metadata\x94}\x94\x8c\x00\x94}\x94\x8c\x07version\x94K\x01\
    sssb.";

fn refusal(bytes: &[u8]) -> Refusal {
    unpickle(bytes).and_then(|pickle| pickle.state_dict().map(|_| ())).unwrap_err()
}

#[track_caller]
fn assert_damaged(bytes: &[u8]) {
    let refusal = refusal(bytes);
    assert!(matches!(refusal, Refusal::Damaged(_)), "{refusal:?}");
}

#[test]
fn a_state_dict_of_protocol_4() {
    let pickle = unpickle(PROTOCOL_4).unwrap();
    assert_eq!(pickle.n_read, PROTOCOL_4.len());
    let tensors = pickle.state_dict().unwrap();
    assert_eq!(tensors.keys().copied().collect::<Vec<_>>(), ["n", "w"]);
    let floats = Element { name: "f32", size: 4, float: Some(StoredType::F32) };
    let longs = Element { name: "int64", size: 8, float: None };
    let w = TensorRef {
        storage: StorageRef { element: floats, key: "0", n: 3 },
        offset: 0,
        shape: vec![1, 3],
        strides: vec![3, 1],
    };
    let n =
        TensorRef { storage: StorageRef { element: longs, key: "1", n: 1 }, offset: 0, shape: vec![], strides: vec![] };
    assert_eq!((tensors["w"], tensors["n"]), (&w, &n));
    assert_eq!(pickle.storages().unwrap().len(), 2);
}

#[test]
fn cut_anywhere_it_is_damaged() {
    for cut in 0..PROTOCOL_4.len() {
        assert_damaged(&PROTOCOL_4[..cut]);
    }
}

/// Text as protocol 2 writes it.
fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// A tensor `[5]` as protocol 2 writes it, on the stack.
fn tensor() -> Vec<u8> {
    let storage = [&b"((X\x07\0\0\0storagectorch\nFloatStorage\n"[..], &text("0"), &text("cpu"), b"K\x05tQ"].concat();
    [&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &storage, b"K\0K\x05\x85K\x01\x85\x89}tR"].concat()
}

#[test]
fn what_python_2_and_training_loops_write() {
    // An OrderedDict of one list of pairs, its key a byte string.
    let python_2 = [&b"\x80\x02ccollections\nOrderedDict\n]]U\x01wa"[..], &tensor(), b"aa\x85R."].concat();
    for wrapper in ["state_dict", "model_state_dict"] {
        // A counter, floats, None, a set and a list beside it.
        let beside =
            [&text("epoch")[..], b"K\x03", &text("rest"), b"](G?\xD0\0\0\0\0\0\0N\x8f(K\x01\x90\x88e"].concat();
        let inner = [&b"}"[..], &text("w"), &tensor(), b"s"].concat();
        let wrapped = [&b"\x80\x02}("[..], &beside, &text(wrapper), &inner, b"u."].concat();
        for bytes in [&python_2, &wrapped] {
            let pickle = unpickle(bytes).unwrap();
            let tensors = pickle.state_dict().unwrap();
            assert_eq!(tensors.len(), 1);
            assert_eq!((tensors["w"].shape.as_slice(), tensors["w"].storage.key), (&[5][..], "0"));
        }
    }
    // Only those two names are looked into, and only once.
    let other = [&b"\x80\x02}"[..], &text("model"), b"}", &text("w"), &tensor(), b"ss."].concat();
    assert_damaged(&other);
    assert_damaged(b"\x80\x02}.");
    assert_damaged(b"\x80\x02K\x01.");
}

#[test]
fn a_global_that_is_not_listed_ends_it() {
    let pickles: [(&[u8], &str); 9] = [
        // pickle.dumps({"w": P()}) where P reduces to (os.system, ("touch …",))
        (b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01cposix\nsystem\nq\x02X\x05\x00\x00\x00touchq\x03\x85q\x04Rq\x05s.", "posix.system"),
        (
            b"\x80\x04\x95&\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94\x8c\x031+1\x94\x85\x94R\x94s.",
            "builtins.eval",
        ),
        (b"\x80\x02cos\nsystem\n.", "os.system"),
        (b"\x80\x02(ios\nsystem\n.", "os.system"),
        (b"\x80\x02c__builtin__\neval\n.", "__builtin__.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.", "torch._utils._rebuild_sparse_tensor"),
        (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "collections.OrderedDict.fromkeys"),
        (b"\x80\x02cos\x1b[2J\nsystem\n.", "os?[2J.system"),
    ];
    for (bytes, global) in pickles {
        assert_eq!(refusal(bytes), Refusal::Global(global.to_owned()));
    }
    let long = [&b"\x80\x02cos\n"[..], &b"x".repeat(900), b"\n."].concat();
    assert_eq!(refusal(&long), Refusal::Global(format!("os.{}", "x".repeat(77))));
    assert_eq!(printable("ɛ\n'"), "??'");
}

#[test]
fn calls_with_hostile_arguments() {
    let calls: [&[u8]; 14] = [
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"ccollections\nOrderedDict\n]K\x01a\x85R.",
        b"ccollections\nOrderedDict\n]]a\x85R.",
        b"ccollections\nOrderedDict\n]}\x86R.",
        b"ccollections\nOrderedDict\n]R.",
        b"ctorch\nFloatStorage\n)R.",
        b"ctorch\nSize\nK\x01\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.",
        b"ctorch._utils\n_rebuild_parameter\nK\x01\x88N\x87R.",
        b"K\x01)R.",
        b"K\x01}b.",
        b"X\0\0\0\0Q.",
        b"(X\x07\0\0\0storageK\0K\0K\0K\0tQ.",
    ];
    for call in calls {
        assert_damaged(&[&b"\x80\x02"[..], call].concat());
        // and as an entry beside a tensor that is whole
        let body = &call[..call.len() - 1];
        assert_damaged(&[&b"\x80\x02}("[..], &text("w"), &tensor(), &text("x"), body, b"u."].concat());
    }
    // A tensor whose values have yet to be negated.
    let mut negated = tensor();
    negated.truncate(negated.len() - 2);
    let negated = [&b"\x80\x02}"[..], &text("w"), &negated, b"}", &text("neg"), b"\x88stRs."].concat();
    assert_damaged(&negated);
}

#[test]
fn bombs_go_out() {
    // Each tuple holds the one before it twice, 10,000 times: no more values than opcodes.
    let laughs = [&b"\x80\x02)"[..], &b"q\0h\0h\0\x86"[..].repeat(10_000), b"."].concat();
    assert_damaged(&laughs);
    // Nested a million deep: neither reading nor dropping it recurses.
    let deep = [&b"\x80\x02)"[..], &b"\x85".repeat(1_000_000), b"."].concat();
    assert_damaged(&deep);
    assert_damaged(&[&b"\x80\x02"[..], &b"(".repeat(10_000), b"."].concat());
    // A list and a dictionary that hold themselves.
    assert_damaged(b"\x80\x02]q\0h\0a.");
    assert_damaged(&[&b"\x80\x02}q\0"[..], &text("state_dict"), b"h\0s."].concat());
    // A thousand pairs made into a dictionary again and again.
    let pairs = b"h\x01".repeat(999);
    let pairs = [&b"\x80\x02ccollections\nOrderedDict\nq\0](K\x01K\x02\x86q\x01"[..], &pairs, b"e\x85q\x02"].concat();
    let copies = [&pairs[..], &b"h\0h\x02R".repeat(5000), b"."].concat();
    assert!(matches!(refusal(&copies), Refusal::TooLarge(_)));
    assert!(matches!(refusal(&b"N".repeat(MAX_WORK + 2)), Refusal::TooLarge(_)));
}

#[test]
fn lengths_and_places_that_lie() {
    let lies: [&[u8]; 16] = [
        b"X\xFF\xFF\xFF\xFF.",
        b"\x8d\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF.",
        b"\x8e\0\0\0\0\0\x01\0\0.",
        b"B\xFF\xFF\xFF\x7F.",
        b"\x8b\xFF\xFF\xFF\xFF.",
        b"T\xFF\xFF\xFF\xFF.",
        b"\x8c\x02\xC3\x28.",
        b"\x95\xFF",
        b"h\x07.",
        b"j\xFF\xFF\xFF\xFF.",
        b"q\0.",
        b"t.",
        b"](a.",
        b"}(K\x01u.",
        b"K\x01K\x01a.",
        b"2.",
    ];
    for lie in lies {
        assert_damaged(&[&b"\x80\x02"[..], lie].concat());
    }
    assert_damaged(b"\x80\x06}.");
    // Nothing below a mark can be taken: this list is out of reach.
    assert_damaged(b"\x80\x02](K\x01a.");
    // A far place in the memo takes no room.
    assert!(unpickle(b"\x80\x02K\x01r\xFF\xFF\xFF\xFF.").is_ok());
}

#[test]
fn integers_of_every_width() {
    let integers: [(&[u8], i128); 8] = [
        (b"K\xFF.", 255),
        (b"M\xFF\xFF.", 65_535),
        (b"J\xFF\xFF\xFF\xFF.", -1),
        (b"\x8a\0.", 0),
        (b"\x8a\x01\x80.", -128),
        (b"\x8a\x02\xFF\0.", 255),
        (b"\x8a\x08\0\0\0\0\0\0\0\x80.", i64::MIN as i128),
        (b"\x8b\x02\0\0\0\x01\x01.", 257),
    ];
    for (bytes, expected) in integers {
        let pickle = unpickle(bytes).unwrap();
        assert!(matches!(pickle.root(), Value::Int(value) if *value == expected), "{:?}", pickle.root());
    }
    let huge = [&b"\x8a\x11"[..], &[1; 17], b"."].concat();
    assert!(matches!(unpickle(&huge).unwrap().root(), Value::Opaque));
}

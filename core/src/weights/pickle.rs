//! A restricted unpickler: it builds what `torch.save` writes for a state dict, and runs nothing.
//!
//! Follows CPython 3.11 `Lib/pickle.py` (what each opcode does) and PyTorch 2.15 `torch/_weights_only_unpickler.py`
//! (that globals come from a list). Deviations: text opcodes of protocol 0 are not read; a global that is not listed
//! ends the reading at once, before anything is made of it; the file's own objects are no Python objects but entries
//! of a list (`pickle_value.rs`).
//!
//! What a hostile pickle may cost is bounded: every opcode, and every entry that one copies, is counted against
//! [`MAX_WORK`]; strings stay in the file; nothing recurses.
//!
//! Not for pickles of anything else.

use std::collections::HashMap;

use super::pickle_value::{Global, Id, Pickle, Read, Refusal, Value, damaged};

/// A state dict of a thousand tensors takes 40,000 opcodes, an optimizer's beside it three times as many.
const MAX_WORK: usize = 1 << 21;
/// Tuples in lists in dictionaries that are open at once.
const MAX_MARKS: usize = 256;
/// A module's or a function's name.
const MAX_LINE_BYTES: usize = 1024;

/// Reads one pickle from the beginning of `bytes`; there may be more behind it.
///
/// # Errors
/// [`Refusal`].
pub(super) fn unpickle(bytes: &[u8]) -> Read<Pickle<'_>> {
    Machine {
        bytes,
        at: 0,
        pickle: Pickle { values: Vec::new(), root: 0, n_read: 0 },
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        work: 0,
    }
    .run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pickle: Pickle<'a>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    work: usize,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Read<Pickle<'a>> {
        loop {
            self.spend(1)?;
            let opcode = self.byte()?;
            if opcode == b'.' {
                // STOP
                self.pickle.root = self.pop()?;
                self.pickle.n_read = self.at;
                return Ok(self.pickle);
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Read<()> {
        match opcode {
            // PROTO
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return damaged(format!("its pickle protocol {other} is not known, only 2 to 5")),
            },
            // FRAME: only says how much to read at once
            0x95 => {
                self.take(8)?;
            }
            b'(' => {
                // MARK
                if self.marks.len() == MAX_MARKS {
                    return damaged("its pickle is nested too deeply");
                }
                self.marks.push(self.stack.len());
            }
            // constants
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => self.push_integer(4)?,
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = self.length(2)?;
                self.push(Value::Int(value as i128));
            }
            0x8a => {
                let n = self.length(1)?;
                self.push_integer(n)?;
            }
            0x8b => {
                let n = self.length(4)?;
                self.push_integer(n)?;
            }
            b'G' => self.push_opaque(8)?,
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and Python 2's BINSTRING, SHORT_BINSTRING
            b'X' => self.push_text(4)?,
            0x8c => self.push_text(1)?,
            0x8d => self.push_text(8)?,
            b'T' => self.push_text(4)?,
            b'U' => self.push_text(1)?,
            // BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' => self.push_bytes(4)?,
            b'C' => self.push_bytes(1)?,
            0x8e => self.push_bytes(8)?,
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE, FROZENSET
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85 => self.push_tuple(1)?,
            0x86 => self.push_tuple(2)?,
            0x87 => self.push_tuple(3)?,
            b't' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            // EMPTY_LIST, EMPTY_SET, EMPTY_DICT
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b'a' => {
                // APPEND
                let item = self.pop()?;
                self.list()?.push(item);
            }
            b'e' | 0x90 => {
                // APPENDS, ADDITEMS
                let items = self.pop_to_mark()?;
                self.list()?.extend(items);
            }
            b's' => {
                // SETITEM
                let value = self.pop()?;
                let key = self.pop()?;
                self.dict()?.extend([key, value]);
            }
            b'u' => {
                // SETITEMS
                let items = self.pop_to_mark()?;
                if !items.len().is_multiple_of(2) {
                    return damaged("its pickle sets a key without a value");
                }
                self.dict()?.extend(items);
            }
            // MEMOIZE, BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            0x94 => {
                let at = self.memo.len();
                self.put(at)?;
            }
            b'q' => {
                let at = self.length(1)?;
                self.put(at)?;
            }
            b'r' => {
                let at = self.length(4)?;
                self.put(at)?;
            }
            b'h' => {
                let at = self.length(1)?;
                self.get(at)?;
            }
            b'j' => {
                let at = self.length(4)?;
                self.get(at)?;
            }
            // GLOBAL, and INST, which would also call it
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = Global::named(module, name)?;
                if opcode == b'i' {
                    return damaged("its pickle calls a class in a way that torch does not");
                }
                self.push(Value::Global(global));
            }
            0x93 => self.stack_global()?,
            b'Q' => {
                // BINPERSID
                let id = self.pop()?;
                let storage = self.pickle.persistent(id)?;
                self.push(storage);
            }
            b'R' => self.reduce()?,
            b'b' => {
                // BUILD: attributes such as a state dict's `_metadata`, which weights do not need
                self.pop()?;
                let to = self.top()?;
                if !matches!(self.pickle.values[to], Value::Dict(_) | Value::Tensor(_)) {
                    return damaged("its pickle gives attributes to what has none");
                }
            }
            other => return damaged(format!("its pickle has the opcode {other:#04x}, which no state dict needs")),
        }
        Ok(())
    }

    /// STACK_GLOBAL
    fn stack_global(&mut self) -> Read<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Str(module), Value::Str(name)) = (&self.pickle.values[module], &self.pickle.values[name]) else {
            return damaged("its pickle names a global by what is no text");
        };
        let global = Global::named(module, name)?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// REDUCE: the only calls there are.
    fn reduce(&mut self) -> Read<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(args) = &self.pickle.values[args] else { return damaged("its pickle calls without a tuple") };
        let Value::Global(global) = &self.pickle.values[callee] else {
            return damaged("its pickle calls what is no function");
        };
        let made = match (global, args.as_slice()) {
            (Global::RebuildTensor, args) => self.pickle.rebuild_tensor(args)?,
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            // Python 2 writes the entries as one list of pairs.
            (Global::OrderedDict, [entries]) => self.pairs(*entries)?,
            // These only pass on what they are given.
            (Global::RebuildParameter, [made, _, _]) if matches!(self.pickle.values[*made], Value::Tensor(_)) => {
                let made = *made;
                self.stack.push(made);
                return Ok(());
            }
            (Global::Size, [made]) if matches!(self.pickle.values[*made], Value::Tuple(_) | Value::List(_)) => {
                let made = *made;
                self.stack.push(made);
                return Ok(());
            }
            _ => return damaged("its pickle calls a function with arguments that it does not take"),
        };
        if let Value::Dict(entries) = &made {
            self.spend(entries.len())?;
        }
        self.push(made);
        Ok(())
    }

    fn pairs(&self, entries: Id) -> Read<Value<'a>> {
        let Value::List(entries) = &self.pickle.values[entries] else {
            return damaged("an OrderedDict is made of what is no list");
        };
        // The work is counted behind this; one list cannot be longer than what was counted for it.
        let mut dict = Vec::with_capacity(2 * entries.len());
        for entry in entries {
            match &self.pickle.values[*entry] {
                Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => dict.extend_from_slice(pair),
                _ => return damaged("an OrderedDict is made of what are no pairs"),
            }
        }
        Ok(Value::Dict(dict))
    }

    fn spend(&mut self, n: usize) -> Read<()> {
        self.work = self.work.saturating_add(n);
        if self.work > MAX_WORK {
            return Err(Refusal::TooLarge(format!("its pickle has more than {MAX_WORK} parts")));
        }
        Ok(())
    }

    // the file

    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| Refusal::Damaged("its pickle ends early".to_owned()))?;
        self.at += n;
        Ok(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// An unsigned number of `n_bytes` bytes, 8 at most.
    fn length(&mut self, n_bytes: usize) -> Read<usize> {
        let mut word = [0; 8];
        word[..n_bytes].copy_from_slice(self.take(n_bytes)?);
        usize::try_from(u64::from_le_bytes(word)).map_err(|_| Refusal::Damaged("its pickle ends early".to_owned()))
    }

    fn line(&mut self) -> Read<&'a str> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().take(MAX_LINE_BYTES).position(|b| *b == b'\n');
        let Some(n) = n else { return damaged("its pickle names a global without an end") };
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| Refusal::Damaged("its pickle names a global in no text".to_owned()))
    }

    // the stack: nothing below the last mark can be reached

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.pickle.values.len());
        self.pickle.values.push(value);
    }

    fn top(&self) -> Read<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(top) if self.stack.len() > floor => Ok(*top),
            _ => damaged("its pickle takes more than there is"),
        }
    }

    fn pop(&mut self) -> Read<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Read<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => damaged("its pickle ends a list that was not begun"),
        }
    }

    fn list(&mut self) -> Read<&mut Vec<Id>> {
        let to = self.top()?;
        match &mut self.pickle.values[to] {
            Value::List(items) => Ok(items),
            _ => damaged("its pickle adds to what is no list"),
        }
    }

    fn dict(&mut self) -> Read<&mut Vec<Id>> {
        let to = self.top()?;
        match &mut self.pickle.values[to] {
            Value::Dict(entries) => Ok(entries),
            _ => damaged("its pickle sets a key of what is no dictionary"),
        }
    }

    fn put(&mut self, at: usize) -> Read<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn get(&mut self, at: usize) -> Read<()> {
        match self.memo.get(&at) {
            Some(id) => self.stack.push(*id),
            None => return damaged("its pickle recalls what it did not keep"),
        }
        Ok(())
    }

    // values that the file spells out

    /// A signed number of `n` bytes. Those that do not fit 16 are nothing that a tensor has.
    fn push_integer(&mut self, n: usize) -> Read<()> {
        let bytes = self.take(n)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
        let mut word = [fill; 16];
        match word.get_mut(..n) {
            Some(low) => {
                low.copy_from_slice(bytes);
                self.push(Value::Int(i128::from_le_bytes(word)));
            }
            None => self.push(Value::Opaque),
        }
        Ok(())
    }

    fn push_text(&mut self, n_bytes_of_length: usize) -> Read<()> {
        let n = self.length(n_bytes_of_length)?;
        let text = std::str::from_utf8(self.take(n)?);
        let text = text.map_err(|_| Refusal::Damaged("its pickle holds text that is not UTF-8".to_owned()))?;
        self.push(Value::Str(text));
        Ok(())
    }

    fn push_bytes(&mut self, n_bytes_of_length: usize) -> Read<()> {
        let n = self.length(n_bytes_of_length)?;
        self.push_opaque(n)
    }

    fn push_opaque(&mut self, n: usize) -> Read<()> {
        self.take(n)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn push_tuple(&mut self, n: usize) -> Read<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

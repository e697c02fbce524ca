//! Bounds what a form may say before the content of each of its parts.
//!
//! multer 3.1 (axum's `Multipart`) takes content as it comes, but looks through all that it has for the first boundary and
//! for the blank line behind a part's headers, again with each piece that arrives. A body without them, and sent in drops,
//! would keep a thread that serves others busy for hours. So a body ends in an error here, before multer has much of it.
//!
//! Follows the steps of multer 3.1.0 `multipart.rs` (`poll_next_field`), so that both always agree on where they are. Not a
//! reader of forms: what is wrong in another way multer says.

use axum::BoxError;
use axum::body::{Body, Bytes};
use futures::StreamExt;
use memchr::memmem;

/// Most bytes before the first boundary, and of a part's headers. A part has a name, a file's name and a type.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// A form that goes on before the content of a part.
#[derive(Debug, thiserror::Error)]
#[error("a part of the form has headers without an end, or no boundary before it: over {} bytes", MAX_HEAD_BYTES)]
pub(super) struct HeadTooLong;

/// The same body, which ends in [`HeadTooLong`] where it is that.
pub(super) fn bounded(body: Body, boundary: &str) -> Body {
    let mut heads = PartHeads::new(boundary);
    Body::from_stream(body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        heads.pass(&chunk)?;
        Ok::<Bytes, BoxError>(chunk)
    }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Whatever may stand before the first boundary.
    Preamble,
    /// The rest of the line of a boundary.
    BoundaryLine,
    Headers,
    Content,
    /// Behind the last boundary, where nothing is read.
    Epilogue,
}

/// Where in a form its reader is.
struct PartHeads {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    step: Step,
    /// What came of the present step; of content, only what may begin a delimiter.
    pending: Vec<u8>,
}

impl PartHeads {
    fn new(boundary: &str) -> Self {
        Self { delimiter: format!("\r\n--{boundary}").into_bytes(), step: Step::Preamble, pending: Vec::new() }
    }

    fn pass(&mut self, chunk: &[u8]) -> Result<(), HeadTooLong> {
        self.pending.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            let rest = &self.pending[at..];
            if self.step == Step::BoundaryLine && rest.starts_with(b"--") {
                self.step = Step::Epilogue;
            }
            let (end, next) = match self.step {
                Step::Preamble => (&self.delimiter[2..], Step::BoundaryLine),
                Step::BoundaryLine => (&b"\r\n"[..], Step::Headers),
                Step::Headers => (&b"\r\n\r\n"[..], Step::Content),
                Step::Content => (&self.delimiter[..], Step::BoundaryLine),
                Step::Epilogue => {
                    self.pending.clear();
                    return Ok(());
                }
            };
            let Some(found) = memmem::find(rest, end) else { break };
            at += found + end.len();
            self.step = next;
        }
        if self.step == Step::Content {
            at = at.max(self.pending.len().saturating_sub(self.delimiter.len() - 1));
        }
        self.pending.drain(..at);
        if self.step != Step::Content && self.pending.len() > MAX_HEAD_BYTES { Err(HeadTooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Passes a body in pieces of `n` bytes; the step behind each, or where it was too long.
    fn passed(body: &[u8], n: usize) -> Result<Step, usize> {
        let mut heads = PartHeads::new("B");
        for (i, piece) in body.chunks(n).enumerate() {
            heads.pass(piece).map_err(|_| i * n)?;
            assert!(heads.pending.len() <= MAX_HEAD_BYTES);
        }
        Ok(heads.step)
    }

    const PART: &[u8] = b"--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";

    fn x(n: usize) -> Vec<u8> {
        vec![b'x'; n]
    }

    #[test]
    fn content_and_what_follows_the_end_may_be_long_in_whatever_pieces() {
        let long = x(3 * MAX_HEAD_BYTES);
        let content = [PART, &long].concat();
        let parts = [&b"preamble"[..], &content, b"\r\n", PART, b"\r\n--A\r\n--\r\r\n--C", &long, b"\r\n--B"].concat();
        let whole = [&parts[..], b"--", &long].concat();
        for n in [1, 2, 3, 7, 4096, whole.len()] {
            assert_eq!(passed(&content, n), Ok(Step::Content), "pieces of {n}");
            assert_eq!(passed(&parts, n), Ok(Step::BoundaryLine), "pieces of {n}");
            assert_eq!(passed(&whole, n), Ok(Step::Epilogue), "pieces of {n}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_where_it_is_too_long() {
        let long = x(3 * MAX_HEAD_BYTES);
        // multer looks for a blank line behind the boundary's own line: here the first one is no end of headers.
        let no_headers = b"--B\r\n\r\n";
        for begun in
            [&b""[..], b"--B", b"--B\r\n", b"--B\r\nX: ", no_headers, &[PART, b"content\r\n--B\r\nX: "].concat()]
        {
            let body = [begun, &long].concat();
            for n in [1, 7, 4096] {
                let at = passed(&body, n).unwrap_err();
                assert!(at <= begun.len() + MAX_HEAD_BYTES, "{begun:?} in pieces of {n}: {at}");
            }
            assert_eq!(passed(&body, body.len()), Err(0));
        }
    }

    #[test]
    fn a_head_may_be_as_long_as_is_allowed() {
        let head = |n: usize| [&b"--B\r\n"[..], &x(n), b"\r\n\r\ncontent"].concat();
        assert_eq!(passed(&head(MAX_HEAD_BYTES - 4), 1), Ok(Step::Content));
        assert!(passed(&head(MAX_HEAD_BYTES + 1), 1).is_err());
    }
}

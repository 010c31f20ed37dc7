//! Texts that are made as they are read, piece by piece, as Linux's `seq_file` does.
//!
//! A read at the beginning makes the text anew; one that follows the last goes on where that ended, so that reading all of it costs what
//! it is long, and only one piece of it is in memory. Any other position is found by making the text from its beginning.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::file::{Opened, Positioned};
use super::io::{Dst, Src};
use super::text::Text;
use crate::errno::{Errno, Result};
use crate::sched::SleepMutex;

/// A piece is ended when it is this long, bytes.
pub const PIECE: usize = 16 << 10;

/// Most bytes that one write hands on.
const LONGEST_WRITE: usize = 128;

/// What makes a text.
pub trait Generator: Send + Sync {
    /// Adds the piece from `cursor` on (0: the beginning); the cursor of the next one, `None` at the end. A piece may be of any length.
    fn generate(&self, cursor: u64, text: &mut Text) -> Result<Option<u64>>;

    /// What is written to the file, up to 128 bytes at a time. `EINVAL` where nothing can be.
    fn accept(&self, _bytes: &[u8]) -> Result {
        Err(Errno::EINVAL)
    }
}

struct Piece {
    start: u64,
    bytes: Vec<u8>,
    next: Option<u64>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

struct Generated<G> {
    generator: G,
    last: SleepMutex<Option<Arc<Piece>>>,
}

/// Opens a text.
pub fn open<G: Generator + 'static>(generator: G) -> Result<Opened> {
    let last = SleepMutex::new(None);
    let file = Box::try_new(Generated { generator, last })?;
    Ok(Opened::Positioned(file))
}

impl<G: Generator> Generated<G> {
    fn make(&self, start: u64, cursor: u64) -> Result<Arc<Piece>> {
        let mut text = Text::new();
        let next = self.generator.generate(cursor, &mut text)?;
        let bytes = text.finish()?;
        Ok(Arc::try_new(Piece { start, bytes, next })?)
    }

    /// The piece that holds `offset`, or the last one if the text ends before it.
    fn piece_at(&self, offset: u64) -> Result<Arc<Piece>> {
        let mut last = self.last.lock();
        let known = last
            .take()
            .filter(|piece| offset != 0 && piece.start <= offset);
        let mut piece = match known {
            Some(piece) => piece,
            None => self.make(0, 0)?,
        };
        while offset >= piece.end()
            && let Some(next) = piece.next
        {
            piece = self.make(piece.end(), next)?;
        }
        *last = Some(piece.clone());
        Ok(piece)
    }
}

impl<G: Generator> Positioned for Generated<G> {
    fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
        let mut done = 0;
        while dst.left() > 0 {
            let at = offset + done as u64;
            let piece = match self.piece_at(at) {
                Ok(piece) => piece,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            let rest = piece
                .bytes
                .get((at - piece.start) as usize..)
                .unwrap_or_default();
            let rest = &rest[..rest.len().min(dst.left())];
            if rest.is_empty() {
                break;
            }
            let copied = dst.put(rest);
            done += copied;
            if copied < rest.len() {
                return super::io::partial(done, Errno::EFAULT);
            }
        }
        Ok(done)
    }

    fn write_at(&self, _offset: u64, src: &mut Src<'_>) -> Result<usize> {
        let mut bytes = [0; LONGEST_WRITE];
        let len = src.left().min(LONGEST_WRITE);
        if src.take(&mut bytes[..len]) < len {
            return Err(Errno::EFAULT);
        }
        self.generator.accept(&bytes[..len])?;
        Ok(len)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use core::fmt::Write;

    use super::*;

    /// The numbers below 100, ten in each piece.
    struct Numbers;

    impl Generator for Numbers {
        fn generate(&self, cursor: u64, text: &mut Text) -> Result<Option<u64>> {
            for number in cursor..cursor + 10 {
                write!(text, "{number:02}").expect("memory");
            }
            Ok((cursor < 90).then_some(cursor + 10))
        }
    }

    #[test]
    fn a_text_is_the_same_however_it_is_read() {
        let Ok(Opened::Positioned(file)) = open(Numbers) else {
            panic!("it opens");
        };
        let read = |offset: u64, len: usize| {
            let mut buf = std::vec![0; len];
            let done = file.read_at(offset, &mut Dst::Kernel(&mut buf));
            buf.truncate(done.expect("it can be read"));
            std::string::String::from_utf8(buf).expect("digits")
        };
        let whole = read(0, 1000);
        assert_eq!(whole.len(), 200);
        for (offset, len) in [(0, 7), (7, 30), (37, 1), (190, 50), (20, 20), (0, 200)] {
            let end = (offset + len).min(200);
            assert_eq!(read(offset as u64, len), whole[offset..end]);
        }
        assert_eq!(read(200, 10), "");
        assert_eq!(read(5000, 10), "");
    }
}

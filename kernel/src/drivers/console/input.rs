//! Decoding of stdin and its ring.
//!
//! Byte 0x10 is the escape: 0x10 0x10 is one such byte, 0x10 0x04 the end of file. The ring keeps the end of file in its place among
//! the bytes, and counts lines, so that a terminal knows without a search whether one is complete.

const ESCAPE: u8 = 0x10;
const END: u8 = 0x04;
const SIZE: usize = 4096;

/// What the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Byte(u8),
    EndOfFile,
}

pub struct Input {
    ring: [Item; SIZE],
    first: usize,
    len: usize,
    escaped: bool,
    /// Newlines and ends of file in the ring.
    line_ends: usize,
    full: bool,
}

impl Input {
    pub const fn new() -> Input {
        Input {
            ring: [Item::EndOfFile; SIZE],
            first: 0,
            len: 0,
            escaped: false,
            line_ends: 0,
            full: false,
        }
    }

    /// Takes one encoded byte. The ring must have room.
    pub fn receive(&mut self, byte: u8) {
        let item = match (self.escaped, byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                return;
            }
            (true, END) => Item::EndOfFile,
            // An unknown escape stands for its second byte.
            (_, byte) => Item::Byte(byte),
        };
        self.escaped = false;
        self.push(item);
    }

    fn push(&mut self, item: Item) {
        debug_assert!(self.has_room());
        self.ring[(self.first + self.len) % SIZE] = item;
        self.len += 1;
        self.line_ends += usize::from(ends_line(item));
    }

    pub fn has_room(&mut self) -> bool {
        self.full = self.len == SIZE;
        !self.full
    }

    /// Whether the last look found no room.
    pub fn was_full(&self) -> bool {
        self.full
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a terminal's reader gets something: a whole line, or the end of file, or all that the ring can hold.
    pub fn has_line(&self) -> bool {
        self.line_ends > 0 || self.len == SIZE
    }

    /// Bytes that a read would give: up to the first end of file, and in a terminal up to the first line's end.
    pub fn readable(&self, line: bool) -> usize {
        if line && !self.has_line() {
            return 0;
        }
        let mut bytes = 0;
        for at in 0..self.len {
            match self.ring[(self.first + at) % SIZE] {
                Item::EndOfFile => break,
                Item::Byte(byte) => {
                    bytes += 1;
                    if line && byte == b'\n' {
                        break;
                    }
                }
            }
        }
        bytes
    }

    pub fn peek(&self) -> Option<Item> {
        (self.len > 0).then(|| self.ring[self.first])
    }

    pub fn pop(&mut self) -> Option<Item> {
        let item = self.peek()?;
        self.first = (self.first + 1) % SIZE;
        self.len -= 1;
        self.line_ends -= usize::from(ends_line(item));
        Some(item)
    }

    /// The oldest bytes that lie together, up to the first end of file, the end of `buf`, and with `line` the end of the line.
    /// They stay in the ring.
    pub fn copy_front(&self, buf: &mut [u8], line: bool) -> usize {
        let mut copied = 0;
        while copied < buf.len().min(self.len) {
            let Item::Byte(byte) = self.ring[(self.first + copied) % SIZE] else {
                break;
            };
            buf[copied] = byte;
            copied += 1;
            if line && byte == b'\n' {
                break;
            }
        }
        copied
    }
}

impl Default for Input {
    fn default() -> Self {
        Input::new()
    }
}

fn ends_line(item: Item) -> bool {
    matches!(item, Item::EndOfFile | Item::Byte(b'\n'))
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    fn fed(bytes: &[u8]) -> Input {
        let mut input = Input::new();
        bytes.iter().for_each(|&byte| input.receive(byte));
        input
    }

    #[test]
    fn escapes() {
        let mut input = fed(b"a\x10\x10b\x10\x04c");
        let items: Vec<Item> = core::iter::from_fn(|| input.pop()).collect();
        let byte = Item::Byte;
        assert_eq!(
            items,
            [
                byte(b'a'),
                byte(0x10),
                byte(b'b'),
                Item::EndOfFile,
                byte(b'c')
            ]
        );
    }

    #[test]
    fn an_escape_may_be_split() {
        let mut input = fed(b"\x10");
        assert!(input.is_empty());
        input.receive(0x04);
        assert_eq!(input.pop(), Some(Item::EndOfFile));
    }

    #[test]
    fn lines() {
        let mut input = fed(b"one\ntw");
        assert!(input.has_line());
        assert_eq!((input.readable(true), input.readable(false)), (4, 6));
        let mut buf = [0; 16];
        assert_eq!(input.copy_front(&mut buf, true), 4);
        assert_eq!(&buf[..4], b"one\n");
        (0..4).for_each(|_| {
            input.pop();
        });
        assert!(!input.has_line());
        assert_eq!(input.readable(true), 0);
        assert_eq!(input.copy_front(&mut buf[..1], false), 1);
        input.receive(ESCAPE);
        input.receive(END);
        assert!(input.has_line());
        assert_eq!(input.readable(true), 2);
    }

    #[test]
    fn a_full_ring_is_a_line() {
        let mut input = Input::new();
        while input.has_room() {
            input.receive(b'x');
        }
        assert!(input.was_full() && input.has_line());
        assert_eq!(input.readable(true), SIZE);
        input.pop();
        assert!(input.has_room() && !input.has_line());
    }
}

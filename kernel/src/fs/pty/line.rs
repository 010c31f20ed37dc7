//! The line discipline (`termios(3)`): what a terminal makes of the bytes that come in and go out.
//!
//! Bytes in are edited, echoed, turned into signals, and collected into lines; bytes out get their carriage returns. Pure: no locks, no
//! waiting. The caller sends the signals.

use alloc::boxed::Box;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::super::terminal::Settings;
use crate::errno::Result;
use crate::signal::Signal;

/// Bytes that wait to be read at most, in each direction.
pub const SIZE: usize = 4096;

/// A byte in the input, with what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Byte(u8),
    /// Ends a line and belongs to it.
    LineEnd(u8),
    /// Ends a line, and is not read.
    EndOfFile,
}

/// A ring of fixed size.
struct Ring<T> {
    items: Box<[T]>,
    first: usize,
    len: usize,
}

impl<T: Copy> Ring<T> {
    fn new(filler: T) -> Result<Ring<T>> {
        let mut items = Vec::new();
        items.try_reserve_exact(SIZE)?;
        items.resize(SIZE, filler);
        Ok(Ring {
            items: items.into_boxed_slice(),
            first: 0,
            len: 0,
        })
    }

    fn room(&self) -> usize {
        SIZE - self.len
    }

    /// Adds an item if there is room.
    fn push(&mut self, item: T) -> bool {
        if self.len == SIZE {
            return false;
        }
        self.items[(self.first + self.len) % SIZE] = item;
        self.len += 1;
        true
    }

    fn get(&self, at: usize) -> Option<T> {
        (at < self.len).then(|| self.items[(self.first + at) % SIZE])
    }

    fn pop(&mut self) -> Option<T> {
        let item = self.get(0)?;
        self.first = (self.first + 1) % SIZE;
        self.len -= 1;
        Some(item)
    }

    fn pop_back(&mut self) -> Option<T> {
        let item = self.get(self.len.checked_sub(1)?)?;
        self.len -= 1;
        Some(item)
    }
}

/// What came of one byte of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing that anybody waits for.
    Nothing,
    /// There is more to read.
    Readable,
    /// The foreground group gets a signal.
    Signal(Signal),
}

/// The state of a terminal's line.
pub struct Line {
    input: Ring<Item>,
    /// Items at the front that belong to complete lines; all, without ICANON.
    complete: usize,
    /// Lines that are complete.
    lines: usize,
    output: Ring<u8>,
    /// The next byte is taken as it is (VLNEXT).
    literal: bool,
    /// Output is held up (VSTOP).
    pub stopped: bool,
}

const ERASE_ONE: &[u8] = b"\x08 \x08";

impl Line {
    /// `ENOMEM`.
    pub fn new() -> Result<Line> {
        Ok(Line {
            input: Ring::new(Item::EndOfFile)?,
            complete: 0,
            lines: 0,
            output: Ring::new(0)?,
            literal: false,
            stopped: false,
        })
    }

    /// Takes one byte from the master's side.
    pub fn receive(&mut self, settings: &Settings, byte: u8) -> Received {
        let iflag = |flag| settings.iflag() & flag != 0;
        let mut byte = byte;
        if iflag(abi::ISTRIP) {
            byte &= 0x7f;
        }
        if core::mem::take(&mut self.literal) {
            return self.take(settings, byte);
        }
        if iflag(abi::IXON) {
            if settings.is(abi::VSTART, byte) {
                self.stopped = false;
                return Received::Nothing;
            }
            if settings.is(abi::VSTOP, byte) {
                self.stopped = true;
                return Received::Nothing;
            }
        }
        if settings.lflag(abi::ISIG)
            && let Some(signal) = signal_of(settings, byte)
        {
            self.interrupted(settings, byte);
            return Received::Signal(signal);
        }
        match byte {
            b'\r' if iflag(abi::IGNCR) => return Received::Nothing,
            b'\r' if iflag(abi::ICRNL) => byte = b'\n',
            b'\n' if iflag(abi::INLCR) => byte = b'\r',
            _ => {}
        }
        match settings.lflag(abi::ICANON) {
            true => self.edit(settings, byte),
            false => self.take(settings, byte),
        }
    }

    /// A signal's character: echoed, and unless NOFLSH what was typed and what waits to be shown goes.
    fn interrupted(&mut self, settings: &Settings, byte: u8) {
        self.stopped = false;
        if !settings.lflag(abi::NOFLSH) {
            self.flush_input();
            self.flush_output();
        }
        self.echo(settings, byte);
    }

    /// A byte of a line that can still be edited.
    fn edit(&mut self, settings: &Settings, byte: u8) -> Received {
        let extended = settings.lflag(abi::IEXTEN);
        if settings.is(abi::VERASE, byte) {
            self.erase(settings);
        } else if settings.is(abi::VKILL, byte) {
            self.kill(settings);
        } else if extended && settings.is(abi::VWERASE, byte) {
            self.erase_word(settings);
        } else if extended && settings.is(abi::VLNEXT, byte) {
            self.literal = true;
            if settings.lflag(abi::ECHO) && settings.lflag(abi::ECHOCTL) {
                self.put_raw(b"^\x08");
            }
        } else if extended && settings.is(abi::VREPRINT, byte) {
            self.reprint(settings, byte);
        } else if settings.is(abi::VEOF, byte) {
            return self.end_line(Item::EndOfFile);
        } else if byte == b'\n' {
            if settings.lflag(abi::ECHO) || settings.lflag(abi::ECHONL) {
                self.put(settings, b'\n');
            }
            return self.end_line(Item::LineEnd(byte));
        } else if settings.is(abi::VEOL, byte) || extended && settings.is(abi::VEOL2, byte) {
            self.echo(settings, byte);
            return self.end_line(Item::LineEnd(byte));
        } else {
            return self.take(settings, byte);
        }
        Received::Nothing
    }

    /// A byte that means itself. A line keeps room for its end.
    fn take(&mut self, settings: &Settings, byte: u8) -> Received {
        let canonical = settings.lflag(abi::ICANON);
        if self.input.room() <= usize::from(canonical) {
            return Received::Nothing;
        }
        self.echo(settings, byte);
        self.input.push(Item::Byte(byte));
        if canonical {
            return Received::Nothing;
        }
        self.complete = self.input.len;
        Received::Readable
    }

    fn end_line(&mut self, end: Item) -> Received {
        if self.input.push(end) {
            self.complete = self.input.len;
            self.lines += 1;
        }
        Received::Readable
    }

    fn erase(&mut self, settings: &Settings) -> Option<u8> {
        if self.input.len == self.complete {
            return None;
        }
        let Some(Item::Byte(byte)) = self.input.pop_back() else {
            return None;
        };
        if settings.lflag(abi::ECHO) {
            match settings.lflag(abi::ECHOE) {
                true => (0..self.width(settings, byte)).for_each(|_| self.put_raw(ERASE_ONE)),
                false => self.echo(settings, settings.control(abi::VERASE)),
            }
        }
        Some(byte)
    }

    /// Columns that a byte's echo takes.
    fn width(&self, settings: &Settings, byte: u8) -> usize {
        match byte.is_ascii_control() {
            true if settings.lflag(abi::ECHOCTL) => 2,
            true => 0,
            false => 1,
        }
    }

    fn kill(&mut self, settings: &Settings) {
        let visibly = settings.lflag(abi::ECHOKE) && settings.lflag(abi::ECHOE);
        if visibly || !settings.lflag(abi::ECHO) {
            while self.erase(settings).is_some() {}
            return;
        }
        self.input.len = self.complete;
        self.echo(settings, settings.control(abi::VKILL));
        if settings.lflag(abi::ECHOK) {
            self.put(settings, b'\n');
        }
    }

    /// Blanks behind the last word, and the word.
    fn erase_word(&mut self, settings: &Settings) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut in_word = false;
        while self.input.len > self.complete {
            let Some(Item::Byte(last)) = self.input.get(self.input.len - 1) else {
                return;
            };
            if in_word && !is_word(last) {
                return;
            }
            in_word |= is_word(last);
            self.erase(settings);
        }
    }

    fn reprint(&mut self, settings: &Settings, byte: u8) {
        self.echo(settings, byte);
        self.put(settings, b'\n');
        for at in self.complete..self.input.len {
            if let Some(Item::Byte(byte)) = self.input.get(at) {
                self.echo(settings, byte);
            }
        }
    }

    /// Shows a byte of input, a control character as `^X`. What there is no room for is not shown.
    fn echo(&mut self, settings: &Settings, byte: u8) {
        if !settings.lflag(abi::ECHO) {
            return;
        }
        if byte.is_ascii_control() && byte != b'\t' && byte != b'\n' && settings.lflag(abi::ECHOCTL)
        {
            self.put_raw(&[b'^', byte ^ 0x40]);
        } else {
            self.put(settings, byte);
        }
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        if self.output.room() >= bytes.len() {
            bytes.iter().for_each(|&byte| {
                self.output.push(byte);
            });
        }
    }

    /// Puts one byte of output, as the settings want it; whether there was room.
    fn put(&mut self, settings: &Settings, byte: u8) -> bool {
        let oflag = |flag| settings.oflag() & flag != 0;
        let post = oflag(abi::OPOST);
        match byte {
            b'\n' if post && oflag(abi::ONLCR) => {
                if self.output.room() < 2 {
                    return false;
                }
                self.output.push(b'\r') && self.output.push(b'\n')
            }
            b'\r' if post && oflag(abi::OCRNL) => self.output.push(b'\n'),
            byte if post && oflag(abi::OLCUC) => self.output.push(byte.to_ascii_uppercase()),
            byte => self.output.push(byte),
        }
    }

    /// Writes from the slave's side; how many bytes there was room for.
    pub fn write(&mut self, settings: &Settings, bytes: &[u8]) -> usize {
        if self.stopped {
            return 0;
        }
        let fits = |byte: &&u8| self.put(settings, **byte);
        bytes.iter().take_while(fits).count()
    }

    /// Reads from the slave's side what is complete, at most a line with ICANON. `None`: nothing is; an end of file is no bytes.
    pub fn read(&mut self, settings: &Settings, buf: &mut [u8]) -> Option<usize> {
        if self.complete == 0 {
            return None;
        }
        let canonical = settings.lflag(abi::ICANON);
        let mut done = 0;
        while self.complete > 0 && (done < buf.len() || self.at_end_of_file(done, canonical)) {
            let Some(item) = self.input.pop() else { break };
            self.complete -= 1;
            match item {
                Item::Byte(byte) => {
                    buf[done] = byte;
                    done += 1;
                }
                Item::LineEnd(byte) => {
                    buf[done] = byte;
                    done += 1;
                    self.lines -= 1;
                    if canonical {
                        break;
                    }
                }
                Item::EndOfFile => {
                    self.lines -= 1;
                    if canonical {
                        break;
                    }
                }
            }
        }
        Some(done)
    }

    /// A full buffer right before an end of file takes that too: it ends this read, not the next one.
    fn at_end_of_file(&self, done: usize, canonical: bool) -> bool {
        done > 0 && canonical && self.input.get(0) == Some(Item::EndOfFile)
    }

    /// Whether the slave has something to read.
    pub fn is_readable(&self) -> bool {
        self.complete > 0
    }

    /// Bytes that the slave could read now.
    pub fn readable(&self) -> usize {
        (0..self.complete)
            .filter(|&at| self.input.get(at) != Some(Item::EndOfFile))
            .count()
    }

    /// Whether the master's bytes are taken now: a full line without an end goes on being edited.
    pub fn has_room(&self, settings: &Settings) -> bool {
        self.input.room() > 1 || settings.lflag(abi::ICANON) && self.complete == 0
    }

    /// Takes what the slave has written.
    pub fn take_output(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len()
            && let Some(byte) = self.output.pop()
        {
            buf[done] = byte;
            done += 1;
        }
        done
    }

    pub fn has_output(&self) -> bool {
        self.output.len > 0
    }

    pub fn output_len(&self) -> usize {
        self.output.len
    }

    pub fn has_output_room(&self) -> bool {
        self.output.room() > 1 && !self.stopped
    }

    pub fn flush_input(&mut self) {
        (self.input.len, self.complete, self.lines) = (0, 0, 0);
    }

    pub fn flush_output(&mut self) {
        self.output.len = 0;
    }

    /// ICANON was set or cleared: what was typed until then can be read.
    pub fn mode_changed(&mut self) {
        self.complete = self.input.len;
    }
}

/// The signal that a character stands for.
fn signal_of(settings: &Settings, byte: u8) -> Option<Signal> {
    [
        (abi::VINTR, Signal::SIGINT),
        (abi::VQUIT, Signal::SIGQUIT),
        (abi::VSUSP, Signal::SIGTSTP),
    ]
    .into_iter()
    .find_map(|(control, signal)| settings.is(control, byte).then_some(signal))
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    fn typed(settings: &Settings, bytes: &[u8]) -> (Line, Vec<Received>) {
        let mut line = Line::new().unwrap();
        let all = bytes
            .iter()
            .map(|&byte| line.receive(settings, byte))
            .collect();
        (line, all)
    }

    fn read(line: &mut Line, settings: &Settings) -> Option<Vec<u8>> {
        let mut buf = [0; 64];
        let done = line.read(settings, &mut buf)?;
        Some(buf[..done].to_vec())
    }

    fn shown(line: &mut Line) -> Vec<u8> {
        let mut buf = [0; 256];
        let done = line.take_output(&mut buf);
        buf[..done].to_vec()
    }

    #[test]
    fn lines_are_edited_before_they_are_read() {
        let settings = Settings::initial();
        let (mut line, _) = typed(&settings, b"one two\x17three\x7f\x7f\r");
        assert_eq!(read(&mut line, &settings).unwrap(), b"one thr\n");
        assert_eq!(read(&mut line, &settings), None);
        let (mut line, _) = typed(&settings, b"gone\x15kept\x04");
        assert_eq!(read(&mut line, &settings).unwrap(), b"kept");
        assert_eq!(read(&mut line, &settings), None);
        let (mut line, _) = typed(&settings, b"\x04\x16\x03\n");
        assert_eq!(read(&mut line, &settings).unwrap(), b"");
        assert_eq!(read(&mut line, &settings).unwrap(), b"\x03\n");
    }

    #[test]
    fn typing_is_shown() {
        let settings = Settings::initial();
        let (mut line, _) = typed(&settings, b"a\x01\x7f\x7fb\n");
        assert_eq!(shown(&mut line), b"a^A\x08 \x08\x08 \x08\x08 \x08b\r\n");
    }

    #[test]
    fn some_characters_are_signals() {
        let settings = Settings::initial();
        let (mut line, all) = typed(&settings, b"x\x03\x1a\x1cy\n");
        assert_eq!(all[1], Received::Signal(Signal::SIGINT));
        assert_eq!(all[2], Received::Signal(Signal::SIGTSTP));
        assert_eq!(all[3], Received::Signal(Signal::SIGQUIT));
        assert_eq!(shown(&mut line), b"^\\y\r\n");
        assert_eq!(read(&mut line, &settings).unwrap(), b"y\n");
    }

    #[test]
    fn raw_bytes_are_bytes() {
        let mut settings = Settings::initial();
        settings.make_raw();
        let (mut line, all) = typed(&settings, b"\x03\r\x7f");
        assert_eq!(all, [Received::Readable; 3]);
        assert_eq!(read(&mut line, &settings).unwrap(), b"\x03\r\x7f");
        assert_eq!(shown(&mut line), b"");
        assert_eq!(line.write(&settings, b"\n"), 1);
        assert_eq!(shown(&mut line), b"\n");
    }

    #[test]
    fn a_full_line_can_still_be_ended() {
        let settings = Settings::initial();
        let (mut line, _) = typed(&settings, &[b'x'; 5000]);
        assert_eq!(read(&mut line, &settings), None);
        assert_eq!(line.receive(&settings, b'\n'), Received::Readable);
        assert_eq!(line.readable(), SIZE);
        // The echo of the line took all but one byte, and an end of line is two.
        assert_eq!(line.write(&settings, b"\n"), 0);
        assert_eq!(line.write(&settings, &[b'y'; 5000]), 1);
    }
}

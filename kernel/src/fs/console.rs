//! Files on the console: the terminal, and the three pipes that the first program has where there is none.
//!
//! A terminal hands input out line by line and takes an end of file as the end of one read (`termios(3)`, canonical mode; without
//! ICANON as bytes arrive). Editing and echo are the host terminal's business, and so are output conversions. On a pipe the
//! end of file is final.
//!
//! Lock rank: FILES (settings).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general as abi;

use super::file::Opened;
use super::fixed;
use super::inode::{Access, FileSystem, FileType, Inode, InodeRef, Place, Stat};
use super::io::{Dst, Src, partial};
use super::null::go_on;
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use super::terminal;
use super::text::Text;
use crate::drivers::console::{self, Item, Output};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::Sleep;
use crate::signal::Signal;

/// Bytes moved in one piece.
const PIECE: usize = 512;

/// stdin was a pipe and has ended.
static ENDED: AtomicBool = AtomicBool::new(false);

/// One side of the console, open.
struct Console {
    output: Output,
    terminal: bool,
}

/// The inode of a terminal or of one of the pipes.
struct ConsoleInode {
    node: fixed::Node,
    output: Output,
    terminal: bool,
}

/// A terminal device in /dev: `console` is 5:1.
pub fn terminal(
    name: &str,
    minor: u32,
    ino: u64,
    parent: InodeRef,
    output: Output,
) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (5, minor),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o620)
    };
    let node = fixed::Node::new(stat, parent, name.as_bytes())?;
    Ok(Arc::try_new(ConsoleInode {
        node,
        output,
        terminal: true,
    })?)
}

/// The terminal, open without a name.
pub fn open_terminal() -> Result<Opened> {
    Ok(Opened::Stream(Box::try_new(Console {
        output: Output::Stdout,
        terminal: true,
    })?))
}

/// The pipe that the first program has in place of a terminal. `ino` is one that [`super::pipe`] leaves free.
pub fn pipe(ino: u64, output: Output) -> Result<InodeRef> {
    let stat = Stat::new(FileSystem::Pipe, ino, FileType::Fifo, 0o600);
    let mut name = Text::new();
    write!(name, "pipe:[{ino}]").map_err(|_| Errno::ENOMEM)?;
    Ok(Arc::try_new(ConsoleInode {
        node: fixed::Node::nowhere(stat, &name.into_bytes())?,
        output,
        terminal: false,
    })?)
}

impl Inode for ConsoleInode {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Stream(Box::try_new(Console {
            output: self.output,
            terminal: self.terminal,
        })?))
    }
}

/// What a look at the input found.
enum Found {
    Bytes(usize),
    EndOfFile,
    Nothing,
}

impl Console {
    fn by_line(&self) -> bool {
        self.terminal && terminal::console().settings().lflag(abi::ICANON)
    }

    fn is_ready(&self) -> bool {
        !self.terminal && ENDED.load(Ordering::Relaxed)
            || console::with_input(|input| {
                if self.by_line() {
                    input.has_line()
                } else {
                    !input.is_empty()
                }
            })
    }

    /// Copies the next bytes without taking them.
    fn look(&self, buf: &mut [u8], first: bool) -> Found {
        if !self.terminal && ENDED.load(Ordering::Relaxed) {
            return Found::EndOfFile;
        }
        let by_line = self.by_line();
        console::with_input(|input| {
            if first && by_line && !input.has_line() {
                return Found::Nothing;
            }
            match input.peek() {
                None => Found::Nothing,
                Some(Item::EndOfFile) => Found::EndOfFile,
                Some(Item::Byte(_)) => Found::Bytes(input.copy_front(buf, by_line)),
            }
        })
    }

    fn take(&self, items: usize) {
        console::with_input(|input| {
            (0..items).for_each(|_| {
                input.pop();
            })
        });
        console::refill();
    }

    /// Copies up to one line, or all there is.
    fn read_ready(&self, dst: &mut Dst<'_>) -> Result<Option<usize>> {
        let mut done = 0;
        let mut buf = [0; PIECE];
        while dst.left() > 0 {
            let wanted = dst.left().min(PIECE);
            let bytes = match self.look(&mut buf[..wanted], done == 0) {
                Found::Bytes(bytes) => bytes,
                // After bytes, a terminal's end of file ends this read; a pipe's stays for the next one.
                Found::EndOfFile if done > 0 && !self.terminal => break,
                Found::EndOfFile => {
                    if !self.terminal {
                        ENDED.store(true, Ordering::Relaxed);
                    } else {
                        self.take(1);
                    }
                    return Ok(Some(done));
                }
                Found::Nothing if done == 0 => return Ok(None),
                Found::Nothing => break,
            };
            // Taken before the copy, which may sleep: another reader must not get them too.
            self.take(bytes);
            let copied = dst.put(&buf[..bytes]);
            done += copied;
            if copied < bytes {
                return partial(done, Errno::EFAULT).map(Some);
            }
            if self.by_line() && buf[..bytes].last() == Some(&b'\n') {
                break;
            }
        }
        Ok(Some(done))
    }
}

impl Stream for Console {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() == 0 {
            return Ok(0);
        }
        if self.terminal {
            terminal::console().check_foreground(Signal::SIGTTIN)?;
        }
        loop {
            if let Some(done) = self.read_ready(dst)? {
                return Ok(done);
            }
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            console::readers()
                .wait_until(Sleep::Interruptible, || self.is_ready().then_some(()))?;
        }
    }

    fn write(&self, src: &mut Src<'_>, _nonblock: bool) -> Result<usize> {
        if self.terminal {
            terminal::console().check_write()?;
        }
        let mut done = 0;
        let mut buf = [0; PIECE];
        while src.left() > 0 {
            let part = src.left().min(PIECE);
            let copied = src.take(&mut buf[..part]);
            console::write(self.output, &buf[..copied]);
            done += copied;
            if copied < part {
                return partial(done, Errno::EFAULT);
            }
            if !go_on(src.left()) {
                break;
            }
        }
        Ok(done)
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::WRITABLE;
        events.set(PollEvents::READABLE, self.is_ready());
        events.set(
            PollEvents::HUP,
            !self.terminal && ENDED.load(Ordering::Relaxed),
        );
        events
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        if command == linux_raw_sys::ioctl::FIONREAD {
            let by_line = self.by_line();
            let bytes = console::with_input(|input| input.readable(by_line));
            UserPtr::<i32>::new(arg).write(bytes as i32)?;
            return Ok(0);
        }
        if self.terminal {
            let (value, changed) = terminal::console().ioctl(command, arg, false)?;
            if changed.settings {
                console::readers().wake_all();
                console::watchers().tell(PollEvents::READABLE);
            }
            Ok(value)
        } else {
            Err(Errno::ENOTTY)
        }
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(console::watchers())
    }
}

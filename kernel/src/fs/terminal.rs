//! What all terminals have: settings, a size, a session that they control (`termios(3)`, `ioctl_tty(2)`, `credentials(7)`).
//!
//! On the console only ICANON and job control have an effect, as the line is edited on the host; a pseudo terminal has all of it
//! ([`super::pty`]).
//!
//! Lock rank: LEAF. Signals are sent with no lock held.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::{general as abi, ioctl};
use spin::LazyLock;

use super::inode::InodeRef;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::{Disposition, Signal};
use crate::sync::{SpinLock, rank};
use crate::task::{Process, group, table};

/// Bytes of `struct termios`, as TCGETS moves it.
const TERMIOS_SIZE: usize = 36;
/// Bytes of `struct termios2`: two speeds more.
const TERMIOS2_SIZE: usize = 44;
/// Where the control characters are: after four words and the line number.
const CONTROL: usize = 17;

/// iflag, oflag, cflag, lflag, line, cc[19], ispeed, ospeed.
#[derive(Clone, Copy)]
pub struct Settings([u8; TERMIOS2_SIZE]);

impl Settings {
    /// What Linux gives a new terminal: 38400 8N1, cooked.
    pub const fn initial() -> Settings {
        let words = [
            abi::ICRNL | abi::IXON,
            abi::OPOST | abi::ONLCR,
            abi::B38400 | abi::CS8 | abi::CREAD,
            abi::ISIG
                | abi::ICANON
                | abi::ECHO
                | abi::ECHOE
                | abi::ECHOK
                | abi::ECHOCTL
                | abi::ECHOKE
                | abi::IEXTEN,
        ];
        // INTR, QUIT, ERASE, KILL, EOF, TIME, MIN, SWTC, START, STOP, SUSP, EOL, REPRINT, DISCARD, WERASE, LNEXT.
        let control = [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22];
        let mut settings = [0; TERMIOS2_SIZE];
        let mut n = 0;
        while n < 16 {
            settings[n] = (words[n / 4] >> (n % 4 * 8)) as u8;
            settings[CONTROL + n] = control[n];
            n += 1;
        }
        let speed: u32 = 38400;
        let mut n = 0;
        while n < 8 {
            settings[36 + n] = (speed >> (n % 4 * 8)) as u8;
            n += 1;
        }
        Settings(settings)
    }

    fn word(&self, n: usize) -> u32 {
        let at = n * 4;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    pub fn iflag(&self) -> u32 {
        self.word(0)
    }

    pub fn oflag(&self) -> u32 {
        self.word(1)
    }

    pub fn lflag(&self, flag: u32) -> bool {
        self.word(3) & flag != 0
    }

    /// A control character.
    pub fn control(&self, which: u32) -> u8 {
        self.0[CONTROL + which as usize]
    }

    /// Whether `byte` is that control character; one that is 0 is switched off.
    pub fn is(&self, which: u32, byte: u8) -> bool {
        byte != 0 && self.control(which) == byte
    }

    /// cfmakeraw(3).
    #[cfg(test)]
    pub fn make_raw(&mut self) {
        self.0[..16].fill(0);
    }
}

/// Who the terminal belongs to; 0: nobody.
#[derive(Clone, Copy, Default)]
struct Control {
    session: u32,
    foreground: u32,
}

/// Where a terminal is found again, for /dev/tty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Console,
    Pty(u32),
}

/// A terminal's state.
pub struct Terminal {
    pub device: Device,
    settings: SpinLock<Settings>,
    /// Rows, columns, and two sizes in pixels, two bytes each.
    window: SpinLock<[u8; 8]>,
    control: SpinLock<Control>,
}

/// What an ioctl has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub settings: bool,
    /// ICANON is another one.
    pub mode: bool,
    pub flush_input: bool,
    pub flush_output: bool,
}

impl Terminal {
    pub const fn new(device: Device, rows: u8, columns: u8) -> Terminal {
        Terminal {
            device,
            settings: SpinLock::new(rank::LEAF, Settings::initial()),
            window: SpinLock::new(rank::LEAF, [rows, 0, columns, 0, 0, 0, 0, 0]),
            control: SpinLock::new(
                rank::LEAF,
                Control {
                    session: 0,
                    foreground: 0,
                },
            ),
        }
    }

    pub fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    fn control(&self) -> Control {
        *self.control.lock()
    }

    /// The group that gets the signals of the keyboard.
    pub fn foreground(&self) -> Option<u32> {
        Some(self.control().foreground).filter(|&group| group != 0)
    }

    /// Sends a signal of the terminal's to the foreground group.
    pub fn signal_foreground(&self, signal: Signal) {
        if let Some(foreground) = self.foreground() {
            group::signal_all(foreground, signal);
        }
    }

    /// Whether it is the current process's controlling terminal.
    fn is_own(&self) -> bool {
        current()
            .process
            .terminal()
            .is_some_and(|own| core::ptr::eq(&*own, self))
    }

    /// Stops a process that is not in the foreground and wants what only the foreground may (`tty_check_change`): `ERESTARTSYS` once its
    /// group has been sent `signal`; `EIO` if nobody would continue it. One that ignores or blocks SIGTTOU may go on.
    pub fn check_foreground(&self, signal: Signal) -> Result {
        let process = &current().process;
        let foreground = self.control().foreground;
        if !self.is_own() || foreground == 0 || process.group() == foreground {
            return Ok(());
        }
        let deaf = {
            let ignored = process.signals.lock().disposition(signal);
            ignored == Disposition::Ignore || current().signals.lock().blocked.contains(signal)
        };
        match () {
            () if deaf && signal == Signal::SIGTTOU => Ok(()),
            () if deaf || group::is_orphaned(process.group(), None) => Err(Errno::EIO),
            () => {
                group::signal_all(process.group(), signal);
                Err(Errno::ERESTARTSYS)
            }
        }
    }

    /// Whether a reader may go on, which may not be in the foreground any more after it has waited.
    pub fn may_read(&self) -> bool {
        let foreground = self.control().foreground;
        foreground == 0 || !self.is_own() || current().process.group() == foreground
    }

    /// Before a write: with TOSTOP the background is stopped.
    pub fn check_write(&self) -> Result {
        match self.settings().lflag(abi::TOSTOP) {
            true => self.check_foreground(Signal::SIGTTOU),
            false => Ok(()),
        }
    }

    /// The first program's terminal is its own from the start.
    pub fn give_to(self: &Arc<Self>, process: &Process) {
        *self.control.lock() = Control {
            session: process.session.load(Ordering::Relaxed),
            foreground: process.group(),
        };
        process.set_terminal(Some(self.clone()));
    }

    /// Becomes the controlling terminal of the current process's session, if it leads one that has none.
    pub fn acquire(self: &Arc<Self>, steal: bool) -> Result {
        let process = &current().process;
        let session = process.session.load(Ordering::Relaxed);
        let leads = session == process.pid;
        if leads && self.is_own() {
            return Ok(());
        }
        if !leads || process.terminal().is_some() {
            return Err(Errno::EPERM);
        }
        let owner = self.control().session;
        if owner != 0 && owner != session {
            if !steal || !process.credentials.get().is_privileged() {
                return Err(Errno::EPERM);
            }
            forget_in_session(owner);
        }
        self.give_to(process);
        Ok(())
    }

    /// The session's leader gives the terminal up, or ends: the foreground group is told, and nobody of the session has it any more.
    fn release(&self, on_exit: bool) {
        let Control {
            session,
            foreground,
        } = self.control();
        if foreground != 0 {
            group::signal_all(foreground, Signal::SIGHUP);
            if !on_exit {
                group::signal_all(foreground, Signal::SIGCONT);
            }
        }
        *self.control.lock() = Control::default();
        forget_in_session(session);
    }

    /// The other side has hung up: the session's leader is told, and nobody of the session has the terminal any more.
    pub fn hang_up(&self) {
        let Control {
            session,
            foreground,
        } = core::mem::take(&mut *self.control.lock());
        if session == 0 {
            return;
        }
        forget_in_session(session);
        if let Some(leader) = table::find(session) {
            leader.set_hung_up_group(foreground);
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                crate::signal::send::send_to_process(
                    &leader,
                    crate::signal::SigInfo::kernel(signal),
                );
            }
        }
    }

    /// What all terminals answer to ioctl(2), with what is left for the caller to do. `ENOTTY` for commands that are unknown here.
    /// `from_master`: it comes from the other side, which is not bound by job control.
    pub fn ioctl(
        self: &Arc<Self>,
        command: u32,
        arg: usize,
        from_master: bool,
    ) -> Result<(usize, Changed)> {
        let mut changed = Changed::default();
        match command {
            ioctl::TCGETS => self.get_settings(arg, TERMIOS_SIZE)?,
            ioctl::TCGETS2 => self.get_settings(arg, TERMIOS2_SIZE)?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                changed = self.set_settings(arg, TERMIOS_SIZE, from_master)?;
                changed.flush_input = command == ioctl::TCSETSF;
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                changed = self.set_settings(arg, TERMIOS2_SIZE, from_master)?;
                changed.flush_input = command == ioctl::TCSETSF2;
            }
            ioctl::TIOCGWINSZ => {
                let window = *self.window.lock();
                uaccess::write_bytes(arg, &window)?;
            }
            ioctl::TIOCSWINSZ => {
                let window = UserPtr::<[u8; 8]>::new(arg).read()?;
                let before = core::mem::replace(&mut *self.window.lock(), window);
                if before != window {
                    self.signal_foreground(Signal::SIGWINCH);
                }
            }
            ioctl::TIOCGPGRP => {
                if !from_master && !self.is_own() {
                    return Err(Errno::ENOTTY);
                }
                UserPtr::<u32>::new(arg).write(self.control().foreground)?;
            }
            ioctl::TIOCSPGRP => self.set_foreground(arg)?,
            ioctl::TIOCGSID => {
                let session = self.control().session;
                if session == 0 || !from_master && !self.is_own() {
                    return Err(Errno::ENOTTY);
                }
                UserPtr::<u32>::new(arg).write(session)?;
            }
            ioctl::TIOCSCTTY => self.acquire(arg == 1)?,
            ioctl::TIOCNOTTY if !self.is_own() => return Err(Errno::ENOTTY),
            ioctl::TIOCNOTTY => give_up(&current().process, false),
            ioctl::TCFLSH => {
                if !from_master {
                    self.check_foreground(Signal::SIGTTOU)?;
                }
                match arg as u32 {
                    abi::TCIFLUSH => changed.flush_input = true,
                    abi::TCOFLUSH => changed.flush_output = true,
                    abi::TCIOFLUSH => (changed.flush_input, changed.flush_output) = (true, true),
                    _ => return Err(Errno::EINVAL),
                }
            }
            ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TCXONC => {
                self.check_foreground(Signal::SIGTTOU)?;
            }
            ioctl::TIOCOUTQ => UserPtr::<i32>::new(arg).write(0)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok((0, changed))
    }

    fn get_settings(&self, arg: usize, size: usize) -> Result {
        let settings = self.settings();
        uaccess::write_bytes(arg, &settings.0[..size])
    }

    fn set_settings(&self, arg: usize, size: usize, from_master: bool) -> Result<Changed> {
        if !from_master {
            self.check_foreground(Signal::SIGTTOU)?;
        }
        let mut given = [0; TERMIOS2_SIZE];
        uaccess::read_bytes(arg, &mut given[..size])?;
        let mut settings = self.settings.lock();
        let before = settings.lflag(abi::ICANON);
        settings.0[..size].copy_from_slice(&given[..size]);
        Ok(Changed {
            settings: true,
            mode: before != settings.lflag(abi::ICANON),
            ..Changed::default()
        })
    }

    /// tcsetpgrp(3).
    fn set_foreground(&self, arg: usize) -> Result {
        self.check_foreground(Signal::SIGTTOU)?;
        let session = self.control().session;
        let own_session = current().process.session.load(Ordering::Relaxed);
        if !self.is_own() || session != own_session {
            return Err(Errno::ENOTTY);
        }
        let wanted = UserPtr::<i32>::new(arg).read()?;
        let wanted = u32::try_from(wanted).map_err(|_| Errno::EINVAL)?;
        let mut member = None;
        group::for_each(wanted, |process| {
            member = Some(process.session.load(Ordering::Relaxed));
            false
        });
        match member {
            None => return Err(Errno::ESRCH),
            Some(member) if member != own_session => return Err(Errno::EPERM),
            Some(_) => self.control.lock().foreground = wanted,
        }
        Ok(())
    }
}

static CONSOLE: LazyLock<Arc<Terminal>> =
    LazyLock::new(|| Arc::new(Terminal::new(Device::Console, 24, 80)));

/// The console's terminal.
pub fn console() -> &'static Arc<Terminal> {
    &CONSOLE
}

/// TIOCNOTTY, and the end of a process: the leader takes the terminal from its whole session.
pub fn give_up(process: &Process, on_exit: bool) {
    let leads = process.session.load(Ordering::Relaxed) == process.pid;
    match process.terminal() {
        Some(terminal) if leads => terminal.release(on_exit),
        Some(_) => process.set_terminal(None),
        None if leads && on_exit => {
            if let Some(group) = process.take_hung_up_group() {
                group::signal_all(group, Signal::SIGHUP);
            }
        }
        None => {}
    }
}

/// No process of the session has a controlling terminal any more.
fn forget_in_session(session: u32) {
    // The terminal itself stays: its caller has it.
    table::for_each_in_session(session, |process| process.set_terminal(None));
}

/// A terminal that was opened becomes that of the session, unless O_NOCTTY says otherwise.
pub fn opened(inode: &InodeRef, flags: u32) {
    if flags & abi::O_NOCTTY == 0
        && let Some(terminal) = inode.terminal()
        && matches!(terminal.device, Device::Pty(_))
    {
        // Not being the leader, and all the other reasons, are no errors.
        let _ = terminal.acquire(false);
    }
}

//! The terminal's settings (`ioctl_tty(2)`).
//!
//! Settings are kept and shown; of them only ICANON has an effect, as the line is edited on the host.
//!
//! Lock rank: FILES.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linux_raw_sys::{general as abi, ioctl};

use super::stream::PollEvents;
use crate::drivers::console;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::sync::{SpinLock, rank};

/// Bytes of `struct termios`, as TCGETS moves it.
const TERMIOS_SIZE: usize = 36;
/// Bytes of `struct termios2`: two speeds more.
const TERMIOS2_SIZE: usize = 44;

/// iflag, oflag, cflag, lflag, line, cc[19], ispeed, ospeed.
type Settings = [u8; TERMIOS2_SIZE];

static SETTINGS: SpinLock<Settings> = SpinLock::new(rank::FILES, initial());
/// lflag's ICANON bit, for readers.
static CANONICAL: AtomicBool = AtomicBool::new(true);
/// Rows and columns, two bytes each.
static WINDOW: SpinLock<[u8; 8]> = SpinLock::new(rank::FILES, window(24, 80));
/// 0: that of the caller.
static FOREGROUND: AtomicU32 = AtomicU32::new(0);

/// What Linux gives a new terminal: 38400 8N1, cooked.
const fn initial() -> Settings {
    let words = [
        abi::ICRNL | abi::IXON,
        abi::OPOST | abi::ONLCR,
        abi::B38400 | abi::CS8 | abi::CREAD | abi::HUPCL,
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
        settings[17 + n] = control[n];
        n += 1;
    }
    let speed: u32 = 38400;
    let mut n = 0;
    while n < 8 {
        settings[36 + n] = (speed >> (n % 4 * 8)) as u8;
        n += 1;
    }
    settings
}

const fn window(rows: u8, columns: u8) -> [u8; 8] {
    [rows, 0, columns, 0, 0, 0, 0, 0]
}

/// Whether input comes in lines.
pub fn is_canonical() -> bool {
    CANONICAL.load(Ordering::Relaxed)
}

/// The terminal's part of ioctl(2). `ENOTTY` for commands it does not know.
pub fn ioctl(command: u32, arg: usize) -> Result<usize> {
    match command {
        ioctl::TCGETS => get_settings(arg, TERMIOS_SIZE),
        ioctl::TCGETS2 => get_settings(arg, TERMIOS2_SIZE),
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => set_settings(arg, TERMIOS_SIZE),
        ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => set_settings(arg, TERMIOS2_SIZE),
        ioctl::TIOCGWINSZ => {
            let window = *WINDOW.lock();
            uaccess::write_bytes(arg, &window).map(|()| 0)
        }
        ioctl::TIOCSWINSZ => {
            let window = UserPtr::<[u8; 8]>::new(arg).read()?;
            *WINDOW.lock() = window;
            Ok(0)
        }
        ioctl::TIOCGPGRP => {
            let group = match FOREGROUND.load(Ordering::Relaxed) {
                0 => current().process.process_group.load(Ordering::Relaxed),
                group => group,
            };
            UserPtr::<u32>::new(arg).write(group).map(|()| 0)
        }
        ioctl::TIOCSPGRP => {
            let group = UserPtr::<i32>::new(arg).read()?;
            FOREGROUND.store(
                u32::try_from(group).map_err(|_| Errno::EINVAL)?,
                Ordering::Relaxed,
            );
            Ok(0)
        }
        ioctl::TIOCGSID => {
            let session = current().process.session.load(Ordering::Relaxed);
            UserPtr::<u32>::new(arg).write(session).map(|()| 0)
        }
        ioctl::TIOCSCTTY | ioctl::TIOCNOTTY | ioctl::TCFLSH | ioctl::TCSBRK | ioctl::TCXONC => {
            Ok(0)
        }
        ioctl::TIOCOUTQ => UserPtr::<i32>::new(arg).write(0).map(|()| 0),
        _ => Err(Errno::ENOTTY),
    }
}

fn get_settings(arg: usize, size: usize) -> Result<usize> {
    let settings = *SETTINGS.lock();
    uaccess::write_bytes(arg, &settings[..size])?;
    Ok(0)
}

fn set_settings(arg: usize, size: usize) -> Result<usize> {
    let mut given = [0; TERMIOS2_SIZE];
    uaccess::read_bytes(arg, &mut given[..size])?;
    let lflag = u32::from_le_bytes([given[12], given[13], given[14], given[15]]);
    SETTINGS.lock()[..size].copy_from_slice(&given[..size]);
    CANONICAL.store(lflag & abi::ICANON != 0, Ordering::Relaxed);
    console::readers().wake_all();
    console::watchers().tell(PollEvents::READABLE);
    Ok(0)
}

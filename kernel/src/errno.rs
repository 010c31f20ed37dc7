//! Error numbers: what a failed system call answers.
//!
//! Values and names are Linux's (`errno(3)`), taken from `linux-raw-sys`. Four further codes above 511 say how an
//! interrupted call is to be restarted; they live between a call's handler and signal delivery and never reach user code.

use core::fmt;

use linux_raw_sys::errno as raw;

/// A Linux error number, 1..=4095.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(u16);

/// What fallible kernel functions return.
pub type Result<T = ()> = core::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`, see `errno(3)`.")] pub const $name: Errno = Errno(raw::$name as u16);)*
        }
        fn name(errno: Errno) -> Option<&'static str> {
            match errno { $(Errno::$name => Some(stringify!($name)),)* _ => None }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECANCELED ECHILD EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV
    ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENOLCK
    ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP EIDRM ENOMSG EOVERFLOW EOPNOTSUPP ENODATA ETIMEDOUT EILSEQ ENOTSOCK
    ECONNRESET ECONNREFUSED ENOTCONN EISCONN EMSGSIZE ENOBUFS ENOPROTOOPT EAFNOSUPPORT EPROTONOSUPPORT ESOCKTNOSUPPORT ETOOMANYREFS
}

impl Errno {
    /// Restart the call, or `EINTR` if a handler without `SA_RESTART` runs.
    pub const ERESTARTSYS: Errno = Errno(512);
    /// Restart the call whatever happens.
    pub const ERESTARTNOINTR: Errno = Errno(513);
    /// Restart the call only if no handler runs, else `EINTR`.
    pub const ERESTARTNOHAND: Errno = Errno(514);
    /// Continue through `restart_syscall(2)` if no handler runs, else `EINTR`.
    pub const ERESTART_RESTARTBLOCK: Errno = Errno(516);

    /// The value a system call leaves in its return register: `-errno`.
    pub const fn to_ret(self) -> usize {
        -(self.0 as isize) as usize
    }

    /// The code in a return register, if it is one.
    pub fn from_ret(ret: usize) -> Option<Errno> {
        let code = (ret as isize).checked_neg()?;
        (1..=4095).contains(&code).then_some(Errno(code as u16))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(*self) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Kernel memory ran out. Becomes `ENOMEM`, or the end of a process in a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Errno {
        Errno::ENOMEM
    }
}

impl From<alloc::alloc::AllocError> for Errno {
    fn from(_: alloc::alloc::AllocError) -> Errno {
        Errno::ENOMEM
    }
}

impl From<alloc::collections::TryReserveError> for Errno {
    fn from(_: alloc::collections::TryReserveError) -> Errno {
        Errno::ENOMEM
    }
}

impl From<alloc::alloc::AllocError> for OutOfMemory {
    fn from(_: alloc::alloc::AllocError) -> OutOfMemory {
        OutOfMemory
    }
}

//! Timers that are files (`timerfd_create(2)`).
//!
//! A timer that has rung rests until somebody reads how often, or asks when it rings next: only then are the rings since counted and the
//! next one waited for, so a timer that nobody reads costs nothing.
//!
//! Lock rank: INTERVAL_TIMER for a timer's state, FILES for the list of those that are told when the wall clock is set.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};
use linux_raw_sys::general as abi;
use spin::Once;

use super::file::{File, Opened};
use super::fixed;
use super::io::{Dst, Src};
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::timer::{Alarm, Ring};
use crate::sched::{Sleep, WaitQueue};
use crate::sync::{IrqLock, SpinLock, rank};
use crate::task::interval::{Setting, Timing};

/// A timer, shared by its file and its alarm.
pub struct TimerFd {
    /// Its clock is the wall clock.
    wall: bool,
    alarm: Once<Alarm>,
    state: IrqLock<State>,
    readers: WaitQueue,
    watchers: PollQueue,
    /// In [`CANCELLED_BY_SETTING`].
    link: LinkedListAtomicLink,
}

struct State {
    timing: Timing,
    /// Rings that nobody has read.
    rings: u64,
    /// It has rung, and rests.
    rests: bool,
    /// The wall clock was set, and it was to be told of that (TFD_TIMER_CANCEL_ON_SET).
    cancelled: bool,
}

intrusive_adapter!(LinkAdapter = Arc<TimerFd>: TimerFd { link => LinkedListAtomicLink });

/// Timers whose reads fail when the wall clock is set.
static CANCELLED_BY_SETTING: SpinLock<LinkedList<LinkAdapter>> =
    SpinLock::new(rank::FILES, LinkedList::new(LinkAdapter::NEW));

/// TFD_IOC_SET_TICKS, as in Linux's `include/uapi/linux/timerfd.h`: `_IOW('T', 0, __u64)`.
const SET_TICKS: u32 = 0x4008_5400;

/// A new timer, open. `flags`: TFD_NONBLOCK or 0. `ENFILE`, `ENOMEM`.
pub fn new(wall: bool, flags: u32) -> Result<Arc<File>> {
    let timer = Arc::try_new(TimerFd {
        wall,
        alarm: Once::new(),
        state: IrqLock::new(
            rank::INTERVAL_TIMER,
            State {
                timing: Timing::STOPPED,
                rings: 0,
                rests: false,
                cancelled: false,
            },
        ),
        readers: WaitQueue::new(),
        watchers: PollQueue::new(),
        link: LinkedListAtomicLink::new(),
    })?;
    let ring: Weak<TimerFd> = Arc::downgrade(&timer);
    timer.alarm.try_call_once(|| Alarm::new(ring))?;
    let inode = fixed::anonymous(b"anon_inode:[timerfd]")?;
    let stream = Box::try_new(Open(timer))?;
    File::new(inode, Opened::Stream(stream), abi::O_RDWR | flags)
}

/// The timer that a file is. `EINVAL` if it is none.
pub fn timer_of(file: &File) -> Result<&Arc<TimerFd>> {
    file.stream().and_then(Stream::timer).ok_or(Errno::EINVAL)
}

/// The wall clock was set: tells the timers that want to know.
pub fn wall_clock_was_set() {
    let mut timers = CANCELLED_BY_SETTING.lock();
    let mut cursor = timers.front_mut();
    while let Some(timer) = cursor.get() {
        let mut state = timer.state.lock();
        state.cancelled = true;
        drop(state);
        timer.tell();
        cursor.move_next();
    }
}

impl State {
    /// Counts the rings since the last one, and lets the timer run on.
    fn wake_up(&mut self, alarm: &Alarm) {
        if core::mem::take(&mut self.rests) {
            // The first one was counted when it rang.
            self.rings += self.timing.pass().saturating_sub(1);
            alarm.arm(self.timing.deadline());
        }
    }

    fn shown(&mut self, alarm: &Alarm) -> Setting {
        self.wake_up(alarm);
        self.timing.shown()
    }
}

impl TimerFd {
    fn alarm(&self) -> &Alarm {
        self.alarm.get().expect("made with the timer")
    }

    /// timerfd_gettime(2).
    pub fn get(&self) -> Setting {
        self.state.lock().shown(self.alarm())
    }

    /// timerfd_settime(2); what it showed before. `absolute`: the value is a point on the timer's clock. `cancel`: reads fail when that is
    /// set. `ECANCELED` if it was set since a former call that asked for this.
    pub fn set(self: &Arc<Self>, new: Setting, absolute: bool, cancel: bool) -> Result<Setting> {
        self.set_cancelled_by_setting(cancel && absolute && self.wall);
        let mut state = self.state.lock();
        let was_cancelled = core::mem::take(&mut state.cancelled);
        let before = state.shown(self.alarm());
        *state = State {
            timing: Timing::start(new, self.wall, absolute),
            rings: 0,
            rests: false,
            cancelled: false,
        };
        if state.timing.is_running() {
            self.alarm().arm(state.timing.deadline());
        } else {
            self.alarm().cancel();
        }
        drop(state);
        if was_cancelled && cancel {
            return Err(Errno::ECANCELED);
        }
        Ok(before)
    }

    fn set_cancelled_by_setting(self: &Arc<Self>, on: bool) {
        let mut timers = CANCELLED_BY_SETTING.lock();
        if on == self.link.is_linked() {
            return;
        }
        let removed = if on {
            timers.push_back(self.clone());
            None
        } else {
            // SAFETY: a linked timer is in this list, the only one.
            unsafe { timers.cursor_mut_from_ptr(Arc::as_ptr(self)) }.remove()
        };
        drop(timers);
        drop(removed);
    }

    fn tell(&self) {
        self.readers.wake_all();
        self.watchers.tell(PollEvents::READABLE);
    }

    /// The rings that nobody has read, which are read now. `ECANCELED`.
    fn take(&self) -> Option<Result<u64>> {
        let mut state = self.state.lock();
        if core::mem::take(&mut state.cancelled) {
            state.rings = 0;
            state.rests = false;
            return Some(Err(Errno::ECANCELED));
        }
        if state.rings == 0 {
            return None;
        }
        state.wake_up(self.alarm());
        Some(Ok(core::mem::take(&mut state.rings)))
    }
}

impl Ring for TimerFd {
    fn ring(&self) {
        let mut state = self.state.lock();
        // It may have been set anew since.
        if state.rests || !state.timing.has_rung() {
            return;
        }
        if state.timing.schedule.interval > 0 {
            state.rings += 1;
            state.rests = true;
        } else {
            state.rings += state.timing.pass();
        }
        drop(state);
        self.tell();
    }
}

/// What a timer's file opens as.
struct Open(Arc<TimerFd>);

impl Stream for Open {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = match self.0.take() {
            Some(taken) => taken,
            None if nonblock => return Err(Errno::EAGAIN),
            None => self
                .0
                .readers
                .wait_until(Sleep::Interruptible, || self.0.take())?,
        };
        if dst.put(&taken?.to_ne_bytes()) < 8 {
            Err(Errno::EFAULT)
        } else {
            Ok(8)
        }
    }

    fn write(&self, _src: &mut Src<'_>, _nonblock: bool) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self) -> PollEvents {
        let state = self.0.state.lock();
        if state.rings > 0 || state.cancelled {
            PollEvents::READABLE
        } else {
            PollEvents::empty()
        }
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.0.watchers)
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        if command != SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let rings = UserPtr::<u64>::new(arg).read()?;
        if rings == 0 {
            return Err(Errno::EINVAL);
        }
        self.0.state.lock().rings = rings;
        self.0.tell();
        Ok(0)
    }

    fn timer(&self) -> Option<&Arc<TimerFd>> {
        Some(&self.0)
    }

    fn seekable(&self) -> bool {
        true
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set_cancelled_by_setting(false);
        self.0.alarm().cancel();
    }
}

//! The virtio block device (virtio 1.1, sections 4.1 and 5.2), by the crate `virtio-drivers` over PCI.
//!
//! One request is in flight at a time. Its header, status and data lie in frames that were taken for it at boot, so that a request
//! allocates nothing and the device writes straight into the windows of the block cache. Who asked sleeps until the device's
//! interrupt (legacy INTx) says that it is done.
//!
//! Locks, outermost first: `DISK` (sleeps), `QUEUE` (rank DEVICE, interrupts off).

mod hal;
mod transport;

use core::ptr::NonNull;

use spin::Once;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use super::block::{WINDOW, WINDOWS, Windows};
use crate::arch::{self, irq};
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::frame;
use crate::sched::{Sleep, SleepMutex, WaitQueue};
use crate::sync::{IrqLock, rank};
use hal::KernelHal;
use transport::{ConfigSpace, PlainQueue};

type Device = VirtIOBlk<KernelHal, PlainQueue<PciTransport>>;

/// The register of PCI configuration space whose low byte is the interrupt line.
const INTERRUPT_LINE: u8 = 0x3c;

/// Requests and the memory they work with.
struct Disk {
    windows: Windows,
    /// `WINDOWS` windows, one after the other.
    data: NonNull<u8>,
    request: NonNull<BlkReq>,
    response: NonNull<BlkResp>,
    /// Bytes.
    size: u64,
}

// SAFETY: the pointers are to frames that belong to this structure alone.
unsafe impl Send for Disk {}

static DISK: Once<SleepMutex<Disk>> = Once::new();
static QUEUE: IrqLock<Option<Device>> = IrqLock::new(rank::DEVICE, None);
static DONE: WaitQueue = WaitQueue::new();

/// Finds the first virtio disk and takes it into use. `ENODEV`, `EIO`, `ENOMEM`.
pub fn init() -> Result {
    let mut root = PciRoot::new(ConfigSpace);
    let mut found = root
        .enumerate_bus(0)
        .filter(|(_, info)| virtio_device_type(info) == Some(DeviceType::Block));
    let (function, _) = found.next().ok_or(Errno::ENODEV)?;
    drop(found);
    start(&mut root, function)
}

fn start(root: &mut PciRoot<ConfigSpace>, function: DeviceFunction) -> Result {
    let (_, command) = root.get_status_command(function);
    let on = Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER;
    root.set_command(function, (command | on) - Command::INTERRUPT_DISABLE);
    let transport = PciTransport::new::<KernelHal, _>(root, function).map_err(|error| {
        log::error!("virtio disk: {error:?}");
        Errno::EIO
    })?;
    let device = Device::new(PlainQueue(transport)).map_err(to_errno)?;
    let size = device.capacity() * SECTOR_SIZE as u64;
    let disk = Disk::new(size)?;
    *QUEUE.lock() = Some(device);
    DISK.call_once(|| SleepMutex::new(disk));
    let line = arch::pci::read(0, function.device, function.function, INTERRUPT_LINE) as u8;
    irq::register(line, interrupt);
    log::info!("virtio disk: {} KiB, interrupt {line}", size / 1024);
    Ok(())
}

/// The device is done with a request. Reading its status also ends the interrupt.
fn interrupt() {
    if let Some(device) = &mut *QUEUE.lock() {
        device.ack_interrupt();
    }
    DONE.wake_all();
}

/// Fills `buf` from byte `start` of the disk. `EIO` if that fails or lies behind its end, `ENODEV` before there is one.
pub fn read(start: u64, buf: &mut [u8]) -> Result {
    let mut disk = DISK.get().ok_or(Errno::ENODEV)?.lock();
    let mut done = 0;
    while done < buf.len() {
        done += disk.read_part(start + done as u64, &mut buf[done..])?;
    }
    Ok(())
}

impl Disk {
    fn new(size: u64) -> Result<Disk> {
        let pages = WINDOWS * WINDOW / PAGE_SIZE;
        let frames = frame::alloc_contiguous(pages as u32 + 1)?;
        let data = NonNull::new(arch::frame_ptr(frames)).ok_or(Errno::ENOMEM)?;
        // SAFETY: the last of the frames that were just taken lies behind the windows.
        let control = unsafe { data.add(pages * PAGE_SIZE) };
        let request = control.cast::<BlkReq>();
        // SAFETY: the frame has room for both, and 512 is a multiple of their alignment.
        let response = unsafe { control.add(512) }.cast::<BlkResp>();
        // SAFETY: the frame is this structure's alone.
        unsafe {
            request.write(BlkReq::default());
            response.write(BlkResp::default());
        }
        Ok(Disk {
            windows: Windows::new(),
            data,
            request,
            response,
            size,
        })
    }

    /// Copies from the window that holds byte `at`, as far as it goes.
    fn read_part(&mut self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let start = at - at % WINDOW as u64;
        let window_len = self.size.saturating_sub(start).min(WINDOW as u64) as usize;
        let offset = (at - start) as usize;
        let len = buf.len().min(window_len.saturating_sub(offset));
        if len == 0 {
            return Err(Errno::EIO);
        }
        let (slot, missing) = self.windows.find(start);
        // SAFETY: slots are below WINDOWS, so the window lies in the memory that is this structure's alone.
        let window = unsafe {
            core::slice::from_raw_parts_mut(self.data.add(slot * WINDOW).as_ptr(), window_len)
        };
        if missing && let Err(errno) = self.fill(start, window) {
            self.windows.forget();
            return Err(errno);
        }
        buf[..len].copy_from_slice(&window[offset..offset + len]);
        Ok(len)
    }

    /// Has the device write the window, and sleeps meanwhile.
    fn fill(&mut self, start: u64, window: &mut [u8]) -> Result {
        // SAFETY: both belong to this structure, and the request that used them last is complete.
        let (request, response) = unsafe { (self.request.as_mut(), self.response.as_mut()) };
        let sector = (start / SECTOR_SIZE as u64) as usize;
        // SAFETY: nobody touches the three until the request is complete: they are reached only through `self`.
        let token = with_device(|device| unsafe {
            device.read_blocks_nb(sector, request, window, response)
        })?;
        let waited = DONE.wait_until(Sleep::Uninterruptible, || {
            with_device(|device| Ok(device.peek_used() == Some(token)))
                .unwrap_or(true)
                .then_some(())
        });
        debug_assert!(waited.is_ok());
        // SAFETY: the same buffers as above.
        with_device(|device| unsafe {
            device.complete_read_blocks(token, request, window, response)
        })
    }
}

fn with_device<R>(f: impl FnOnce(&mut Device) -> virtio_drivers::Result<R>) -> Result<R> {
    let mut queue = QUEUE.lock();
    f(queue.as_mut().ok_or(Errno::ENODEV)?).map_err(to_errno)
}

fn to_errno(error: virtio_drivers::Error) -> Errno {
    log::error!("virtio disk: {error}");
    Errno::EIO
}

//! The vDSO's two pages in a program's address space (`vdso(7)`): the clocks' data, and the code that reads it.
//!
//! Both are memory of the kernel that all programs map. The data page can never be written; the code page is private, so that a debugger
//! can put breakpoints into a program's own copy.

use alloc::sync::Arc;
use core::fmt;

use spin::Once;

use crate::arch::vdso;
use crate::errno::{Errno, Result};
use crate::mm::frame::Frame;
use crate::mm::map::Place;
use crate::mm::page_cache::{Lookup, Mapping, copy_to_page};
use crate::mm::vma::{MappedFile, Source};
use crate::mm::{Mm, PAGE_SIZE, VmFlags};

/// What /proc/PID/maps calls an area of the vDSO; there is no file.
struct Name(&'static str);

impl MappedFile for Name {
    fn id(&self) -> (u64, u64) {
        (0, 0)
    }

    fn write_path(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(self.0)
    }

    /// Nobody can write to it: what a program changes is its own copy.
    fn written(&self) {}

    fn punch_hole(&self, _start: u64, _len: u64) -> Result {
        Err(Errno::EINVAL)
    }
}

struct Pages {
    data: Source,
    code: Source,
}

static PAGES: Once<Pages> = Once::new();

/// A page of the kernel's own as the contents of an area.
fn page(name: &'static str, fill: impl FnOnce(&Frame)) -> Result<Source> {
    let mapping = Mapping::anonymous(PAGE_SIZE as u64)?;
    match mapping.lookup(0)? {
        Lookup::Ready(frame) => fill(&frame),
        _ => return Err(Errno::EIO),
    }
    Ok(Source {
        mapping,
        first_page: 0,
        file: Some(Arc::try_new(Name(name))?),
    })
}

fn pages() -> Result<&'static Pages> {
    PAGES.try_call_once(|| {
        let image = vdso::image()?;
        let code = page("[vdso]", |frame| copy_to_page(frame, 0, &image))?;
        // The mapping keeps the frame, and nobody drops the mapping.
        let data = page("[vvar]", |frame| vdso::set_data_frame(frame.number()))?;
        Ok(Pages { data, code })
    })
}

/// Maps both pages into a new address space; where the object begins, for AT_SYSINFO_EHDR. `ENOMEM`.
pub fn map(mm: &Mm) -> Result<usize> {
    let pages = pages()?;
    let data_flags = VmFlags::READ | VmFlags::MAYREAD | VmFlags::DONTDUMP;
    let code_flags =
        VmFlags::READ | VmFlags::EXEC | VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    // Both together first, so that there is room for the second.
    let start = mm.map(
        Place::Hint(0),
        2 * PAGE_SIZE,
        data_flags,
        Some(pages.data.clone()),
    )?;
    let object = start + PAGE_SIZE;
    mm.map(
        Place::Fixed(object),
        PAGE_SIZE,
        code_flags,
        Some(pages.code.clone()),
    )?;
    Ok(object)
}

//! A line of /proc/PID/maps.

use core::fmt::{self, Write};

use crate::fs::text::Text;
use crate::mm::{PAGE_SIZE, VmFlags, Vma};

/// The line of an area in maps, as in Linux's `fs/proc/task_mmu.c`: range, permissions, offset, device, inode, name.
pub fn line(vma: &Vma, heap: (usize, usize), text: &mut Text) -> fmt::Result {
    let start = text.len();
    let letter = |flag, letter| {
        if vma.flags.contains(flag) {
            letter
        } else {
            '-'
        }
    };
    let (read, write, exec) = (
        letter(VmFlags::READ, 'r'),
        letter(VmFlags::WRITE, 'w'),
        letter(VmFlags::EXEC, 'x'),
    );
    let shared = if vma.is_shared() { 's' } else { 'p' };
    write!(
        text,
        "{:08x}-{:08x} {read}{write}{exec}{shared} ",
        vma.start.get(),
        vma.end.get()
    )?;
    let source = vma.source.as_ref();
    let file = source.and_then(|source| source.file.as_ref());
    let offset = source.map_or(0, |source| source.first_page * PAGE_SIZE as u64);
    let (device, ino) = file.map_or((0, 0), |file| file.id());
    write!(
        text,
        "{offset:08x} {:02x}:{:02x} {ino} ",
        device >> 8,
        device & 0xff
    )?;
    let is_heap = file.is_none() && vma.start.get() < heap.1 && vma.end.get() > heap.0;
    let is_stack = vma.flags.contains(VmFlags::STACK);
    if file.is_some() || is_heap || is_stack {
        while text.len() - start < 73 {
            text.write_str(" ")?;
        }
    }
    match file {
        Some(file) => file.write_path(text)?,
        None if is_heap => text.write_str("[heap]")?,
        None if is_stack => text.write_str("[stack]")?,
        None => {}
    }
    text.write_str("\n")
}

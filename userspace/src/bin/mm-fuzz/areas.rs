//! The areas of /proc/self/maps in the arena, as they are.

use std::fmt::Write;

use super::{ARENA, BELOW, PAGE, Run, SPAN};

/// An address as a distance from the arena's start.
pub fn offset(addr: usize) -> String {
    if addr < ARENA {
        format!("-{:#x}", ARENA - addr)
    } else {
        format!("{:#x}", addr - ARENA)
    }
}

impl Run {
    /// Notes each area: boundaries, permissions, offset. With `old` each page and its permissions, as kernels did not always join the same
    /// areas.
    pub fn areas(&mut self) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (Some(range), Some(permissions), Some(at)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Some((start, end)) = range.split_once('-') else {
                continue;
            };
            let address = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            let (start, end) = (address(start), address(end));
            if start < ARENA - BELOW * PAGE || end > ARENA + SPAN {
                continue;
            }
            let done = if self.old {
                (start..end)
                    .step_by(PAGE)
                    .try_for_each(|page| writeln!(self.log, "  {} {permissions}", offset(page)))
            } else {
                let (start, end) = (offset(start), offset(end));
                writeln!(self.log, "  {start} {end} {permissions} {at}")
            };
            done.expect("a string");
        }
    }
}

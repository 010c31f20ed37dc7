//! Loading static ELF programs: from program headers to mappings (`elf(5)`).
//!
//! Segments are mapped from the file, privately, and paged in on demand; nothing is read here but headers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParseAt;
use elf::segment::ProgramHeader;

use super::strings::owned;
use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::mm::addr::{page_align_down, page_align_up};
use crate::mm::map::Place;
use crate::mm::vma::{MappedFile, Source};
use crate::mm::{Mm, PAGE_SHIFT, PAGE_SIZE, VmFlags};

const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const MAX_PHDRS: usize = 128;
const SCRIPT_LINE: usize = 256;

/// Where the heap of a position-independent program begins (two thirds of the address space, as `ELF_ET_DYN_BASE`).
const PIE_BRK: usize = page_align_down(USER_END / 3 * 2);

/// One segment as it was mapped.
pub struct Segment {
    /// Memory that has to be zero but shares a page with the file: start and bytes.
    pub clear: Option<(usize, usize)>,
    end: usize,
}

/// A program that was mapped.
pub struct Image {
    segments: Vec<Segment>,
    pub entry: usize,
    /// Address of the program headers in the program's memory, for AT_PHDR; 0 if no segment holds them.
    pub phdr: usize,
    pub phnum: usize,
    /// `start_code..end_code` and `start_data..end_data`, addresses.
    pub code: (usize, usize),
    pub data: (usize, usize),
}

impl Image {
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// What a `#!` line names.
pub struct Interpreter {
    pub path: Vec<u8>,
    pub argument: Option<Vec<u8>>,
}

/// The interpreter of a script; `None` if the file is not one. `ENOEXEC` for an empty line.
pub fn interpreter_of(file: &Arc<File>) -> Result<Option<Interpreter>> {
    let mut buf = [0; SCRIPT_LINE];
    let len = file.mapping().ok_or(Errno::EACCES)?.read_at(0, &mut buf)?;
    let Some(line) = buf[..len].strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or(line)
        .trim_ascii();
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let end = line.iter().position(blank).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    if interpreter.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let argument = rest.trim_ascii();
    let argument = if argument.is_empty() {
        None
    } else {
        Some(owned(argument)?)
    };
    let path = owned(interpreter)?;
    Ok(Some(Interpreter { path, argument }))
}

/// Maps a static program into an empty address space and places its heap. `ENOEXEC` if it is not one, `EIO`, `ENOMEM`.
pub fn load(mm: &Mm, file: &Arc<File>) -> Result<Image> {
    let mapping = file.mapping().ok_or(Errno::EACCES)?;
    let mut bytes = [0; EHDR_SIZE];
    if mapping.read_at(0, &mut bytes)? < EHDR_SIZE {
        return Err(Errno::ENOEXEC);
    }
    let header = parse_header(&bytes)?;
    let phdrs = read_phdrs(file, &header)?;
    let bias = match header.e_type {
        abi::ET_EXEC => 0,
        abi::ET_DYN => choose_bias(mm, &phdrs)?,
        _ => return Err(Errno::ENOEXEC),
    };
    let mut segments = Vec::new();
    segments.try_reserve_exact(phdrs.len())?;
    for phdr in phdrs
        .iter()
        .filter(|phdr| phdr.p_type == abi::PT_LOAD && phdr.p_memsz > 0)
    {
        segments.push(map_segment(mm, file, phdr, bias)?);
    }
    let end = segments
        .iter()
        .map(|segment| segment.end)
        .max()
        .ok_or(Errno::ENOEXEC)?;
    mm.set_brk_start(if header.e_type == abi::ET_DYN {
        PIE_BRK
    } else {
        page_align_up(end).ok_or(Errno::ENOMEM)?
    })?;
    let (code, data) = extents(&phdrs, bias);
    Ok(Image {
        code,
        data,
        entry: bias.wrapping_add(header.e_entry as usize),
        phdr: phdr_address(&phdrs, &header).map_or(0, |address| bias.wrapping_add(address)),
        phnum: phdrs.len(),
        segments,
    })
}

/// Where code and data are, as Linux's `load_elf_binary` tells it: the lowest executable and the highest segment's start, and the ends
/// of what comes from the file.
fn extents(phdrs: &[ProgramHeader], bias: usize) -> ((usize, usize), (usize, usize)) {
    let (mut code, mut data) = ((usize::MAX, 0), (0, 0));
    for phdr in phdrs.iter().filter(|phdr| phdr.p_type == abi::PT_LOAD) {
        let start = bias.wrapping_add(phdr.p_vaddr as usize);
        let end = start.wrapping_add(phdr.p_filesz as usize);
        if phdr.p_flags & abi::PF_X != 0 {
            code = (code.0.min(start), code.1.max(end));
        }
        data = (data.0.max(start), data.1.max(end));
    }
    (if code.1 == 0 { (0, 0) } else { code }, data)
}

fn parse_header(bytes: &[u8; EHDR_SIZE]) -> Result<FileHeader<LittleEndian>> {
    let ident =
        parse_ident::<LittleEndian>(&bytes[..abi::EI_NIDENT]).map_err(|_| Errno::ENOEXEC)?;
    let header =
        FileHeader::parse_tail(ident, &bytes[abi::EI_NIDENT..]).map_err(|_| Errno::ENOEXEC)?;
    let fits = header.class == Class::ELF64
        && header.e_machine == abi::EM_X86_64
        && header.e_phentsize as usize == PHDR_SIZE
        && (1..=MAX_PHDRS).contains(&(header.e_phnum as usize));
    if fits {
        Ok(header)
    } else {
        Err(Errno::ENOEXEC)
    }
}

fn read_phdrs(file: &Arc<File>, header: &FileHeader<LittleEndian>) -> Result<Vec<ProgramHeader>> {
    let len = header.e_phnum as usize * PHDR_SIZE;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    if file
        .mapping()
        .ok_or(Errno::EACCES)?
        .read_at(header.e_phoff, &mut bytes)?
        < len
    {
        return Err(Errno::ENOEXEC);
    }
    let mut phdrs = Vec::new();
    phdrs.try_reserve_exact(header.e_phnum as usize)?;
    let mut at = 0;
    while at < len {
        let phdr = ProgramHeader::parse_at(LittleEndian, Class::ELF64, &mut at, &bytes);
        phdrs.push(phdr.map_err(|_| Errno::ENOEXEC)?);
    }
    // A program that asks for a dynamic linker is not one of ours.
    if phdrs.iter().any(|phdr| phdr.p_type == abi::PT_INTERP) {
        Err(Errno::ENOEXEC)
    } else {
        Ok(phdrs)
    }
}

/// Where a position-independent program goes: a free range as long as all its segments together.
fn choose_bias(mm: &Mm, phdrs: &[ProgramHeader]) -> Result<usize> {
    let loads = || phdrs.iter().filter(|phdr| phdr.p_type == abi::PT_LOAD);
    let start = loads()
        .map(|phdr| page_align_down(phdr.p_vaddr as usize))
        .min()
        .ok_or(Errno::ENOEXEC)?;
    let end = loads()
        .map(|phdr| phdr.p_vaddr.saturating_add(phdr.p_memsz))
        .max()
        .ok_or(Errno::ENOEXEC)?;
    let len = page_align_up(end as usize)
        .and_then(|end| end.checked_sub(start))
        .ok_or(Errno::ENOEXEC)?;
    let alignment = loads()
        .map(|phdr| phdr.p_align as usize)
        .filter(|align| align.is_power_of_two())
        .max();
    let alignment = alignment.unwrap_or(PAGE_SIZE).max(PAGE_SIZE);
    let room = len
        .checked_add(alignment - PAGE_SIZE)
        .filter(|&room| room < USER_END)
        .ok_or(Errno::ENOEXEC)?;
    let gap = mm.write()?.find_gap(room)?.get();
    Ok(((gap + alignment - 1) & !(alignment - 1)).wrapping_sub(start))
}

fn map_segment(mm: &Mm, file: &Arc<File>, phdr: &ProgramHeader, bias: usize) -> Result<Segment> {
    let start = bias.wrapping_add(phdr.p_vaddr as usize);
    let file_end = start
        .checked_add(phdr.p_filesz as usize)
        .ok_or(Errno::ENOEXEC)?;
    let end = start
        .checked_add(phdr.p_memsz as usize)
        .filter(|&end| end <= USER_END)
        .ok_or(Errno::ENOEXEC)?;
    let in_page = start % PAGE_SIZE;
    if phdr.p_filesz > phdr.p_memsz || phdr.p_offset as usize % PAGE_SIZE != in_page {
        return Err(Errno::ENOEXEC);
    }
    let flags = segment_flags(phdr.p_flags);
    let (map_start, map_end) = (
        start - in_page,
        page_align_up(file_end).ok_or(Errno::ENOEXEC)?,
    );
    if phdr.p_filesz > 0 {
        let source = Source {
            mapping: file.mapping().ok_or(Errno::EACCES)?,
            first_page: phdr.p_offset >> PAGE_SHIFT,
            file: Some(file.clone() as Arc<dyn MappedFile>),
        };
        mm.map(
            Place::Fixed(map_start),
            map_end - map_start,
            flags,
            Some(source),
        )?;
    }
    let zero_start = if phdr.p_filesz > 0 {
        map_end
    } else {
        map_start
    };
    let zero_end = page_align_up(end).ok_or(Errno::ENOEXEC)?;
    if zero_end > zero_start {
        mm.map(Place::Fixed(zero_start), zero_end - zero_start, flags, None)?;
    }
    // The file's bytes behind the segment, in its last page: only memory that may be written has to be zero there.
    let partial =
        phdr.p_filesz > 0 && end > file_end && file_end < map_end && flags.contains(VmFlags::WRITE);
    Ok(Segment {
        clear: partial.then_some((file_end, map_end - file_end)),
        end,
    })
}

fn segment_flags(p_flags: u32) -> VmFlags {
    let mut flags = VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    flags.set(VmFlags::READ, p_flags & abi::PF_R != 0);
    flags.set(VmFlags::WRITE, p_flags & abi::PF_W != 0);
    flags.set(VmFlags::EXEC, p_flags & abi::PF_X != 0);
    flags
}

/// The program headers' own address: in the segment whose file range holds them.
fn phdr_address(phdrs: &[ProgramHeader], header: &FileHeader<LittleEndian>) -> Option<usize> {
    let holder = phdrs.iter().find(|phdr| {
        phdr.p_type == abi::PT_LOAD
            && phdr.p_offset <= header.e_phoff
            && header.e_phoff - phdr.p_offset < phdr.p_filesz
    })?;
    Some((header.e_phoff - holder.p_offset + holder.p_vaddr) as usize)
}

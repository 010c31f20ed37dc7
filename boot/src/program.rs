//! Is this file a program that the kernel can run? Asked before anything is built or booted.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::elf::{self, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{FileHeader, ProgramHeader};

/// Checks that `path` is a static x86-64 ELF executable (static PIE included). The error is one sentence for the user.
pub fn check(path: &Path) -> Result<()> {
    let name = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("{name} cannot be read"))?;
    ensure!(metadata.is_file(), "{name} is not a regular file");
    let data = fs::read(path).with_context(|| format!("{name} cannot be read"))?;
    check_bytes(&data).with_context(|| format!("{name} cannot be run"))
}

fn check_bytes(data: &[u8]) -> Result<()> {
    ensure!(data.starts_with(&elf::ELFMAG), "it is not an ELF file");
    ensure!(
        data.get(4) == Some(&elf::ELFCLASS64.0),
        "it is not a 64-bit x86-64 program"
    );
    let header = FileHeader64::<Endianness>::parse(data).context("its ELF header is broken")?;
    let endian = header.endian().context("its ELF header is broken")?;
    let machine = header.e_machine(endian);
    ensure!(
        machine == elf::EM_X86_64 && header.is_little_endian(),
        "it is built for another machine (ELF machine {}), not for x86-64",
        machine.0
    );
    match header.e_type(endian) {
        elf::ET_EXEC | elf::ET_DYN => {}
        elf::ET_REL => bail!("it is an object file that was not linked"),
        elf::ET_CORE => bail!("it is a core dump"),
        other => bail!("it is not an executable (ELF type {})", other.0),
    }
    let segments = header
        .program_headers(endian, data)
        .context("its program headers are broken")?;
    ensure!(
        !segments
            .iter()
            .any(|segment| segment.p_type(endian) == elf::PT_INTERP),
        "it is dynamically linked; link it statically (gcc -static, or -C target-feature=+crt-static for Rust)"
    );
    ensure!(
        header.e_entry(endian) != 0
            && segments
                .iter()
                .any(|segment| segment.p_type(endian) == elf::PT_LOAD),
        "it is a library: it has nothing to start at"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of type `segment` behind it.
    fn program(
        class: u8,
        machine: elf::Machine,
        kind: elf::FileType,
        segment: elf::ProgramType,
    ) -> Vec<u8> {
        let mut data = vec![0; 64 + 56];
        data[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
        data[16..18].copy_from_slice(&kind.0.to_le_bytes());
        data[18..20].copy_from_slice(&machine.0.to_le_bytes());
        data[20..24].copy_from_slice(&1u32.to_le_bytes());
        data[24..32].copy_from_slice(&0x40_1000u64.to_le_bytes());
        data[32..40].copy_from_slice(&64u64.to_le_bytes());
        data[52..54].copy_from_slice(&64u16.to_le_bytes());
        data[54..56].copy_from_slice(&56u16.to_le_bytes());
        data[56..58].copy_from_slice(&1u16.to_le_bytes());
        data[64..68].copy_from_slice(&segment.0.to_le_bytes());
        data
    }

    fn refusal(data: &[u8]) -> String {
        check_bytes(data).unwrap_err().to_string()
    }

    #[test]
    fn static_and_static_pie_programs_pass() {
        for kind in [elf::ET_EXEC, elf::ET_DYN] {
            check_bytes(&program(2, elf::EM_X86_64, kind, elf::PT_LOAD)).unwrap();
        }
    }

    #[test]
    fn each_unsuitable_file_is_named_for_what_it_is() {
        let load = elf::PT_LOAD;
        assert!(refusal(b"").contains("not an ELF"));
        assert!(refusal(b"#!/bin/sh\n").contains("not an ELF"));
        assert!(refusal(b"\x7fELF\x02\x01\x01").contains("broken"));
        assert!(refusal(&program(1, elf::EM_386, elf::ET_EXEC, load)).contains("64-bit"));
        assert!(
            refusal(&program(2, elf::EM_AARCH64, elf::ET_EXEC, load)).contains("another machine")
        );
        assert!(refusal(&program(2, elf::EM_X86_64, elf::ET_REL, load)).contains("object file"));
        assert!(
            refusal(&program(2, elf::EM_X86_64, elf::ET_DYN, elf::PT_INTERP))
                .contains("dynamically linked")
        );
        assert!(
            refusal(&program(2, elf::EM_X86_64, elf::ET_DYN, elf::PT_DYNAMIC)).contains("library")
        );
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused() {
        assert!(
            format!(
                "{:#}",
                check(Path::new("/nonexistent/program")).unwrap_err()
            )
            .contains("/nonexistent/program")
        );
        assert!(
            check(Path::new("/"))
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}

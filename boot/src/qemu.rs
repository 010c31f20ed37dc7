//! QEMU's command line, made from the options of the machine and the wires to it.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::Firmware;
use crate::workspace;

/// The emulator; Debian's package of it is [`PACKAGE`].
pub const PROGRAM: &str = "qemu-system-x86_64";
pub const PACKAGE: &str = "qemu-system-x86";

/// Ports of the four serial lines and their interrupts, COM1 first.
const SERIAL: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 5), (0x2e8, 7)];

/// Where UEFI firmware is found: Debian, then other distributions.
const OVMF: [&str; 4] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/edk2/x64/OVMF.4m.fd",
    "/usr/share/edk2/ovmf/OVMF.stateless.fd",
];

/// The machine, apart from what runs on it.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Size of the memory as QEMU writes it, such as `256M`.
    pub memory: String,
    /// CPU model; without one, the richest that the accelerator offers.
    pub cpu: Option<String>,
    /// Instructions are counted and are the clock: the same run every time.
    pub icount: bool,
    /// Seed of the machine's own randomness.
    pub seed: Option<u64>,
    pub firmware: Firmware,
    /// Hardware virtualisation instead of emulation.
    pub kvm: bool,
    /// Port of 127.0.0.1 on which the machine waits for a debugger before it runs.
    pub gdb_port: Option<u16>,
    /// A plugin with its arguments, in the syntax of `-plugin`.
    pub plugin: Option<OsString>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory: "256M".into(),
            cpu: None,
            icount: false,
            seed: None,
            firmware: Firmware::Bios,
            kvm: false,
            gdb_port: None,
            plugin: None,
        }
    }
}

/// What the machine is connected to.
#[derive(Debug, Clone)]
pub struct Wires {
    pub boot_disk: PathBuf,
    pub root_disk: PathBuf,
    /// The fw_cfg item with the kernel's configuration.
    pub config: PathBuf,
    /// The backends of COM1 to COM4 in the syntax of `-chardev`, without the id.
    pub serial: [String; 4],
}

/// The start of every command line: the program, and the machine without its disks and lines.
fn machine(hardware: &Hardware) -> Result<Vec<OsString>> {
    let mut line: Vec<OsString> = vec![workspace::require_tool(PROGRAM, PACKAGE)?.into()];
    let mut add = |words: &[&OsStr]| line.extend(words.iter().map(OsString::from));
    let mut option = |name: &str, value: &str| add(&[name.as_ref(), value.as_ref()]);

    option("-machine", "pc");
    let accelerator = if hardware.kvm { "kvm" } else { "tcg" };
    option("-accel", accelerator);
    option(
        "-cpu",
        hardware
            .cpu
            .as_deref()
            .unwrap_or(if hardware.kvm { "host" } else { "max" }),
    );
    option("-m", &hardware.memory);
    if hardware.icount {
        option("-icount", "shift=0,sleep=off");
        // The clock on the wall would be the one thing that differs between two runs.
        option("-rtc", "base=2026-01-01T00:00:00,clock=vm");
        option("-seed", &hardware.seed.unwrap_or(0).to_string());
    } else if let Some(seed) = hardware.seed {
        option("-seed", &seed.to_string());
    }
    if hardware.firmware == Firmware::Uefi {
        let ovmf = OVMF.iter().find(|path| Path::new(path).is_file()).context(
            "the UEFI firmware (OVMF) is not installed: run `./x setup --uefi` (or install the package ovmf) and try again",
        )?;
        option("-bios", ovmf);
    }
    if let Some(port) = hardware.gdb_port {
        option("-gdb", &format!("tcp:127.0.0.1:{port}"));
        add(&["-S".as_ref()]);
    }
    if let Some(plugin) = &hardware.plugin {
        add(&["-plugin".as_ref(), plugin]);
    }
    for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        add(&[word.as_ref()]);
    }
    add(&["-display".as_ref(), "none".as_ref()]);
    Ok(line)
}

/// The command line for a Linux kernel of the file `kernel`, with everything it needs in `initrd`; what it says on its first serial line
/// goes to stdout.
pub fn linux_command(
    hardware: &Hardware,
    kernel: &Path,
    initrd: &Path,
    arguments: &str,
) -> Result<Vec<OsString>> {
    let mut line = machine(hardware)?;
    let mut option = |name: &str, value: &OsStr| line.extend([name.into(), value.to_owned()]);
    option("-serial", "stdio".as_ref());
    option("-kernel", kernel.as_os_str());
    option("-initrd", initrd.as_os_str());
    option("-append", arguments.as_ref());
    Ok(line)
}

/// The whole command line, the program first.
pub fn command(hardware: &Hardware, wires: &Wires) -> Result<Vec<OsString>> {
    let mut line = machine(hardware)?;
    let mut option = |name: &str, value: OsString| line.extend([name.into(), value]);
    // A VGA card, because the bootloader sets a video mode.
    option("-device", "VGA".into());

    option("-drive", drive("boot", &wires.boot_disk));
    // Firmware waits for each request in a loop. Without an event descriptor the CPU's own thread starts the request,
    // which matters on a busy host: no other thread has to be woken for it.
    option("-device", "virtio-scsi-pci,id=scsi,ioeventfd=off".into());
    option(
        "-device",
        "scsi-hd,bus=scsi.0,drive=boot,bootindex=0".into(),
    );
    option("-drive", drive("root", &wires.root_disk));
    option("-device", "virtio-blk-pci,drive=root".into());

    for (index, (port, irq)) in SERIAL.into_iter().enumerate() {
        let (id, backend) = (format!("com{}", index + 1), &wires.serial[index]);
        let (kind, rest) = backend
            .split_once(',')
            .map_or((&**backend, String::new()), |(kind, rest)| {
                (kind, format!(",{rest}"))
            });
        option("-chardev", format!("{kind},id={id}{rest}").into());
        option(
            "-device",
            format!("isa-serial,chardev={id},index={index},iobase={port:#x},irq={irq}").into(),
        );
    }
    let mut item = OsString::from("name=opt/faultline/config,file=");
    item.push(doubled_commas(&wires.config));
    option("-fw_cfg", item);
    option("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04".into());
    Ok(line)
}

/// A read-only raw disk. Several machines may read the same image, so QEMU is not to lock it.
fn drive(id: &str, file: &Path) -> OsString {
    let mut value = OsString::from(format!(
        "if=none,id={id},format=raw,readonly=on,file.locking=off,file.filename="
    ));
    value.push(doubled_commas(file));
    value
}

/// A path as a value in one of QEMU's option lists, where a comma is written twice.
pub fn doubled_commas(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    OsString::from_vec(
        bytes
            .iter()
            .flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte == b',')))
            .collect(),
    )
}

/// The command line for a shell.
pub fn shell_quoted(command: &[OsString]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect();
    words.join(" ")
}

/// A port for the debugger: 1234, which gdb's users expect, or a free one if that is taken.
pub fn free_gdb_port() -> Result<u16> {
    let listener =
        TcpListener::bind(("127.0.0.1", 1234)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address
        .context("there is no free port for the debugger")?
        .port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let words = ["plain-1.0", "", "two words", "it's", "$HOME"].map(OsString::from);
        assert_eq!(
            shell_quoted(&words),
            r"plain-1.0 '' 'two words' 'it'\''s' '$HOME'"
        );
    }

    #[test]
    fn a_comma_in_a_path_stays_in_the_path() {
        assert_eq!(doubled_commas(Path::new("/a,b")), "/a,,b");
    }
}

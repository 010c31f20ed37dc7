//! A file as memory: pages come from the page cache when they are touched, and equal what read(2) gives.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use nix::sys::mman::{MapFlags, ProtFlags};
use userspace::memory::{PAGE, RW, Region, checksum};
use userspace::report::Demo;
use userspace::slow::fast_file;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "file-backed",
        "a mapped file is the page cache seen through page faults",
    );

    demo.step("read the file with read(2)");
    let contents = read_all(&mut fast_file().expect("the file to map"));
    let len = contents.len();
    let mapped_len = len.next_multiple_of(PAGE);
    let sum = checksum(contents.iter().copied());
    demo.note(format_args!(
        "{len} bytes in {} pages, checksum {sum:016x}",
        mapped_len / PAGE
    ));
    demo.check(len > 0, "the file is not empty");

    demo.step("map it privately and read it, last page first");
    let private = map(mapped_len, RW, MapFlags::MAP_PRIVATE);
    let backwards_equal = (0..mapped_len / PAGE).rev().all(|page| {
        let (from, to) = (page * PAGE, len.min((page + 1) * PAGE));
        private.bytes(from, to - from) == contents[from..to]
    });
    demo.check(backwards_equal, "every page equals what read(2) gave");
    demo.check_eq(
        checksum(private.bytes(0, len)),
        sum,
        "the checksum is the same",
    );

    demo.step("look behind the end of the file, in its last page");
    demo.check(
        (len..mapped_len).all(|at| private.read(at) == 0),
        "the page is filled up with zeros",
    );

    demo.step("map it shared, read only");
    let shared = map(mapped_len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
    demo.check_eq(
        checksum(shared.bytes(0, len)),
        sum,
        "the checksum is the same",
    );

    demo.step("write to the private mapping");
    let first = private.read(0);
    private.write(0, !first);
    demo.check(
        private.read(0) == !first,
        "the private page has the new byte",
    );
    demo.check(
        private.bytes(1, len.min(PAGE) - 1) == contents[1..len.min(PAGE)],
        "the rest of it was copied from the file",
    );
    demo.check(shared.read(0) == first, "the shared mapping does not");
    let again = read_all(&mut fast_file().expect("the file to map"));
    demo.check(again == contents, "neither does the file");

    demo.step("map its second page alone");
    if len > PAGE {
        let file = fast_file().expect("the file to map");
        let second = Region::file(
            &file,
            PAGE,
            PAGE,
            ProtFlags::PROT_READ,
            MapFlags::MAP_PRIVATE,
        )
        .expect("mmap");
        let n = PAGE.min(len - PAGE);
        drop(file);
        demo.check(
            second.bytes(0, n) == contents[PAGE..PAGE + n],
            "the offset is honoured, and the mapping outlives the descriptor",
        );
    } else {
        demo.note("the file has only one page");
    }
    demo.finish()
}

fn map(len: usize, prot: ProtFlags, flags: MapFlags) -> Region {
    Region::file(fast_file().expect("the file to map"), 0, len, prot, flags).expect("mmap")
}

fn read_all(file: &mut File) -> Vec<u8> {
    let mut contents = Vec::new();
    file.read_to_end(&mut contents).expect("read");
    contents
}

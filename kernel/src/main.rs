//! The bare-metal binary: bring-up in order, then init.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare {
    use core::panic::PanicInfo;

    use bootloader_api::{BootInfo, entry_point};
    use kernel::arch::x86_64::boot;
    use kernel::{bring_up, sched, task};

    entry_point!(main, config = &boot::CONFIG);

    fn main(info: &'static mut BootInfo) -> ! {
        bring_up::run(info);
        if let Err(errno) = task::init::start() {
            bring_up::failed("the first thread", errno);
        }
        sched::idle();
        unreachable!("interrupts always come")
    }

    #[panic_handler]
    fn panic(info: &PanicInfo) -> ! {
        boot::rust_panic(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "This is the kernel's bare-metal binary, built for the host by a build of the whole workspace."
    );
    eprintln!("To boot it, run: cargo run");
    std::process::exit(2);
}

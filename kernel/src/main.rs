//! The bare-metal binary: bring-up in order, then init.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare {
    use core::panic::PanicInfo;

    use bootloader_api::{BootInfo, entry_point};
    use kernel::bare::{boot, start};

    entry_point!(main, config = &boot::CONFIG);

    fn main(info: &'static mut BootInfo) -> ! {
        start(info)
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

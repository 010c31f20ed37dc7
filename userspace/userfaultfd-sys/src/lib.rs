//! What the crate userfaultfd needs of the kernel's interface, under the names of the published userfaultfd-sys.
//!
//! That one makes its bindings with libclang when it is built, which a machine for building need not have. The types and numbers here are
//! those of linux-raw-sys; constants have the types that the published crate gives them.

#![no_std]
#![allow(missing_docs)]

use linux_raw_sys::general as abi;
pub use linux_raw_sys::general::{
    UFFD_USER_MODE_ONLY, USERFAULTFD_IOC, uffd_msg, uffdio_api, uffdio_continue, uffdio_copy,
    uffdio_range, uffdio_register, uffdio_writeprotect, uffdio_zeropage,
};

/// Constants of linux-raw-sys with another type.
macro_rules! constants {
    ($type:ty: $($name:ident)*) => { $(pub const $name: $type = abi::$name as $type;)* };
}

constants! { u8:
    UFFDIO UFFD_EVENT_PAGEFAULT UFFD_EVENT_FORK UFFD_EVENT_REMAP UFFD_EVENT_REMOVE UFFD_EVENT_UNMAP
}

constants! { u64:
    UFFD_API _UFFDIO_API _UFFDIO_REGISTER _UFFDIO_UNREGISTER _UFFDIO_WAKE _UFFDIO_COPY _UFFDIO_ZEROPAGE _UFFDIO_WRITEPROTECT
    _UFFDIO_CONTINUE
    UFFD_FEATURE_PAGEFAULT_FLAG_WP UFFD_FEATURE_EVENT_FORK UFFD_FEATURE_EVENT_REMAP UFFD_FEATURE_EVENT_REMOVE
    UFFD_FEATURE_MISSING_HUGETLBFS UFFD_FEATURE_MISSING_SHMEM UFFD_FEATURE_EVENT_UNMAP UFFD_FEATURE_SIGBUS UFFD_FEATURE_THREAD_ID
    UFFD_PAGEFAULT_FLAG_WRITE UFFD_PAGEFAULT_FLAG_WP UFFD_PAGEFAULT_FLAG_MINOR
    UFFDIO_REGISTER_MODE_MISSING UFFDIO_REGISTER_MODE_WP UFFDIO_REGISTER_MODE_MINOR
    UFFDIO_COPY_MODE_DONTWAKE UFFDIO_ZEROPAGE_MODE_DONTWAKE
}

// linux-raw-sys does not have these.
pub const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
pub const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;
pub const UFFDIO_CONTINUE_MODE_DONTWAKE: u64 = 1 << 0;

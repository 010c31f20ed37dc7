//! What the plugin uses of QEMU's interface for plugins.

use std::ffi::{c_int, c_uint, c_void};

/// A plugin's number.
pub type Id = u64;

/// What QEMU says of itself.
#[repr(C)]
pub struct Info {
    _opaque: [u8; 0],
}

/// A block of code that is being translated.
#[repr(C)]
pub struct Tb {
    _opaque: [u8; 0],
}

/// An instruction in it.
#[repr(C)]
pub struct Insn {
    _opaque: [u8; 0],
}

/// Version of the interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

unsafe extern "C" {
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut Tb));
    pub fn qemu_plugin_register_atexit_cb(
        id: Id,
        callback: extern "C" fn(Id, *mut c_void),
        data: *mut c_void,
    );
    pub fn qemu_plugin_reset(id: Id, callback: extern "C" fn(Id));
    pub fn qemu_plugin_tb_n_insns(block: *const Tb) -> usize;
    pub fn qemu_plugin_tb_get_insn(block: *const Tb, at: usize) -> *mut Insn;
    pub fn qemu_plugin_insn_data(instruction: *const Insn) -> *const c_void;
    pub fn qemu_plugin_insn_size(instruction: *const Insn) -> usize;
    pub fn qemu_plugin_insn_vaddr(instruction: *const Insn) -> u64;
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Insn,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
}

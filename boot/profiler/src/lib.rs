//! A plugin of QEMU that counts how often each instruction is executed between two marks in a program, or, with the argument `tally=on`,
//! those that take hardware long, operation by operation ([`tally`]).
//!
//! The marks are no-operations with a number in them ([`MARK`]). Until the first one, code is only looked through for marks, so that the
//! start of the machine costs nothing; then everything is translated anew, with a count at each instruction. At the machine's end the
//! counts go to the file of the argument `out`: a line `windows N` with the number of times that both marks were passed, and a line
//! `at ADDRESS COUNT KIND` for each instruction, KIND naming the slow ones ([`kind`]).
//!
//! The interface is version 1 of QEMU's plugins (`qemu-plugin.h` of QEMU 4.2 to 8.2). The machine has one CPU, so nothing runs at the same time.

mod qemu;
mod slow;
mod tally;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use qemu::{Id, Info, Insn, Tb};

/// `nop dword ptr [rax + NUMBER]` with the four bytes of the number, its last one apart.
const MARK: [u8; 6] = [0x0f, 0x1f, 0x80, b'F', b'L', b'T'];
const BEGIN: u8 = b'<';
const END: u8 = b'>';
/// Another operation comes.
const NEXT: u8 = b'|';

/// One instruction.
struct Counter {
    kind: &'static str,
    count: AtomicU64,
}

static OUT: OnceLock<PathBuf> = OnceLock::new();
/// Whether slow instructions alone are counted.
static TALLYING: AtomicBool = AtomicBool::new(false);
static ID: AtomicU64 = AtomicU64::new(0);
/// Whether instructions have counters.
static COUNTING: AtomicBool = AtomicBool::new(false);
/// Whether the program is between the marks.
static INSIDE: AtomicBool = AtomicBool::new(false);
static WINDOWS: AtomicU64 = AtomicU64::new(0);
/// The counters by address. They are never freed: translated code refers to them.
static COUNTERS: Mutex<Option<HashMap<u64, &'static Counter>>> = Mutex::new(None);

/// Called by QEMU when it loads the plugin.
///
/// # Safety
/// `arguments` are `count` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _: *const Info,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let argument = unsafe { CStr::from_ptr(*arguments.add(at)) };
        let text = argument.to_str().unwrap_or_default();
        if let Some(path) = text.strip_prefix("out=") {
            let _ = OUT.set(path.into());
        }
        if text == "tally=on" {
            TALLYING.store(true, Relaxed);
        }
    }
    if OUT.get().is_none() {
        eprintln!("profiler: the argument out=FILE is missing");
        return 1;
    }
    ID.store(id, Relaxed);
    register(id);
    0
}

extern "C" fn register(id: Id) {
    // SAFETY: the functions have the types that QEMU expects, and stay.
    unsafe {
        qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu::qemu_plugin_register_atexit_cb(id, finish, std::ptr::null_mut());
    }
}

/// A block of code is translated: its marks, and later all its instructions, get a callback.
extern "C" fn translated(_: Id, block: *mut Tb) {
    // SAFETY: the block is valid during this call.
    let count = unsafe { qemu::qemu_plugin_tb_n_insns(block) };
    for at in 0..count {
        // SAFETY: the block has so many instructions, each with so many bytes.
        let (instruction, address, bytes) = unsafe {
            let instruction = qemu::qemu_plugin_tb_get_insn(block, at);
            let size = qemu::qemu_plugin_insn_size(instruction);
            let data = qemu::qemu_plugin_insn_data(instruction).cast::<u8>();
            let address = qemu::qemu_plugin_insn_vaddr(instruction);
            (instruction, address, std::slice::from_raw_parts(data, size))
        };
        match bytes.strip_prefix(&MARK) {
            Some([BEGIN]) => on_execution(instruction, begin, std::ptr::null_mut()),
            Some([END]) => on_execution(instruction, end, std::ptr::null_mut()),
            Some([NEXT]) => on_execution(instruction, next, std::ptr::null_mut()),
            _ if TALLYING.load(Relaxed) => {
                if let Some(kind) = tally::counted(bytes) {
                    on_execution(instruction, executed_slow, kind);
                }
            }
            _ if COUNTING.load(Relaxed) => {
                let counter: *const Counter = counter(address, bytes);
                on_execution(instruction, executed, counter.cast_mut().cast());
            }
            _ => {}
        }
    }
}

fn on_execution(
    instruction: *mut Insn,
    callback: extern "C" fn(c_uint, *mut c_void),
    data: *mut c_void,
) {
    const NO_REGISTERS: c_int = 0;
    // SAFETY: the instruction is valid during its translation; what `data` points to is never freed.
    unsafe {
        qemu::qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, NO_REGISTERS, data);
    }
}

fn counter(address: u64, bytes: &[u8]) -> &'static Counter {
    let mut counters = COUNTERS.lock().expect("no holder panics");
    let counters = counters.get_or_insert_default();
    counters.entry(address).or_insert_with(|| {
        Box::leak(Box::new(Counter {
            kind: slow::kind(bytes),
            count: AtomicU64::new(0),
        }))
    })
}

extern "C" fn begin(_: c_uint, _: *mut c_void) {
    if TALLYING.load(Relaxed) {
        INSIDE.store(true, Relaxed);
        tally::begin();
    } else if COUNTING.swap(true, Relaxed) {
        INSIDE.store(true, Relaxed);
    } else {
        // SAFETY: the plugin's own number; everything is translated anew.
        unsafe { qemu::qemu_plugin_reset(ID.load(Relaxed), register) };
    }
}

extern "C" fn end(_: c_uint, _: *mut c_void) {
    if INSIDE.swap(false, Relaxed) {
        WINDOWS.store(WINDOWS.load(Relaxed) + 1, Relaxed);
        if TALLYING.load(Relaxed) {
            tally::end();
        }
    }
}

extern "C" fn next(_: c_uint, _: *mut c_void) {
    if TALLYING.load(Relaxed) {
        tally::next();
    }
}

extern "C" fn executed_slow(_: c_uint, kind: *mut c_void) {
    if INSIDE.load(Relaxed) {
        // SAFETY: what `tally::counted` gave.
        unsafe { tally::count(kind) };
    }
}

extern "C" fn executed(_: c_uint, counter: *mut c_void) {
    if INSIDE.load(Relaxed) {
        // SAFETY: a counter, which is never freed.
        let count = unsafe { &(*counter.cast::<Counter>()).count };
        count.store(count.load(Relaxed) + 1, Relaxed);
    }
}

/// The machine ends.
extern "C" fn finish(_: Id, _: *mut c_void) {
    let mut text = format!("windows {}\n", WINDOWS.load(Relaxed));
    tally::write(&mut text);
    let counters = COUNTERS.lock().expect("no holder panics");
    for (address, counter) in counters.iter().flatten() {
        let count = counter.count.load(Relaxed);
        if count > 0 {
            let _ = writeln!(text, "at {address:x} {count} {}", counter.kind);
        }
    }
    if let Some(path) = OUT.get()
        && let Err(error) = std::fs::write(path, text)
    {
        eprintln!("profiler: cannot write {}: {error}", path.display());
    }
}

//! Endless recursion ends in Rust std's own message: its SIGSEGV handler runs on the alternate stack, for the main one is used up.

use std::ffi::CString;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use userspace::process::{self, Ended};
use userspace::report::Demo;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("overflow") {
        println!("{}", recurse(0));
        return ExitCode::SUCCESS;
    }
    let mut demo = Demo::start(
        "stack-overflow",
        "a handler on the alternate stack reports that the main stack is used up",
    );
    process::no_core_files();

    demo.step("run this program again as a child that recurses without end");
    let (mut messages, stderr) = process::pipe().expect("pipe");
    let child = process::child(|| become_overflow(stderr.try_clone())).expect("fork");
    drop(stderr);

    demo.step("read what it says on stderr");
    let mut text = String::new();
    messages.read_to_string(&mut text).expect("text");
    text.lines()
        .filter(|line| !line.is_empty())
        .for_each(|line| demo.varies(line));
    demo.check(
        text.contains("thread 'main'"),
        "the message names the thread 'main'",
    );
    demo.check(
        text.contains("has overflowed its stack"),
        "and says that it has overflowed its stack",
    );

    demo.step("wait for it");
    let ended = process::wait(child).expect("wait");
    demo.note(format_args!("the child was {ended}"));
    demo.check_eq(ended, Ended::Killed(libc::SIGABRT), "std ended it by abort");
    demo.finish()
}

/// In the child: stderr is the pipe, the program is this one, and its stack is fresh.
fn become_overflow(stderr: std::io::Result<std::fs::File>) -> i32 {
    let run = || -> std::io::Result<()> {
        nix::unistd::dup2_stderr(stderr?)?;
        let program = CString::new(std::env::current_exe()?.into_os_string().into_vec())?;
        nix::unistd::execv(&program, &[program.as_c_str(), c"overflow"])?;
        Ok(())
    };
    let _ = run();
    126
}

/// Never returns: each call needs a frame of its own.
#[expect(unconditional_recursion, reason = "this is what the program shows")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + black_box(frame)[7]
}

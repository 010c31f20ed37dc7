//! What each command does.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Cli, Command, Exec, Options};
use crate::config::{GuestConfig, environment};
use crate::demos::{self, DEMOS, Demo};
use crate::image;
use crate::progress::{self, Step};
use crate::qemu::{self, Wires};
use crate::rootfs::{Source, Tree};
use crate::session::{self, End, Event, Machine, Outcome, Output, Root};
use crate::stdin::Input;
use crate::table::{self, Row};
use crate::with::With;
use crate::{
    bench, cargo, conformance, interrupt, kernel_tests, memfile, program, report, workspace,
};

/// Bad usage, as clap has it.
const USAGE: u8 = 2;
/// The host tool itself failed.
const TOOL: u8 = 125;

/// Where the bootloader puts the kernel: at the start of the address range that the kernel asks it to use.
pub const IMAGE_BASE: u64 = 0xffff_8000_0000_0000;

/// The whole program: reads the command line, does it, and gives the exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::install().and_then(|()| dispatch(&cli));
    if let Some(signal) = interrupt::caught() {
        return ExitCode::from(End::Interrupted(signal).status());
    }
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is::<Unheard>() => ExitCode::from(End::OutputClosed.status()),
        Err(error) => {
            eprintln!("boot: {error:#}");
            ExitCode::from(if error.is::<Usage>() { USAGE } else { TOOL })
        }
    }
}

/// An error of the user's, found before anything was built.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Nobody reads stdout any more.
#[derive(Debug)]
struct Unheard;

impl std::fmt::Display for Unheard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the output was closed")
    }
}

impl std::error::Error for Unheard {}

/// Prints a line on stdout.
pub fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Unheard.into()),
        result => result.context("cannot write to stdout"),
    }
}

/// Makes `error` the user's.
fn usage(error: &anyhow::Error) -> anyhow::Error {
    Usage(format!("{error:#}")).into()
}

fn dispatch(cli: &Cli) -> Result<u8> {
    let options = &cli.options;
    match &cli.command {
        None => all_demos(options),
        Some(Command::Demo { name }) => one_demo(name, options),
        Some(Command::List) => {
            say(&table::list(&DEMOS))?;
            Ok(0)
        }
        Some(Command::Exec(exec)) => self::exec(exec, options),
        Some(Command::Conformance(arguments)) => conformance::conformance(arguments, options),
        Some(Command::Bench(arguments)) => bench::bench(arguments, options),
        Some(Command::Profile(arguments)) => bench::profile(arguments, options),
        Some(Command::TestImage { image, filter, .. }) => {
            let outcome = kernel_tests::run(image, filter.as_deref(), options)?;
            eprint!("{}", report::explain(&outcome, image));
            // A program's status has no meaning here: only tests that ran count.
            if let End::Exited(_) | End::Killed(_) = outcome.end {
                eprintln!("boot: {} ran a program and no tests", image.display());
                return Ok(TOOL);
            }
            Ok(outcome.end.status())
        }
    }
}

/// The user programs in a root file system of their own, made anew only when one has changed.
pub fn demo_root() -> Result<Root> {
    let mut tree = base_tree()?;
    demos::add_files(&mut tree)?;
    Ok(Root::Cached(image::root_disk("demos", &tree)?))
}

/// The root file system that every guest has: directories, a few files in /etc, and the user programs in /bin.
pub fn base_tree() -> Result<Tree> {
    let mut tree = Tree::base();
    for program in cargo::programs()? {
        let name = program.file_name().context("a program has a name")?;
        add_program(&mut tree, &program, &Path::new("/bin").join(name))?;
    }
    Ok(tree)
}

fn add_program(tree: &mut Tree, host: &Path, guest: &Path) -> Result<()> {
    let metadata =
        fs::metadata(host).with_context(|| format!("{} cannot be read", host.display()))?;
    let source = Source::Host {
        path: host.to_path_buf(),
        size: metadata.len(),
    };
    // Whoever may read a program here may also run it there.
    let mode = metadata.permissions().mode() & 0o7777 | 0o111;
    tree.file(guest, source, mode, metadata.mtime())
}

/// The machine for `demo`, with its output captured and without input.
pub fn demo_machine(demo: &Demo, kernel: &Path, options: &Options) -> Result<Machine> {
    let mut hardware = options.hardware()?;
    if let Some(memory) = demo.memory {
        hardware.memory = memory.to_owned();
    }
    Ok(Machine {
        hardware,
        boot: image::boot_disk(kernel, options.firmware())?,
        root: demo_root()?,
        guest: GuestConfig {
            program: Some(demo.program().into()),
            args: vec![demo.program().into()],
            env: environment(&demo.env("")),
            slow: options.slow.clone().or(demo.slow.map(str::to_owned)),
            fail: options.fail.clone(),
            seed: options.seed,
            log: options.log_level(),
            crash: options.crash.clone(),
            ..GuestConfig::default()
        },
        stdin: Input::Empty,
        stdout: Output::Capture,
        stderr: Output::Capture,
        log: session::log_file(demo.name)?,
        show_log: options.verbose > 0,
        timeout: options.time_limit(),
        timeout_after_output: false,
    })
}

/// The machine for `exec`. `program` and the `--with` files are read from the host and put into a root file system in
/// memory.
pub fn exec_machine(exec: &Exec, kernel: &Path, options: &Options) -> Result<Machine> {
    let (program, arguments) = exec.command.split_first().context("there is no program")?;
    let guest_path = guest_path(exec, Path::new(program))?;
    let mut tree = base_tree()?;
    for spec in &exec.with {
        With::parse(spec)?.add_to(&mut tree)?;
    }
    add_program(&mut tree, Path::new(program), Path::new(&guest_path))?;
    let image = memfile::create("faultline-root")?;
    let step = Step::begin("making the root file system");
    tree.write_image(&image)?;
    drop(step);
    Ok(Machine {
        hardware: options.hardware()?,
        boot: image::boot_disk(kernel, options.firmware())?,
        root: Root::Memory(image),
        guest: GuestConfig {
            program: Some(guest_path.clone()),
            args: std::iter::once(guest_path)
                .chain(arguments.iter().cloned())
                .collect(),
            env: environment(&exec.env),
            cwd: Some(exec.cwd.clone()),
            tty: session::terminals(),
            null: session::nulls(),
            slow: options.slow.clone(),
            fail: options.fail.clone(),
            seed: options.seed,
            log: options.log_level(),
            crash: options.crash.clone(),
            ..GuestConfig::default()
        },
        stdin: Input::Inherit,
        stdout: Output::Inherit,
        stderr: Output::Inherit,
        log: session::own_log_file("exec")?,
        show_log: options.verbose > 0,
        timeout: options.time_limit(),
        timeout_after_output: false,
    })
}

fn guest_path(exec: &Exec, program: &Path) -> Result<OsString> {
    if let Some(path) = &exec.guest_path {
        return Ok(path.clone());
    }
    let name = program
        .file_name()
        .with_context(|| format!("{} has no name", program.display()))?;
    Ok(Path::new("/bin").join(name).into())
}

fn exec(exec: &Exec, options: &Options) -> Result<u8> {
    let program = Path::new(&exec.command[0]);
    program::check(program).map_err(|error| usage(&error))?;
    for spec in &exec.with {
        With::parse(spec).map_err(|error| usage(&error))?;
    }
    progress::leave_stderr_to_the_program();
    let kernel = options.kernel()?;
    let machine = exec_machine(exec, &kernel, options)?;
    if options.dry_run {
        return dry_run(&machine);
    }
    announce_debugger(&machine, &kernel);
    finish(session::run(machine, |_| {})?, &kernel, options)
}

fn one_demo(name: &str, options: &Options) -> Result<u8> {
    let Some(demo) = Demo::find(name) else {
        let names = DEMOS.map(|demo| demo.name).join(", ");
        return Err(Usage(format!("there is no demo {name}; there are {names}")).into());
    };
    let kernel = options.kernel()?;
    let mut machine = demo_machine(demo, &kernel, options)?;
    if options.dry_run {
        return dry_run(&machine);
    }
    (machine.stdout, machine.stderr) = (Output::Inherit, Output::Inherit);
    announce_debugger(&machine, &kernel);
    let outcome = session::run(machine, |_| {})?;
    if let Some(stats) = outcome.stats {
        eprintln!("{name}: {stats}");
    }
    finish(outcome, &kernel, options)
}

/// Says what there is to say after a machine that ran one program; gives its status.
fn finish(outcome: Outcome, kernel: &Path, options: &Options) -> Result<u8> {
    eprint!("{}", report::explain(&outcome, kernel));
    if options.verbose > 0 {
        let counted = outcome
            .stats
            .map_or_else(|| "nothing counted".into(), |stats| stats.to_string());
        eprintln!(
            "boot: {} after {:.1} s; {counted}",
            outcome.end,
            outcome.elapsed.as_secs_f64()
        );
        eprintln!("boot: the log is in {}", outcome.log_file.display());
    }
    Ok(outcome.end.status())
}

fn all_demos(options: &Options) -> Result<u8> {
    let kernel = options.kernel()?;
    if options.dry_run {
        for demo in &DEMOS {
            dry_run(&demo_machine(demo, &kernel, options)?)?;
        }
        return Ok(0);
    }
    let mut rows = Vec::new();
    for (number, demo) in DEMOS.iter().enumerate() {
        let machine = demo_machine(demo, &kernel, options)?;
        announce_debugger(&machine, &kernel);
        let outcome = watch_demo(demo, number, machine)?;
        interrupt::check()?;
        let passed = outcome.end == End::Exited(0) && demos::has_passed(&outcome.stdout);
        if !passed {
            show_failure(demo, &outcome, &kernel);
        }
        rows.push(Row {
            demo,
            passed,
            remark: remark(&outcome),
            stats: outcome.stats,
        });
    }
    say(&table::results(&rows))?;
    let failed = rows.iter().filter(|row| !row.passed).count();
    if failed > 0 {
        eprintln!("boot: {failed} of {} demos failed", rows.len());
    }
    Ok(u8::from(failed > 0))
}

/// Runs one of all demos, with its last line of output as live progress.
fn watch_demo(demo: &Demo, number: usize, machine: Machine) -> Result<Outcome> {
    let style = ProgressStyle::with_template("{spinner} [{prefix}] {wide_msg}")
        .context("the template is valid")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let prefix = format!("{}/{} {}", number + 1, DEMOS.len(), demo.name);
    bar.set_prefix(prefix.clone());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message("booting");
    let mut last_line = Vec::new();
    let outcome = session::run(machine, |event| match event {
        Event::Record(_) => {}
        Event::Stdout(bytes) => {
            for &byte in bytes {
                if byte == b'\n' {
                    bar.set_message(String::from_utf8_lossy(&last_line).into_owned());
                    last_line.clear();
                } else {
                    last_line.push(byte);
                }
            }
        }
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    if !std::io::stderr().is_terminal() {
        eprintln!(
            "[{prefix}] {} after {:.1} s",
            outcome.end,
            outcome.elapsed.as_secs_f64()
        );
    }
    Ok(outcome)
}

fn remark(outcome: &Outcome) -> String {
    match outcome.end {
        End::Exited(0) => "its output does not end in PASS".into(),
        ref end => end.to_string(),
    }
}

fn show_failure(demo: &Demo, outcome: &Outcome, kernel: &Path) {
    eprintln!(
        "demo {} failed: {}; its output:",
        demo.name,
        remark(outcome)
    );
    eprint!("{}", String::from_utf8_lossy(&outcome.stdout));
    eprint!("{}", String::from_utf8_lossy(&outcome.stderr));
    let explanation = report::explain(outcome, kernel);
    if explanation.is_empty() {
        eprintln!("the kernel's log: {}", outcome.log_file.display());
    } else {
        eprint!("{explanation}");
    }
}

/// Prints the command that would have been run. What is passed in memory is put into files, so that the printed command
/// works when it is pasted into a shell.
fn dry_run(machine: &Machine) -> Result<u8> {
    let dir = workspace::target_subdir("dry-run")?;
    let root_disk = match &machine.root {
        Root::Cached(image) => image.path.clone(),
        Root::Memory(file) => {
            let path = dir.join("root.ext4");
            fs::copy(
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)),
                &path,
            )
            .with_context(|| format!("cannot write {}", path.display()))?;
            path
        }
    };
    let config = dir.join(format!("{}.config", config_name(machine)));
    fs::write(&config, machine.guest.encode()?)
        .with_context(|| format!("cannot write {}", config.display()))?;
    let file = |path: PathBuf| format!("file,path={}", path.display());
    let wires = Wires {
        boot_disk: machine.boot.path.clone(),
        root_disk,
        config,
        serial: [
            file(machine.log.clone()),
            file(dir.join("records")),
            "stdio".into(),
            file(dir.join("stderr")),
        ],
    };
    let command = qemu::command(&machine.hardware, &wires)?;
    say(&qemu::shell_quoted(&command))?;
    Ok(0)
}

fn config_name(machine: &Machine) -> String {
    let program = machine
        .guest
        .program
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name);
    program.unwrap_or_default().to_string_lossy().into_owned()
}

/// Says how to attach a debugger, if the machine waits for one.
fn announce_debugger(machine: &Machine, kernel: &Path) {
    let Some(port) = machine.hardware.gdb_port else {
        return;
    };
    let commands = [
        format!("target remote 127.0.0.1:{port}"),
        format!("symbol-file {} -o {IMAGE_BASE:#x}", kernel.display()),
    ];
    let words = commands
        .iter()
        .flat_map(|command| ["-ex".into(), command.into()]);
    let gdb: Vec<OsString> = std::iter::once("gdb".into()).chain(words).collect();
    eprintln!(
        "The machine waits for a debugger. In another terminal:\n\n  {}\n\n\
         Set breakpoints with hbreak, then continue. Should names look wrong, compare the offset with the line\n\
         `image base 0x...` in {}.\n",
        qemu::shell_quoted(&gdb),
        machine.log.display()
    );
}

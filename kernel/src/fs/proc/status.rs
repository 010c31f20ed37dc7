//! What /proc tells about a process in one file each: stat, statm, status.

use core::fmt::{self, Write};
use core::sync::atomic::Ordering;

use super::subject::Subject;
use crate::fs::text::Text;
use crate::mm::rss::PageCounts;
use crate::mm::space::Totals;
use crate::mm::{PAGE_SIZE, page_align_down, page_align_up};
use crate::signal::action::Disposition;
use crate::signal::{SigSet, Signal};
use crate::task::Process;
use crate::task::process::Layout;
use crate::task::rlimit::Resource;

/// Sizes of an address space, in pages; all zero without one.
#[derive(Clone, Copy, Default)]
struct Sizes {
    totals: Totals,
    resident: PageCounts,
    peak_resident: u64,
    tables: u64,
    /// The program's text.
    text: u64,
}

impl Sizes {
    fn of(process: &Process, layout: &Layout) -> Sizes {
        let Some(mm) = process.mm() else {
            return Sizes::default();
        };
        let text_end = page_align_up(layout.code.1).unwrap_or(layout.code.1);
        Sizes {
            totals: mm.totals(),
            resident: mm.resident(),
            peak_resident: mm.peak_resident_pages(),
            tables: mm.table_pages(),
            text: ((text_end - page_align_down(layout.code.0)) / PAGE_SIZE) as u64,
        }
    }
}

pub fn statm(process: &Process, text: &mut Text) -> fmt::Result {
    let layout = *process.layout.lock();
    let sizes = Sizes::of(process, &layout);
    writeln!(
        text,
        "{} {} {} {} 0 {} 0",
        sizes.totals.pages,
        sizes.resident.total(),
        sizes.resident.file + sizes.resident.shared_memory,
        sizes.text,
        sizes.totals.data + sizes.totals.stack
    )
}

/// Signals of the thread and of the process, as bit sets.
struct SignalSets {
    own: SigSet,
    shared: SigSet,
    blocked: SigSet,
    ignored: SigSet,
    caught: SigSet,
    threads: usize,
}

impl SignalSets {
    fn of(subject: &Subject<'_>) -> SignalSets {
        let signals = subject.process.signals.lock();
        let mut sets = SignalSets {
            own: SigSet::EMPTY,
            shared: signals.pending.set(),
            blocked: SigSet::EMPTY,
            ignored: SigSet::EMPTY,
            caught: SigSet::EMPTY,
            threads: signals.threads.iter().count(),
        };
        for signal in (1..=usize::from(Signal::MAX)).filter_map(Signal::new) {
            match signals.disposition(signal) {
                Disposition::Ignore => sets.ignored = sets.ignored.with(signal),
                Disposition::Handler => sets.caught = sets.caught.with(signal),
                Disposition::Default => {}
            }
        }
        if let Some(thread) = &subject.thread {
            let own = thread.signals.lock();
            sets.own = own.pending.set();
            sets.blocked = own.blocked;
        }
        sets
    }
}

/// The fields of proc_pid_stat(5), in their order.
pub fn stat(subject: &Subject<'_>, text: &mut Text) -> fmt::Result {
    let process = subject.process;
    let layout = *process.layout.lock();
    let sizes = Sizes::of(process, &layout);
    let signals = SignalSets::of(subject);
    write!(text, "{} (", subject.id)?;
    text.push(subject.name().as_bytes());
    let terminal = 0;
    write!(
        text,
        ") {} {} {} {} {terminal} -1 {} ",
        subject.state().0,
        process.parent_pid(),
        process.group(),
        process.session.load(Ordering::Relaxed),
        FLAGS
    )?;
    let counts = subject.counts();
    let (minor, major) = (counts.minor, counts.major);
    let children = process.child_usage.get();
    let (cutime, cstime) = children.ticks();
    let (utime, stime) = counts.ticks();
    write!(
        text,
        "{minor} {} {major} {} {utime} {stime} {cutime} {cstime} 20 0 {} 0 {} ",
        children.minor,
        children.major,
        signals.threads,
        process.start_ns / NS_PER_TICK
    )?;
    // Instruction and stack pointer are shown of dying processes only, as on Linux; waiting places never.
    write!(
        text,
        "{} {} {} {} {} {} 0 0 ",
        sizes.totals.pages * PAGE_SIZE as u64,
        sizes.resident.total(),
        process.rlimits.soft(Resource::Rss),
        layout.code.0,
        layout.code.1,
        layout.stack_start
    )?;
    // Only the first 31 signals fit.
    let word = |set: SigSet| set.0 & 0x7fff_ffff;
    let both = SigSet(signals.own.0);
    write!(
        text,
        "{} {} {} {} 0 0 0 {} 0 0 0 0 0 0 ",
        word(both),
        word(signals.blocked),
        word(signals.ignored),
        word(signals.caught),
        process.exit_signal().map_or(0, Signal::number)
    )?;
    let status = process
        .events
        .lock()
        .exited
        .map_or(0, |status| status.to_wait_status());
    writeln!(
        text,
        "{} {} {} {} {} {} {} {status}",
        layout.data.0,
        layout.data.1,
        sizes.totals.brk_start,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end
    )
}

/// PF_RANDOMIZE, which Linux shows for every ordinary process.
const FLAGS: u32 = 0x40_0000;

const NS_PER_TICK: u64 = 10_000_000;

pub fn status(subject: &Subject<'_>, text: &mut Text) -> fmt::Result {
    let process = subject.process;
    let (letter, word) = subject.state();
    text.write_str("Name:\t")?;
    text.push(subject.name().as_bytes());
    text.write_str("\n")?;
    // A thread that has ended has neither.
    let mut descriptors = 0;
    let with_files = match subject.id == process.pid {
        true => process.first_thread(),
        false => subject.thread.clone(),
    };
    if let Some(thread) = with_files {
        writeln!(text, "Umask:\t{:04o}", thread.fs_of_other().umask())?;
        descriptors = thread.files_of_other().size();
    }
    writeln!(text, "State:\t{letter} ({word})")?;
    writeln!(
        text,
        "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0",
        process.pid,
        subject.id,
        process.parent_pid()
    )?;
    let identity = process.credentials.get();
    for (name, ids) in [("Uid", identity.user), ("Gid", identity.group)] {
        // File access goes by the effective number.
        writeln!(
            text,
            "{name}:\t{}\t{}\t{}\t{}",
            ids.real, ids.effective, ids.saved, ids.effective
        )?;
    }
    write!(text, "FDSize:\t{}\nGroups:\t", descriptors)?;
    for group in identity.groups() {
        write!(text, "{group} ")?;
    }
    writeln!(
        text,
        "\nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0",
        process.pid,
        subject.id,
        process.group(),
        process.session.load(Ordering::Relaxed)
    )?;
    if process.mm().is_some() {
        memory(process, text)?;
    }
    signals(subject, text)?;
    capabilities(identity.is_privileged(), text)?;
    writeln!(
        text,
        "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0"
    )?;
    let thread = subject.thread.as_ref();
    let counts = thread.map_or_else(Default::default, |thread| thread.counts());
    writeln!(
        text,
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}",
        counts.voluntary, counts.involuntary
    )
}

fn memory(process: &Process, text: &mut Text) -> fmt::Result {
    let layout = *process.layout.lock();
    let Sizes {
        totals,
        resident,
        peak_resident,
        tables,
        text: program,
    } = Sizes::of(process, &layout);
    for (name, pages) in [
        ("VmPeak", totals.peak),
        ("VmSize", totals.pages),
        ("VmLck", totals.locked),
        // Nothing is pinned, and there is neither swap nor are there huge pages.
        ("VmPin", 0),
        ("VmHWM", peak_resident),
        ("VmRSS", resident.total()),
        ("RssAnon", resident.anonymous),
        ("RssFile", resident.file),
        ("RssShmem", resident.shared_memory),
        ("VmData", totals.data),
        ("VmStk", totals.stack),
        ("VmExe", program),
        ("VmLib", totals.code.saturating_sub(program)),
        ("VmPTE", tables),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ] {
        writeln!(text, "{name}:\t{:8} kB", pages * PAGE_SIZE as u64 / 1024)?;
    }
    writeln!(text, "CoreDumping:\t0\nTHP_enabled:\t0")
}

fn signals(subject: &Subject<'_>, text: &mut Text) -> fmt::Result {
    let (process, sets) = (subject.process, SignalSets::of(subject));
    writeln!(
        text,
        "Threads:\t{}\nSigQ:\t{}/{}",
        sets.threads,
        0,
        process.rlimits.soft(Resource::PendingSignals)
    )?;
    for (name, set) in [
        ("SigPnd", sets.own),
        ("ShdPnd", sets.shared),
        ("SigBlk", sets.blocked),
        ("SigIgn", sets.ignored),
        ("SigCgt", sets.caught),
    ] {
        writeln!(text, "{name}:\t{:016x}", set.0)?;
    }
    Ok(())
}

/// All that Linux knows, for root; there are no others.
fn capabilities(privileged: bool, text: &mut Text) -> fmt::Result {
    const ALL: u64 = (1 << 41) - 1;
    let own = if privileged { ALL } else { 0 };
    for (name, set) in [
        ("CapInh", 0),
        ("CapPrm", own),
        ("CapEff", own),
        ("CapBnd", ALL),
        ("CapAmb", 0),
    ] {
        writeln!(text, "{name}:\t{set:016x}")?;
    }
    Ok(())
}

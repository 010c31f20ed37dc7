//! What a kernel panic or a failed bring-up shows: the end of the log, and the backtrace with names.

use std::fmt::Write;
use std::path::Path;

use crate::session::{End, Outcome};
use crate::symbols::Symbols;

/// Lines of the log that are shown at most.
const SHOWN: usize = 80;

/// A few sentences for stderr about an end that is not the program's own; empty if there is nothing to say.
pub fn explain(outcome: &Outcome, kernel: &Path) -> String {
    let mut text = String::new();
    let end = &outcome.end;
    match end {
        End::Exited(_)
        | End::Killed(_)
        | End::Tested { .. }
        | End::OutputClosed
        | End::Interrupted(_) => return text,
        End::Panicked(_) => {
            let _ = writeln!(text, "{end}");
            text += &panic_report(&outcome.log, kernel);
        }
        End::BringUpFailed => {
            let _ = writeln!(text, "{end}:");
            text += &error_lines(&outcome.log);
        }
        End::OutputFailed(_) => return format!("{end}\n"),
        End::Lost { .. } | End::TimedOut(_) => {
            let _ = writeln!(text, "{end}");
            let tail = tail(&outcome.log, 10);
            if !tail.is_empty() {
                let _ = writeln!(text, "the log's last lines:\n{tail}");
            }
        }
    }
    if !outcome.log.is_empty() {
        let _ = writeln!(text, "the whole log: {}", outcome.log_file.display());
    }
    text
}

/// The panic's report from the log, its backtrace replaced by one with names.
pub fn panic_report(log: &str, kernel: &Path) -> String {
    let report = from_panic(log);
    let mut text = String::new();
    let in_backtrace =
        |line: &&str| return_address(line).is_some() || line.trim_end().ends_with("backtrace:");
    for line in report.lines().filter(|line| !in_backtrace(line)) {
        let _ = writeln!(text, "{line}");
    }
    let addresses: Vec<u64> = report.lines().filter_map(return_address).collect();
    if addresses.is_empty() {
        return text;
    }
    let base = log
        .lines()
        .rev()
        .find_map(|line| hex_after(line, "image base 0x"));
    let symbols = Symbols::load(kernel);
    let _ = writeln!(text, "backtrace, innermost first:");
    for (index, &address) in addresses.iter().enumerate() {
        // The byte before a return address belongs to the call; the address itself may be in the next function.
        let offset = base.and_then(|base| address.checked_sub(base)?.checked_sub(1));
        let names = match (&symbols, offset) {
            (Ok(symbols), Some(offset)) => symbols.describe(offset),
            _ => Vec::new(),
        };
        let mut names = names.into_iter();
        let _ = writeln!(
            text,
            "{index:4}: {address:#018x} {}",
            names.next().unwrap_or_else(|| "?".into())
        );
        for name in names {
            let _ = writeln!(text, "      {:18} inlined into {name}", "");
        }
    }
    if let Err(error) = symbols {
        let _ = writeln!(text, "{error}");
    }
    text
}

/// The log from the panic's first line on, at most [`SHOWN`] lines of it; without such a line, the log's end.
fn from_panic(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let begins = |line: &&str| line.to_ascii_lowercase().contains("kernel panic");
    let first = lines.iter().rposition(begins);
    let first = first.unwrap_or(lines.len().saturating_sub(SHOWN));
    let shown: Vec<&str> = lines[first..].iter().take(SHOWN).copied().collect();
    shown.join("\n")
}

fn error_lines(log: &str) -> String {
    let errors: String = log
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains("error"))
        .map(|line| format!("  {line}\n"))
        .collect();
    if errors.is_empty() {
        format!("{}\n", tail(log, 10))
    } else {
        errors
    }
}

/// The last `count` lines.
pub fn tail(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The address in a backtrace line, `bt 0x…` behind whatever the logger puts in front.
fn return_address(line: &str) -> Option<u64> {
    hex_after(line, " bt 0x")
}

fn hex_after(line: &str, mark: &str) -> Option<u64> {
    let digits = &line[line.find(mark)? + mark.len()..];
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "[1.0 INFO] image base 0xffff800000000000\n[1.1 INFO] ready to panic\n\
                       [2.0 ERROR] kernel panic: out of frames\n[2.0 ERROR] rip 0x1\nbacktrace:\n[2.0 ERROR]   bt 0xffff800000000123\n";

    #[test]
    fn addresses_are_found_behind_a_loggers_prefix() {
        assert_eq!(
            return_address("  bt 0xffff800000000123"),
            Some(0xffff_8000_0000_0123)
        );
        assert_eq!(return_address("[2.0 ERROR]   bt 0xff."), Some(0xff));
        assert_eq!(return_address("robot 0xff"), None);
        assert_eq!(hex_after("image base 0x10 (rw)", "image base 0x"), Some(16));
    }

    #[test]
    fn a_report_keeps_the_registers_and_lists_the_backtrace_once() {
        let report = panic_report(LOG, Path::new("/nonexistent"));
        assert!(
            report.contains("out of frames") && report.contains("rip 0x1"),
            "{report}"
        );
        assert!(!report.contains("ready to"), "{report}");
        assert_eq!(report.matches("0xffff800000000123").count(), 1, "{report}");
        assert_eq!(report.matches("backtrace").count(), 1, "{report}");
    }

    #[test]
    fn names_come_from_the_elf_file() {
        // This test's own executable, and the address that one of its symbols has in the file.
        let exe = std::env::current_exe().unwrap();
        let data = std::fs::read(&exe).unwrap();
        let file = object::File::parse(&*data).unwrap();
        let symbol = object::Object::symbols(&file)
            .find(|symbol| {
                object::ObjectSymbol::name(symbol).is_ok_and(|name| name.contains("panic_report"))
            })
            .map(|symbol| object::ObjectSymbol::address(&symbol))
            .unwrap();
        let names = Symbols::load(&exe).unwrap().describe(symbol + 1);
        assert!(
            names.iter().any(|name| name.contains("panic_report")),
            "{names:?}"
        );
    }
}

//! Shows that something is going on when it takes longer than a second.
//!
//! On a terminal a spinner on stderr; elsewhere one line, once. Nothing at all for what is done within the second.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const QUIET_FOR: Duration = Duration::from_secs(1);

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on nothing is shown where stderr is no terminal: it belongs to the program that will be run.
pub fn leave_stderr_to_the_program() {
    QUIET.store(!std::io::stderr().is_terminal(), Ordering::Relaxed);
}

/// Whether stderr is only for the program that will be run.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// One step with a name; ends when it is dropped.
#[derive(Debug)]
pub struct Step {
    bar: ProgressBar,
    done: Option<Sender<()>>,
    timer: Option<JoinHandle<()>>,
}

impl Step {
    /// Begins a step; `what` reads like "building the kernel".
    pub fn begin(what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {prefix} {wide_msg:.dim} {elapsed}")
            .expect("the template is valid");
        let bar = ProgressBar::hidden()
            .with_style(style)
            .with_prefix(what.to_owned());
        let (done, wait) = mpsc::channel();
        let (shown, what) = (bar.clone(), what.to_owned());
        let timer = thread::spawn(move || {
            if wait.recv_timeout(QUIET_FOR) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if std::io::stderr().is_terminal() {
                shown.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(100));
            } else if !is_quiet() {
                eprintln!("{what} ...");
            }
        });
        Self {
            bar,
            done: Some(done),
            timer: Some(timer),
        }
    }

    /// Shows `detail` behind the name of the step.
    pub fn detail(&self, detail: &str) {
        self.bar.set_message(detail.trim().to_owned());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(timer) = self.timer.take() {
            // It holds no lock and cannot panic but by a failing stderr.
            let _ = timer.join();
        }
        self.bar.finish_and_clear();
    }
}

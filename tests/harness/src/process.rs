//! A program that is ended when nobody needs it any more.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A running program and what it prints.
pub struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    announced: Mutex<Receiver<String>>,
}

impl Process {
    /// Starts a program in a process group of its own. Its standard input stays open until it is
    /// ended.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {name} ({command:?})"))?;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (sender, announced) = channel();
        let out = child.stdout.take().context("read the output")?;
        let err = child.stderr.take().context("read the errors")?;
        let streams: [Box<dyn std::io::Read + Send>; 2] = [Box::new(out), Box::new(err)];
        for stream in streams {
            let (lines, sender) = (Arc::clone(&lines), sender.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line.clone());
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Ok(Self { name, child, lines, announced: Mutex::new(announced) })
    }

    /// Waits for a line that contains a text, and returns it.
    ///
    /// # Errors
    ///
    /// When the program ends first, or the time is up.
    pub fn wait_for_line(&mut self, text: &str, patience: Duration) -> Result<String> {
        let began = std::time::Instant::now();
        while began.elapsed() < patience {
            let announced = self
                .announced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(Duration::from_millis(50));
            if let Ok(line) = announced {
                if line.contains(text) {
                    return Ok(line);
                }
            } else if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.output());
            }
        }
        bail!("{} was not ready within {} s:\n{}", self.name, patience.as_secs(), self.output())
    }

    /// Returns everything that was printed so far.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().map(Pid::from_raw)
    }

    /// Ends the program and all it started at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = self.pid().filter(|_| matches!(self.child.try_wait(), Ok(None))) else {
            return;
        };
        let _ = kill(pid, Signal::SIGTERM);
        let ended =
            crate::wait_for(Duration::from_secs(20), || self.child.try_wait().ok().flatten());
        // What it started may have outlived it.
        let _ = killpg(pid, Signal::SIGKILL);
        if ended.is_none() {
            let _ = self.child.wait();
        }
    }
}

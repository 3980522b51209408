//! A command of the user's, run by the shell: the message is on its stdin, and in its environment.

use std::io::{self, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::document;
use crate::notify::{Message, Sender, Unsent, severity_word};
use crate::ports::Clock;

/// How long a command may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A command line.
pub struct Run {
    line: String,
    /// The variables that hold secrets: a command has no use for them.
    hidden: Vec<String>,
    /// The clock of this machine: a command takes real time.
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

impl Run {
    /// A line for the shell, without the variables that hold secrets. `clock` is that of this machine.
    pub fn new(line: String, hidden: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            line,
            hidden,
            clock,
            timeout: COMMAND_TIMEOUT,
        }
    }

    /// The same with another time limit.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn start(&self, message: &Message) -> io::Result<std::process::Child> {
        let document = document(message);
        // A file, for a pipe that nobody reads would hold us up.
        let mut stdin = tempfile::tempfile()?;
        writeln!(stdin, "{document}")?;
        stdin.rewind()?;
        let mut shell = shell(&self.line);
        for name in &self.hidden {
            shell.env_remove(name);
        }
        shell
            .env("HAGGLE_MESSAGE_KIND", &message.kind)
            .env("HAGGLE_MESSAGE_SEVERITY", severity_word(message.severity))
            .env("HAGGLE_MESSAGE_TITLE", &message.title)
            .env("HAGGLE_MESSAGE_TEXT", &message.text)
            .env(
                "HAGGLE_MESSAGE_JOB",
                message.job.as_ref().map_or("", |job| job.as_str()),
            )
            .stdin(Stdio::from(stdin))
            // The daemon's own stdout is for its document.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// In a group of its own, so that what it started ends with it.
#[cfg(unix)]
fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("sh");
    shell.args(["-c", line, "haggle-notify"]).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(line: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.args(["/C", line]);
    shell
}

fn end(child: &mut std::process::Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // It may be gone already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[async_trait]
impl Sender for Run {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        let started = self.start(message);
        let mut child = started.map_err(|error| Unsent::for_now(error.to_string()))?;
        let begun = self.clock.monotonic();
        while self.clock.monotonic().since(begun) < self.timeout {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Unsent::for_now(format!("the command failed: {status}")));
                }
                Ok(None) => {
                    let next = self.clock.now() + LOOK_EVERY;
                    self.clock.sleep_until(next).await;
                }
                Err(error) => return Err(Unsent::for_now(error.to_string())),
            }
        }
        end(&mut child);
        Err(Unsent::for_now(format!(
            "the command did not end within {} s",
            self.timeout.as_secs()
        )))
    }
}

//! The terminal while it is ours: taken, drawn on, and given back as it was.

use std::io::Read as _;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{Command, queue};
use tokio::sync::mpsc;

use crate::cli::failure::{Failure, OrFail};
use crate::cli::output::Output;

/// The terminal, until it is dropped.
pub(super) struct Screen {
    output: Output,
}

impl Screen {
    /// Takes the terminal: a screen of its own, keys one by one, and no cursor.
    pub(super) fn take(output: Output) -> Result<Self, Failure> {
        enable_raw_mode().or_world("the terminal does not give its keys one by one")?;
        // From here on it is given back, whatever comes.
        let screen = Self { output };
        let mut bytes = Vec::new();
        queue!(bytes, EnterAlternateScreen, Hide).or_world("the screen cannot be taken")?;
        screen.output.flow(&bytes)?;
        Ok(screen)
    }

    /// Draws a frame over the last one, line by line, so that nothing flickers. Whether anybody still
    /// looks.
    pub(super) fn draw(&self, text: &str) -> Result<bool, Failure> {
        self.output.flow(&over(text))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to give back.
        let _ = self.output.flow(given_back().as_bytes());
        let _ = disable_raw_mode();
    }
}

/// What draws a frame over another.
fn over(text: &str) -> Vec<u8> {
    let mut out = ansi(MoveTo(0, 0));
    for (row, line) in text.lines().enumerate() {
        if row > 0 {
            // In raw mode a line feed does not begin a line.
            out.push_str("\r\n");
        }
        out.push_str(line);
        out.push_str(&ansi(Clear(ClearType::UntilNewLine)));
    }
    out.push_str(&ansi(Clear(ClearType::FromCursorDown)));
    out.into_bytes()
}

fn given_back() -> String {
    format!("{}{}", ansi(Show), ansi(LeaveAlternateScreen))
}

fn ansi(command: impl Command) -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = command.write_ansi(&mut text);
    text
}

/// Keys, as they are pressed.
pub(super) struct Keys(mpsc::UnboundedReceiver<u8>);

impl Keys {
    /// Reads on a thread of its own, which ends with the process: a read cannot be called off.
    pub(super) fn read() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for byte in std::io::stdin().lock().bytes() {
                let Ok(byte) = byte else { return };
                if tell.send(byte).is_err() {
                    return;
                }
            }
        });
        Self(told)
    }

    /// Waits for a key; whether it goes on. Any but the quitting ones make it look again.
    pub(super) async fn next(&mut self) -> bool {
        goes_on(self.0.recv().await)
    }
}

/// `q`, Ctrl-C, Ctrl-D and the end of the input end it.
fn goes_on(key: Option<u8>) -> bool {
    !matches!(key, None | Some(b'q' | b'Q' | 3 | 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_drawn_over_another_and_the_terminal_is_given_back() {
        let bytes = String::from_utf8(over("one\ntwo")).unwrap();
        assert_eq!(bytes, "\u{1b}[1;1Hone\u{1b}[K\r\ntwo\u{1b}[K\u{1b}[J");
        assert_eq!(given_back(), "\u{1b}[?25h\u{1b}[?1049l");
    }

    #[test]
    fn it_ends_at_the_keys_that_end_it_and_where_no_more_come() {
        for key in [Some(b'q'), Some(b'Q'), Some(3), Some(4), None] {
            assert!(!goes_on(key), "{key:?}");
        }
        for key in [b' ', b'\r', 0x1b, b'x'] {
            assert!(goes_on(Some(key)), "{key}");
        }
    }
}

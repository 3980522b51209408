//! What is run: the image, the command, the environment, and the marketplace's bounds on them.

use super::super::kind::ENV_ENTRY_MAX;
use super::super::reader::Reading;
use super::supervised;
use crate::types::job::{RegistryLogin, Run, RunType};

/// All environment variables together, as the marketplace documents it.
pub(super) const ENV_TOTAL_MAX: usize = 32_768;

/// The command and its arguments together, as the marketplace documents it.
const COMMAND_MAX: usize = 4096;

/// Notes what is wrong with it.
pub(super) fn check(reading: &mut Reading) {
    if reading.given("run") && !reading.given("run.image") && !reading.given("run.template") {
        reading.fault(
            "run",
            "neither `run.image` nor `run.template` is given",
            "add image = \"repository/image:tag\" to [run]",
        );
    }
    if let Some(image) = reading.text("run.image")
        && image.contains(char::is_whitespace)
    {
        reading.fault(
            "run.image",
            "an image has no blanks in its name",
            "write it as \"repository/image:tag\"",
        );
    }
    if reading.given("run.login") && !reading.given("run.image") {
        reading.fault(
            "run.login",
            "a login is for `run.image`, which is not given",
            "add the image, or remove [run.login]",
        );
    }
    // The runner takes other ones.
    if reading.supervised() == Some(false) {
        check_command(reading);
    }
    check_env(reading);
}

fn check_command(reading: &mut Reading) {
    if reading.given("run.command") && reading.given("run.onstart") {
        reading.fault(
            "run.onstart",
            "`run.command` and `run.onstart` are the same thing",
            "keep one of the two",
        );
    }
    let args = reading.texts("run.args").unwrap_or_default();
    if !args.is_empty() && !matches!(reading.run_type(), Some(RunType::Args) | None) {
        reading.fault(
            "run.args",
            "arguments go to the image's entry point, which is not run by this `run.type`",
            "use type = \"args\", or put them into `command`",
        );
    }
    let command = reading
        .text("run.command")
        .or_else(|| reading.text("run.onstart"))
        .unwrap_or_default();
    // The arguments travel with a blank between them.
    let length =
        command.chars().count() + args.iter().map(|a| a.chars().count() + 1).sum::<usize>();
    if length > COMMAND_MAX {
        let path = if command.is_empty() {
            "run.args"
        } else if reading.given("run.command") {
            "run.command"
        } else {
            "run.onstart"
        };
        reading.fault(
            path,
            format!(
                "the command and its arguments are {length} characters long; the marketplace takes {COMMAND_MAX}"
            ),
            "put the script into the image, or fetch it in the command; with supervised = true it may have 6000",
        );
    }
}

/// What the policy's own environment may take, in characters.
pub(super) fn env_characters(reading: &Reading) -> usize {
    let plain: usize = reading
        .env("run.env")
        .unwrap_or_default()
        .iter()
        .map(|(name, value)| name.chars().count() + 1 + value.chars().count())
        .sum();
    let secrets = reading.secrets("run.secrets").unwrap_or_default().len();
    // A secret's length is not known here; the most that the marketplace takes is counted.
    plain + secrets * ENV_ENTRY_MAX
}

fn check_env(reading: &mut Reading) {
    let env = reading.env("run.env").unwrap_or_default();
    let secrets = reading.secrets("run.secrets").unwrap_or_default();
    for name in secrets.keys().filter(|name| env.contains_key(*name)) {
        reading.fault(
            "run.secrets",
            format!("`{name}` is in `run.env` and in `run.secrets`"),
            "keep one of the two",
        );
    }
    let total = env_characters(reading);
    if total > ENV_TOTAL_MAX {
        reading.fault(
            "run.env",
            format!(
                "all variables together may take {total} characters (a secret counts {ENV_ENTRY_MAX}); the marketplace takes {ENV_TOTAL_MAX}"
            ),
            "let the job read them from a file",
        );
    }
    let ports = reading.ports("run.ports").unwrap_or_default();
    for (index, (port, protocol)) in ports.iter().enumerate() {
        if ports[..index].contains(&(*port, protocol.clone())) {
            reading.fault(
                "run.ports",
                format!("{port}/{protocol} is listed twice"),
                "list each port once",
            );
        }
    }
}

/// What is run; `None` only if a required field is absent, which was told.
pub(super) fn run(reading: &Reading) -> Option<Run> {
    let login = if reading.given("run.login") {
        Some(RegistryLogin {
            registry: reading.text("run.login.registry")?,
            user: reading.text("run.login.user")?,
            password: reading.secret("run.login.password")?,
        })
    } else {
        None
    };
    let supervised = reading.supervised()?;
    let runner = if supervised {
        Some(Box::new(supervised::runner(reading)?))
    } else {
        None
    };
    let bare = || {
        reading
            .text("run.command")
            .or_else(|| reading.text("run.onstart"))
    };
    Some(Run {
        image: reading.text("run.image"),
        login,
        template: reading.text("run.template"),
        run_type: reading.run_type()?,
        runner,
        onstart: if supervised { None } else { bare() },
        args: reading.texts("run.args").unwrap_or_default(),
        env: reading.env("run.env").unwrap_or_default(),
        secrets: reading.secrets("run.secrets").unwrap_or_default(),
        ports: reading.ports("run.ports").unwrap_or_default(),
    })
}

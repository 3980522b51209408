//! How a running instance is reached: its address, and the program that takes this one's place.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::process::Command;

use serde::Serialize;

use super::context::{Context, known_jobs, load_policies, open_reader, require_known};
use super::failure::{Done, Exit, Failure};
use crate::config::Config;
use crate::types::ids::{InstanceId, ReplicaId};
use crate::types::instance::{Held, Phase};
use crate::types::job::SecretRef;
use crate::view::address::Address;
use crate::view::instances::has_ssh_server;
use crate::view::jobs::held_word;
use crate::view::which::Of;

/// A running instance that can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// What it runs.
    pub(crate) replica: ReplicaId,
    /// The instance.
    pub(crate) instance: InstanceId,
    /// Where it listens.
    pub(crate) address: Address,
}

/// The one running instance that is meant, as the database knows it.
pub(crate) fn reach(config: &Config, of: &Of) -> Result<Reached, Failure> {
    let state = open_reader(config)?.state()?;
    let policies = config.policies.is_dir();
    let loaded = policies.then(|| load_policies(config)).transpose()?;
    require_known(&of.job, &known_jobs(Some(&state), loaded.as_ref()))?;
    let meant = state
        .held
        .values()
        .filter(|held| of.includes(&held.replica));
    let held = the_one(of, meant.collect())?;
    let jobs = loaded.iter().flat_map(|loaded| &loaded.jobs);
    let job = jobs
        .map(|loaded| &loaded.job)
        .find(|job| job.name == of.job);
    if job.is_some_and(|job| !has_ssh_server(job)) {
        return Err(Failure::mendable(format!(
            "{} has no SSH server: its policy says run.type = \"args\"",
            held.replica
        ))
        .hint(
            "set run.type = \"ssh\" for the next rental, or open \"22/tcp\" for a server of the \
             image's own",
        ));
    }
    address_of(held)
}

/// The instance that runs; of a replica that is moving, the newest.
fn the_one<'a>(of: &Of, meant: Vec<&'a Held>) -> Result<&'a Held, Failure> {
    let mut running: BTreeMap<&ReplicaId, &Held> = BTreeMap::new();
    for held in &meant {
        if held.phase != Phase::Running || held.destroying.is_some() {
            continue;
        }
        let newest = running.entry(&held.replica).or_insert(held);
        if newest.intent < held.intent {
            *newest = held;
        }
    }
    let names: Vec<String> = running.keys().map(ToString::to_string).collect();
    match (running.values().next(), running.len()) {
        (Some(held), 1) => Ok(held),
        (Some(_), count) => Err(Failure::mendable(format!(
            "{of} has {count} replicas that run, and none is named"
        ))
        .hint(format!("name one of {}", names.join(", ")))),
        (None, _) => Err(not_running(of, &meant)),
    }
}

fn not_running(of: &Of, meant: &[&Held]) -> Failure {
    let failure = if meant.is_empty() {
        Failure::mendable(format!("{of} does not run: it has no instance"))
    } else {
        let what: Vec<String> = meant
            .iter()
            .map(|held| {
                format!(
                    "instance {} of {} is {}",
                    held.id,
                    held.replica,
                    held_word(held)
                )
            })
            .collect();
        Failure::mendable(format!("{of} does not run: {}", what.join(", ")))
    };
    failure.hint(format!(
        "`haggle explain {job}` says why, `haggle logs {of}` shows what it wrote",
        job = of.job
    ))
}

fn address_of(held: &Held) -> Result<Reached, Failure> {
    let (id, replica) = (held.id, &held.replica);
    let Some(told) = &held.ssh else {
        return Err(Failure::mendable(format!(
            "the marketplace has not told where instance {id} of {replica} is reached"
        ))
        .hint("the daemon's next poll may know; an image with no SSH server has no address"));
    };
    let address = Address::parse(told).ok_or_else(|| {
        Failure::world(format!(
            "the marketplace says that instance {id} of {replica} is reached at {told:?}, which is \
             no host's name or IP address with a port; no program was given it"
        ))
    })?;
    Ok(Reached {
        replica: replica.clone(),
        instance: id,
        address,
    })
}

#[derive(Debug, Serialize)]
struct CommandDocument {
    replica: String,
    instance: u64,
    /// The program and its arguments.
    command: Vec<String>,
}

/// Runs a program in this one's place, or prints what would be run.
pub(crate) fn hand_over(
    context: &Context,
    config: &Config,
    reached: &Reached,
    program: &str,
    words: &[OsString],
    print: bool,
) -> Done {
    let all = || std::iter::once(OsStr::new(program)).chain(words.iter().map(OsString::as_os_str));
    let shown: Vec<String> = all().map(quoted).collect();
    let shown = shown.join(" ");
    if print {
        let document = CommandDocument {
            replica: reached.replica.to_string(),
            instance: reached.instance.0,
            command: all()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        };
        context.output.show(&document, || shown)?;
        return Ok(Exit::Success);
    }
    context.output.note(&shown);
    let mut command = Command::new(program);
    command.args(words);
    // It is nothing to that program, nor to the commands and hosts that it is configured for.
    if let SecretRef::Env(name) = &config.provider.token {
        command.env_remove(name);
    }
    replace(command, program)
}

#[cfg(unix)]
fn replace(mut command: Command, program: &str) -> Done {
    use std::os::unix::process::CommandExt;
    // Returns only where it failed.
    Err(not_started(program, &command.exec()))
}

#[cfg(not(unix))]
fn replace(mut command: Command, program: &str) -> Done {
    let ended = command
        .status()
        .map_err(|error| not_started(program, &error))?;
    Ok(if ended.success() {
        Exit::Success
    } else {
        Exit::World
    })
}

fn not_started(program: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::mendable(format!("cannot run {program}: {error}"));
    if error.kind() == ErrorKind::NotFound {
        failure.hint("install an OpenSSH client, or print the command with --print")
    } else {
        failure
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::IntentId;
    use crate::types::time::Time;

    #[test]
    fn only_a_host_and_a_port_are_an_address() {
        for (told, command) in [
            ("ssh4.vast.ai:31022", "ssh -p 31022 root@ssh4.vast.ai"),
            ("203.0.113.9:22", "ssh -p 22 root@203.0.113.9"),
            ("[2001:db8::1]:22", "ssh -p 22 root@2001:db8::1"),
            ("2001:db8::1:22", "ssh -p 22 root@2001:db8::1"),
            ("xn--a-b.example.:1", "ssh -p 1 root@xn--a-b.example."),
        ] {
            assert_eq!(Address::parse(told).unwrap().ssh_command(), command);
        }
        for hostile in [
            "",
            ":",
            ":22",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+22",
            "host:-1",
            "host: 22",
            "host:22 -oProxyCommand=x",
            "-oProxyCommand=x:22",
            "-oProxyCommand=touch$IFS/tmp/x:22",
            "--:22",
            "-a.example:22",
            "a.-b:22",
            "a-.b:22",
            "a..b:22",
            ".:22",
            "a b:22",
            "a\n:22",
            "a\0:22",
            "host;rm -rf /:22",
            "$(id):22",
            "`id`:22",
            "root@host:22",
            "host/..:22",
            "[host]:22",
            "[::1:22",
            "::1]:22",
            "fe80::1%eth0:22",
            "h\u{f6}st:22",
            "%h:22",
        ] {
            assert_eq!(Address::parse(hostile), None, "{hostile:?}");
        }
        let long = format!("{}.example:22", "a".repeat(64));
        assert_eq!(Address::parse(&long), None);
        let path = |told: &str| Address::parse(told).unwrap().path("/x y");
        assert_eq!(path("[2001:db8::1]:22"), "root@[2001:db8::1]:/x y");
        assert_eq!(path("a.example:22"), "root@a.example:/x y");
    }

    #[test]
    fn words_are_quoted_as_a_shell_reads_them() {
        for (word, expected) in [
            ("ls", "ls"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(id)", "'$(id)'"),
            ("*.log", "'*.log'"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), expected);
        }
    }

    fn held(id: u64, index: u32, phase: Phase) -> Held {
        let replica = ReplicaId {
            job: "train".parse().unwrap(),
            index,
        };
        Held {
            phase,
            ssh: Some("host:22".to_owned()),
            ..Held::new(InstanceId(id), IntentId(id), replica, Time(0))
        }
    }

    #[test]
    fn of_a_replica_that_moves_the_newest_is_meant_and_of_several_one_is_named() {
        let of: Of = "train".parse().unwrap();
        let all = [
            held(2, 0, Phase::Running),
            held(3, 0, Phase::Running),
            held(1, 0, Phase::Running),
            held(4, 0, Phase::Provisioning),
        ];
        assert_eq!(
            the_one(&of, all.iter().collect()).unwrap().id,
            InstanceId(3)
        );
        let more = [held(2, 0, Phase::Running), held(5, 1, Phase::Running)];
        let told = the_one(&of, more.iter().collect()).unwrap_err().to_string();
        assert!(told.contains("name one of train/0, train/1"), "{told}");
        let none = [held(2, 0, Phase::Provisioning), held(5, 1, Phase::Stopped)];
        let told = the_one(&of, none.iter().collect()).unwrap_err().to_string();
        assert!(
            told.contains("instance 2 of train/0 is provisioning"),
            "{told}"
        );
        assert!(told.contains("instance 5 of train/1 is outbid"), "{told}");
        let told = the_one(&of, Vec::new()).unwrap_err().to_string();
        assert!(told.contains("it has no instance"), "{told}");
    }
}

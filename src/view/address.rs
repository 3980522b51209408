//! Where an instance listens, as it is safe to hand to programs.

use std::ffi::OsString;
use std::net::IpAddr;

/// Where an instance listens. It came from the marketplace and goes to programs that take options,
/// and into shells: so it is a host's name or an IP address, and a port, or it is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Address {
    /// From `host:port`; `None` where it is anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|&port: &u16| digits && port > 0)?;
        let unbracketed = host
            .strip_prefix('[')
            .map_or(Some(host), |rest| rest.strip_suffix(']'))?;
        let host = match unbracketed.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if is_host_name(host) => Host::Name(host.to_owned()),
            Err(_) => return None,
        };
        Some(Self { host, port })
    }

    /// What `ssh` is told. The destination begins with the user's name, so it is no option.
    fn for_ssh(&self) -> [String; 3] {
        let host = match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => ip.to_string(),
        };
        [
            "-p".to_owned(),
            self.port.to_string(),
            format!("root@{host}"),
        ]
    }

    /// The command that opens a shell.
    pub(crate) fn ssh_command(&self) -> String {
        format!("ssh {}", self.for_ssh().join(" "))
    }

    /// What `ssh` is told to open a shell, or to run a command there.
    pub(crate) fn ssh(&self, command: &[OsString]) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.for_ssh().map(OsString::from).to_vec();
        if !command.is_empty() {
            // Else it would look for its own options among the command's words.
            words.push("--".into());
            words.extend_from_slice(command);
        }
        words
    }

    /// The port, for `scp`.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A path there, as `scp` names it.
    pub(crate) fn path(&self, path: &str) -> String {
        match &self.host {
            Host::Name(name) => format!("root@{name}:{path}"),
            Host::Ip(IpAddr::V4(ip)) => format!("root@{ip}:{path}"),
            Host::Ip(IpAddr::V6(ip)) => format!("root@[{ip}]:{path}"),
        }
    }
}

/// Whether a text is a host's name: labels of letters, digits and hyphens, none at an edge.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().copied().all(inner)
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

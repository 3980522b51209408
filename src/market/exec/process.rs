//! One instance's processes and its folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::market::containers::Hosted;

/// The variable by which processes that left their group are found.
const MARK: &str = "HAGGLE_MARKET_EXEC";

/// No more than so much of a log is read at a time, in bytes.
const READ_MAX: u64 = 1 << 20;

/// A container's processes.
pub(super) struct Process {
    child: Child,
    mark: String,
}

impl Process {
    /// Begins what an instance runs.
    pub(super) fn start(room: &Path, host: &Hosted, origin: &str) -> io::Result<Self> {
        let root = room.join("root");
        let bin = room.join("bin");
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&bin)?;
        write_tool(&bin.join("nvidia-smi"), &nvidia_smi(host))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(room.join("log"))?;
        let mark = format!("{}-{}", host.id, room.display());
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let mut command = Command::new("/bin/sh");
        command
            .args(words(host))
            .current_dir(&root)
            .env_clear()
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", &root)
            .env("HAGGLE_DIR", root.join(".haggle"))
            .env("HAGGLE_API", origin)
            .env("CONTAINER_ID", host.id.to_string())
            .env("CONTAINER_API_KEY", &host.api_key)
            .env("VAST_CONTAINERLABEL", format!("C.{}", host.id))
            .env("GPU_COUNT", host.inside.gpus.to_string())
            .envs(
                host.params
                    .env
                    .iter()
                    .filter(|(name, _)| is_variable(name))
                    .cloned(),
            )
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn()?;
        Ok(Self { child, mark })
    }

    /// Whether its main process has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        // What cannot be asked for is not ours any more.
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// Nothing outlives it: all of it is killed without a warning, those that left the group, too.
impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            // It may be gone already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Those that were being made while the first were killed are found the second time.
        for _ in 0..3 {
            let left = marked(&self.mark);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// What `/bin/sh` is given. The marketplace runs a start script as a script beside its own server
/// of shells, and with arguments takes it for the entry point of the image; images are not here, so
/// one without either does nothing.
fn words(host: &Hosted) -> Vec<String> {
    let params = &host.params;
    let script = params.onstart.as_deref().map(str::trim);
    let script = script.filter(|script| !script.is_empty());
    let of_arguments = match params.runtype.as_deref() {
        Some(runtype) => runtype == "args",
        None => !params.args.is_empty(),
    };
    let text = match (of_arguments, script) {
        (true, Some(entry)) => format!("exec {entry} \"$@\""),
        (true, None) if !params.args.is_empty() => "exec \"$@\"".to_owned(),
        (false, Some(script)) => format!("{script}\nexec sleep 2147483647"),
        _ => "exec sleep 2147483647".to_owned(),
    };
    let arguments = if of_arguments { &params.args[..] } else { &[] };
    ["-c".to_owned(), text, "sh".to_owned()]
        .into_iter()
        .chain(arguments.iter().cloned())
        .collect()
}

/// Whether an entry of the environment is a variable, and not an option of the container.
fn is_variable(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(letter) && !name.as_bytes()[0].is_ascii_digit()
}

/// Processes that carry a mark.
fn marked(mark: &str) -> Vec<Pid> {
    let entry = format!("{MARK}={mark}");
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|one| {
        let one = one.ok()?;
        let pid: i32 = one.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(one.path().join("environ")).ok()?;
        let is = environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == entry.as_bytes());
        is.then(|| Pid::from_raw(pid))?
    })
    .collect()
}

fn write_tool(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The driver's tool, as far as a preflight asks it: what the machine really has.
fn nvidia_smi(host: &Hosted) -> String {
    let row = format!(
        "{}, {}, {}, {}",
        host.inside.gpu_name,
        host.gpu_ram,
        host.gpu_ram.saturating_sub(300),
        host.driver
    );
    let rows = format!("{row}\n").repeat(host.inside.gpus as usize);
    let names = format!("{}\n", host.inside.gpu_name).repeat(host.inside.gpus as usize);
    let errors = "0\n".repeat(host.inside.gpus as usize);
    format!(
        "#!/bin/sh\n\
         # A file `gone` beside this stands for GPUs that fell off the bus.\n\
         if [ -e \"$(dirname \"$0\")/gone\" ]; then echo 'No devices were found'; exit 6; fi\n\
         case \"$*\" in\n\
         *name,memory.total,memory.free,driver_version*) cat <<'ROWS'\n{rows}ROWS\n;;\n\
         *--query-gpu=name\\ *) cat <<'ROWS'\n{names}ROWS\n;;\n\
         *--query-gpu=ecc.errors.uncorrected.volatile.total*) cat <<'ROWS'\n{errors}ROWS\n;;\n\
         *) echo 'this stand-in knows three queries' >&2; exit 1 ;;\nesac\n"
    )
}

/// A path of an instance's own, in its folder: what is absolute begins there, and nothing leads out.
pub(super) fn inside(room: &Path, path: &str) -> PathBuf {
    let mut place = room.join("root");
    for part in Path::new(path).components() {
        if let Component::Normal(part) = part {
            place.push(part);
        }
    }
    place
}

/// Copies a tree as it is: a folder's content into a folder, links as links.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?;
    if kind.is_symlink() {
        let target = fs::read_link(from)?;
        return match std::os::unix::fs::symlink(target, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
    }
    if !kind.is_dir() {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The whole lines that a log has beyond what was read of it.
pub(super) fn read_log(room: &Path, read: &mut u64) -> io::Result<Vec<String>> {
    let mut file = File::open(room.join("log"))?;
    let length = file.metadata()?.len();
    if length <= *read {
        return Ok(Vec::new());
    }
    // Of what prints faster than this is read, the newest counts.
    if length - *read > READ_MAX {
        *read = length - READ_MAX;
    }
    file.seek(SeekFrom::Start(*read))?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n');
    let whole = match whole {
        Some(end) => end + 1,
        // A line without an end is cut.
        None if bytes.len() as u64 == READ_MAX => bytes.len(),
        None => return Ok(Vec::new()),
    };
    *read += whole as u64;
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok(text.lines().map(str::to_owned).collect())
}

//! `haggle cp SRC DST`: copies files to or from the instance that runs a job.

use std::ffi::{OsStr, OsString};

use clap::Args;

use super::context::Context;
use super::failure::{Done, Failure};
use super::reach::{hand_over, reach};
use crate::view::which::Of;

/// Copies files to or from the instance that runs a job.
#[derive(Args, Clone, Debug)]
pub(crate) struct CpArgs {
    /// What is copied, folders with all that is in them: `JOB[/REPLICA]:/path`, or a local path.
    #[arg(value_name = "SRC")]
    from: OsString,
    /// Where to: a local path, or `JOB[/REPLICA]:/path`.
    #[arg(value_name = "DST")]
    to: OsString,
    /// Print the command and do not run it.
    #[arg(long)]
    print: bool,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Here(OsString),
    There(Of, String),
}

pub(crate) fn run(context: &Context, args: &CpArgs) -> Done {
    let (from, to) = (side(&args.from)?, side(&args.to)?);
    let of = match (&from, &to) {
        (Side::There(of, _), Side::Here(_)) | (Side::Here(_), Side::There(of, _)) => of,
        (Side::Here(_), Side::Here(_)) => {
            return Err(Failure::mendable("neither side is on an instance")
                .hint("name one as JOB[/REPLICA]:/path, such as train/0:/workspace/out"));
        }
        (Side::There(..), Side::There(..)) => {
            return Err(Failure::mendable("both sides are on instances")
                .hint("copy to here first, or between instances with `haggle api copy`"));
        }
    };
    let config = context.config()?;
    let reached = reach(&config, of)?;
    let named = |side: &Side| match side {
        Side::Here(path) => here(path),
        Side::There(_, path) => reached.address.path(path).into(),
    };
    let port = reached.address.port().to_string();
    let mut words: Vec<OsString> = vec!["-P".into(), port.into(), "-r".into(), "--".into()];
    words.extend([named(&from), named(&to)]);
    hand_over(context, &config, &reached, "scp", &words, args.print)
}

/// What a side names. What begins as no job's name does is a local path, such as `./a:b`.
fn side(text: &OsStr) -> Result<Side, Failure> {
    let named = text.to_str().and_then(|text| {
        let (of, path) = text.split_once(':')?;
        Some((of.parse::<Of>().ok()?, path))
    });
    match named {
        None => Ok(Side::Here(text.to_owned())),
        Some((of, path)) if path.starts_with('/') => Ok(Side::There(of, path.to_owned())),
        Some((of, path)) => Err(Failure::mendable(format!(
            "a path on an instance begins with a slash, and {path:?} does not"
        ))
        .hint(format!(
            "write {of}:/{path}; a local file of that name is ./{of}:{path}"
        ))),
    }
}

/// A local path, as no program takes for an option or for another host.
fn here(path: &OsStr) -> OsString {
    let bytes = path.as_encoded_bytes();
    let plain = [&b"/"[..], b"./", b"../"]
        .iter()
        .any(|begin| bytes.starts_with(begin));
    if plain || bytes == b"." || bytes == b".." {
        return path.to_owned();
    }
    let mut plain = OsString::from("./");
    plain.push(path);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_here_or_there() {
        let there = |of: &str, path: &str| Side::There(of.parse().unwrap(), path.to_owned());
        for (text, expected) in [
            ("train:/x", there("train", "/x")),
            ("train/1:/x:y", there("train/1", "/x:y")),
            ("train", Side::Here("train".into())),
            ("./train:/x", Side::Here("./train:/x".into())),
            ("-o:/x", Side::Here("-o:/x".into())),
            ("C:/x", Side::Here("C:/x".into())),
        ] {
            assert_eq!(side(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        for bad in ["train:", "train:x", "train/0:~/x"] {
            let told = side(OsStr::new(bad)).unwrap_err().to_string();
            assert!(told.contains("begins with a slash"), "{told}");
        }
    }

    #[test]
    fn a_local_path_is_taken_for_nothing_else() {
        for (path, expected) in [
            ("-oProxyCommand=x", "./-oProxyCommand=x"),
            ("host:x", "./host:x"),
            (".hidden:x", "./.hidden:x"),
            ("out", "./out"),
            ("./a:b", "./a:b"),
            ("../a:b", "../a:b"),
            ("/a:b", "/a:b"),
            (".", "."),
            ("..", ".."),
        ] {
            assert_eq!(here(OsStr::new(path)), OsString::from(expected));
        }
    }
}

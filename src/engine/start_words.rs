//! What the marketplace's words on an instance that never ran say of its start.
//!
//! The marketplace documents no more than that errors of the image stand in `status_msg`; the words are
//! those of Docker, runc and the registries. They are the word of a machine that is not ours: what they
//! come to is for `ladder` to decide.

use crate::types::start::StartFault;

/// What of a message, in small letters, says that the host lacks something. Such a message can also have
/// the words of the next table: `exec: "nvidia-container-runtime": executable file not found in $PATH`.
const HOST_FIRST: [&str; 6] = [
    "exec: \"nvidia-",
    "exec: \"runc",
    "exec: \"crun",
    "exec: \"containerd-",
    "exec: \"docker-",
    "exec: \"/usr/bin/nvidia-",
];

/// What of a message, in small letters, says that no host could start it. It comes within an error of the
/// host's daemon, so it is looked for before those. None can be part of an image's name, which many
/// messages hold: those have neither blanks nor quotes in them.
const OWN_MARKS: [(&str, StartFault); 22] = [
    ("toomanyrequests: ", StartFault::PullQuota),
    ("pull rate limit", StartFault::PullQuota),
    ("429 too many requests", StartFault::PullQuota),
    ("manifest unknown", StartFault::ImageMissing),
    ("manifest not found", StartFault::ImageMissing),
    ("no matching manifest", StartFault::ImageMissing),
    (": name unknown", StartFault::ImageMissing),
    ("no such image: ", StartFault::ImageMissing),
    ("invalid reference format", StartFault::ImageMissing),
    // A registry does not tell what is not there from what one may not see.
    ("pull access denied", StartFault::ImageDenied),
    ("repository does not exist", StartFault::ImageDenied),
    ("unauthorized: ", StartFault::ImageDenied),
    ("\": unauthorized", StartFault::ImageDenied),
    ("incorrect username or password", StartFault::ImageDenied),
    ("no basic auth credentials", StartFault::ImageDenied),
    ("denied: requested access", StartFault::ImageDenied),
    ("\": denied", StartFault::ImageDenied),
    // runc on the first thing that the container should run.
    ("executable file not found in $path", StartFault::Command),
    ("container process: exec: \"", StartFault::Command),
    ("container init: exec: \"", StartFault::Command),
    ("container process caused: exec: \"", StartFault::Command),
    ("exec format error", StartFault::Command),
];

/// What of a message, in small letters, says that the host's container runtime failed.
const HOST_MARKS: [&str; 14] = [
    "error response from daemon",
    "cannot connect to the docker daemon",
    "oci runtime",
    "failed to create shim",
    "nvidia-container-cli: ",
    "could not select device driver",
    "failed to register layer",
    "no space left on device",
    "read-only file system",
    "input/output error",
    "no such image",
    "executable file not found",
    // Of the marketplace's own daemon on the host, as its users report it.
    "error writing dockerfile",
    "could not resolve host: ",
];

/// What a message says of the start that it is about; `None`: nothing that it would be given up for.
pub(super) fn named(message: &str) -> Option<StartFault> {
    let message = message.to_lowercase();
    let says = |mark: &&str| message.contains(*mark);
    if HOST_FIRST.iter().any(says) {
        return Some(StartFault::HostError);
    }
    let own = OWN_MARKS.iter().find(|(mark, _)| message.contains(mark));
    let host = || HOST_MARKS.iter().any(says);
    match own {
        Some(&(_, fault)) => Some(fault),
        None => host().then_some(StartFault::HostError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_what_is_ours_and_from_what_is_well() {
        use StartFault::{Command, HostError, ImageDenied, ImageMissing, PullQuota};
        for (message, fault) in [
            ("Pulling from pytorch/pytorch", None),
            ("success, running pytorch/pytorch:2.9", None),
            ("Setting up liberror-perl (0.17029-2) ...", None),
            ("Pulling from me/unauthorized-oci-runtime", None),
            (
                "Status: Downloaded newer image for me/toomanyrequests:1",
                None,
            ),
            (
                "Error response from daemon: failed to create task for container: failed to create shim \
                 task: OCI runtime create failed: runc create failed: unable to start container process: \
                 exec: \"nvidia-container-runtime\": executable file not found in $PATH: unknown",
                Some(HostError),
            ),
            (
                "failed to start shim: start failed: exec: \"containerd-shim-runc-v2\": executable file \
                 not found in $PATH",
                Some(HostError),
            ),
            (
                "Error: OCI runtime create failed: nvidia-container-cli: device error",
                Some(HostError),
            ),
            ("docker_build() error writing dockerfile", Some(HostError)),
            (
                "write /var/lib/docker/tmp/x: no space left on device",
                Some(HostError),
            ),
            (
                "Error response from daemon: Get \"https://registry-1.docker.io/v2/\": net/http: TLS handshake timeout",
                Some(HostError),
            ),
            (
                "Error response from daemon: Get \"https://ghcr.io/v2/\": proxyconnect tcp: Proxy Authentication Required",
                Some(HostError),
            ),
            (
                "Error response from daemon: manifest for me/image:1 not found: manifest unknown",
                Some(ImageMissing),
            ),
            (
                "no matching manifest for linux/amd64 in the manifest list entries",
                Some(ImageMissing),
            ),
            (
                "Error response from daemon: No such image: me/image:1",
                Some(ImageMissing),
            ),
            (
                "Error response from daemon: invalid reference format: repository name must be lowercase",
                Some(ImageMissing),
            ),
            (
                "Error response from daemon: pull access denied for me/image, repository does not exist or \
                 may require 'docker login': denied: requested access to the resource is denied",
                Some(ImageDenied),
            ),
            (
                "Error response from daemon: Head \"https://ghcr.io/v2/me/image/manifests/1\": unauthorized",
                Some(ImageDenied),
            ),
            (
                "Error response from daemon: Head \"https://ghcr.io/v2/me/image/manifests/1\": denied: denied",
                Some(ImageDenied),
            ),
            (
                "Error response from daemon: Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password",
                Some(ImageDenied),
            ),
            (
                "Error response from daemon: toomanyrequests: You have reached your pull rate limit.",
                Some(PullQuota),
            ),
            (
                "OCI runtime create failed: runc create failed: unable to start container process: exec: \
                 \"train.sh\": executable file not found in $PATH: unknown",
                Some(Command),
            ),
            (
                "OCI runtime create failed: runc create failed: unable to start container process: error \
                 during container init: exec: \"cd /workspace\": stat cd /workspace: no such file or \
                 directory: unknown",
                Some(Command),
            ),
            ("exec /usr/bin/python: exec format error", Some(Command)),
        ] {
            assert_eq!(named(message), fault, "{message}");
        }
    }
}

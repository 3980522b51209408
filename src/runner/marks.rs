//! What the last lines of a log say of broken GPUs.

/// So many of the last lines are looked at.
const LINES: usize = 400;

/// What drivers, CUDA and PyTorch write when a GPU breaks, in lower case, and what it means. Driver
/// messages: NVIDIA's "GPU Debug Guidelines" and "XID Errors"; CUDA's: `cudaErrorECCUncorrectable`,
/// `CUDA_ERROR_ECC_UNCORRECTABLE`.
const MARKS: [(&str, &str); 8] = [
    ("nvrm: xid", "gpu-xid"),
    ("xid (pci:", "gpu-xid"),
    ("fallen off the bus", "gpu-lost"),
    ("gpu is lost", "gpu-lost"),
    ("unable to determine the device handle for gpu", "gpu-lost"),
    ("uncorrectable ecc error", "gpu-ecc"),
    ("cuda_error_ecc_uncorrectable", "gpu-ecc"),
    ("cudaerroreccuncorrectable", "gpu-ecc"),
];

/// The mark of a broken GPU in the last lines of a log: `gpu-lost`, `gpu-xid` or `gpu-ecc`. What a
/// command prints it can make up, and so can its host.
pub fn gpu_mark(log: &str) -> Option<&'static str> {
    log.lines().rev().take(LINES).find_map(|line| {
        // What a runner says of it stands in its own field.
        if line.starts_with("HAGGLE {") {
            return None;
        }
        let line = line.to_ascii_lowercase();
        let (_, mark) = MARKS.iter().find(|(words, _)| line.contains(words))?;
        Some(*mark)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_gpus_leave_marks() {
        for (line, mark) in [
            (
                "[ 12.3] NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus.",
                "gpu-xid",
            ),
            (
                "Unable to determine the device handle for GPU 0000:65:00.0: Unknown Error",
                "gpu-lost",
            ),
            (
                "RuntimeError: CUDA error: uncorrectable ECC error encountered",
                "gpu-ecc",
            ),
        ] {
            assert_eq!(
                gpu_mark(&format!("epoch 3\n{line}\nTraceback\n")),
                Some(mark)
            );
        }
        for fine in [
            "",
            "RuntimeError: CUDA out of memory",
            "the exit code is 3",
            "HAGGLE {\"state\":\"refused\",\"bad\":\"gpu is lost\"} 00",
        ] {
            assert_eq!(gpu_mark(fine), None, "{fine}");
        }
    }

    #[test]
    fn what_was_long_ago_is_no_mark() {
        let log = format!("GPU is lost\n{}", "step\n".repeat(LINES));
        assert_eq!(gpu_mark(&log), None);
    }
}

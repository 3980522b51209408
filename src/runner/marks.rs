//! What the last lines of a log say of broken GPUs.

/// So many of the last lines are looked at.
const LINES: usize = 400;

/// Xids that a job does not cause itself, as programs with errors cause 13, 31, 43 and 45: memory errors
/// that were not corrected or not contained, links between GPUs, and GPUs that do not answer.
const HARDWARE_XIDS: [u32; 9] = [48, 63, 64, 74, 79, 92, 94, 95, 119];

/// What drivers, CUDA and PyTorch write when a GPU breaks, in lower case, and what it means. Driver
/// messages: NVIDIA's "GPU Debug Guidelines" and "XID Errors"; CUDA's: `cudaErrorECCUncorrectable`,
/// `CUDA_ERROR_ECC_UNCORRECTABLE`.
const MARKS: [(&str, &str); 6] = [
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
    let mut boot = None;
    for line in log.lines().rev().take(LINES) {
        // What a runner says of it stands in its own field.
        if line.starts_with("HAGGLE {") {
            let its = boot_of(line);
            if *boot.get_or_insert(its) != its {
                // What an earlier start of the container wrote is not about this one.
                return None;
            }
            continue;
        }
        let line = line.to_ascii_lowercase();
        if is_hardware_xid(&line) {
            return Some("gpu-xid");
        }
        if let Some((_, mark)) = MARKS.iter().find(|(words, _)| line.contains(words)) {
            return Some(mark);
        }
    }
    None
}

/// The start of the container that a runner's line names.
fn boot_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"boot\":\"")?;
    rest.split('"').next()
}

/// Whether a line, in lower case, is a driver's message of an Xid that broken hardware causes.
fn is_hardware_xid(line: &str) -> bool {
    let Some((_, rest)) = line.split_once("xid (pci:") else {
        return false;
    };
    let number = rest.split_once("): ").map(|(_, after)| after);
    let digits = number.and_then(|after| after.split(|c: char| !c.is_ascii_digit()).next());
    digits
        .and_then(|digits| digits.parse::<u32>().ok())
        .is_some_and(|number| HARDWARE_XIDS.contains(&number))
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
            "NVRM: Xid (PCI:0000:65:00): 31, pid=1, Ch 8, MMU Fault",
            "NVRM: Xid (PCI:0000:65:00)",
            "the exit code is 3",
            "HAGGLE {\"state\":\"refused\",\"bad\":\"gpu is lost\"} 00",
        ] {
            assert_eq!(gpu_mark(fine), None, "{fine}");
        }
    }

    #[test]
    fn what_an_earlier_start_wrote_is_no_mark_of_this_one() {
        let of = |boot: &str| format!("HAGGLE {{\"boot\":\"{boot}\"}} 00");
        let (first, second) = (of("1.1"), of("2.1"));
        let before = format!("{first}\nGPU is lost\n{first}\n{second}\nstep\n{second}\n");
        assert_eq!(gpu_mark(&before), None);
        let now = format!("{first}\n{first}\n{second}\nGPU is lost\n{second}\n");
        assert_eq!(gpu_mark(&now), Some("gpu-lost"));
    }

    #[test]
    fn what_was_long_ago_is_no_mark() {
        let log = format!("GPU is lost\n{}", "step\n".repeat(LINES));
        assert_eq!(gpu_mark(&log), None);
    }
}
